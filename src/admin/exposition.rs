//! The metrics in OpenMetrics text, by `prometheus-client`, from what shards and source show at the moment of a scrape.

use super::View;
use crate::metrics::{DropReason, EndReason, ShardCounters, latency_histogram};
use crate::shard::Shared;
use hdrhistogram::Histogram;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use std::fmt;

/// What the text is.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Upper bounds of the buckets of a duration, in seconds.
const BUCKETS_S: [f64; 14] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

/// All metrics as text.
///
/// # Errors
/// None that is known: the text is written into memory.
pub fn expose(view: &View) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Scrape::take(view)));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

/// Everything, as it was at the moment of a scrape.
#[derive(Debug)]
struct Scrape {
    all: ShardCounters,
    shards: Vec<ShardCounters>,
    latency: Histogram<u64>,
    pong_ages: Histogram<u64>,
    turns: Histogram<u64>,
    source: crate::metrics::SourceCounters,
}

impl Scrape {
    fn take(view: &View) -> Self {
        let shards: Vec<_> = view.shards.iter().map(|shard| shard.counters()).collect();
        let mut sums = [0; ShardCounters::LEN];
        for counters in &shards {
            sums.iter_mut().zip(counters.values()).for_each(|(sum, value)| *sum += value);
        }
        Self {
            all: ShardCounters::from_values(&sums),
            latency: merge(&view.shards, |shard| shard.latency.read()),
            pong_ages: merge(&view.shards, |shard| shard.pong_ages.read()),
            turns: merge(&view.shards, |shard| shard.turns.read()),
            source: view.source.status().counters,
            shards,
        }
    }
}

fn merge(shards: &[std::sync::Arc<Shared>], read: impl Fn(&Shared) -> Histogram<u64>) -> Histogram<u64> {
    shards.iter().fold(latency_histogram(), |mut all, shard| {
        all.add(read(shard)).expect("all histograms have the same bounds");
        all
    })
}

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut text = Text(encoder);
        let all = &self.all;
        text.gauge(
            "ws_connections_active",
            "Connections that occupy a slot now, whatever their state.",
            all.connections,
        )?;
        text.gauge("ws_connections_max", "Connections that the shards can hold.", all.connections_max)?;
        text.gauge("ws_websockets_active", "WebSockets that are open now.", all.websockets)?;
        text.counter("ws_connections_accepted", "Connections accepted.", all.accepted)?;
        let ended = EndReason::ALL.iter().map(|reason| (reason.label(), all.ended[*reason as usize]));
        text.by_reason("ws_connections_terminated", "Connections ended, by reason.", ended)?;
        text.counter("ws_accept_errors", "Accepts that failed; each lost a connection.", all.accept_errors)?;
        let due = "Updates owed to a socket: one for each subscriber at the time of the fan-out.";
        text.counter("ws_messages_due", due, all.due)?;
        text.counter("ws_messages_delivered", "Updates written whole to a socket.", all.delivered)?;
        let dropped = DropReason::ALL.iter().map(|reason| (reason.label(), all.dropped[*reason as usize]));
        text.by_reason("ws_messages_dropped", "Updates that did not reach a subscriber, by reason.", dropped)?;
        let conflated = "Updates that a newer one of the same key replaced before they were written.";
        text.counter("ws_messages_conflated", conflated, all.conflated)?;
        let slow = all.ended[EndReason::SlowConsumer as usize];
        text.counter("ws_slow_consumers_closed", "Connections closed because they were too slow.", slow)?;
        text.gauge("ws_sockets_behind", "Sockets that do not keep up now.", all.behind)?;
        text.counter("ws_messages_received", "Messages received from clients.", all.received)?;
        text.gauge(
            "ws_outbox_messages",
            "Updates that wait now: in outboxes, on their way to the kernel, or held back by max_rate.",
            all.outbox_messages,
        )?;
        let memory = "Memory of what waits now, for slow sockets or for max_rate: an update that waits for many counts once \
                      a shard.";
        text.gauge("ws_outbox_bytes", memory, all.outbox_bytes)?;
        text.counter(
            "ws_updates_released_early",
            "Updates that passed before max_rate let them, because too much was held back.",
            all.released_early,
        )?;
        text.gauge("ws_partial_bytes", "Bytes of unfinished requests and frames now.", all.partial_bytes)?;
        text.counter(
            "ws_polls_rearmed",
            "Watches that the kernel ended and that were armed again.",
            all.polls_rearmed,
        )?;
        text.seconds(
            "ws_message_latency_seconds",
            "Time from an update's arrival to its write, for each delivery.",
            &self.latency,
        )?;
        text.staleness(&self.latency, &self.pong_ages)?;
        text.seconds("ws_turn_seconds", "Length of the shards' turns (the event loop lag).", &self.turns)?;
        let turns = self.shards.iter().map(|shard| shard.turns);
        text.by_shard("ws_turns", "Turns that a shard has taken.", MetricType::Counter, turns)?;
        let depths = self.shards.iter().map(|shard| shard.inbox_depth);
        text.by_shard("ws_inbox_depth", "Messages in a shard's inbox after its last turn.", MetricType::Gauge, depths)?;
        let connections = self.shards.iter().map(|shard| shard.connections);
        text.by_shard("ws_shard_connections", "Connections of a shard now.", MetricType::Gauge, connections)?;
        let source = &self.source;
        text.gauge(
            "ws_source_connected",
            "Whether updates can come from the source (1) or not (0).",
            source.connected,
        )?;
        text.counter("ws_source_lost", "Times that the source was lost.", source.lost)?;
        text.counter("ws_updates_received", "Updates received by the source.", source.received)?;
        text.counter("ws_updates_too_large", "Updates dropped because they were over the limit.", source.too_large)?;
        text.counter("ws_updates_offered", "Updates offered to a shard's inbox.", source.offered)?;
        text.counter(
            "ws_updates_conflated",
            "Updates that a newer one of their key replaced while an inbox was full.",
            source.conflated,
        )?;
        text.counter(
            "ws_updates_overrun",
            "Updates dropped because too much waited for a full inbox; their channels began new epochs.",
            source.overrun,
        )?;
        text.gauge("ws_channels_wanted", "Channels that clients want now.", source.channels_wanted)?;
        text.gauge(
            "ws_channels_confirmed",
            "Channels that are subscribed at the source now.",
            source.channels_confirmed,
        )?;
        text.counter(
            "ws_publish_errors",
            "Publishes by clients and the publish API that failed.",
            source.publish_errors,
        )
    }
}

