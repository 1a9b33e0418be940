//! Lays the layers over each other: flag over environment over file over default.
//!
//! Invariant: what comes out is checked. Each value remembers where it came from until then, so that what is wrong
//! with it, alone or beside another, is said of the place where somebody wrote it. Every mistake is found, not the first.

use super::error::{ConfigError, Mistake, Origin, Problem};
use super::schema::{Kind, Setting, schema, similar};
use super::{Config, Overrides, env, file, flags};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::ops::Range;
use std::path::Path;
use toml::de::{DeArray, DeTable, DeValue, ValueDeserializer};
use toml::{Spanned, Table, Value};

/// Reads every layer and returns the settings that hold. Without `file`, the variable [`env::FILE_VARIABLE`] may name one.
///
/// # Errors
/// Everything that is wrong in any layer, also where a higher one overrides it.
pub fn load(
    flags: &Overrides,
    variables: impl Iterator<Item = (OsString, OsString)>,
    file: Option<&Path>,
) -> Result<Config, ConfigError> {
    let variables = env::ours(variables);
    let mut layers = Layers::default();
    if let Some(path) = file.or(variables.file.as_deref()) {
        file::read(path, &mut layers);
    }
    env::read(&variables, &mut layers);
    flags::read(flags, &mut layers);
    layers.settle()
}

/// What the layers read so far say.
#[derive(Default)]
pub(super) struct Layers {
    given: BTreeMap<String, Given>,
    /// Keys whose value is wrong in some layer.
    broken: BTreeSet<String>,
    problems: Vec<Problem>,
}

/// The value of one setting, and who gave it.
struct Given {
    value: Value,
    origin: Origin,
    /// The same for what is inside, as in `listen[1]` or `channel[0].match`.
    inside: BTreeMap<String, Origin>,
}

impl Layers {
    /// Notes a mistake.
    pub(super) fn refuse(&mut self, origin: Origin, key: &str, mistake: Mistake) {
        self.problems.push(Problem { origin, key: key.to_owned(), mistake });
    }

    /// Takes one value over what lower layers said. `origin` tells the place of a span inside the layer's text.
    pub(super) fn take(&mut self, setting: &Setting, value: &Spanned<DeValue<'_>>, origin: &dyn Fn(usize) -> Origin) {
        let mut inside = Vec::new();
        let problems_before = self.problems.len();
        match (&setting.kind, value.get_ref()) {
            (Kind::Tables(fields), DeValue::Array(items)) => {
                for (index, item) in items.iter().enumerate() {
                    self.take_table(setting, fields, index, item, &mut inside, origin);
                }
            }
            (Kind::Tables(_), _) => {
                self.refuse(origin(value.span().start), &setting.key, Mistake::NotTables(setting.key.clone()));
            }
            (Kind::List, DeValue::Array(items)) => {
                for (index, item) in items.iter().enumerate() {
                    inside.push((format!("{}[{index}]", setting.key), item.span()));
                    self.try_alone(setting, &list_of(item), &inside, origin);
                }
            }
            _ => self.try_alone(setting, value, &inside, origin),
        }
        let plain = Value::deserialize(ValueDeserializer::from(value.clone()));
        if let (Err(error), true) = (&plain, self.problems.len() == problems_before) {
            let mistake = Mistake::bad_value(error.message(), setting.default.as_ref()); // too large for TOML's integers
            self.refuse(origin(value.span().start), &setting.key, mistake);
        }
        match plain {
            Ok(value_read) if self.problems.len() == problems_before => {
                let inside = inside.into_iter().map(|(key, span)| (key, origin(span.start))).collect();
                let given = Given { value: value_read, origin: origin(value.span().start), inside };
                self.given.insert(setting.key.clone(), given);
            }
            _ => {
                self.broken.insert(setting.key.clone());
            }
        }
    }

