//! What the host is to carry.

use super::figures;
use super::host::Host;
use crate::config::Config;
use crate::shard::{CAPACITY_SLOTS, REFUSAL_SLOTS};
use crate::sys;
use std::net::{IpAddr, SocketAddr};

/// Standard deviations by which one shard may get more sockets than another: the kernel chooses by a hash.
const DEVIATIONS: f64 = 5.0;

/// What is planned.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Sockets of clients, all shards together.
    pub sockets: u64,
    /// How many of them do not read, from 0 to 1.
    pub stalled_share: f64,
    /// Addresses from which proxies connect; 0: clients connect themselves; none: nobody has said.
    pub proxies: Option<u64>,
    /// The gateway's settings.
    pub config: Config,
    /// Whose they are, for people: a file, or that they are the defaults.
    pub settings: String,
}

/// A part of the memory that a plan takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// What it is for.
    pub what: &'static str,
    /// Of how many things.
    pub times: u64,
    /// Bytes of each.
    pub each: u64,
}

impl Part {
    /// All of it, in bytes.
    pub fn bytes(&self) -> u64 {
        self.times.saturating_mul(self.each)
    }
}

impl Plan {
    /// Sockets that do not read.
    pub fn stalled(&self) -> u64 {
        (self.sockets as f64 * self.stalled_share).round() as u64
    }

    /// Shards, as the gateway would start them here.
    pub fn shards(&self, host: &Host) -> u64 {
        match self.config.shards {
            0 => host.allowed.len().max(1) as u64,
            shards => shards as u64,
        }
    }

    /// Sockets that one shard may get, uneven as the kernel deals them out.
    pub fn per_shard(&self, host: &Host) -> u64 {
        let shards = self.shards(host);
        if shards == 1 {
            return self.sockets;
        }
        let share = 1.0 / shards as f64;
        let deviation = (self.sockets as f64 * share * (1.0 - share)).sqrt();
        let most = (self.sockets as f64 * share + DEVIATIONS * deviation).ceil() as u64;
        most.min(self.sockets)
    }

    /// Slots that one shard's tables need: those who are told that there is no room have slots too. Where the configuration
    /// says how many connections there may be, the gateway does not start without slots for them.
    pub fn slots(&self, host: &Host) -> u64 {
        let configured = match self.config.limits.connections_per_shard_max as u64 {
            0 => 0,
            most => most + CAPACITY_SLOTS,
        };
        configured.max(self.per_shard(host) + u64::from(REFUSAL_SLOTS))
    }

    /// Rings of one shard.
    pub fn rings(&self) -> u64 {
        self.config.limits.rings_per_shard as u64
    }

    /// RLIMIT_NOFILE with which the rings that are set carry the plan; more than the kernel's largest table is no help.
    pub fn nofile(&self, host: &Host) -> u64 {
        let table = self.slots(host).div_ceil(self.rings()).min(sys::TABLE_MAX);
        (table + sys::DESCRIPTORS_LEFT).next_multiple_of(1024)
    }

    /// Pages that TCP is charged while one update is on its way to everyone, with and without those who do not read.
    pub fn tcp_pages(&self) -> (u64, u64) {
        let stalled = self.stalled();
        let kept = stalled * figures::STALLED_TCP_BYTES.value;
        (self.sockets - stalled + kept.div_ceil(figures::PAGE_BYTES.value), self.sockets)
    }

    /// Memory that it all takes on this host, in bytes: what [`Plan::memory_parts`] has, summed up.
    pub fn memory(&self, host: &Host) -> u64 {
        self.memory_parts(host).iter().map(|part| part.bytes()).sum()
    }

    /// Memory by what it is for. Bounds of queues that are only used at worst are not in it (docs/capacity.md).
    pub fn memory_parts(&self, host: &Host) -> [Part; 6] {
        let (stalled, idle) = self.tcp_pages();
        let rings = self.shards(host) * self.rings();
        let part = |what, times, each| Part { what, times, each };
        [
            part("the gateway's own", self.sockets, figures::USER_BYTES.value),
            part("the kernel's structures", self.sockets, figures::KERNEL_BYTES.value),
            part("TCP's pages, an update on its way to everyone", stalled.max(idle), figures::PAGE_BYTES.value),
            // What a stalled socket takes in all, less its pages of TCP's, which are counted above.
            part(
                "more for sockets that do not read, their outboxes in it",
                self.stalled(),
                figures::STALLED_BYTES.value - figures::STALLED_TCP_BYTES.value,
            ),
            part("queues of the rings", rings, figures::RING_BYTES.value),
            part("the process beside them", 1, figures::PROCESS_BYTES.value),
        ]
    }

    /// Addresses with ports that clients are listened for on.
    pub fn addresses(&self) -> u64 {
        self.config.listen.len() as u64
    }

    /// Whether everybody who can connect is on this host: it listens on the loopback alone.
    pub fn listens_here_alone(&self) -> bool {
        let here = |address: &SocketAddr| match address.ip() {
            IpAddr::V4(ip) => ip.is_loopback(),
            IpAddr::V6(ip) => ip.is_loopback(),
        };
        self.config.listen.iter().all(here)
    }

    /// Addresses from which proxies connect, where they count.
    pub fn proxy_addresses(&self) -> Option<u64> {
        match self.proxies {
            None if self.listens_here_alone() => Some(1),
            given => given,
        }
    }
}
