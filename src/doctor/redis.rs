//! Needs of the Redis that the configuration names: it is asked, and nothing of it is changed.

use super::figures;
use super::mend::Mend;
use super::needs::{Need, Verdict, no_sysctls};
use super::plan::Plan;
use super::text::bytes;
use redis::{Client, Connection, IntoConnectionInfo, RedisResult};
use std::collections::HashMap;
use std::time::Duration;

/// How long Redis has to answer.
const ANSWER_MAX: Duration = Duration::from_secs(3);

/// What Redis told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedisSeen {
    /// It did not answer, and why.
    Away(String),
    /// It answered.
    Here {
        /// Its version.
        version: String,
        /// Its `client-output-buffer-limit` of subscribers, or why it does not tell.
        limit: Result<PubsubLimit, String>,
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
            let secret = info.and_then(|info| info.redis_settings().password().map(str::to_owned));
            let said = error.to_string();
            RedisSeen::Away(match secret.filter(|secret| !secret.is_empty()) {
                Some(secret) => said.replace(&secret, "***"),
                None => said,
            })
        }
    }
}

fn try_ask(url: &str) -> RedisResult<RedisSeen> {
    let mut connection = Client::open(url)?.get_connection_with_timeout(ANSWER_MAX)?;
    connection.set_read_timeout(Some(ANSWER_MAX))?;
    connection.set_write_timeout(Some(ANSWER_MAX))?;
    let server: String = redis::cmd("INFO").arg("server").query(&mut connection)?;
    let version = server.lines().find_map(|line| line.strip_prefix("redis_version:")).unwrap_or("unknown").trim();
    Ok(RedisSeen::Here { version: version.to_owned(), limit: ask_limit(&mut connection) })
}

fn ask_limit(connection: &mut Connection) -> Result<PubsubLimit, String> {
    let name = "client-output-buffer-limit";
    let answer: RedisResult<HashMap<String, String>> = redis::cmd("CONFIG").arg("GET").arg(name).query(connection);
    let answer = answer.map_err(|error| error.to_string())?;
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
    needed: "there; 6.0 and newer push over one connection (RESP3), older ones need two",
    why: "without it no updates come",
    source: "INFO server; docs/measurements.md",
    undo: "nothing to undo",
    sysctls: no_sysctls,
    judge: |_, host| match &host.redis {
        None => Verdict::Fine("none is configured: updates come by the publish API".into()),
        Some(RedisSeen::Away(why)) => Verdict::Unknown(format!("it does not answer: {why}")),
        Some(RedisSeen::Here { version, .. }) => Verdict::Fine(version.clone()),
    },
};

pub(super) const OUTPUT_BUFFER: Need = Need {
    id: "redis_output_buffer",
    what: "what Redis holds for a gateway (client-output-buffer-limit pubsub)",
    needed: "32 of the largest updates at once (limits.update_bytes_max), 8 of them for a minute",
    why: "past it Redis cuts the gateway off in a burst: every channel begins a new epoch, and updates are lost",
    source: "redis.conf; CONFIG GET",
    undo: "`redis-cli CONFIG SET client-output-buffer-limit 'pubsub 33554432 8388608 60'`, Redis's default",
    sysctls: no_sysctls,
    judge: judge_buffer,
};

fn judge_buffer(plan: &Plan, host: &super::Host) -> Verdict {
    let limit = match &host.redis {
        None => return Verdict::Fine("no Redis is configured".into()),
        Some(RedisSeen::Away(_)) => return Verdict::Unknown("Redis does not answer".into()),
        Some(RedisSeen::Here { limit: Err(why), .. }) => {
            return Verdict::Unknown(format!("Redis does not tell: {why}"));
        }
        Some(RedisSeen::Here { limit: Ok(limit), .. }) => limit,
    };
    let update = plan.config.limits.update_bytes_max as u64;
    let (hard, soft) = (figures::REDIS_HARD_UPDATES.value * update, figures::REDIS_SOFT_UPDATES.value * update);
    let said = format!("{} at once, {} for {} s", shown(limit.hard), shown(limit.soft), limit.soft_seconds);
    let enough = |limit: u64, needed: u64| limit == 0 || limit >= needed;
    if enough(limit.hard, hard) && enough(limit.soft, soft) {
        return Verdict::Fine(said);
    }
    let (hard, soft) = (
        if limit.hard == 0 { 0 } else { limit.hard.max(hard) },
        if limit.soft == 0 { 0 } else { limit.soft.max(soft) },
    );
    let seconds = limit.soft_seconds.max(60);
    let command = format!("CONFIG SET client-output-buffer-limit 'pubsub {hard} {soft} {seconds}'");
    Verdict::Short(said, vec![Mend::Redis(command)])
}

fn shown(limit: u64) -> String {
    if limit == 0 { "without end".into() } else { bytes(limit) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_subscribers_is_found_among_the_others() {
        let limits = "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60";
        assert_eq!(pubsub(limits), Some(PubsubLimit { hard: 33_554_432, soft: 8_388_608, soft_seconds: 60 }));
        assert_eq!(pubsub("normal 0 0 0"), None);
        assert_eq!(pubsub("pubsub 1 2"), None);
    }
}
