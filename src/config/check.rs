//! What a value must not be although its type allows it, alone and beside others.
//!
//! Invariant: a zero that is not in [`ZERO_MAKES_SENSE`] is refused, also for settings that are yet to come.

use super::schema::schema;
use super::secret::is_masked;
use super::{Config, Critical, Pointer};
use redis::IntoConnectionInfo;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use toml::Value;

/// Characters of a gateway's name: it is a label of every metric.
const SERVER_ID_MAX: usize = 64;
/// Updates a second beyond which a limit of them limits nothing.
const RATE_MAX: f64 = 1000.0;

/// Settings whose zero means something.
const ZERO_MAKES_SENSE: [&str; 6] = [
    "shards",
    "source_core",
    "limits.connections_per_shard_max",
    "limits.stall_timeout",
    "limits.slack",
    "limits.send_buffer_bytes",
];

const SHARDS_MAX: usize = 1024;
/// Each address has a listener and an accept of its own at every shard, which are counted in 8 bits.
pub const ADDRESSES_MAX: usize = 255;
const RINGS_PER_SHARD_MAX: usize = 256;
/// A WebSocket handshake of a browser has about 500 bytes; a bare one has more than this.
const REQUEST_BYTES_MIN: usize = 256;
const UPDATE_BYTES_MAX: usize = 64 << 20;
/// The queue's places are made at the start: these are about 1 GB for each shard.
const INBOX_MESSAGES_MAX: usize = 16 << 20;
/// Past this, no proxy on the way would have kept the connection; and twice of it in milliseconds is what the kernel
/// takes as TCP_USER_TIMEOUT (an `int`).
const SILENCE_MAX: Duration = Duration::from_secs(3600);

/// One setting that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {rule}")]
pub struct Violation {
    /// The key, as in `limits.update_bytes_max` or `channel[1].match`.
    pub key: String,
    /// What it breaks.
    pub rule: Rule,
}

/// What is asked of values.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rule {
    /// Nothing there where something must be.
    #[error("is empty: at least one address is needed")]
    NoAddress,
    /// The same address twice.
    #[error("`{0}` is listed twice")]
    RepeatedAddress(SocketAddr),
    /// The admin interface where the clients are.
    #[error("takes the port of `{0}` in `listen`: the admin interface needs an address of its own")]
    TakenByClients(SocketAddr),
    /// Zero where nothing would work any more.
    #[error("must not be 0")]
    Zero,
    /// Too small.
    #[error("{value} is below {min}")]
    Below {
        /// What was given.
        value: String,
        /// The least that makes sense.
        min: String,
    },
    /// Too large.
    #[error("{value} is above {max}")]
    Above {
        /// What was given.
        value: String,
        /// The most that makes sense.
        max: String,
    },
    /// Larger than another setting that must hold it.
    #[error("{value} is above `{other}`, which is {max}")]
    AboveOther {
        /// What was given.
        value: usize,
        /// The setting that must hold it.
        other: &'static str,
        /// What that one is.
        max: usize,
    },
    /// Not an address of a Redis; the text says why. The address itself is not shown: it may hold a password.
    #[error(
        "not the address of a Redis ({0}): write `redis://[user:password@]host:port[/db]` or `unix:///path/to/socket`"
    )]
    RedisUrl(String),
    /// The output of `config print`, where a password belongs.
    #[error("has `***` where the password belongs: `spillgate config print` hides it")]
    Masked,
    /// Not a name that can stand in every metric.
    #[error("`{0}` is no name of a gateway: write 1 to 64 letters, digits and `._:-`")]
    ServerId(String),
    /// A rule that fits no channel.
    #[error("is empty: write a channel's name, or `*` for all channels")]
    EmptyPattern,
    /// A star that is not the last character.
    #[error("`{0}` has a `*` elsewhere than at its end")]
    InnerStar(String),
    /// Not a JSON pointer.
    #[error(transparent)]
    Pointer(super::BadPointer),
    /// Not a rate.
    #[error("{0} is no rate: write the updates a second that are let through, more than 0 and at most 1000")]
    Rate(String),
    /// A rule that never holds, for the first that fits holds.
    #[error("`{pattern}` never holds: the earlier rule `{earlier}` fits all of its channels")]
    Unreachable {
        /// What was given.
        pattern: String,
        /// The pattern that comes before it.
        earlier: String,
    },
    /// A core that this process may not run on.
    #[error("there is no core {core} for this process (there are: {cores})")]
    NoSuchCore {
        /// What was given.
        core: usize,
        /// The cores there are.
        cores: String,
    },
}

