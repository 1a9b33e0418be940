//! Settings of a shard, different with every seed: how much it may keep, how far clients may run ahead, and a rule for
//! each channel.

use crate::proxy::TRUSTED;
use crate::source::{GOALS, NAMES, RATE, RATED};
use spillgate::config::{ChannelRule, Config, Critical, Limits, Policy};
use std::time::Duration;

/// How much a shard may keep for its sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Means {
    /// Everything: not one update may be missing.
    Plenty,
    /// Some updates whole, then the newest of each key and everything critical.
    Newest,
    /// Less than it needs: it drops, and closes who is too slow.
    Scarce,
}

impl Means {
    pub fn of(seed: u64) -> Self {
        [Means::Scarce, Means::Newest, Means::Plenty][seed as usize % 3]
    }

    fn set(self, rng: &mut fastrand::Rng, limits: &mut Limits) {
        (limits.outbox_messages_max, limits.outbox_bytes_max) = (1 << 30, 1 << 40);
        (limits.slack, limits.critical_messages_max) = (1 << 30, 1 << 30);
        if self != Means::Plenty {
            limits.slack = [0, 1, 4, 16][rng.usize(..4)];
        }
        if self == Means::Scarce {
            (limits.outbox_messages_max, limits.outbox_bytes_max) = (rng.usize(1..20), rng.usize(100..50_000));
            limits.critical_messages_max = rng.usize(1..4);
            if rng.bool() {
                limits.outbox_bytes_per_shard_max = rng.usize(500..20_000);
            }
        }
    }
}

pub fn config(rng: &mut fastrand::Rng, means: Means, tight: bool) -> Config {
    let mut config = Config::default();
    let limits = &mut config.limits;
    limits.connections_per_shard_max = if rng.bool() { 0 } else { rng.usize(5..40) };
    limits.control_messages_max = rng.usize(1..8);
    limits.request_timeout = Duration::from_secs(6);
    limits.request_bytes_max = 2000;
    limits.window_bytes = [512, 1000, 4096, 64 << 10][rng.usize(..4)];
    limits.stall_timeout = Duration::from_secs([0, 3][rng.usize(..2)]);
    if tight {
        limits.partial_bytes_per_shard_max = rng.usize(200..3000);
    }
    means.set(rng, limits);
    config.proxy_protocol.trusted = TRUSTED.iter().map(|network| network.parse().expect("a network")).collect();
    config.heartbeat.ping_after = Duration::from_secs(1);
    config.heartbeat.pong_timeout = Duration::from_secs(2);
    config.drain.close_timeout = Duration::from_millis(500);
    let mut rules = NAMES.map(ChannelRule::new);
    for (rule, policy) in rules[3..6].iter_mut().zip([Policy::DropOldest, Policy::DropNewest, Policy::Disconnect]) {
        rule.policy = policy;
    }
    if means == Means::Plenty {
        // Channels that conflate keep the newest only for a socket that its pongs show to be slow, whatever the means.
        rules
            .iter_mut()
            .filter(|rule| rule.policy == Policy::Conflate)
            .for_each(|rule| rule.policy = Policy::DropNewest);
    }
    rules[0].client_publish = true;
    // Which updates are critical, and their keys, is the source's to say.
    rules[GOALS].critical = Some(Critical::All(true));
    rules[RATED].max_rate = Some(RATE as f64);
    config.channels = rules.into();
    config
}
