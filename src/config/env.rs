//! The layer of the environment: one variable for each setting, as [`Setting::variable`] names it.
//!
//! Text is written bare, numbers and booleans as in TOML, lists with commas, lists of tables as TOML or JSON in one
//! line. An empty variable counts as not set, as compose files and charts leave them.

use super::error::{Mistake, Origin};
use super::layers::Layers;
use super::schema::{Kind, Setting, VARIABLE_PREFIX, schema, similar};
use std::ffi::OsString;
use std::path::PathBuf;
use toml::de::DeValue;
use toml::{Spanned, Value};

/// The variable that names the configuration file; the one of ours that is no setting.
pub const FILE_VARIABLE: &str = "SPILLGATE_CONFIG";

/// Our variables, told from everybody else's.
pub(super) struct Variables {
    /// What [`FILE_VARIABLE`] says.
    pub(super) file: Option<PathBuf>,
    /// Name and value of the others.
    settings: Vec<(String, OsString)>,
}

/// Picks what is meant for us; names that are not UTF-8 are read as well as they can be, to be refused by name.
pub(super) fn ours(variables: impl Iterator<Item = (OsString, OsString)>) -> Variables {
    let mut ours = Variables { file: None, settings: Vec::new() };
    for (name, value) in variables {
        let name = name.to_string_lossy();
        if value.is_empty() || !name.starts_with(VARIABLE_PREFIX) {
        } else if name == FILE_VARIABLE {
            ours.file = Some(PathBuf::from(value));
        } else {
            ours.settings.push((name.into_owned(), value));
        }
    }
    ours
}

/// Reads the variables into the layers.
pub(super) fn read(variables: &Variables, layers: &mut Layers) {
    for (name, value) in &variables.settings {
        let origin = Origin::Variable(name.clone());
        let setting = schema().setting_of_variable(name);
        match (setting, value.to_str()) {
            (Some(setting), Some(value)) => read_value(setting, value, &origin, layers),
            (Some(setting), None) => {
                layers.refuse(origin, &setting.key, Mistake::bad_value("not UTF-8", setting.default.as_ref()));
            }
            (None, value) if is_service_link(name, value.unwrap_or_default()) => {}
            (None, _) => layers.refuse(origin, "", Mistake::UnknownVariable(similar_variable(name))),
        }
    }
}

fn read_value(setting: &Setting, value: &str, origin: &Origin, layers: &mut Layers) {
    let text = match setting.kind {
        Kind::Text => quoted(value),
        Kind::Bare => match DeValue::parse(value) {
            Ok(_) => value.to_owned(),
            Err(_) => quoted(value), // for the type to say what it wants instead
        },
        Kind::List => {
            let items = value.split(',').map(|item| Value::String(item.trim().to_owned()));
            Value::Array(items.collect()).to_string()
        }
        Kind::Tables(_) => match serde_json::from_str::<Value>(value) {
            Ok(value) => value.to_string(),
            Err(_) => value.to_owned(),
        },
    };
    match DeValue::parse(&text) {
        Ok(parsed) => take(setting, &parsed, origin, layers),
        Err(error) => {
            let reason = format!("neither TOML nor JSON: {}", error.message());
            layers.refuse(origin.clone(), &setting.key, Mistake::bad_value(&reason, None));
        }
    }
}

fn take(setting: &Setting, value: &Spanned<DeValue<'_>>, origin: &Origin, layers: &mut Layers) {
    layers.take(setting, value, &|_| origin.clone());
}

fn quoted(value: &str) -> String {
    Value::String(value.to_owned()).to_string()
}

/// Kubernetes announces a Service called `spillgate` or `spillgate-…` to every pod beside it under names that begin like
/// ours (<https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables>); nobody wrote those.
fn is_service_link(name: &str, value: &str) -> bool {
    let is_url = ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme));
    let port = name.split_once("_PORT_").map(|(_, port)| port.trim_start_matches(|c: char| c.is_ascii_digit()));
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || (name.ends_with("_PORT") && is_url)
        || port.is_some_and(|rest| ["_TCP", "_UDP", "_SCTP"].iter().any(|protocol| rest.starts_with(protocol)))
}

fn similar_variable(unknown: &str) -> Option<String> {
    let known: Vec<_> = schema().settings.iter().map(Setting::variable).chain([FILE_VARIABLE.to_owned()]).collect();
    let names = known.iter().map(|name| &name[VARIABLE_PREFIX.len()..]);
    similar(&unknown[VARIABLE_PREFIX.len()..], names).map(|name| format!("{VARIABLE_PREFIX}{name}"))
}
