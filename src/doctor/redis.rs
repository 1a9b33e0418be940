//! Needs of the Redis that the configuration names: it is asked, and nothing of it is changed.

use super::figures;
use super::mend::Mend;
use super::needs::{Need, Verdict, no_sysctls};
use super::plan::Plan;
use super::text::bytes;
use redis::{
    Client, Connection, ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo, RedisError, RedisResult,
};
use std::collections::HashMap;
use std::time::Duration;

/// How long Redis has to answer.
const ANSWER_MAX: Duration = Duration::from_secs(3);

/// What Redis told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedisSeen {
    /// It could not be asked, and why.
    Away(String),
    /// It refuses us: what it says, and what helps.
    Refused(String, &'static str),
    /// It answered.
    Here {
        /// Its version.
        version: String,
        /// Its `client-output-buffer-limit` of subscribers, or why it does not tell.
        limit: Result<PubsubLimit, String>,
        /// How `redis-cli` reaches it, without its password.
        client: String,
    },
}

/// `client-output-buffer-limit pubsub`: what Redis holds for a subscriber before it cuts it off. 0 means without end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PubsubLimit {
    /// Bytes beyond which it is cut off at once.
    pub hard: u64,
    /// Bytes beyond which it is cut off after `soft_seconds`.
    pub soft: u64,
    /// See `soft`.
    pub soft_seconds: u64,
}

/// Asks the Redis at `url`; takes 3 s at most for each of three answers.
pub fn ask(url: &str) -> RedisSeen {
    match try_ask(url) {
        Ok(seen) => seen,
        Err(error) => {
            // What Redis says may quote the password.
            let info = url.into_connection_info().ok();
            let place = info.as_ref().map(|info| format!("{}: ", info.addr())).unwrap_or_default();
            let secret = info.and_then(|info| info.redis_settings().password().map(str::to_owned));
            let said = format!("{place}{error}");
            let said = one_line(&match secret.filter(|secret| !secret.is_empty()) {
                Some(secret) => said.replace(&secret, "***"),
                None => said,
            });
            match refusal(&error) {
                Some(mend) => RedisSeen::Refused(said, mend),
                None => RedisSeen::Away(said),
            }
        }
    }
}

/// What helps where Redis is not there for us, and does not merely keep silent.
fn refusal(error: &RedisError) -> Option<&'static str> {
    match error.code() {
        _ if error.is_connection_refusal() => Some("start Redis there, or set redis.url to where it is"),
        Some("DENIED") => Some(
            "give Redis a password (requirepass), and name it in redis.url; or have it listen where the gateway is trusted",
        ),
        Some("NOAUTH" | "WRONGPASS") => Some(PASSWORD),
        _ if error.kind() == ErrorKind::AuthenticationFailed => Some(PASSWORD),
        _ => None,
    }
}

const PASSWORD: &str = "set redis.url with the user and password that this Redis takes; where the unit's EnvironmentFile= has it, ask again with its SPILLGATE_REDIS_URL";

/// Text in which what is broken into lines stands in one.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn try_ask(url: &str) -> RedisResult<RedisSeen> {
    let info = url.into_connection_info()?;
    let client = client(&info);
    let mut connection = Client::open(info)?.get_connection_with_timeout(ANSWER_MAX)?;
    connection.set_read_timeout(Some(ANSWER_MAX))?;
    connection.set_write_timeout(Some(ANSWER_MAX))?;
    let server: RedisResult<String> = redis::cmd("INFO").arg("server").query(&mut connection);
    let version = match server {
        Ok(server) => {
            server.lines().find_map(|line| line.strip_prefix("redis_version:")).unwrap_or("there").trim().into()
        }
        // A user that may subscribe need not be one that may ask.
        Err(error) if error.code() == Some("NOPERM") => {
            format!("there; its version is not told ({})", one_line(&error.to_string()))
        }
        Err(error) => return Err(error),
    };
    Ok(RedisSeen::Here { version, limit: ask_limit(&mut connection), client })
}

