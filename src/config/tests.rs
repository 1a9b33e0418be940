//! Promises of the whole room: who wins, what is refused and where, what is printed.

use super::*;
use proptest::prelude::*;
use std::ffi::OsString;
use std::fs;
use std::time::Duration;
use toml::Value;

/// Loads a file of this text under these variables, without flags; errors name the file `FILE`.
pub(super) fn load_text(text: &str, variables: &[(&str, &str)]) -> Result<Config, String> {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(&file, text).unwrap();
    load(&Overrides::default(), owned(variables), Some(file.path()))
        .map_err(|error| error.to_string().replace(&file.path().display().to_string(), "FILE"))
}

pub(super) fn load_variables(variables: &[(&str, &str)]) -> Result<Config, String> {
    load(&Overrides::default(), owned(variables), None).map_err(|error| error.to_string())
}

fn owned(variables: &[(&str, &str)]) -> impl Iterator<Item = (OsString, OsString)> {
    variables.iter().map(|(name, value)| (name.into(), value.into()))
}

pub(super) fn config(change: impl FnOnce(&mut Config)) -> Config {
    let mut config = Config::default();
    change(&mut config);
    config
}

#[test]
fn a_flag_beats_a_variable_beats_a_file_beats_the_default() {
    let flags = Overrides { shards: Some(4), ..Overrides::default() };
    let variables = [("SPILLGATE_SHARDS", "3")];
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(&file, "shards = 2").unwrap();
    let shards = |flags: &Overrides, variables, file| load(flags, owned(variables), file).unwrap().shards;
    assert_eq!(shards(&flags, &variables, Some(file.path())), 4);
    assert_eq!(shards(&flags, &variables, None), 4);
    assert_eq!(shards(&Overrides::default(), &variables, Some(file.path())), 3);
    assert_eq!(shards(&Overrides::default(), &variables, None), 3);
    assert_eq!(shards(&Overrides::default(), &[], Some(file.path())), 2);
    assert_eq!(shards(&Overrides::default(), &[], None), 0);
}

#[test]
fn layers_meet_setting_by_setting_and_a_list_is_one_setting() {
    let file = "listen = ['127.0.0.1:1', '127.0.0.1:2']\n[limits]\nupdate_bytes_max = 7\nrings_per_shard = 2";
    let variables = [("SPILLGATE_LISTEN", "127.0.0.1:3"), ("SPILLGATE_LIMITS_RINGS_PER_SHARD", "3")];
    let expected = config(|config| {
        config.listen = vec!["127.0.0.1:3".parse().unwrap()];
        config.limits.update_bytes_max = 7;
        config.limits.rings_per_shard = 3;
    });
    assert_eq!(load_text(file, &variables), Ok(expected));
}

#[test]
fn a_variable_names_the_file_and_the_argument_goes_before_it() {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(&file, "shards = 2").unwrap();
    let variables = [(FILE_VARIABLE, file.path().to_str().unwrap())];
    assert_eq!(load_variables(&variables).unwrap().shards, 2);
    assert_eq!(load_text("shards = 5", &variables).unwrap().shards, 5);
    let missing = load_variables(&[(FILE_VARIABLE, "/nowhere.toml")]).unwrap_err();
    assert!(missing.starts_with("/nowhere.toml: cannot be read: No such file"), "{missing}");
}

/// Loops over the schema, so that a setting to come is tested too.
#[test]
fn every_setting_is_reachable_by_its_variable() {
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    for setting in &schema().settings {
        let value = match (&setting.kind, &setting.default) {
            (_, None) if setting.key == "source_core" => cores.last().map_or(0, |core| core.id).to_string(),
            (_, None) => setting.example.as_ref().map(|example| example.as_str().unwrap().to_owned()).unwrap(),
            (Kind::Text, Some(Value::String(_))) if setting.key == "log.format" => "json".to_owned(),
            (Kind::Bare, Some(Value::Boolean(default))) => (!default).to_string(),
            (Kind::Bare, Some(Value::Integer(default))) => (default + 1).to_string(),
            (Kind::Text, Some(Value::String(default))) if default.parse::<std::net::SocketAddr>().is_err() => {
                "7m".to_owned()
            }
            (Kind::Text, _) => "127.0.0.1:7".to_owned(),
            (Kind::List, _) if setting.key == "proxy_protocol.trusted" => "10.0.0.0/8, ::1".to_owned(),
            (Kind::List, _) => "127.0.0.1:7, [::1]:8".to_owned(),
            (Kind::Tables(_), _) => "[{ match = 'a*', client_publish = true }, { match = 'b' }]".to_owned(),
            (kind, default) => panic!("{}: no value for {kind:?} beside {default:?}", setting.key),
        };
        let name = setting.variable();
        let loaded = load_variables(&[(&name, &value)]).unwrap_or_else(|error| panic!("{name}={value}: {error}"));
        let at = |config: &Config| {
            let root = Value::try_from(config).unwrap();
            setting.key.split('.').try_fold(root, |table, name| table.get(name).cloned())
        };
        assert_ne!(at(&loaded), at(&Config::default()), "{name}={value}");
        assert_eq!(print(&loaded).matches(&name).count(), 1, "{name} is printed once");
    }
}

