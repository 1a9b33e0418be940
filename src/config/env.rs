//! The layer of the environment: one variable for each setting, as [`Setting::variable`] names it.
//!
//! Text is written bare, numbers and booleans as in TOML, lists with commas, lists of tables as TOML or JSON in one
//! line. An empty variable counts as not set, as compose files and charts leave them.

use super::error::{Mistake, Origin};
use super::layers::Layers;
use super::schema::{Kind, Setting, VARIABLE_PREFIX, schema, similar};
use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use toml::de::DeValue;
use toml::{Spanned, Value};

/// The variable that names the configuration file; the one of ours that is no setting.
pub const FILE_VARIABLE: &str = "SPILLGATE_CONFIG";

/// The protocols that a Service can have.
const PROTOCOLS: [&str; 3] = ["tcp", "udp", "sctp"];

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
            continue;
        }
        if name == FILE_VARIABLE {
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

/// Names of those variables that begin like ours and announce a Service, sorted: nobody's settings, but worth a line.
pub fn service_links(variables: impl Iterator<Item = (OsString, OsString)>) -> Vec<String> {
    let is_link = |name: &str, value: &OsString| {
        schema().setting_of_variable(name).is_none() && is_service_link(name, &value.to_string_lossy())
    };
    let mut links: Vec<_> = ours(variables).settings.into_iter().filter(|(name, value)| is_link(name, value)).collect();
    links.sort();
    links.into_iter().map(|(name, _)| name).collect()
}

/// Kubernetes announces a Service called `spillgate` or `spillgate-…` to every pod beside it under names that begin like
/// ours (<https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables>); nobody wrote those. Only
/// these names with such values: anything else that looks like it is somebody's mistake.
fn is_service_link(name: &str, value: &str) -> bool {
    let is_port = |text: &str| text.parse::<u16>().is_ok();
    let is_address = |text: &str| text.parse::<IpAddr>().is_ok();
    let protocol_of_url = value.split_once("://").map_or("", |(protocol, _)| protocol);
    if name.ends_with("_SERVICE_HOST") {
        return is_address(value);
    }
    if name.ends_with("_SERVICE_PORT") || name.contains("_SERVICE_PORT_") {
        return is_port(value);
    }
    // Of each port {SERVICE}_PORT_{NUMBER}_{PROTOCOL}, and that with _PROTO, _PORT or _ADDR; of the first {SERVICE}_PORT.
    let of_a_port = name.split_once("_PORT_").and_then(|(_, rest)| rest.split_once('_'));
    match of_a_port.filter(|(number, _)| is_port(number)) {
        Some((number, rest)) => PROTOCOLS.iter().any(|protocol| match rest.strip_prefix(&protocol.to_uppercase()) {
            Some("") => protocol_of_url == *protocol,
            Some("_PROTO") => value == *protocol,
            Some("_PORT") => value == number,
            Some("_ADDR") => is_address(value),
            _ => false,
        }),
        None => name.ends_with("_PORT") && PROTOCOLS.contains(&protocol_of_url),
    }
}

fn similar_variable(unknown: &str) -> Option<String> {
    let known: Vec<_> = schema().settings.iter().map(Setting::variable).chain([FILE_VARIABLE.to_owned()]).collect();
    let names = known.iter().map(|name| &name[VARIABLE_PREFIX.len()..]);
    similar(&unknown[VARIABLE_PREFIX.len()..], names).map(|name| format!("{VARIABLE_PREFIX}{name}"))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{config, load_variables};
    use super::super::{ChannelRule, Config};
    use std::time::Duration;

    #[test]
    fn variables_are_written_as_one_would_write_them() {
        let rules = |rules: &[(&str, bool)]| {
            let rule =
                |&(name, client_publish): &(&str, bool)| ChannelRule { client_publish, ..ChannelRule::new(name) };
            Ok(config(|config| config.channels = rules.iter().map(rule).collect()))
        };
        for (name, value, expected) in [
            ("SPILLGATE_CHANNEL", r#"[{"match": "a*", "client_publish": true}]"#, rules(&[("a*", true)])),
            ("SPILLGATE_CHANNEL", "[{ match = 'a' }, { match = 'b' }]", rules(&[("a", false), ("b", false)])),
            ("SPILLGATE_CHANNEL", "", Ok(Config::default())),
            ("SPILLGATE_REDIS_URL", "", Ok(Config::default())),
            ("SPILLGATE_SHARDS", "1_000", Ok(config(|config| config.shards = 1000))),
            ("SPILLGATE_DRAIN_TIMEOUT", "1m 30s", Ok(config(|config| config.drain.timeout = Duration::from_secs(90)))),
            ("SPILLGATE_PIN_SHARDS", "false", Ok(config(|config| config.pin_shards = false))),
        ] {
            assert_eq!(load_variables(&[(name, value)]), expected, "{name}={value}");
        }
    }

    #[test]
    fn a_bad_variable_is_refused_by_its_name() {
        for (name, value, refusal) in [
            ("SPILLGATE_LISTN", "1", "SPILLGATE_LISTN: unknown variable; did you mean `SPILLGATE_LISTEN`?"),
            (
                "SPILLGATE_UPDATE_BYTES_MAX",
                "1",
                "SPILLGATE_UPDATE_BYTES_MAX: unknown variable; did you mean `SPILLGATE_LIMITS_UPDATE_BYTES_MAX`?",
            ),
            ("SPILLGATE_REDIS", "1", "SPILLGATE_REDIS: unknown variable; did you mean `SPILLGATE_REDIS_URL`?"),
            ("SPILLGATE_ADMIN_PORT", "9090", "SPILLGATE_ADMIN_PORT: unknown variable; did you mean `SPILLGATE_ADMIN`?"),
            ("SPILLGATE_XYZ", "1", "SPILLGATE_XYZ: unknown variable; `spillgate config print` lists them all"),
            (
                "SPILLGATE_SHARDS",
                "many",
                "SPILLGATE_SHARDS: invalid type: string \"many\", expected a whole number, 0 or more (default: 0)",
            ),
            ("SPILLGATE_SHARDS", "2000", "SPILLGATE_SHARDS: 2000 is above 1024"),
            ("SPILLGATE_LISTEN", "127.0.0.1:1,here", "SPILLGATE_LISTEN: listen[1]: not an IP address with a port"),
            ("SPILLGATE_CHANNEL", "[{ match = 'a*b' }]", "SPILLGATE_CHANNEL: channel[0].match: `a*b` has a `*`"),
            ("SPILLGATE_CHANNEL", "a*", "SPILLGATE_CHANNEL: neither TOML nor JSON: "),
            ("SPILLGATE_CHANNEL", "'a*'", "SPILLGATE_CHANNEL: is a list of tables"),
            ("SPILLGATE_LIMITS_OUTBOX_BYTES_MAX", "9", "SPILLGATE_LIMITS_OUTBOX_BYTES_MAX: limits.update_bytes_max"),
        ] {
            let error = load_variables(&[(name, value)]).unwrap_err();
            assert!(error.starts_with(refusal), "{name}={value}:\n  {error}\n  {refusal}");
        }
    }

    #[test]
    fn what_kubernetes_announces_is_nobodys_setting() {
        // As `kubectl exec POD -- env` shows it for the Services spillgate (8080, 9090) and spillgate-admin.
        let announced = [
            ("SPILLGATE_SERVICE_HOST", "10.0.0.11"),
            ("SPILLGATE_SERVICE_PORT", "8080"),
            ("SPILLGATE_SERVICE_PORT_HTTP", "8080"),
            ("SPILLGATE_PORT", "tcp://10.0.0.11:8080"),
            ("SPILLGATE_PORT_8080_TCP", "tcp://10.0.0.11:8080"),
            ("SPILLGATE_PORT_8080_TCP_PROTO", "tcp"),
            ("SPILLGATE_PORT_8080_TCP_PORT", "8080"),
            ("SPILLGATE_PORT_8080_TCP_ADDR", "10.0.0.11"),
            ("SPILLGATE_PORT_9090_SCTP", "sctp://10.0.0.11:9090"),
            ("SPILLGATE_ADMIN_SERVICE_HOST", "fd00::12"),
            ("SPILLGATE_ADMIN_PORT_9090_TCP", "tcp://[fd00::12]:9090"),
        ];
        assert_eq!(load_variables(&announced), Ok(Config::default()));
        let mut names = announced.map(|(name, _)| name.to_owned());
        names.sort();
        let with_others = [("SPILLGATE_SHARDS", "2"), ("SPILLGATE_CONFIG", "f"), ("SPILLGATEWAY", "somebody else's")];
        let variables = announced.iter().chain(&with_others).map(|(name, value)| (name.into(), value.into()));
        assert_eq!(super::service_links(variables), names);
    }

    #[test]
    fn what_only_looks_like_kubernetes_is_refused() {
        for (name, value) in [
            ("SPILLGATE_PORT", "8080"),
            ("SPILLGATE_PORT", "http://10.0.0.11:8080"),
            ("SPILLGATE_ADMIN_PORT", "9090"),
            ("SPILLGATE_SERVICE_HOST", "spillgate.example"),
            ("SPILLGATE_SERVICE_PORT", "http"),
            ("SPILLGATE_PORT_8080", "tcp://10.0.0.11:8080"),
            ("SPILLGATE_PORT_8080_TCP", "8080"),
            ("SPILLGATE_PORT_8080_TCP_ADDRESS", "10.0.0.11"),
            ("SPILLGATE_PORT_HTTP_TCP", "tcp://10.0.0.11:8080"),
        ] {
            let error = load_variables(&[(name, value)]).unwrap_err();
            assert!(error.starts_with(&format!("{name}: unknown variable")), "{name}={value}: {error}");
        }
    }
}
