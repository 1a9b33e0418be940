//! The layer of the TOML file: every value with its line and column.

use super::error::{Mistake, Origin, Position};
use super::layers::{Layers, join, unknown_key};
use super::schema::schema;
use super::secret::mask;
use std::fs;
use std::path::Path;
use toml::de::{DeTable, DeValue};

/// Reads the file into the layers. A file that is not TOML gives one mistake, for what follows the first is often its echo.
pub(super) fn read(path: &Path, layers: &mut Layers) {
    let place = |at| Origin::File { path: path.to_owned(), at };
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => return layers.refuse(place(None), "", Mistake::Unreadable(error.to_string())),
    };
    let origin = |byte| place(Some(Position::of(&text, byte)));
    match DeTable::parse(&text) {
        Ok(root) => read_table(root.get_ref(), "", layers, &origin),
        Err(error) => {
            let at = error.span().map_or(text.len(), |span| span.start);
            layers.refuse(origin(at), "", Mistake::Syntax(mask(error.message().trim_end())));
        }
    }
}

fn read_table(table: &DeTable<'_>, section: &str, layers: &mut Layers, origin: &dyn Fn(usize) -> Origin) {
    for (name, value) in table {
        let key = join(section, name.get_ref());
        if let Some(setting) = schema().setting(&key) {
            layers.take(setting, value, origin);
        } else if !schema().is_section(&key) {
            layers.refuse(origin(name.span().start), &key, unknown_key(&key));
        } else if let DeValue::Table(inner) = value.get_ref() {
            read_table(inner, &key, layers, origin);
        } else {
            layers.refuse(origin(value.span().start), &key, Mistake::NotASection(key.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::load_text;

    #[test]
    fn a_bad_file_is_refused_with_line_and_key() {
        for (text, refusal) in [
            ("shards = ", "FILE:1:10: not TOML: "),
            ("shards = 1\nshards = 2", "FILE:2:1: not TOML: duplicate key"),
            ("\nlistn = []", "FILE:2:1: listn: unknown key; did you mean `listen`?"),
            ("[limit]\nx = 1", "FILE:1:2: limit: unknown key; did you mean `limits`?"),
            (
                "[limits]\n  update_byte_max = 1",
                "FILE:2:3: limits.update_byte_max: unknown key; did you mean `limits.upd",
            ),
            ("redis = 'redis://h'", "FILE:1:9: redis: is a section, not a setting: write `[redis]`"),
            ("shards = 'two'", "FILE:1:10: shards: invalid type: string \"two\", expected a whole number"),
            ("shards = -1", "FILE:1:10: shards: invalid value: integer `-1`, expected a whole number"),
            ("limits.inbox_bytes_max = 18446744073709551615", "FILE:1:26: limits.inbox_bytes_max: "),
            (
                "limits.inbox_bytes_max = 99999999999999999999999999999999999999999",
                "FILE:1:26: limits.inbox_bytes_max: ",
            ),
            ("listen = '127.0.0.1:1'", "FILE:1:10: listen: invalid type: string \"127.0.0.1:1\", expected a list"),
            ("listen = ['127.0.0.1:1',\n 'x']", "FILE:2:2: listen[1]: not an IP address with a port"),
            ("listen = []", "FILE:1:10: listen: is empty"),
            ("listen = ['[::]:1',\n '[::]:1']", "FILE:2:2: listen[1]: `[::]:1` is listed twice"),
            ("admin = '127.0.0.1:8080'", "FILE:1:9: admin: takes the port of `127.0.0.1:8080`"),
            ("listen = ['0.0.0.0:9090']", "FILE:1:10: admin: takes the port of `0.0.0.0:9090`"),
            ("source_core = 100000", "FILE:1:15: source_core: there is no core 100000"),
            (
                "[heartbeat]\nping_after = 25",
                "FILE:2:14: heartbeat.ping_after: invalid type: integer `25`, expected a dur",
            ),
            (
                "[heartbeat]\nping_after = '25'",
                "FILE:2:14: heartbeat.ping_after: invalid value: string \"25\", expected a duration like",
            ),
            ("[heartbeat]\nping_after = '2h'", "FILE:2:14: heartbeat.ping_after: 7200s is above 1h"),
            ("[drain]\ntimeout = '0s'", "FILE:2:11: drain.timeout: must not be 0"),
            ("limits.rings_per_shard = 0", "FILE:1:26: limits.rings_per_shard: must not be 0"),
            ("limits.rings_per_shard = 257", "FILE:1:26: limits.rings_per_shard: 257 is above 256"),
            (
                "limits.inbox_messages_max = 9223372036854775807",
                "FILE:1:29: limits.inbox_messages_max: 9223372036854775807 is above 16777216",
            ),
            ("limits.stall_timeout = '60d'", "FILE:1:24: limits.stall_timeout: 5184000s is above 1h"),
            (
                "limits.outbox_bytes_per_shard_max = 2000000",
                "FILE:1:37: limits.outbox_bytes_max: 2097152 is above `limits.outbox_bytes_per_shard_max`",
            ),
            ("limits.request_bytes_max = 255", "FILE:1:28: limits.request_bytes_max: 255 is below 256"),
            (
                "limits.inbox_bytes_max = 9",
                "FILE:1:26: limits.update_bytes_max: 1048576 is above `limits.inbox_bytes_max`",
            ),
            ("redis.url = 'localhost'", "FILE:1:13: redis.url: not the address of a Redis (Redis URL did not parse): "),
            (
                "redis.url = 'redis://h/x'",
                "FILE:1:13: redis.url: not the address of a Redis (Invalid database number): ",
            ),
            ("redis.url = 'rediss://h'", "FILE:1:13: redis.url: not the address of a Redis ("),
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
}