impl Violation {
    /// The keys of the settings that are at odds, the blamed one first.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        let other = match &self.rule {
            Rule::AboveOther { other, .. } => Some(*other),
            Rule::TakenByClients(_) => Some("listen"),
            _ => None,
        };
        std::iter::once(self.key.as_str()).chain(other)
    }
}

impl Config {
    /// Whether the settings make sense, each and together.
    ///
    /// # Errors
    /// Every setting that does not, in the order of the checks.
    pub fn check(&self) -> Result<(), Vec<Violation>> {
        let mut found = Vec::new();
        check_zeros(self, &mut found);
        check_addresses(self, &mut found);
        check_server_id(self, &mut found);
        check_bounds(self, &mut found);
        check_redis(self, &mut found);
        check_channels(self, &mut found);
        check_source_core(self, &mut found);
        if found.is_empty() { Ok(()) } else { Err(found) }
    }
}

fn refuse(found: &mut Vec<Violation>, key: impl Into<String>, rule: Rule) {
    found.push(Violation { key: key.into(), rule });
}

/// Goes through the serialized settings, where a duration of zero reads `0s`.
fn check_zeros(config: &Config, found: &mut Vec<Violation>) {
    let Ok(values) = Value::try_from(config) else { return };
    for setting in &schema().settings {
        let value = setting.key.split('.').try_fold(&values, |table, name| table.get(name));
        let is_zero = matches!(value, Some(Value::Integer(0))) || value.and_then(Value::as_str) == Some("0s");
        if is_zero && !ZERO_MAKES_SENSE.contains(&setting.key.as_str()) {
            refuse(found, &setting.key, Rule::Zero);
        }
    }
}

fn check_addresses(config: &Config, found: &mut Vec<Violation>) {
    if config.listen.is_empty() {
        refuse(found, "listen", Rule::NoAddress);
    }
    for (index, address) in config.listen.iter().enumerate() {
        if address.port() != 0 && config.listen[..index].contains(address) {
            refuse(found, format!("listen[{index}]"), Rule::RepeatedAddress(*address));
        }
    }
    if let Some(taken) = config.listen.iter().find(|address| overlap(**address, config.admin)) {
        refuse(found, "admin", Rule::TakenByClients(*taken));
    }
}

/// Whether two sockets cannot have both; the kernel picks another port for each port 0.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let covers = |all: IpAddr, one: IpAddr| match all {
        IpAddr::V4(all) => all.is_unspecified() && one.is_ipv4(),
        IpAddr::V6(all) => all.is_unspecified(), // Linux: IPv4 too, unless told otherwise
    };
    a.port() != 0 && a.port() == b.port() && (a.ip() == b.ip() || covers(a.ip(), b.ip()) || covers(b.ip(), a.ip()))
}

fn check_server_id(config: &Config, found: &mut Vec<Violation>) {
    let Some(name) = &config.server_id else { return };
    let fits = |c: char| c.is_ascii_alphanumeric() || "._:-".contains(c);
    if name.is_empty() || name.len() > SERVER_ID_MAX || !name.chars().all(fits) {
        refuse(found, "server_id", Rule::ServerId(name.clone()));
    }
}

