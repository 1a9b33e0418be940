//! Every metric there is: its name, its kind, one sentence, and where its value comes from.
//!
//! Names with `ws_` are this gateway's; those with `process_` are the ones that all Prometheus clients use. A counter is
//! written here without its `_total`, an info without its `_info`.

use super::scrape::Scrape;
use crate::metrics::{DropReason, EndReason, Recorded};
use hdrhistogram::Histogram;
use std::borrow::Cow;

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Without the ending that its kind gives it.
    pub name: &'static str,
    pub kind: Kind,
    /// The names of its labels, `server_id` not counted.
    pub labels: &'static [&'static str],
    /// One sentence.
    pub help: &'static str,
    /// Its samples; none where this host does not have it.
    pub read: fn(&Scrape) -> Vec<Sample>,
}

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Gauge,
    Counter,
    Histogram,
    Info,
}

/// One value, and whose it is.
#[derive(Clone, Debug)]
pub struct Sample {
    pub labels: Vec<(&'static str, Cow<'static, str>)>,
    pub value: Value,
}

/// A value.
#[derive(Clone, Debug)]
pub enum Value {
    Whole(u64),
    Real(f64),
    Durations {
        sum_s: f64,
        count: u64,
        /// The upper bounds in seconds, and how many lie between each and the one before it.
        buckets: Vec<(f64, u64)>,
    },
}

impl Kind {
    /// What its samples' names end in.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Counter => "_total",
            Self::Info => "_info",
            Self::Gauge | Self::Histogram => "",
        }
    }
}

/// All metrics, in the order in which they are told.
pub fn metrics() -> impl Iterator<Item = &'static Metric> {
    SECTIONS.iter().flat_map(|(_, metrics)| metrics.iter())
}

/// Upper bounds of the buckets of a duration, in seconds.
const BUCKETS_S: [f64; 14] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

/// What is told of the lengths of turns, and the share of turns that are no longer.
const TURN_STATS: [(&str, f64); 3] = [("p50", 0.5), ("p99", 0.99), ("max", 1.0)];