/// The command by which a shell reaches it. A password is asked for, and not written where others can read it.
fn client(info: &ConnectionInfo) -> String {
    let place = match info.addr() {
        ConnectionAddr::Tcp(host, port) => format!("-h {} -p {port}", quoted(host)),
        ConnectionAddr::TcpTls { host, port, insecure, .. } => {
            format!("-h {} -p {port} --tls{}", quoted(host), if *insecure { " --insecure" } else { "" })
        }
        ConnectionAddr::Unix(path) => format!("-s {}", quoted(&path.to_string_lossy())),
        _ => String::new(), // others are not known
    };
    let settings = info.redis_settings();
    let user = settings.username().map(|user| format!(" --user {}", quoted(user))).unwrap_or_default();
    let password = if settings.password().is_some() { " --askpass" } else { "" };
    format!("redis-cli {place}{user}{password}")
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn ask_limit(connection: &mut Connection) -> Result<PubsubLimit, String> {
    let name = "client-output-buffer-limit";
    let answer: RedisResult<HashMap<String, String>> = redis::cmd("CONFIG").arg("GET").arg(name).query(connection);
    let answer = answer.map_err(|error| one_line(&error.to_string()))?;
    answer.get(name).and_then(|limits| pubsub(limits)).ok_or_else(|| format!("CONFIG GET {name} shows none"))
}

/// Reads `normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60`.
fn pubsub(limits: &str) -> Option<PubsubLimit> {
    let mut words = limits.split_ascii_whitespace();
    words.find(|word| *word == "pubsub")?;
    let mut next = || words.next()?.parse().ok();
    Some(PubsubLimit { hard: next()?, soft: next()?, soft_seconds: next()? })
}

pub(super) const VERSION: Need = Need {
    id: "redis",
    what: "Redis",
    needed: "there, and lets us in; 6.0 and newer push over one connection (RESP3), older ones need two",
    why: "without it no updates come",
    source: "INFO server; docs/measurements.md",
    undo: "nothing to undo",
    sysctls: no_sysctls,
    judge: |_, host| match &host.redis {
        None => Verdict::Fine("none is configured: updates come by the publish API".into()),
        Some(RedisSeen::Away(why)) => Verdict::Unknown(format!("it cannot be asked; {why}")),
        Some(RedisSeen::Refused(why, mend)) => Verdict::Short(why.clone(), vec![Mend::Advice((*mend).into())]),
        Some(RedisSeen::Here { version, .. }) => Verdict::Fine(version.clone()),
    },
};

pub(super) const OUTPUT_BUFFER: Need = Need {
    id: "redis_output_buffer",
    what: "what Redis holds for a gateway (client-output-buffer-limit pubsub)",
    needed: "32 of the largest updates at once (limits.update_bytes_max), and 8 of them for a minute (soft limit and its seconds)",
    why: "past it Redis cuts the gateway off in a burst: every channel begins a new epoch, and updates are lost",
    source: "redis.conf; CONFIG GET",
    undo: "`redis-cli CONFIG SET client-output-buffer-limit 'pubsub 33554432 8388608 60'`, Redis's default",
    sysctls: no_sysctls,
    judge: judge_buffer,
};

/// For how long the soft limit may be exceeded: Redis's default.
const SOFT_SECONDS: u64 = 60;

fn judge_buffer(plan: &Plan, host: &super::Host) -> Verdict {
    let (limit, client) = match &host.redis {
        None => return Verdict::Fine("no Redis is configured".into()),
        Some(RedisSeen::Away(_) | RedisSeen::Refused(..)) => return Verdict::Unknown("Redis cannot be asked".into()),
        Some(RedisSeen::Here { limit: Err(why), .. }) => {
            return Verdict::Unknown(format!("Redis does not tell it to this user: {why}"));
        }
        Some(RedisSeen::Here { limit: Ok(limit), client, .. }) => (limit, client),
    };
    let update = plan.config.limits.update_bytes_max as u64;
    let (hard, soft) = (figures::REDIS_HARD_UPDATES.value * update, figures::REDIS_SOFT_UPDATES.value * update);
    let said = format!("{} at once, {} for {} s", shown(limit.hard), shown(limit.soft), limit.soft_seconds);
    let enough = |limit: u64, needed: u64| limit == 0 || limit >= needed;
    // A soft limit that lets as much through as a hard one must is none, however short its time.
    let is_soft_enough = enough(limit.soft, hard) || limit.soft >= soft && limit.soft_seconds >= SOFT_SECONDS;
    if enough(limit.hard, hard) && is_soft_enough {
        return Verdict::Fine(said);
    }
    let (hard, soft) = (
        if limit.hard == 0 { 0 } else { limit.hard.max(hard) },
        if limit.soft == 0 { 0 } else { limit.soft.max(soft) },
    );
    let seconds = limit.soft_seconds.max(SOFT_SECONDS);
    let command = format!("CONFIG SET client-output-buffer-limit 'pubsub {hard} {soft} {seconds}'");
    Verdict::Short(said, vec![Mend::Redis(client.clone(), command)])
}

fn shown(limit: u64) -> String {
    if limit == 0 { "without end".into() } else { bytes(limit) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reaches_the_same_redis_and_the_password_is_not_shown() {
        let client = |url: &str| client(&url.into_connection_info().unwrap());
        assert_eq!(client("redis://127.0.0.1/"), "redis-cli -h 127.0.0.1 -p 6379");
        let secret = client("redis://guest:very-secret@db.example:7000/2");
        assert_eq!(secret, "redis-cli -h db.example -p 7000 --user guest --askpass");
        assert_eq!(client("redis://:x@localhost:1"), "redis-cli -h localhost -p 1 --askpass");
        assert_eq!(client("redis+unix:///run/my redis.sock"), "redis-cli -s '/run/my redis.sock'");
        assert_eq!(quoted("a'b"), r"'a'\''b'");
    }

    #[test]
    fn a_refusal_is_told_from_silence_and_stands_in_one_line() {
        use std::io;
        let io = |kind: io::ErrorKind| RedisError::from(io::Error::from(kind));
        assert!(refusal(&io(io::ErrorKind::ConnectionRefused)).is_some());
        assert!(refusal(&io(io::ErrorKind::TimedOut)).is_none());
        assert!(refusal(&(ErrorKind::AuthenticationFailed, "no").into()).is_some());
        assert!(refusal(&(ErrorKind::Io, "odd").into()).is_none());
        assert_eq!(one_line("-DENIED Redis is\r\n  in protected mode\n"), "-DENIED Redis is in protected mode");
    }

    #[test]
    fn the_limit_of_subscribers_is_found_among_the_others() {
        let limits = "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60";
        assert_eq!(pubsub(limits), Some(PubsubLimit { hard: 33_554_432, soft: 8_388_608, soft_seconds: 60 }));
        assert_eq!(pubsub("normal 0 0 0"), None);
        assert_eq!(pubsub("pubsub 1 2"), None);
    }
}
