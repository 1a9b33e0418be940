//! What clients count, and how it travels from their processes to the report.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Longest latency that is told apart: two minutes, in microseconds.
const LATENCY_MAX_US: u64 = 120_000_000;

/// Latencies in microseconds, to three digits.
#[derive(Clone, Debug)]
pub struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Self {
        Self(Histogram::new_with_bounds(1, LATENCY_MAX_US, 3).expect("1 to two minutes at 3 digits is a valid range"))
    }
}

impl Latencies {
    /// Records one; what is over two minutes counts as two minutes.
    #[inline]
    pub fn record(&mut self, us: u64) {
        self.0.saturating_record(us.max(1));
    }

    /// The latency that `quantile` (0 to 1) of all are at most, in microseconds; 0 if there is none.
    pub fn at(&self, quantile: f64) -> u64 {
        self.0.value_at_quantile(quantile)
    }

    /// The largest, in microseconds.
    pub fn max(&self) -> u64 {
        self.0.max()
    }

    /// How many.
    pub fn len(&self) -> u64 {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes in another's.
    pub fn add(&mut self, other: &Self) {
        self.0.add(&other.0).expect("all have the same bounds");
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.0.reset();
    }
}

/// Value and count of each bucket that is not empty.
impl Serialize for Latencies {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter_recorded().map(|step| (step.value_iterated_to(), step.count_at_value())))
    }
}

impl<'de> Deserialize<'de> for Latencies {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut all = Self::default();
        for (value, count) in Vec::<(u64, u64)>::deserialize(deserializer)? {
            all.0.saturating_record_n(value, count);
        }
        Ok(all)
    }
}

/// What the clients of one kind counted, since the start of the run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct KindTally {
    /// Sockets of this kind that are WebSockets now.
    pub open: u64,
    /// Updates received.
    pub received: u64,
    /// Bytes received, frames and all.
    pub bytes: u64,
    /// Updates that a client did not get between two that it got: lost, or skipped by conflation.
    pub skipped: u64,
    /// Goals among them: never allowed.
    pub goals_skipped: u64,
    /// Goals received.
    pub goals: u64,
    /// Updates that had not come at the end, the quiet time after the last update included.
    pub missing_at_end: u64,
    /// Goals among them.
    pub goals_missing_at_end: u64,
    /// Updates with a number not above the one before of the same stream.
    pub disordered: u64,
    /// Frames or payloads that RFC 6455 or their own form does not allow.
    pub torn: u64,
    /// Messages that are no update and no expected notice.
    pub wrong: u64,
    /// Pings answered.
    pub pings: u64,
    /// Connections that ended without this side having asked for it.
    pub ended: u64,
    /// Of these, those that ended while a frame was unfinished.
    pub cut_in_frame: u64,
    /// Connections opened again after one had ended.
    pub reopened: u64,
    /// Age of each update when it was received, from the time it was due, in microseconds.
    pub age_us: Latencies,
    /// From the moment a client read again after a pause to the first update due after that moment, in microseconds.
    pub resume_us: Latencies,
    /// Bytes that such clients read before.
    pub stale_bytes: u64,
    /// Updates that such clients read before.
    pub stale_updates: u64,
}

/// What one process of clients counted.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Tally {
    /// By kind, in the order of `Kind::ALL`.
    pub kinds: Vec<KindTally>,
    /// Connections that did not come about, by reason.
    pub failed: BTreeMap<String, u64>,
    /// Handshakes refused, by HTTP status.
    pub refused: BTreeMap<u16, u64>,
    /// Ends by their cause: a close code, `reset`, `fin`.
    pub closes: BTreeMap<String, u64>,
    /// Delays that the server told clients to wait, in milliseconds.
    pub retry_ms: Latencies,
    /// From the first step of a connection to its 101, in microseconds.
    pub handshake_us: Latencies,
    /// Closes of ours that the server did not answer in time.
    pub close_unanswered: u64,
}

impl Tally {
    /// WebSockets that are open now.
    pub fn open(&self) -> u64 {
        self.kinds.iter().map(|kind| kind.open).sum()
    }

    /// Updates received by all kinds.
    pub fn received(&self) -> u64 {
        self.kinds.iter().map(|kind| kind.received).sum()
    }

    /// Takes in what another process counted.
    pub fn add(&mut self, other: &Self) {
        self.kinds.resize_with(self.kinds.len().max(other.kinds.len()), KindTally::default);
        for (mine, theirs) in self.kinds.iter_mut().zip(&other.kinds) {
            mine.add(theirs);
        }
        other.failed.iter().for_each(|(name, count)| *self.failed.entry(name.clone()).or_default() += count);
        other.refused.iter().for_each(|(name, count)| *self.refused.entry(*name).or_default() += count);
        other.closes.iter().for_each(|(name, count)| *self.closes.entry(name.clone()).or_default() += count);
        self.retry_ms.add(&other.retry_ms);
        self.handshake_us.add(&other.handshake_us);
        self.close_unanswered += other.close_unanswered;
    }
}

impl KindTally {
    fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.counters().into_iter().zip(other.clone().counters()) {
            *mine += *theirs;
        }
        self.age_us.add(&other.age_us);
        self.resume_us.add(&other.resume_us);
    }

    fn counters(&mut self) -> [&mut u64; 17] {
        [
            &mut self.open,
            &mut self.received,
            &mut self.bytes,
            &mut self.skipped,
            &mut self.goals_skipped,
            &mut self.goals,
            &mut self.missing_at_end,
            &mut self.goals_missing_at_end,
            &mut self.disordered,
            &mut self.torn,
            &mut self.wrong,
            &mut self.pings,
            &mut self.ended,
            &mut self.cut_in_frame,
            &mut self.reopened,
            &mut self.stale_bytes,
            &mut self.stale_updates,
        ]
    }
}

/// What is seen of clients while they live.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Seen {
    /// WebSockets open now.
    pub open: u64,
    /// Updates received so far.
    pub received: u64,
    /// Connections that failed or were refused so far.
    pub unlucky: u64,
    /// Connections of readers that ended so far.
    pub ended: u64,
    /// Median age of updates at fast readers in the last second, in microseconds.
    pub p50_us: u64,
    /// The same, 99 of 100.
    pub p99_us: u64,
    /// The same, the largest.
    pub max_us: u64,
    /// Median age of updates at all other readers in the last second, in microseconds.
    pub slow_p50_us: u64,
    /// The same, 99 of 100.
    pub slow_p99_us: u64,
}

/// A line that a process of clients says, once a second and when it is asked.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// The order that this answers, by number; 0 for none.
    pub answers: u64,
    /// What was seen up to now.
    pub seen: Seen,
    /// All that was counted, where it was asked for.
    pub tally: Option<Tally>,
}

impl Seen {
    /// Of these and others together: sums, and the worst age.
    pub fn and(&self, other: &Self) -> Self {
        Self {
            open: self.open + other.open,
            received: self.received + other.received,
            unlucky: self.unlucky + other.unlucky,
            ended: self.ended + other.ended,
            p50_us: self.p50_us.max(other.p50_us),
            p99_us: self.p99_us.max(other.p99_us),
            max_us: self.max_us.max(other.max_us),
            slow_p50_us: self.slow_p50_us.max(other.slow_p50_us),
            slow_p99_us: self.slow_p99_us.max(other.slow_p99_us),
        }
    }
}
