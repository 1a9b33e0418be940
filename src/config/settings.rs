//! Every setting there is, with its unit, its default and one sentence. What is printed and what is checked is
//! generated from here: the doc comment of a field is the sentence that a user reads.

use super::Network;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Everything that can be set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Addresses for clients; several, where one proxy must open more than 55,000 connections to this gateway.
    pub listen: Vec<SocketAddr>,
    /// Address of the admin interface: health, metrics and the publish API. Keep it off the internet.
    pub admin: SocketAddr,
    /// This gateway's name among others: with it every metric has a label `server_id`. Letters, digits and `._:-`, at most 64.
    #[schemars(example = &"gateway-1")]
    pub server_id: Option<String>,
    /// Number of shards (one thread, one io_uring each); 0 means one for each core.
    pub shards: usize,
    /// Whether each shard is pinned to a core of its own (round robin where there are more shards than cores).
    pub pin_shards: bool,
    /// The core that the source thread is pinned to; left out, it floats.
    #[schemars(example = 0)]
    pub source_core: Option<usize>,
    /// Proxies and load balancers that say, at the start of each connection, for whom it is (PROXY protocol, version 1 or 2).
    pub proxy_protocol: ProxyProtocol,
    /// The Redis that updates come from.
    pub redis: Redis,
    /// Bounds on what clients and publishers may ask for, and on what is kept for them.
    pub limits: Limits,
    /// How silent clients are told from vanished ones.
    pub heartbeat: Heartbeat,
    /// How the gateway leaves.
    pub drain: Drain,
    /// What is told on stderr; which levels, RUST_LOG says (default: `info`).
    pub log: Log,
    /// Rules by channel name; the first whose `match` fits a channel holds for it.
    #[serde(rename = "channel")]
    pub channels: Vec<ChannelRule>,
}

/// Proxies that say for whom a connection is. The protocol forbids to guess whether a header is there, so the peer's
/// address alone decides it, and no further setting: in a trusted network it must be there, elsewhere it must not. Who
/// connects past the proxy, without a header, is a client like any other, and known by its own address; where nobody
/// should, a firewall keeps them away from more than this port.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ProxyProtocol {
    /// Networks whose connections must begin with a PROXY header, which is believed: whoever is in one can claim any address. From elsewhere a header is refused. Empty turns it off.
    #[schemars(with = "Vec<String>")]
    pub trusted: Vec<Network>,
}

/// The Redis that updates come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Redis {
    /// Address of the Redis: `redis://[user:password@]host:port[/db]`, or `unix:///path/to/socket[?db=N&user=USER&pass=PASSWORD]`. Not `rediss://`: TLS is not built in, and a Redis that speaks TLS alone is reached through stunnel or HAProxy on this host (docs/getting-started.md). Left out, the embedded engine runs, fed by the publish API.
    #[schemars(example = &"redis://127.0.0.1:6379")]
    pub url: Option<String>,
    /// How long a channel stays subscribed after its last client left.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub unsubscribe_after: Duration,
    /// How often a message is sent through Redis and back to prove that updates still flow.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub probe_interval: Duration,
    /// How long that message, a connection attempt or a command may take before Redis counts as lost.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub probe_timeout: Duration,
    /// Longest pause between two attempts to reconnect (they start at 50 ms and double, with full jitter).
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub backoff_max: Duration,
}

