//! What a run is: who connects, what is published, and what must come of it. Read from TOML; a name that nobody knows is
//! refused, with its line.

mod expect;
mod load;

pub use expect::{Expect, Outcome, Unmet, show};
pub use load::{builtin, load, read_toml};

use crate::apart::SOCKETS_MAX;
use crate::engine::{Kind, Mix};
use crate::face::FaceName;
use crate::payload::BYTES_MIN;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// See the module.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Its name.
    pub name: String,
    /// What it shows, in one sentence.
    pub about: String,
    /// Number of clients.
    pub sockets: u64,
    /// How long updates are published and measured, in seconds.
    pub seconds: u32,
    /// How long updates are published before that, in seconds.
    #[serde(default = "three")]
    pub warmup_seconds: u32,
    /// How long the clients are left alone after the last update, in seconds.
    #[serde(default = "three")]
    pub drain_seconds: u32,
    /// Number of channels.
    #[serde(default = "one")]
    pub channels: u32,
    /// Channels of each client; more than one takes the JSON face.
    #[serde(default = "one")]
    pub channels_per_socket: u32,
    /// The start of every channel's name.
    #[serde(default = "prefix")]
    pub channel_prefix: String,
    /// How clients ask and read.
    #[serde(default)]
    pub face: FaceName,
    /// Shards of the gateway, each on a core of its own; 0 means half of the cores.
    #[serde(default)]
    pub shards: usize,
    /// Connections that are opened at a time.
    #[serde(default = "at_once")]
    pub connect_at_once: u32,
    /// Connections begun a second at most; 0 means as many as go.
    #[serde(default)]
    pub connects_per_second: u32,
    /// Whether clients connect again after the server has ended their connection.
    #[serde(default = "yes")]
    pub reconnect: bool,
    /// Fraction of the sockets that is replaced a second.
    #[serde(default)]
    pub churn_per_second: f64,
    /// What is published.
    pub publish: Publish,
    /// Fraction of the population that each kind of client is; the rest is fast.
    #[serde(default)]
    pub kinds: BTreeMap<Kind, f64>,
    /// How the kinds behave.
    #[serde(default)]
    pub behaviour: Behaviour,
    /// Things that happen while updates flow.
    #[serde(default, rename = "event")]
    pub events: Vec<Happening>,
    /// Settings of the gateway, as its own configuration file has them.
    #[serde(default)]
    pub gateway: toml::Table,
    /// What must come of it.
    #[serde(default)]
    pub expect: Expect,
}

/// What is published.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Publish {
    /// Updates a second, over all channels.
    pub rate: f64,
    /// Bytes of a payload.
    pub bytes: usize,
    /// Keys of each channel: each update is about one of them, in turn.
    #[serde(default = "one")]
    pub keys: u32,
    /// One update in so many is a goal; 0 means none.
    #[serde(default)]
    pub goal_every: u32,
    /// Updates that are due at the same moment.
    #[serde(default = "one")]
    pub burst: u32,
    /// Times at which rate and size differ.
    #[serde(default, rename = "phase")]
    pub phases: Vec<Phase>,
}

/// A time at which rate and size differ.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Phase {
    /// When it begins, in seconds after the warm-up.
    pub at: u32,
    /// How long it lasts, in seconds.
    pub seconds: u32,
    /// Updates a second, if not the usual.
    pub rate: Option<f64>,
    /// Bytes of a payload, if not the usual.
    pub bytes: Option<usize>,
}

/// How the kinds of clients behave.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Behaviour {
    /// What a trickling client reads a second, in bytes.
    pub trickle_bytes_per_second: u32,
    /// How long a phone reads, in seconds.
    pub phone_awake_seconds: f64,
    /// How long a phone sleeps, in seconds.
    pub phone_asleep_seconds: f64,
    /// SO_RCVBUF of stalled and trickling clients, in bytes; the kernel doubles it.
    pub narrow_receive_bytes: u32,
    /// Round trip of far clients, in milliseconds.
    pub far_round_trip_ms: f64,
    /// Fraction of the packets of far clients that is lost.
    pub far_loss: f64,
}