    fn take_table(
        &mut self,
        setting: &Setting,
        fields: &[Setting],
        index: usize,
        item: &Spanned<DeValue<'_>>,
        inside: &mut Vec<(String, Range<usize>)>,
        origin: &dyn Fn(usize) -> Origin,
    ) {
        let item_key = format!("{}[{index}]", setting.key);
        inside.push((item_key.clone(), item.span()));
        let mut all_known = true;
        if let DeValue::Table(table) = item.get_ref() {
            for (name, value) in table {
                let key = format!("{item_key}.{}", name.get_ref());
                if fields.iter().any(|field| field.key == name.get_ref().as_ref()) {
                    inside.push((key, value.span()));
                } else {
                    all_known = false;
                    let meant = similar(name.get_ref(), fields.iter().map(|field| field.key.as_str()));
                    self.refuse(origin(name.span().start), &key, Mistake::UnknownKey(meant));
                }
            }
        }
        if all_known {
            self.try_alone(setting, &list_of(item), inside, origin);
        }
    }

    /// Reads a configuration that says nothing else: what is wrong then is wrong with this value.
    fn try_alone(
        &mut self,
        setting: &Setting,
        value: &Spanned<DeValue<'_>>,
        inside: &[(String, Range<usize>)],
        origin: &dyn Fn(usize) -> Origin,
    ) {
        let Err(error) = Config::deserialize(ValueDeserializer::from(alone(&setting.key, value))) else { return };
        let at = error.span().unwrap_or_else(|| value.span()).start;
        // The innermost part that holds the place comes last in `inside`, for a table stands before its fields.
        let part = inside.iter().rev().find(|(_, span)| span.contains(&at));
        let key = part.map_or(&setting.key, |(key, _)| key);
        self.refuse(origin(at), key, Mistake::bad_value(error.message(), setting.default.as_ref()));
    }

    fn settle(mut self) -> Result<Config, ConfigError> {
        let config = match Config::deserialize(Value::Table(self.table())) {
            Ok(config) => config,
            Err(error) => {
                self.refuse(Origin::Default, "", Mistake::bad_value(error.message(), None));
                Config::default()
            }
        };
        for violation in config.check().err().unwrap_or_default() {
            let keys: Vec<_> = violation.keys().map(str::to_owned).collect();
            if keys.iter().any(|key| self.broken.contains(setting_of(key))) {
                continue; // beside a default that will not hold
            }
            let origin = keys.iter().map(|key| self.origin(key)).find(|origin| *origin != Origin::Default);
            self.refuse(origin.unwrap_or(Origin::Default), &violation.key, violation.rule.into());
        }
        if self.problems.is_empty() {
            return Ok(config);
        }
        self.problems.sort_by(|a, b| (&a.origin, &a.key).cmp(&(&b.origin, &b.key)));
        Err(ConfigError { problems: self.problems })
    }

    fn table(&self) -> Table {
        let mut root = Table::new();
        for (key, given) in &self.given {
            match key.split_once('.') {
                None => {
                    root.insert(key.clone(), given.value.clone());
                }
                Some((section, name)) => {
                    let section = root.entry(section).or_insert_with(|| Value::Table(Table::new()));
                    if let Value::Table(section) = section {
                        section.insert(name.to_owned(), given.value.clone());
                    }
                }
            }
        }
        root
    }

    fn origin(&self, key: &str) -> Origin {
        match self.given.get(setting_of(key)) {
            Some(given) => given.inside.get(key).unwrap_or(&given.origin).clone(),
            None => Origin::Default,
        }
    }
}

/// The setting that a key lies in: `channel` for `channel[1].match`.
fn setting_of(key: &str) -> &str {
    key.split('[').next().unwrap_or(key)
}

fn list_of<'i>(item: &Spanned<DeValue<'i>>) -> Spanned<DeValue<'i>> {
    let mut list = DeArray::new();
    list.push(item.clone());
    Spanned::new(item.span(), DeValue::Array(list))
}

fn alone<'i>(key: &str, value: &Spanned<DeValue<'i>>) -> Spanned<DeValue<'i>> {
    key.rsplit('.').fold(value.clone(), |inner, name| {
        let span = inner.span();
        let table = DeTable::from_iter([(Spanned::new(span.clone(), name.to_owned().into()), inner)]);
        Spanned::new(span, DeValue::Table(table))
    })
}

/// The key as it stands in a section: what the layers look up.
pub(super) fn join(section: &str, name: &str) -> String {
    if section.is_empty() { name.to_owned() } else { format!("{section}.{name}") }
}

/// What an unknown key may have meant.
pub(super) fn unknown_key(key: &str) -> Mistake {
    Mistake::UnknownKey(schema().similar_key(key))
}
