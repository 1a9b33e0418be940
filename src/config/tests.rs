//! Promises of the whole room: who wins, what is refused and where, what is printed.

use super::*;
use std::ffi::OsString;
use std::fs;
use std::time::Duration;
use toml::Value;

/// Loads a file of this text under these variables, without flags; errors name the file `FILE`.
fn load_text(text: &str, variables: &[(&str, &str)]) -> Result<Config, String> {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(&file, text).unwrap();
    load(&Overrides::default(), owned(variables), Some(file.path()))
        .map_err(|error| error.to_string().replace(&file.path().display().to_string(), "FILE"))
}

fn load_variables(variables: &[(&str, &str)]) -> Result<Config, String> {
    load(&Overrides::default(), owned(variables), None).map_err(|error| error.to_string())
}

fn owned(variables: &[(&str, &str)]) -> impl Iterator<Item = (OsString, OsString)> {
    variables.iter().map(|(name, value)| (name.into(), value.into()))
}

fn config(change: impl FnOnce(&mut Config)) -> Config {
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
            (Kind::Bare, Some(Value::Boolean(default))) => (!default).to_string(),
            (Kind::Bare, Some(Value::Integer(default))) => (default + 1).to_string(),
            (Kind::Text, Some(Value::String(default))) if default.parse::<std::net::SocketAddr>().is_err() => {
                "7m".to_owned()
            }
            (Kind::Text, _) => "127.0.0.1:7".to_owned(),
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
fn variables_are_written_as_one_would_write_them() {
    let rules = |rules: &[(&str, bool)]| {
        let rule = |&(name, client_publish): &(&str, bool)| ChannelRule { pattern: String::from(name), client_publish };
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
        (
            "SPILLGATE_LISTEN",
            "127.0.0.1:1,here",
            "SPILLGATE_LISTEN: listen[1]: invalid socket address syntax (default: [\"127.0.0.1:8080\"])",
        ),
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
    let announced = [
        ("SPILLGATE_SERVICE_HOST", "10.0.0.11"),
        ("SPILLGATE_SERVICE_PORT_HTTP", "8080"),
        ("SPILLGATE_PORT", "tcp://10.0.0.11:8080"),
        ("SPILLGATE_PORT_8080_TCP_ADDR", "10.0.0.11"),
        ("SPILLGATE_ADMIN_PORT_9090_TCP", "tcp://10.0.0.12:9090"),
        ("SPILLGATEWAY", "somebody else's"),
    ];
    assert_eq!(load_variables(&announced), Ok(Config::default()));
}

#[test]
fn a_bad_file_is_refused_with_line_and_key() {
    for (text, refusal) in [
        ("shards = ", "FILE:1:10: not TOML: "),
        ("shards = 1\nshards = 2", "FILE:2:1: not TOML: duplicate key"),
        ("\nlistn = []", "FILE:2:1: listn: unknown key; did you mean `listen`?"),
        ("[limit]\nx = 1", "FILE:1:2: limit: unknown key; did you mean `limits`?"),
        ("[limits]\n  update_byte_max = 1", "FILE:2:3: limits.update_byte_max: unknown key; did you mean `limits.upd"),
        ("redis = 'redis://h'", "FILE:1:9: redis: is a section, not a setting: write `[redis]`"),
        ("shards = 'two'", "FILE:1:10: shards: invalid type: string \"two\", expected a whole number"),
        ("shards = -1", "FILE:1:10: shards: invalid value: integer `-1`, expected a whole number"),
        ("listen = '127.0.0.1:1'", "FILE:1:10: listen: invalid type: string \"127.0.0.1:1\", expected a list"),
        ("listen = ['127.0.0.1:1',\n 'x']", "FILE:2:2: listen[1]: invalid socket address syntax"),
        ("listen = []", "FILE:1:10: listen: is empty"),
        ("listen = ['[::]:1',\n '[::]:1']", "FILE:2:2: listen[1]: `[::]:1` is listed twice"),
        ("admin = '127.0.0.1:8080'", "FILE:1:9: admin: takes the port of `127.0.0.1:8080`"),
        ("listen = ['0.0.0.0:9090']", "FILE:1:10: admin: takes the port of `0.0.0.0:9090`"),
        ("source_core = 100000", "FILE:1:15: source_core: there is no core 100000"),
        ("[heartbeat]\nping_after = 25", "FILE:2:14: heartbeat.ping_after: invalid type: integer `25`, expected a dur"),
        (
            "[heartbeat]\nping_after = '25'",
            "FILE:2:14: heartbeat.ping_after: invalid value: string \"25\", expected a duration like",
        ),
        ("[heartbeat]\nping_after = '2h'", "FILE:2:14: heartbeat.ping_after: 7200s is above 1h"),
        ("[drain]\ntimeout = '0s'", "FILE:2:11: drain.timeout: must not be 0"),
        ("limits.rings_per_shard = 0", "FILE:1:26: limits.rings_per_shard: must not be 0"),
        ("limits.rings_per_shard = 65", "FILE:1:26: limits.rings_per_shard: 65 is above 64"),
        ("limits.request_bytes_max = 255", "FILE:1:28: limits.request_bytes_max: 255 is below 256"),
        ("limits.inbox_bytes_max = 9", "FILE:1:26: limits.update_bytes_max: 1048576 is above `limits.inbox_bytes_max`"),
        ("redis.url = 'localhost'", "FILE:1:13: redis.url: not the address of a Redis (Redis URL did not parse): "),
        ("redis.url = 'redis://h/x'", "FILE:1:13: redis.url: not the address of a Redis (Invalid database number): "),
        ("redis.url = 'redis://:***@h'", "FILE:1:13: redis.url: has `***` where the password belongs"),
        ("[channel]\nmatch = 'a'", "FILE:1:1: channel: is a list of tables: write `[[channel]]`"),
        ("[[channel]]\nclient_publish = true", "FILE:1:1: channel[0]: missing field `match`"),
        ("[[channel]]\nmatch = 'a'\nclient_publish = 1", "FILE:3:18: channel[0].client_publish: invalid type"),
        (
            "[[channel]]\nmatch = 'a'\npublish = true",
            "FILE:3:1: channel[0].publish: unknown key; did you mean `client_p",
        ),
        ("[[channel]]\nmatch = ''", "FILE:2:9: channel[0].match: is empty"),
        ("[[channel]]\nmatch = '*é'", "FILE:2:9: channel[0].match: `*é` has a `*` elsewhere"),
        (
            "[[channel]]\nmatch = 'a*'\n[[channel]]\nmatch = 'ab'",
            "FILE:4:9: channel[1].match: `ab` never holds: the earlier rule `a*`",
        ),
    ] {
        let error = load_text(text, &[]).unwrap_err();
        assert!(error.starts_with(refusal), "{text}:\n  {error}\n  {refusal}");
        assert_eq!(error.lines().count(), 1, "{text}: one mistake, not its echo:\n{error}");
    }
}

#[test]
fn no_message_shows_a_password() {
    for text in [
        "redis.url = 'redis://app:secret@h/x'",
        "redis.url = 'http://app:secret@h'",
        "redis.url = 'redis://:se#secret@h'",
        "redis.url = ['redis://app:secret@h']",
        "shards = 'redis://app:secret@h'",
        "redis = 'redis://app:secret@h'",
        "redis.url = 'redis://app:secret@h",
        "redis.url = 'redis://h?protocol=secret'",
    ] {
        let error = load_text(text, &[]).unwrap_err();
        assert!(!error.contains("secret"), "{text}: {error}");
    }
}

#[test]
fn unix_sockets_and_free_ports_are_fine() {
    let text =
        "listen = ['127.0.0.1:0', '127.0.0.1:0']\nadmin = '127.0.0.1:0'\nredis.url = 'unix:///run/redis.sock?db=1'";
    assert!(load_text(text, &[]).is_ok());
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
        config.redis.url = Some("unix:///run/a \"b\".sock".to_owned());
        config.heartbeat.ping_after = Duration::from_millis(61_500);
        config.channels = vec![
            ChannelRule { pattern: "a'\"\\n*".to_owned(), client_publish: true },
            ChannelRule { pattern: "b".to_owned(), client_publish: false },
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