/// Something that happens while updates flow.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Happening {
    /// When, in seconds after the warm-up.
    pub at: u32,
    /// What.
    #[serde(rename = "do")]
    pub what: Deed,
    /// How many of those meant, as a fraction.
    #[serde(default = "all")]
    pub fraction: f64,
}

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Deed {
    /// Fast and storming clients are cut off, and connect again at once.
    Herd,
    /// Stalled clients read again.
    Resume,
    /// The network of vanishing clients disappears.
    Vanish,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            trickle_bytes_per_second: 400,
            phone_awake_seconds: 5.0,
            phone_asleep_seconds: 8.0,
            narrow_receive_bytes: 2048,
            far_round_trip_ms: 120.0,
            far_loss: 0.01,
        }
    }
}

impl Scenario {
    /// Which part of the population each kind is, but for those that live in a network of their own.
    pub fn mix(&self) -> Mix {
        let near: Vec<_> = self.kinds.iter().filter(|(kind, _)| !is_remote(**kind)).collect();
        let remote: f64 = self.kinds.iter().filter(|(kind, _)| is_remote(**kind)).map(|(_, part)| part).sum();
        Mix { parts: near.into_iter().map(|(kind, part)| (*kind, part / (1.0 - remote).max(1e-9))).collect() }
    }

    /// How many clients are of a kind that lives in a network of its own.
    pub fn remote(&self, kind: Kind) -> u64 {
        let part = if is_remote(kind) { self.kinds.get(&kind).copied().unwrap_or(0.0) } else { 0.0 };
        (part * self.sockets as f64).round() as u64
    }

    /// What is wrong with it, if anything: where, and what to do.
    pub fn mistake(&self) -> Option<String> {
        let parts: f64 = self.kinds.values().sum();
        let face_max = self.face.face().channels_max();
        let bytes = self.publish.phases.iter().filter_map(|phase| phase.bytes).chain([self.publish.bytes]);
        let rates = self.publish.phases.iter().filter_map(|phase| phase.rate).chain([self.publish.rate]);
        let wrong = |what: String| Some(what);
        if self.sockets == 0 || self.sockets > 4_000_000 {
            return wrong(format!("sockets = {}: set it to 1 to 4,000,000", self.sockets));
        }
        if self.seconds == 0 {
            return wrong("seconds = 0: nothing could be measured; set at least 1".to_owned());
        }
        if self.channels == 0 || self.publish.keys == 0 || self.publish.burst == 0 || self.connect_at_once == 0 {
            return wrong("channels, publish.keys, publish.burst and connect_at_once are at least 1".to_owned());
        }
        if u64::from(self.channels) * u64::from(self.publish.keys + 1) > 20_000_000 {
            return wrong("channels x keys is over 20,000,000: every client process counts each; use fewer".to_owned());
        }
        if self.channels_per_socket == 0 || self.channels_per_socket > self.channels.min(face_max) {
            let most = self.channels.min(face_max);
            return wrong(format!("channels_per_socket = {}: set it to 1 to {most}", self.channels_per_socket));
        }
        if self.kinds.values().any(|part| !(0.0..=1.0).contains(part)) || parts > 1.0 + 1e-9 {
            return wrong("kinds: each is a fraction from 0 to 1, and together they are at most 1".to_owned());
        }
        if let Some(kind) = Kind::ALL.into_iter().find(|kind| self.remote(*kind) > SOCKETS_MAX) {
            return wrong(format!("kinds.{}: at most {SOCKETS_MAX} sockets can be in such a network", kind.name()));
        }
        if let Some(bytes) = bytes.into_iter().find(|bytes| !(BYTES_MIN..=1 << 20).contains(bytes)) {
            return wrong(format!("publish.bytes = {bytes}: set it to {BYTES_MIN} to 1,048,576"));
        }
        if let Some(rate) = rates.into_iter().find(|rate| !(0.0..=2e6).contains(rate)) {
            return wrong(format!("publish.rate = {rate}: set it to 0 to 2,000,000"));
        }
        if !(0.0..=1.0).contains(&self.churn_per_second) {
            return wrong(format!("churn_per_second = {}: set it to 0 to 1", self.churn_per_second));
        }
        let late = self.events.iter().map(|event| event.at).find(|at| *at >= self.seconds);
        late.map(|at| format!("[[event]] at = {at}: the run is over by then (seconds = {})", self.seconds))
    }
}

/// Whether a kind of client needs a network of its own.
pub fn is_remote(kind: Kind) -> bool {
    matches!(kind, Kind::Far | Kind::Vanishing)
}

fn one() -> u32 {
    1
}

fn three() -> u32 {
    3
}

fn at_once() -> u32 {
    512
}

fn all() -> f64 {
    1.0
}

fn yes() -> bool {
    true
}

fn prefix() -> String {
    "load.".to_owned()
}
