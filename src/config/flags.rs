//! The layer of the command line: what its flags say, already parsed into their types.

use super::error::{Mistake, Origin};
use super::layers::Layers;
use super::schema::schema;
use std::net::SocketAddr;
use toml::Value;
use toml::de::DeValue;

/// The settings that flags give; what is left out is left to the layers below.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--listen`, for `listen`; empty means not given.
    pub listen: Vec<SocketAddr>,
    /// `--admin`, for `admin`.
    pub admin: Option<SocketAddr>,
    /// `--redis`, for `redis.url`.
    pub redis: Option<String>,
    /// `--shards`, for `shards`.
    pub shards: Option<usize>,
    /// `--log-format`, for `log.format`.
    pub log_format: Option<String>,
}

/// Reads the flags into the layers.
pub(super) fn read(flags: &Overrides, layers: &mut Layers) {
    let listen = (!flags.listen.is_empty()).then_some(&flags.listen);
    for (flag, key, value) in [
        ("--listen", "listen", listen.map(Value::try_from)),
        ("--admin", "admin", flags.admin.map(Value::try_from)),
        ("--redis", "redis.url", flags.redis.as_ref().map(Value::try_from)),
        ("--shards", "shards", flags.shards.map(Value::try_from)),
        ("--log-format", "log.format", flags.log_format.as_ref().map(Value::try_from)),
    ] {
        let Some(value) = value else { continue };
        let text = match value {
            Ok(value) => value.to_string(),
            Err(error) => {
                layers.refuse(Origin::Flag(flag), key, Mistake::bad_value(&error.to_string(), None));
                continue;
            }
        };
        if let (Some(setting), Ok(value)) = (schema().setting(key), DeValue::parse(&text)) {
            layers.take(setting, &value, &|_| Origin::Flag(flag));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Config, LogFormat, load};
    use super::*;

    #[test]
    fn every_flag_reaches_its_setting() {
        let flags = Overrides {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 1)), SocketAddr::from(([127, 0, 0, 1], 2))],
            admin: Some(SocketAddr::from(([127, 0, 0, 1], 3))),
            redis: Some("redis://localhost".to_owned()),
            shards: Some(4),
            log_format: Some("json".to_owned()),
        };
        let mut expected = Config { listen: flags.listen.clone(), shards: 4, ..Config::default() };
        expected.admin = SocketAddr::from(([127, 0, 0, 1], 3));
        expected.redis.url = flags.redis.clone();
        expected.log.format = LogFormat::Json;
        assert_eq!(load(&flags, std::iter::empty(), None), Ok(expected));
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_the_name_of_its_flag() {
        let port_9090 = SocketAddr::from(([127, 0, 0, 1], 9090));
        for (flags, refusal) in [
            (Overrides { shards: Some(usize::MAX), ..Overrides::default() }, "--shards: "),
            (Overrides { shards: Some(2000), ..Overrides::default() }, "--shards: 2000 is above 1024"),
            (Overrides { redis: Some("localhost".into()), ..Overrides::default() }, "--redis: "),
            (Overrides { listen: vec![port_9090], ..Overrides::default() }, "--listen: "),
            (
                Overrides { listen: vec![port_9090, port_9090], ..Overrides::default() },
                "--listen: listen[1]: `127.0.0.1:9090` is listed twice",
            ),
        ] {
            let error = load(&flags, std::iter::empty(), None).unwrap_err().to_string();
            assert!(error.contains(refusal), "{error}");
        }
    }
}
