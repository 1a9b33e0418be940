//! What a process of clients is told: its job at the start, orders later.

use crate::face::FaceName;
use serde::{Deserialize, Serialize};
use std::net::SocketAddrV4;

/// How a client behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Kind {
    /// Reads at once, answers pings at once.
    Fast,
    /// Never reads after the handshake; small receive buffer.
    Stalled,
    /// Reads some bytes a second; small receive buffer.
    Trickle,
    /// Reads for some seconds, sleeps for some, and answers nothing while it sleeps.
    Phone,
    /// Reads until its network disappears, without a FIN.
    Vanishing,
    /// Reads; connects again at once when it is closed, whatever it was told.
    Storming,
    /// Reads, behind a long and lossy line.
    Far,
}

impl Kind {
    /// All kinds, in the order of their numbers.
    pub const ALL: [Self; 7] =
        [Self::Fast, Self::Stalled, Self::Trickle, Self::Phone, Self::Vanishing, Self::Storming, Self::Far];

    /// Its name in scenarios and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            Self::Stalled => "stalled",
            Self::Trickle => "trickle",
            Self::Phone => "phone",
            Self::Vanishing => "vanishing",
            Self::Storming => "storming",
            Self::Far => "far",
        }
    }

    /// Whether it keeps up, so that it must get every update.
    pub fn is_healthy(self) -> bool {
        self == Self::Fast
    }

    /// Whether its receive buffer is made small, so that what it does not read stays at the server.
    pub fn is_narrow(self) -> bool {
        matches!(self, Self::Stalled | Self::Trickle)
    }
}

/// Which part of a population each kind is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Mix {
    /// Kinds and fractions; what is left of 1 is fast.
    pub parts: Vec<(Kind, f64)>,
}

impl Mix {
    /// The kind of client `i`: each run of neighbours has the kinds in their proportions.
    pub fn kind(&self, i: u64) -> Kind {
        // The golden ratio's multiples spread evenly (Weyl).
        let mut at = (i as f64 * 0.618_033_988_749_894_9).fract();
        for &(kind, fraction) in &self.parts {
            if at < fraction {
                return kind;
            }
            at -= fraction;
        }
        Kind::Fast
    }
}

/// The job of a process of clients.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Job {
    /// Its number, which gives it source addresses of its own.
    pub engine: u32,
    /// Number of its first client in the population.
    pub first: u64,
    /// How many clients it is.
    pub sockets: u32,
    /// Where the server listens.
    pub target: SocketAddrV4,
    /// Whether clients come from addresses in 127.0.0.0/8 of their own.
    pub loopback_sources: bool,
    /// Path in place of the face's own, with `{channel}`.
    pub path: Option<String>,
    /// How messages are read.
    pub face: FaceName,
    /// A text message that every client sends first, with `{channel}`.
    pub hello: Option<String>,
    /// The start of every channel's name.
    pub channel_prefix: String,
    /// Number of channels.
    pub channels: u32,
    /// Channels of each client.
    pub channels_per_socket: u32,
    /// Keys of each channel.
    pub keys: u32,
    /// Whether goals are published.
    pub goals: bool,
    /// Kinds of clients.
    pub mix: Mix,
    /// Connections that are opened at a time.
    pub at_once: u32,
    /// Connections begun a second at most; 0 means as many as go.
    pub connects_per_s: u32,
    /// What a trickling client reads a second, in bytes.
    pub trickle_bytes_per_s: u32,
    /// How long a phone reads.
    pub phone_awake_ms: u32,
    /// How long a phone sleeps.
    pub phone_asleep_ms: u32,
    /// Receive buffer of stalled and trickling clients, in bytes; the kernel doubles it.
    pub narrow_receive_bytes: u32,
    /// Fraction of the sockets that is replaced a second.
    pub churn_per_s: f64,
    /// Whether clients connect again after the server has ended their connection.
    pub reconnect: bool,
}

impl Job {
    /// Streams of one channel: its keys, and one more for goals.
    pub fn streams(&self) -> u32 {
        self.keys + u32::from(self.goals)
    }
}

/// An order, with a number that its answer repeats.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Order {
    /// Number, from 1.
    pub number: u64,
    /// What to do.
    pub what: What,
}

/// What can be ordered.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// Updates will come from now on: whoever is open misses none.
    Begin,
    /// Latencies count from now on.
    Measure,
    /// Stalled clients read from now on, like fast ones.
    Resume,
    /// This fraction of the fast clients is reset and connects again at once.
    Herd(f64),
    /// No more churn, no new connections; the last number of each stream, by channel and stream: count what is missing.
    Finish(Vec<u32>),
}