/// Bounds on what clients and publishers may ask for, and on what is kept for them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Connections that one shard holds; 0 means as many as fit its descriptor tables (see `rings_per_shard`).
    pub connections_per_shard_max: usize,
    /// Rings that one shard owns; each holds at most RLIMIT_NOFILE sockets.
    pub rings_per_shard: usize,
    /// Bytes of one update's payload; a larger one is refused by the publish API and dropped from Redis, counted.
    pub update_bytes_max: usize,
    /// Channels that one connection may be subscribed to.
    pub channels_per_connection_max: usize,
    /// Bytes of a channel's name.
    pub channel_name_bytes_max: usize,
    /// Bytes of an HTTP request's head.
    pub request_bytes_max: usize,
    /// Time that a client has to send its whole request.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub request_timeout: Duration,
    /// Bytes of one message from a client, all fragments together.
    pub message_bytes_max: usize,
    /// Bytes of unfinished requests and frames that one shard keeps for all its clients.
    pub partial_bytes_per_shard_max: usize,
    /// Bytes that a socket may have been sent beyond its last answered ping; past it, it is behind.
    pub window_bytes: u32,
    /// Updates that a socket which is behind keeps whole; past it, or once its pong has taken 10 s, channels conflate until it has caught up.
    pub slack: usize,
    /// Time without progress after which a socket that is owed something is closed as a slow consumer (1013); `0s` turns it off.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub stall_timeout: Duration,
    /// Longest delay that a slow consumer is told to wait before it comes again; each is told its own, at random.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub retry_max: Duration,
    /// Updates that wait whole for one socket; past it, its channel's policy decides: one that conflates then keeps the newest of each key, bounded by bytes alone.
    pub outbox_messages_max: usize,
    /// Bytes that wait for one socket; past it, its channel's policy decides: one that conflates drops the oldest, and tells clients of the JSON face that they missed it.
    pub outbox_bytes_max: usize,
    /// Bytes of memory that wait for all sockets of a shard, an update that waits for many counted once, of which what `max_rate` holds back takes a quarter at most (past that, what is due first passes early); past it, those with most waiting conflate first, then drop their oldest, and are closed where what waits may not be dropped.
    pub outbox_bytes_per_shard_max: usize,
    /// Critical updates that wait for one socket that takes nothing more or owes a pong for too long; past it, it is closed as a slow consumer. For one that reads, four windows of them may wait, and as many go out ahead of its pong.
    pub critical_messages_max: usize,
    /// Bytes of the kernel's send buffer of a socket; 0 leaves it to the kernel, and a cap throttles clients that are far away.
    pub send_buffer_bytes: usize,
    /// Replies and pongs that wait for one socket; while there are as many, the client is not read any further.
    pub control_messages_max: usize,
    /// Updates on their way from the source to one shard; past it, each channel and key keeps its newest.
    pub inbox_messages_max: usize,
    /// Bytes on their way from the source to one shard; past it, each channel and key keeps its newest, of as many bytes together.
    pub inbox_bytes_max: usize,
    /// Critical updates that wait for a shard whose inbox is full; past it the oldest is lost, and its channel begins a new epoch.
    pub inbox_critical_max: usize,
}

/// How silent clients are told from vanished ones.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Heartbeat {
    /// Silence, in both directions, after which a client is pinged; one that is sent updates is pinged behind one of them.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub ping_after: Duration,
    /// Time that a client has to answer a ping before it is closed.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub pong_timeout: Duration,
}

/// How the gateway leaves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Drain {
    /// Time from SIGTERM to the exit, at most.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub timeout: Duration,
    /// Time that a client has to close its side after a close frame before the socket is reset.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub close_timeout: Duration,
}

/// What is told on stderr; which levels, RUST_LOG says (default: `info`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// How lines look: `text`, `journald` (text behind a priority that journald takes off), `json` (an object a line), or `auto`: `journald` where stderr leads there, else `text`.
    #[schemars(with = "String")]
    pub format: LogFormat,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// `Journald` where stderr leads there, else `Text`.
    #[default]
    Auto,
    /// For people: time, level, message.
    Text,
    /// For journald: priority and message.
    Journald,
    /// For machines: one JSON object a line.
    Json,
}

/// What holds for the channels whose name fits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChannelRule {
    /// The channels meant: a name, or the start of one followed by `*`.
    #[serde(rename = "match")]
    #[schemars(example = &"chat:*")]
    pub pattern: String,
    /// Whether clients may publish to these channels.
    #[serde(default)]
    #[schemars(example = true)]
    pub client_publish: bool,
    /// What is done with updates that a socket which is behind cannot take: `conflate` (the newest of each key is kept), `drop_oldest`, `drop_newest` or `disconnect`.
    #[serde(default)]
    #[schemars(with = "String", example = &"drop_oldest")]
    pub policy: Policy,
    /// JSON pointer (RFC 6901) to the field whose value says what an update is about: updates conflate by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"/symbol")]
    pub key: Option<String>,
    /// Updates that must not be lost: `true` for all, or those whose field has one of some values. A socket with too many of them waiting is closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<bool>", example = true)]
    pub critical: Option<Critical>,
    /// Updates a second that are let through for each key and channel, for everyone; between, only the newest is kept (see `outbox_bytes_per_shard_max`). Of more than 16,384 keys at a time, some may pass early.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 10.0)]
    pub max_rate: Option<f64>,
}

