//! The list of all settings, read from the schema of [`Config`]: keys, sentences, defaults, examples, variables.
//!
//! Invariant: nothing here names a setting; one that is added to `settings.rs` is known everywhere at once.

use super::Config;
use schemars::generate::SchemaSettings;
use serde_json::Value as Json;
use std::sync::LazyLock;
use toml::Value;

/// What the name of every environment variable of ours starts with.
pub const VARIABLE_PREFIX: &str = "SPILLGATE_";

/// Similarity (Jaro-Winkler, 0 to 1) from which on a name is offered as what may have been meant.
const SIMILAR_MIN: f64 = 0.84;

/// One setting, as its field in `settings.rs` describes it.
#[derive(Clone, Debug)]
pub struct Setting {
    /// Its path in the file, with dots: `limits.update_bytes_max`.
    pub key: String,
    /// The sentence that explains it.
    pub doc: String,
    /// What may be written for it.
    pub kind: Kind,
    /// Its value where nobody sets one; `None` where it is then absent.
    pub default: Option<Value>,
    /// A value that makes sense where there is no default.
    pub example: Option<Value>,
}

/// What may be written for a setting.
#[derive(Clone, Debug)]
pub enum Kind {
    /// A string, and what is written as one: addresses, durations, URLs.
    Text,
    /// A number, or anything else that TOML writes without quotes.
    Bare,
    /// A list of strings.
    List,
    /// A list of tables with these fields; their `key` is the bare name.
    Tables(Vec<Setting>),
}

/// A table of settings.
#[derive(Clone, Debug)]
pub struct Section {
    /// Its name in the file.
    pub key: String,
    /// The sentence that explains it.
    pub doc: String,
}

/// All settings and sections, in the order of `settings.rs`.
#[derive(Clone, Debug, Default)]
pub struct Schema {
    /// Every setting.
    pub settings: Vec<Setting>,
    /// Every table of settings.
    pub sections: Vec<Section>,
}

/// The schema of [`Config`]; made once.
pub fn schema() -> &'static Schema {
    static SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
        let inlined = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
        let mut schema = Schema::default();
        walk(inlined.into_generator().into_root_schema_for::<Config>().as_value(), "", &mut schema);
        schema
    });
    &SCHEMA
}

impl Schema {
    /// The setting with this key.
    pub fn setting(&self, key: &str) -> Option<&Setting> {
        self.settings.iter().find(|setting| setting.key == key)
    }

    /// The setting that this environment variable stands for.
    pub fn setting_of_variable(&self, name: &str) -> Option<&Setting> {
        self.settings.iter().find(|setting| setting.variable() == name)
    }

    /// Whether the key names a table of settings.
    pub fn is_section(&self, key: &str) -> bool {
        self.sections.iter().any(|section| section.key == key)
    }

    /// The key of a setting or section that an unknown one may have meant.
    pub fn similar_key(&self, unknown: &str) -> Option<String> {
        let sections = self.sections.iter().map(|section| section.key.as_str());
        similar(unknown, self.settings.iter().map(|setting| setting.key.as_str()).chain(sections))
    }
}

impl Setting {
    /// The environment variable that sets it: its path in capitals, joined by `_`, after `SPILLGATE_`.
    pub fn variable(&self) -> String {
        format!("{VARIABLE_PREFIX}{}", self.key.to_uppercase().replace('.', "_"))
    }

    /// The last part of its key: what is written inside its section.
    pub fn name(&self) -> &str {
        self.key.rsplit_once('.').map_or(&self.key, |(_, name)| name)
    }

    /// The section that it is in, if any.
    pub fn section(&self) -> Option<&str> {
        self.key.rsplit_once('.').map(|(section, _)| section)
    }
}

/// The known name that is nearest to an unknown one, if any is near; the same name in another section is nearest of all.
pub fn similar<'a>(unknown: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    let last = |key: &str| key.rsplit(['.', ']']).next().map(str::to_lowercase).unwrap_or_default();
    let nearness = |name: &str| {
        let whole = strsim::jaro_winkler(&unknown.to_lowercase(), &name.to_lowercase());
        let affix = name.len() > unknown.len() && (name.ends_with(unknown) || name.starts_with(unknown));
        let end = strsim::jaro_winkler(&last(unknown), &last(name));
        whole.max(end).max(if affix && unknown.len() > 2 { 0.9 } else { 0.0 }) + whole / 100.0
    };
    known
        .map(|name| (nearness(name), name))
        .filter(|(nearness, _)| *nearness >= SIMILAR_MIN)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name.to_owned())
}

fn walk(table: &Json, prefix: &str, schema: &mut Schema) {
    for (name, field) in properties(table) {
        let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        if field.get("properties").is_some() {
            schema.sections.push(Section { key: key.clone(), doc: doc(field) });
            walk(field, &key, schema);
        } else {
            schema.settings.push(setting(key, field));
        }
    }
}

fn setting(key: String, field: &Json) -> Setting {
    Setting {
        key,
        doc: doc(field),
        kind: kind(field),
        default: field.get("default").and_then(plain),
        example: field.pointer("/examples/0").and_then(plain),
    }
}

fn kind(field: &Json) -> Kind {
    let is = |name: &str| match &field["type"] {
        Json::Array(types) => types.iter().any(|each| each == name),
        one => one == name,
    };
    match field.get("items") {
        Some(items) if items.get("properties").is_some() => {
            Kind::Tables(properties(items).map(|(name, field)| setting(name.clone(), field)).collect())
        }
        Some(_) => Kind::List,
        None if is("integer") || is("number") || is("boolean") => Kind::Bare,
        None => Kind::Text,
    }
}

fn properties(table: &Json) -> impl Iterator<Item = (&String, &Json)> {
    table.get("properties").and_then(Json::as_object).into_iter().flatten()
}

fn doc(field: &Json) -> String {
    field.get("description").and_then(Json::as_str).unwrap_or_default().replace('\n', " ")
}

/// `null` has no counterpart in TOML.
fn plain(json: &Json) -> Option<Value> {
    Value::try_from(json).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_setting_has_a_sentence_and_a_default_or_an_example() {
        assert!(schema().settings.len() > 25);
        for setting in &schema().settings {
            assert!(setting.doc.ends_with('.'), "{}: {:?}", setting.key, setting.doc);
            assert!(setting.default.is_some() || setting.example.is_some(), "{}", setting.key);
        }
        assert!(schema().sections.iter().all(|section| section.doc.ends_with('.')));
    }

    #[test]
    fn every_setting_has_a_variable_of_its_own() {
        let variables: BTreeSet<_> = schema().settings.iter().map(Setting::variable).collect();
        assert_eq!(variables.len(), schema().settings.len());
        assert!(variables.contains("SPILLGATE_LIMITS_UPDATE_BYTES_MAX"));
        assert!(!variables.contains(super::super::env::FILE_VARIABLE));
    }

    #[test]
    fn an_unknown_key_finds_the_one_that_was_meant() {
        for (unknown, meant) in [
            ("listn", Some("listen")),
            ("channels", Some("channel")),
            ("limit", Some("limits")),
            ("limits.update_byte_max", Some("limits.update_bytes_max")),
            ("update_bytes_max", Some("limits.update_bytes_max")),
            ("redis.uri", Some("redis.url")),
            ("heartbeat.probe_timeout", Some("redis.probe_timeout")),
            ("kubernetes", None),
        ] {
            assert_eq!(schema().similar_key(unknown).as_deref(), meant, "{unknown}");
        }
    }
}