/// The metrics under the heads of docs/metrics.md.
#[rustfmt::skip] // a table: one line of name and sentence, one of where it comes from
pub const SECTIONS: &[(&str, &[Metric])] = &[
    ("Connections", &[
        gauge("ws_connections_active", "Connections that occupy a slot now, whatever their state.",
            |s| whole(s.all.connections)),
        gauge("ws_connections_max", "Connections that the shards can hold.",
            |s| whole(s.all.connections_max)),
        gauge("ws_shard_connections", "Connections of a shard now.",
            |s| by_shard(s.shards.iter().map(|shard| shard.connections))).by(&["shard"]),
        gauge("ws_shard_connections_max", "Connections that a shard can hold.",
            |s| by_shard(s.shards.iter().map(|shard| shard.connections_max))).by(&["shard"]),
        gauge("ws_websockets_active", "WebSockets that are open now.",
            |s| whole(s.all.websockets)),
        counter("ws_connections_accepted", "Connections accepted.",
            |s| whole(s.all.accepted)),
        counter("ws_connections_terminated", "Connections ended, by reason.",
            |s| by_reason(EndReason::ALL.iter().map(|reason| (reason.label(), s.all.ended[*reason as usize])))).by(&["reason"]),
        counter("ws_connections_refused", "Connections that never got the WebSocket that they came for, by reason (part of those terminated).",
            |s| by_reason(EndReason::ALL.iter().filter(|reason| reason.is_refusal())
                .map(|reason| (reason.label(), s.all.ended[*reason as usize])))).by(&["reason"]),
        counter("ws_accept_errors", "Accepts that failed; each lost a connection.",
            |s| whole(s.all.accept_errors)),
        gauge("ws_accept_queue", "Connections that wait to be accepted, at the listener where most wait (sampled).",
            |s| maybe(s.kernel.map(|kernel| kernel.listening.read_max))),
        gauge("ws_accept_queue_max", "Connections that may wait at one listener; the kernel drops those beyond it (sampled).",
            |s| maybe(s.kernel.map(|kernel| kernel.listening.write_max))),
        counter("ws_messages_received", "Messages received from clients.",
            |s| whole(s.all.received)),
        gauge("ws_partial_bytes", "Bytes of unfinished requests and frames now.",
            |s| whole(s.all.partial_bytes)),
        counter("ws_polls_rearmed", "Watches that the kernel ended and that were armed again.",
            |s| whole(s.all.polls_rearmed)),
    ]),
    ("Deliveries", &[
        counter("ws_messages_due", "Updates owed to a socket, one for each subscriber at the time of the fan-out.",
            |s| whole(s.all.due)),
        counter("ws_messages_delivered", "Updates written whole to a socket.",
            |s| whole(s.all.delivered)),
        counter("ws_messages_conflated", "Updates that a newer one of the same key replaced before they were written.",
            |s| whole(s.all.conflated)),
        counter("ws_messages_dropped", "Updates that did not reach a subscriber, by reason.",
            |s| by_reason(DropReason::ALL.iter().map(|reason| (reason.label(), s.all.dropped[*reason as usize])))).by(&["reason"]),
        gauge("ws_fan_out_ratio", "Updates delivered over those owed (published x subscribers) in the last minute; 1 where nothing was owed.",
            |s| real(s.fan_out_ratio)),
        seconds("ws_message_latency_seconds", "Time from an update's arrival to its write, for each delivery.",
            |s| durations(&[], &s.latency)),
        seconds("ws_staleness_seconds", "Age of updates since their arrival, when written (to write), and when the pong of a socket that is behind says that they were read (to pong).",
            |s| [("write", &s.latency), ("pong", &s.pong_ages)].iter()
                .flat_map(|(to, ages)| durations(&[("to", to)], ages)).collect()).by(&["to"]),
    ]),
    ("Slow clients", &[
        gauge("ws_sockets_behind", "Sockets that do not keep up now.",
            |s| whole(s.all.behind)),
        counter("ws_slow_consumers_closed", "Connections closed because they were too slow.",
            |s| whole(s.all.ended[EndReason::SlowConsumer as usize])),
        counter("ws_critical_overflows", "Times that a critical update found no room at a socket, which is closed for it.",
            |s| whole(s.all.critical_overflows)),
        gauge("ws_outbox_messages", "Updates that wait now, in outboxes, on their way to the kernel, or held back by max_rate.",
            |s| whole(s.all.outbox_messages)),
        gauge("ws_outbox_bytes", "Memory of what waits now, for slow sockets or for max_rate (an update that waits for many counts once a shard).",
            |s| whole(s.all.outbox_bytes)),
        gauge("ws_shard_outbox_bytes", "Memory of what waits at a shard now.",
            |s| by_shard(s.shards.iter().map(|shard| shard.outbox_bytes))).by(&["shard"]),
        gauge("ws_shard_outbox_bytes_max", "Memory that may wait at a shard (limits.outbox_bytes_per_shard_max).",
            |s| by_shard(s.shards.iter().map(|_| s.limits.outbox_bytes_per_shard_max as u64))).by(&["shard"]),
        counter("ws_updates_released_early", "Updates that passed before max_rate let them, because too much was held back.",
            |s| whole(s.all.released_early)),
        gauge("ws_kernel_unsent_bytes", "Bytes that the kernel holds for clients, not yet sent or not yet acknowledged (sampled).",
            |s| maybe(s.kernel.map(|kernel| kernel.connected.write))),
        gauge("ws_kernel_unsent_bytes_max", "The most of those that one socket has (sampled).",
            |s| maybe(s.kernel.map(|kernel| kernel.connected.write_max))),
        gauge("ws_kernel_unread_bytes", "Bytes of clients that the kernel holds and we have not read yet (sampled).",
            |s| maybe(s.kernel.map(|kernel| kernel.connected.read))),
        gauge("ws_kernel_sample_age_seconds", "Age of what is sampled from the kernel by sock_diag; a million sockets take a minute or two.",
            |s| s.kernel.map_or(vec![], |kernel| real(s.now_us.saturating_sub(kernel.taken_us) as f64 / 1e6))),
    ]),
    ("Shards", &[
        seconds("ws_turn_seconds", "Length of the shards' turns (the event loop lag).",
            |s| durations(&[], &s.turns)),
        gauge("ws_shard_turn_seconds", "Length of a shard's turns in the last minute (stat is p50, p99 or max).",
            |s| s.recent_turns.iter().enumerate().flat_map(|(shard, turns)| turn_stats(shard, turns)).collect()).by(&["shard", "stat"]),
        gauge("ws_shard_last_turn_age_seconds", "Time since a shard's last turn began; one that works takes ten a second or more.",
            |s| labelled("shard", s.shards.iter().enumerate().map(|(shard, counters)| {
                (shard.to_string(), Value::Real(s.now_us.saturating_sub(counters.last_turn_us) as f64 / 1e6))
            }))).by(&["shard"]),
        counter("ws_turns", "Turns that a shard has taken.",
            |s| by_shard(s.shards.iter().map(|shard| shard.turns))).by(&["shard"]),
        gauge("ws_inbox_depth", "Messages in a shard's inbox after its last turn.",
            |s| by_shard(s.shards.iter().map(|shard| shard.inbox_depth))).by(&["shard"]),
        gauge("ws_inbox_depth_max", "Messages that a shard's inbox holds (limits.inbox_messages_max).",
            |s| by_shard(s.shards.iter().map(|_| s.limits.inbox_messages_max as u64))).by(&["shard"]),
    ]),
    ("Source", &[
        gauge("ws_source_connected", "Whether updates can come: Redis is connected and proven (1), or away (0); always 1 for the embedded engine.",
            |s| whole(s.source.connected)),
        counter("ws_source_lost", "Times that the source was lost.",
            |s| whole(s.source.lost)),
        gauge("ws_channels_wanted", "Channels that clients want now.",
            |s| whole(s.source.channels_wanted)),
        gauge("ws_channels_confirmed", "Channels that are subscribed at the source now.",
            |s| whole(s.source.channels_confirmed)),
        counter("ws_updates_received", "Updates received by the source.",
            |s| whole(s.source.received)),
        counter("ws_updates_too_large", "Updates dropped because they were over the limit.",
            |s| whole(s.source.too_large)),
        counter("ws_updates_offered", "Updates offered to a shard's inbox.",
            |s| whole(s.source.offered)),
        gauge("ws_updates_held", "What waits now at the source for shards whose inboxes are full (updates, answers, notices).",
            |s| whole(s.source.held)),
        counter("ws_updates_conflated", "Updates that a newer one of their key replaced while an inbox was full.",
            |s| whole(s.source.conflated)),
        counter("ws_updates_overrun", "Updates dropped because too much waited for a full inbox; their channels began new epochs.",
            |s| whole(s.source.overrun)),
        counter("ws_publish_errors", "Publishes by clients and the publish API that failed.",
            |s| whole(s.source.publish_errors)),
    ]),
    ("Process and host", &[
        gauge("process_resident_memory_bytes", "Resident memory of the process.",
            |s| whole(s.process.resident_bytes)),
        gauge("process_virtual_memory_bytes", "Address space of the process.",
            |s| whole(s.process.virtual_bytes)),
        counter("process_cpu_seconds", "Time that the process was on a CPU, in user and kernel mode.",
            |s| real(s.process.cpu_seconds)),
        gauge("process_start_time_seconds", "When the process started, in seconds since 1970.",
            |s| real(s.process.start_seconds)),
        gauge("process_open_fds", "Descriptors of the process; clients' sockets are not among them but in the rings' own tables.",
            |s| whole(s.process.open_fds)),
        gauge("process_max_fds", "RLIMIT_NOFILE, which also bounds the table of each ring.",
            |s| maybe(s.process.fds_max)),
        gauge("process_threads", "Threads of the process.",
            |s| whole(s.process.threads)),
        gauge("ws_admin_connections", "Connections of the admin interface now; at most 64.",
            |s| whole(s.admin_connections)),
        counter("ws_admin_connections_cut", "Connections of the admin interface that were closed, while they only waited, because others needed their places.",
            |s| whole(s.admin_cut)),
        gauge("ws_cgroup_memory_bytes", "Memory of the control group that ws_cgroup_memory_max_bytes is of, sockets of the kernel included; where none has a limit, of our own.",
            |s| maybe(s.cgroup.map(|cgroup| cgroup.used_bytes))),
        gauge("ws_cgroup_memory_max_bytes", "Memory limit (memory.max or memory.high) of the control group that reaches it first: ours, or one above it.",
            |s| maybe(s.cgroup.and_then(|cgroup| cgroup.max_bytes))),
        gauge("ws_cgroup_memory_sock_bytes", "Memory of sockets in that control group.",
            |s| maybe(s.cgroup.and_then(|cgroup| cgroup.socket_bytes))),
        gauge("ws_host_memory_bytes", "Memory of the host.",
            |s| maybe(s.host.memory_bytes)),
        gauge("ws_host_memory_available_bytes", "Memory of the host that can be had without swapping.",
            |s| maybe(s.host.memory_available_bytes)),
        gauge("ws_host_tcp_memory_bytes", "Memory of all TCP sockets of the host.",
            |s| maybe(s.host.tcp_bytes)),
        gauge("ws_host_tcp_memory_pressure_bytes", "TCP memory from which on the kernel shrinks buffers (second number of net.ipv4.tcp_mem).",
            |s| maybe(s.host.tcp_pressure_bytes)),
        gauge("ws_host_tcp_memory_max_bytes", "TCP memory beyond which the kernel gives no more (third number of net.ipv4.tcp_mem).",
            |s| maybe(s.host.tcp_max_bytes)),
        counter("ws_host_listen_overflows", "Connections of the host (or network namespace) that the kernel dropped because a listener's queue was full.",
            |s| maybe(s.host.listen_overflows)),
        Metric { kind: Kind::Info, ..gauge("spillgate_build", "The version that runs, and the commit that it was built from.",
            |_| build()) }.by(&["version", "commit"]),
    ]),
];