#[test]
fn more_addresses_than_can_be_counted_are_refused() {
    let listen =
        |count: u16| config(|config| config.listen = (1..=count).map(|port| ([127, 0, 0, 1], port).into()).collect());
    assert_eq!(listen(255).check(), Ok(()));
    let refused = listen(256).check().unwrap_err();
    assert_eq!(refused[0].to_string(), "listen: 256 is above 255");
}

#[test]
fn the_defaults_make_sense() {
    assert_eq!(Config::default().check(), Ok(()));
    assert_eq!(load_variables(&[]), Ok(Config::default()));
}

#[test]
fn what_is_printed_loads_again_as_the_same() {
    let core = core_affinity::get_core_ids().and_then(|cores| cores.first().map(|core| core.id));
    let all_set = config(|config| {
        config.listen = vec!["[::1]:1".parse().unwrap(), "127.0.0.1:0".parse().unwrap()];
        config.source_core = core;
        config.proxy_protocol.trusted = vec!["10.0.0.0/8".parse().unwrap(), "::1".parse().unwrap()];
        config.redis.url = Some("unix:///run/a \"b\".sock".to_owned());
        config.heartbeat.ping_after = Duration::from_millis(61_500);
        config.channels = vec![
            ChannelRule { client_publish: true, ..ChannelRule::new("a'\"\\n*") },
            ChannelRule {
                policy: Policy::DropOldest,
                key: Some("/symbol".into()),
                critical: Some(Critical::Where(CriticalWhere {
                    pointer: "/type".into(),
                    values: vec!["goal".into(), "suspended".into()],
                })),
                max_rate: Some(2.5),
                ..ChannelRule::new("b")
            },
        ];
    });
    for config in [Config::default(), all_set] {
        let text = print(&config);
        assert_eq!(load_text(&text, &[]), Ok(config), "{text}");
    }
}

#[test]
fn the_examples_that_are_printed_load_too() {
    let text = print(&Config::default());
    let is_example =
        |line: &str| line.starts_with("# [[") || line.split_once(" = ").is_some_and(|(key, _)| !key[2..].contains(' '));
    let uncommented: Vec<_> =
        text.lines().map(|line| if is_example(line) { line.trim_start_matches("# ") } else { line }).collect();
    let config = load_text(&uncommented.join("\n"), &[]).unwrap();
    assert!(config.redis.url.is_some() && config.source_core.is_some() && config.channels.len() == 1);
}

proptest! {
    /// Whatever is written where, the answer is settings that make sense or a refusal that names a place.
    #[test]
    fn no_text_makes_loading_panic(index in 0..schema().settings.len(), text in r#"[-\[\]{}'"=.,:*a-z0-9é/@? \n]{0,40}"#) {
        let setting = &schema().settings[index];
        for answer in [
            load_variables(&[(&setting.variable(), &text)]),
            load_text(&format!("{} = {text}", setting.key), &[]),
            load_text(&format!("[[channel]]\n{text}"), &[]),
        ] {
            match answer {
                Ok(config) => prop_assert_eq!(config.check(), Ok(())),
                Err(refusal) => {
                    let place = refusal.starts_with("FILE:") || refusal.starts_with(&setting.variable());
                    prop_assert!(place, "{}", refusal);
                }
            }
        }
    }
}

#[test]
fn a_gateways_name_can_stand_in_every_metric() {
    let named = |name: &str| config(|config| config.server_id = Some(name.to_owned())).check();
    for name in ["a", "gateway-1", "10.0.0.1:8080", "eu_west", &"x".repeat(64)] {
        assert_eq!(named(name), Ok(()), "{name}");
    }
    for name in ["", "a b", "a\"b", "a\\", "é", "a,b", &"x".repeat(65)] {
        let refused = named(name).unwrap_err();
        assert!(refused[0].to_string().starts_with("server_id: `"), "{refused:?}");
    }
}