fn check_bounds(config: &Config, found: &mut Vec<Violation>) {
    let limits = &config.limits;
    for (key, value, max) in [
        ("listen", config.listen.len(), ADDRESSES_MAX),
        ("shards", config.shards, SHARDS_MAX),
        ("limits.rings_per_shard", limits.rings_per_shard, RINGS_PER_SHARD_MAX),
        ("limits.update_bytes_max", limits.update_bytes_max, UPDATE_BYTES_MAX),
        ("limits.inbox_messages_max", limits.inbox_messages_max, INBOX_MESSAGES_MAX),
    ] {
        if value > max {
            refuse(found, key, Rule::Above { value: value.to_string(), max: max.to_string() });
        }
    }
    if (1..REQUEST_BYTES_MIN).contains(&limits.request_bytes_max) {
        let (value, min) = (limits.request_bytes_max.to_string(), REQUEST_BYTES_MIN.to_string());
        refuse(found, "limits.request_bytes_max", Rule::Below { value, min });
    }
    let outboxes = ("limits.outbox_bytes_per_shard_max", limits.outbox_bytes_per_shard_max);
    let partial = ("limits.partial_bytes_per_shard_max", limits.partial_bytes_per_shard_max);
    for (key, value, (other, max)) in [
        ("limits.update_bytes_max", limits.update_bytes_max, ("limits.inbox_bytes_max", limits.inbox_bytes_max)),
        ("limits.update_bytes_max", limits.update_bytes_max, ("limits.outbox_bytes_max", limits.outbox_bytes_max)),
        ("limits.outbox_bytes_max", limits.outbox_bytes_max, outboxes),
        ("limits.request_bytes_max", limits.request_bytes_max, partial),
        ("limits.message_bytes_max", limits.message_bytes_max, partial),
    ] {
        if value > max && max > 0 {
            refuse(found, key, Rule::AboveOther { value, other, max });
        }
    }
    let heartbeat = &config.heartbeat;
    for (key, value) in [
        ("heartbeat.ping_after", heartbeat.ping_after),
        ("heartbeat.pong_timeout", heartbeat.pong_timeout),
        ("limits.stall_timeout", limits.stall_timeout),
    ] {
        if value > SILENCE_MAX {
            refuse(found, key, Rule::Above { value: format!("{}s", value.as_secs()), max: "1h".to_owned() });
        }
    }
}

fn check_redis(config: &Config, found: &mut Vec<Violation>) {
    let Some(url) = &config.redis.url else { return };
    if is_masked(url) {
        refuse(found, "redis.url", Rule::Masked);
    } else if let Err(error) = url.as_str().into_connection_info() {
        // What follows the dash is the kind and, sometimes, a part of the URL.
        let reason = error.to_string();
        let reason = reason.split(" - ").next().unwrap_or_default();
        refuse(found, "redis.url", Rule::RedisUrl(reason.trim_end_matches(['-', ' ']).to_owned()));
    }
}

fn check_channels(config: &Config, found: &mut Vec<Violation>) {
    for (index, rule) in config.channels.iter().enumerate() {
        let field = |name: &str| format!("channel[{index}].{name}");
        let pointers = [
            ("key", rule.key.as_deref()),
            (
                "critical",
                match &rule.critical {
                    Some(Critical::Where(field)) => Some(field.pointer.as_str()),
                    Some(Critical::All(_)) | None => None,
                },
            ),
        ];
        for (name, pointer) in pointers {
            if let Some(Err(bad)) = pointer.map(Pointer::parse) {
                refuse(found, field(name), Rule::Pointer(bad));
            }
        }
        if let Some(rate) = rule.max_rate.filter(|rate| !(*rate > 0.0 && *rate <= RATE_MAX)) {
            refuse(found, field("max_rate"), Rule::Rate(rate.to_string()));
        }
        let pattern = &rule.pattern;
        let broken = if pattern.is_empty() {
            Rule::EmptyPattern
        } else if pattern.find('*').is_some_and(|star| star + 1 < pattern.len()) {
            Rule::InnerStar(pattern.clone())
        } else if let Some(earlier) = config.channels[..index].iter().find(|earlier| covers(&earlier.pattern, pattern))
        {
            Rule::Unreachable { pattern: pattern.clone(), earlier: earlier.pattern.clone() }
        } else {
            continue;
        };
        refuse(found, field("match"), broken);
    }
}

/// Whether a pattern fits all that another one fits, so that the other one, standing later, never holds.
fn covers(earlier: &str, later: &str) -> bool {
    earlier == later || earlier.strip_suffix('*').is_some_and(|start| later.starts_with(start))
}

fn check_source_core(config: &Config, found: &mut Vec<Violation>) {
    let (Some(core), Some(cores)) = (config.source_core, core_affinity::get_core_ids()) else { return };
    if !cores.iter().any(|known| known.id == core) {
        let cores = cores.iter().map(|known| known.id.to_string()).collect::<Vec<_>>().join(", ");
        refuse(found, "source_core", Rule::NoSuchCore { core, cores });
    }
}
