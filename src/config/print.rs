//! The settings as text: all of them, in TOML that loads again, each with its sentence, its default and its variable.
//!
//! Invariant: no password is printed. Where one is hidden, the text is refused when loaded, not taken for the password.

use super::Config;
use super::schema::{Kind, Section, Setting, schema};
use super::secret::mask;
use std::fmt::Write;
use toml::Value;

const HEAD: &str = "\
# Settings of Spillgate. A flag goes before an environment variable, that before a file, that before the default.
";

/// All settings as they are in `config`; optional ones that are not set are commented out, with an example.
pub fn print(config: &Config) -> String {
    let values = Value::try_from(config).unwrap_or(Value::Boolean(false)); // cannot fail for what `load` returned
    let mut text = HEAD.to_owned();
    let (tables, plain): (Vec<_>, Vec<_>) =
        schema().settings.iter().partition(|setting| matches!(setting.kind, Kind::Tables(_)));
    for setting in plain.iter().filter(|setting| setting.section().is_none()) {
        print_setting(setting, values.get(setting.name()), &mut text);
    }
    for section in &schema().sections {
        print_section(section, &mut text);
        for setting in plain.iter().filter(|setting| setting.section() == Some(&section.key)) {
            let value = values.get(&section.key).and_then(|table| table.get(setting.name()));
            print_setting(setting, value, &mut text);
        }
    }
    for setting in tables {
        print_tables(setting, values.get(setting.name()), &mut text);
    }
    text
}

/// What the settings mean, in one line: addresses, proxies, source, rules.
pub fn summary(config: &Config) -> String {
    let plural = |count: usize, what: &str| match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}{}", if what.ends_with('s') { "es" } else { "s" }),
    };
    let source = match &config.redis.url {
        Some(url) => format!("updates from {}", mask(url)),
        None => "updates from the publish API (no Redis)".to_owned(),
    };
    let listen = plural(config.listen.len(), "listen address");
    let proxies = match config.proxy_protocol.trusted.len() {
        0 => String::new(),
        trusted => format!("PROXY protocol from {}, ", plural(trusted, "network")),
    };
    let rules = plural(config.channels.len(), "channel rule");
    format!("{listen}, admin at {}, {proxies}{source}, {rules}", config.admin)
}

// Writing to a `String` cannot fail; the results are let go.

fn print_section(section: &Section, text: &mut String) {
    let _ = writeln!(text, "\n# {}\n[{}]", section.doc, section.key);
}

fn print_setting(setting: &Setting, value: Option<&Value>, text: &mut String) {
    print_comment(setting, text);
    let _ = match (value, &setting.example) {
        (Some(value), _) => writeln!(text, "{} = {}", setting.name(), masked(value)),
        (None, Some(example)) => writeln!(text, "# {} = {example}", setting.name()),
        (None, None) => writeln!(text, "# {} =", setting.name()),
    };
}

fn print_comment(setting: &Setting, text: &mut String) {
    let default = match &setting.default {
        Some(Value::Array(items)) if items.is_empty() => "none".to_owned(),
        Some(default) => default.to_string(),
        None => "not set".to_owned(),
    };
    let _ = writeln!(text, "\n# {}\n# Default: {default}. Environment: {}", setting.doc, setting.variable());
}

fn print_tables(setting: &Setting, value: Option<&Value>, text: &mut String) {
    print_comment(setting, text);
    let Kind::Tables(fields) = &setting.kind else { return };
    for field in fields {
        let default = field.default.as_ref().map(|default| format!(" Default: {default}")).unwrap_or_default();
        let _ = writeln!(text, "#   {}: {}{default}", field.key, field.doc);
    }
    match value.and_then(Value::as_array) {
        Some(tables) if !tables.is_empty() => {
            for table in tables {
                let _ = writeln!(text, "[[{}]]", setting.key);
                for field in fields {
                    if let Some(value) = table.get(&field.key) {
                        let _ = writeln!(text, "{} = {}", field.key, masked(value));
                    }
                }
            }
        }
        _ => {
            let _ = writeln!(text, "# [[{}]]", setting.key);
            for field in fields {
                if let Some(example) = field.example.as_ref().or(field.default.as_ref()) {
                    let _ = writeln!(text, "# {} = {example}", field.key);
                }
            }
        }
    }
}

fn masked(value: &Value) -> String {
    match value {
        Value::String(text) => Value::String(mask(text)).to_string(),
        other => other.to_string(),
    }
}