/// `VERSION (COMMIT)`, or without a commit where none is known (`build.rs`).
const VERSION: &str = env!("VERSION_AND_COMMIT");

/// What was built.
fn build() -> Vec<Sample> {
    let commit = VERSION.split_once("(").and_then(|(_, rest)| rest.strip_suffix(")")).unwrap_or("unknown");
    let labels = [("version", env!("CARGO_PKG_VERSION")), ("commit", commit)];
    vec![Sample { labels: labels.map(|(name, value)| (name, value.into())).into(), value: Value::Whole(1) }]
}

impl Metric {
    const fn by(mut self, labels: &'static [&'static str]) -> Self {
        self.labels = labels;
        self
    }
}

const fn gauge(name: &'static str, help: &'static str, read: fn(&Scrape) -> Vec<Sample>) -> Metric {
    Metric { name, kind: Kind::Gauge, labels: &[], help, read }
}

const fn counter(name: &'static str, help: &'static str, read: fn(&Scrape) -> Vec<Sample>) -> Metric {
    Metric { kind: Kind::Counter, ..gauge(name, help, read) }
}

const fn seconds(name: &'static str, help: &'static str, read: fn(&Scrape) -> Vec<Sample>) -> Metric {
    Metric { kind: Kind::Histogram, ..gauge(name, help, read) }
}

