//! Everything that the metrics are made of, as it was at the moment of a scrape.

use super::super::View;
use super::super::recent::{Kernel, Moment};
use crate::config::Limits;
use crate::metrics::{Recorded, ShardCounters, SourceCounters, latency_histogram};
use crate::shard::Shared;
use crate::sys::{CgroupUse, HostUse, ProcessUse, cgroup_use, host_use, process_use};
use hdrhistogram::Histogram;
use std::sync::{Arc, OnceLock};

/// When the process started. The kernel tells it anew after the host's clock was set, and that would look like a restart.
static STARTED: OnceLock<f64> = OnceLock::new();

/// See the module.
#[derive(Debug)]
pub struct Scrape {
    pub now_us: u64,
    pub limits: Limits,
    /// The counters of all shards together, and of each.
    pub all: ShardCounters,
    pub shards: Vec<ShardCounters>,
    pub source: SourceCounters,
    /// Durations in microseconds, of all shards since the start.
    pub latency: Histogram<u64>,
    pub pong_ages: Histogram<u64>,
    pub turns: Histogram<u64>,
    /// Lengths of turns in the last minute, by shard.
    pub recent_turns: Vec<Recorded>,
    /// What was delivered in the last minute of what was due in it.
    pub fan_out_ratio: f64,
    pub kernel: Option<Kernel>,
    /// Connections of the admin interface now, and those that lost their places.
    pub admin_connections: u64,
    pub admin_cut: u64,
    pub process: ProcessUse,
    pub cgroup: Option<CgroupUse>,
    pub host: HostUse,
}

impl Scrape {
    /// Takes everything in. Costs the shards nothing: they show it anyway.
    pub fn take(view: &View) -> Self {
        let now_us = view.clock.now_us();
        let shards: Vec<_> = view.shards.iter().map(|shard| shard.counters()).collect();
        let mut sums = [0; ShardCounters::LEN];
        for counters in &shards {
            sums.iter_mut().zip(counters.values()).for_each(|(sum, value)| *sum += value);
        }
        let process = process_use();
        let start_seconds = *STARTED.get_or_init(|| process.start_seconds);
        let (begin, now) = (view.recent.begin(now_us), Moment::now(&view.shards));
        Self {
            now_us,
            limits: view.limits.clone(),
            all: ShardCounters::from_values(&sums),
            shards,
            source: view.source.status().counters,
            latency: merge(&view.shards, |shard| shard.latency.read()),
            pong_ages: merge(&view.shards, |shard| shard.pong_ages.read()),
            turns: merge(&view.shards, |shard| shard.turns.read()),
            recent_turns: now.turns.iter().zip(&begin.turns).map(|(now, begin)| now.since(begin)).collect(),
            fan_out_ratio: match now.due.saturating_sub(begin.due) {
                0 => 1.0, // nobody is owed anything
                due => now.delivered.saturating_sub(begin.delivered) as f64 / due as f64,
            },
            kernel: view.recent.kernel(),
            admin_connections: view.crowd.connections(),
            admin_cut: view.crowd.cut(),
            process: ProcessUse { start_seconds, ..process },
            cgroup: cgroup_use(),
            host: host_use(),
        }
    }
}

fn merge(shards: &[Arc<Shared>], read: impl Fn(&Shared) -> Histogram<u64>) -> Histogram<u64> {
    shards.iter().fold(latency_histogram(), |mut all, shard| {
        all.add(read(shard)).expect("all histograms have the same bounds");
        all
    })
}