/// Writes one metric after the other.
struct Text<'a>(DescriptorEncoder<'a>);

impl Text<'_> {
    fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.0.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        metric.encode_counter::<NoLabelSet, _, u64>(&value, None)
    }

    fn by_reason(&mut self, name: &str, help: &str, values: impl Iterator<Item = (&'static str, u64)>) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (reason, value) in values {
            metric.encode_family(&[("reason", reason)])?.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
        }
        Ok(())
    }

    fn by_shard(&mut self, name: &str, help: &str, kind: MetricType, values: impl Iterator<Item = u64>) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, kind)?;
        for (shard, value) in values.enumerate() {
            let label = [("shard", shard.to_string())];
            let mut metric = metric.encode_family(&label)?;
            match kind {
                MetricType::Counter => metric.encode_counter::<NoLabelSet, _, u64>(&value, None)?,
                _ => metric.encode_gauge(&value)?,
            }
        }
        Ok(())
    }

    /// A histogram of microseconds, in seconds.
    fn seconds(&mut self, name: &str, help: &str, values: &Histogram<u64>) -> fmt::Result {
        let (sum, buckets) = buckets(values);
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Histogram)?;
        metric.encode_histogram::<NoLabelSet>(sum, values.len(), &buckets, None)
    }

    /// How old updates are: when they are written, and when a client that is behind has read them.
    fn staleness(&mut self, written: &Histogram<u64>, read: &Histogram<u64>) -> fmt::Result {
        let help = "Age of updates since their arrival: when written (to write), and when the pong of a socket that is \
                    behind says that they were read (to pong).";
        let mut metric = self.0.encode_descriptor("ws_staleness_seconds", help, None, MetricType::Histogram)?;
        for (to, values) in [("write", written), ("pong", read)] {
            let (sum, buckets) = buckets(values);
            let label = [("to", to)];
            metric.encode_family(&label)?.encode_histogram::<NoLabelSet>(sum, values.len(), &buckets, None)?;
        }
        Ok(())
    }
}

/// The sum of a histogram of microseconds, in seconds, and its counts between the bounds.
fn buckets(values: &Histogram<u64>) -> (f64, Vec<(f64, u64)>) {
    let mut below = 0;
    let mut buckets: Vec<_> = BUCKETS_S
        .iter()
        .map(|bound| {
            let up_to = values.iter_recorded().take_while(|at| at.value_iterated_to() as f64 <= bound * 1e6);
            let count: u64 = up_to.map(|at| at.count_at_value()).sum();
            (*bound, count - std::mem::replace(&mut below, count))
        })
        .collect();
    buckets.push((f64::INFINITY, values.len() - below));
    let weights = values.iter_recorded().map(|at| at.value_iterated_to() as f64 * at.count_at_value() as f64);
    (weights.fold(0.0, |sum, part| sum + part) / 1e6, buckets)
}