fn whole(value: u64) -> Vec<Sample> {
    vec![Sample { labels: vec![], value: Value::Whole(value) }]
}

fn real(value: f64) -> Vec<Sample> {
    vec![Sample { labels: vec![], value: Value::Real(value) }]
}

fn maybe(value: Option<u64>) -> Vec<Sample> {
    value.map_or(vec![], whole)
}

fn labelled<L: Into<Cow<'static, str>>>(name: &'static str, values: impl Iterator<Item = (L, Value)>) -> Vec<Sample> {
    values.map(|(label, value)| Sample { labels: vec![(name, label.into())], value }).collect()
}

fn by_reason(values: impl Iterator<Item = (&'static str, u64)>) -> Vec<Sample> {
    labelled("reason", values.map(|(reason, value)| (reason, Value::Whole(value))))
}

fn by_shard(values: impl Iterator<Item = u64>) -> Vec<Sample> {
    labelled("shard", values.enumerate().map(|(shard, value)| (shard.to_string(), Value::Whole(value))))
}

fn turn_stats(shard: usize, turns: &Recorded) -> impl Iterator<Item = Sample> {
    TURN_STATS.iter().map(move |(stat, share)| Sample {
        labels: vec![("shard", shard.to_string().into()), ("stat", (*stat).into())],
        value: Value::Real(turns.quantile(*share) as f64 / 1e6),
    })
}

/// A histogram of microseconds, in seconds.
fn durations(labels: &[(&'static str, &'static str)], values: &Histogram<u64>) -> Vec<Sample> {
    let mut counts = [0; BUCKETS_S.len() + 1];
    let mut sum_us = 0.0;
    for at in values.iter_recorded() {
        let us = at.value_iterated_to() as f64;
        let bucket = BUCKETS_S.iter().position(|bound| us <= bound * 1e6).unwrap_or(BUCKETS_S.len());
        counts[bucket] += at.count_at_value();
        sum_us += us * at.count_at_value() as f64;
    }
    let bounds = BUCKETS_S.iter().copied().chain([f64::INFINITY]);
    let value = Value::Durations { sum_s: sum_us / 1e6, count: values.len(), buckets: bounds.zip(counts).collect() };
    vec![Sample { labels: labels.iter().map(|(name, value)| (*name, Cow::from(*value))).collect(), value }]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::latency_histogram;
    use std::collections::BTreeSet;

    #[test]
    fn every_metric_has_a_name_of_its_own_and_one_sentence() {
        let names: BTreeSet<_> = metrics().map(|metric| metric.name).collect();
        assert_eq!(names.len(), metrics().count());
        for metric in metrics() {
            let help = metric.help;
            assert!(help.ends_with('.') && !help[..help.len() - 1].contains(". "), "{}: {help}", metric.name);
            assert!(!help.contains(['"', '\\', '\n']), "what would have to be escaped: {help}");
            assert!(!metric.name.ends_with("_total") && !metric.name.ends_with("_info"), "{}", metric.name);
        }
    }

    #[test]
    fn durations_lie_in_the_first_bucket_that_holds_them() {
        let mut histogram = latency_histogram();
        [50, 100, 101, 2_000_000, 6_000_000].iter().for_each(|us| histogram.record(*us).unwrap());
        let samples = durations(&[("to", "write")], &histogram);
        let Value::Durations { sum_s, count, buckets } = &samples[0].value else { panic!("{samples:?}") };
        let held: Vec<_> = buckets.iter().filter(|(_, count)| *count > 0).copied().collect();
        assert_eq!(held, [(0.0001, 2), (0.00025, 1), (5.0, 1), (f64::INFINITY, 1)]);
        assert!((count, buckets.len()) == (&5, 15) && (7.9..8.1).contains(sum_s), "{samples:?}");
        assert_eq!(samples[0].labels, [("to", Cow::from("write"))]);
    }
}
