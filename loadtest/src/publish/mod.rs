//! The publisher: updates leave when they are due, whoever has received what. A payload carries the time at which it was
//! due, so that a publisher that is late makes the measured ages longer, never shorter.

mod http;
mod redis;
mod schedule;

pub use schedule::{Due, Schedule};

use crate::payload::Payload;
use crate::scenario::Scenario;
use crate::sys::now_ns;
use anyhow::Context;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::Duration;

/// Updates that are handed over at a time, at most.
const BATCH: usize = 512;
/// Longest sleep: how soon a stop is seen.
const NAP: Duration = Duration::from_millis(20);

/// How updates get to the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Via {
    /// Redis PUBLISH, to this address.
    Redis(String),
    /// POST, to this URL with `{channel}`.
    Http(String),
}

/// One way to publish.
trait Outlet: Send {
    /// Publishes all; done when the broker (not a receiver) has taken them.
    fn publish(&mut self, updates: &[(String, Vec<u8>)]) -> anyhow::Result<()>;
}

/// What was published.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Published {
    /// Updates.
    pub updates: u64,
    /// Last number of each stream, by channel and stream.
    pub last: Vec<u32>,
    /// The longest that an update was handed over after it was due, in microseconds.
    pub late_max_us: u64,
}

/// A publisher at work.
pub struct Publisher {
    thread: Option<JoinHandle<anyhow::Result<Published>>>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    updates: AtomicU64,
}

impl Publisher {
    /// Begins to publish what a scenario says.
    ///
    /// # Errors
    /// Whoever is to be published to cannot be reached.
    pub fn start(scenario: &Scenario, via: &Via) -> anyhow::Result<Self> {
        let mut outlet: Box<dyn Outlet> = match via {
            Via::Redis(url) => Box::new(redis::Redis::connect(url)?),
            Via::Http(url) => Box::new(http::Post::to(url)?),
        };
        let (shared, prefix) = (Arc::new(Shared::default()), scenario.channel_prefix.clone());
        let schedule = Schedule::new(scenario, now_ns());
        let seen = Arc::clone(&shared);
        let work = move || run(schedule, outlet.as_mut(), &prefix, &seen);
        let thread = std::thread::Builder::new().name("publisher".into()).spawn(work)?;
        Ok(Self { thread: Some(thread), shared })
    }

    /// Updates so far.
    pub fn updates(&self) -> u64 {
        self.shared.updates.load(Ordering::Relaxed)
    }

    /// Whether it has ended before it was stopped: publishing failed.
    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Stops, and says what was published.
    ///
    /// # Errors
    /// Publishing failed.
    pub fn stop(mut self) -> anyhow::Result<Published> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("a publisher is stopped once")?;
        thread.join().map_err(|_| anyhow::anyhow!("the publisher panicked"))?.context("publishing failed")
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

fn run(mut schedule: Schedule, outlet: &mut dyn Outlet, prefix: &str, shared: &Shared) -> anyhow::Result<Published> {
    let (mut late_max_us, mut batch) = (0, Vec::new());
    while !shared.stop.load(Ordering::Relaxed) {
        let now = now_ns();
        let mut next = schedule.peek();
        while next.due_ns <= now && batch.len() < BATCH {
            late_max_us = late_max_us.max((now - next.due_ns) / 1000);
            let mut payload = Vec::with_capacity(next.bytes);
            next.payload().write(next.bytes, &mut payload);
            schedule.take(&next);
            batch.push((format!("{prefix}{}", next.channel), payload));
            next = schedule.peek();
        }
        if batch.is_empty() {
            sleep(Duration::from_nanos(next.due_ns - now).min(NAP));
            continue;
        }
        outlet.publish(&batch)?;
        shared.updates.fetch_add(batch.len() as u64, Ordering::Relaxed);
        batch.clear();
    }
    Ok(Published { updates: schedule.updates(), last: schedule.last().to_vec(), late_max_us })
}

impl Due {
    /// What is published.
    pub fn payload(&self) -> Payload {
        Payload { n: self.n, due_ns: self.due_ns, channel: self.channel, key: self.key, goal: self.goal }
    }
}