/// What is done with a channel's updates that a socket cannot take now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// The newest of each key is kept, in the place of the older one.
    #[default]
    Conflate,
    /// All are kept, up to the limits; past them the oldest of the channel is dropped for a new one.
    DropOldest,
    /// All are kept, up to the limits; past them a new one is dropped.
    DropNewest,
    /// All are kept, up to the limits; past them the socket is closed.
    Disconnect,
}

/// Which updates of a channel must not be lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Critical {
    /// All or none.
    All(bool),
    /// Those whose field has one of some values.
    Where(CriticalWhere),
}

/// Updates by a field of theirs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CriticalWhere {
    /// JSON pointer (RFC 6901) to the field.
    pub pointer: String,
    /// The values; numbers and booleans as they are written in JSON.
    pub values: Vec<String>,
}

impl Config {
    /// The rule that holds for a channel, if there is one.
    pub fn rule(&self, channel: &str) -> Option<&ChannelRule> {
        self.channels.iter().find(|rule| rule.fits(channel))
    }
}

impl ProxyProtocol {
    /// Whether a peer's word is taken for whom its connections are.
    pub fn trusts(&self, peer: IpAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(peer))
    }
}

impl ChannelRule {
    /// A rule for some channels that asks for nothing.
    pub fn new(pattern: impl Into<String>) -> Self {
        let policy = Policy::default();
        Self { pattern: pattern.into(), client_publish: false, policy, key: None, critical: None, max_rate: None }
    }

    /// Whether a channel is meant by this rule.
    pub fn fits(&self, channel: &str) -> bool {
        match self.pattern.strip_suffix('*') {
            Some(start) => channel.starts_with(start),
            None => self.pattern == channel,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 8080))],
            admin: SocketAddr::from(([127, 0, 0, 1], 9090)),
            server_id: None,
            shards: 0,
            pin_shards: true,
            source_core: None,
            proxy_protocol: ProxyProtocol::default(),
            redis: Redis::default(),
            limits: Limits::default(),
            heartbeat: Heartbeat::default(),
            drain: Drain::default(),
            log: Log::default(),
            channels: Vec::new(),
        }
    }
}

impl Default for Redis {
    fn default() -> Self {
        Self {
            url: None,
            unsubscribe_after: Duration::from_secs(5),
            probe_interval: Duration::from_secs(1),
            probe_timeout: Duration::from_secs(3),
            backoff_max: Duration::from_secs(2),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_per_shard_max: 0,
            rings_per_shard: 1,
            update_bytes_max: 1 << 20,
            channels_per_connection_max: 100,
            channel_name_bytes_max: 200,
            request_bytes_max: 8 << 10,
            request_timeout: Duration::from_secs(10),
            message_bytes_max: 64 << 10,
            partial_bytes_per_shard_max: 64 << 20,
            window_bytes: 64 << 10,
            slack: 16,
            stall_timeout: Duration::from_secs(30),
            retry_max: Duration::from_secs(10),
            outbox_messages_max: 1024,
            outbox_bytes_max: 2 << 20,
            outbox_bytes_per_shard_max: 256 << 20,
            critical_messages_max: 32,
            send_buffer_bytes: 0,
            control_messages_max: 32,
            inbox_messages_max: 8192,
            inbox_bytes_max: 64 << 20,
            inbox_critical_max: 1024,
        }
    }
}

impl Default for Heartbeat {
    fn default() -> Self {
        Self { ping_after: Duration::from_secs(25), pong_timeout: Duration::from_secs(10) }
    }
}

impl Default for Drain {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(10), close_timeout: Duration::from_secs(2) }
    }
}
