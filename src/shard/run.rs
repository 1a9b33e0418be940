//! A shard on its core: a pinned glommio executor that takes turns, and sleeps on the shard's doorbell between them.

use super::{Parts, Shard};
use crate::ids::ShardId;
use crate::lifecycle::{Clock, Moderation};
use crate::metrics::{Board, HistogramBoard, ShardCounters, latency_histogram};
use crate::sys::{self, Doorbell, UringSet, bell_file};
use crossbeam_channel::Sender;
use glommio::{LocalExecutorBuilder, Placement};
use hdrhistogram::Histogram;
use std::io;
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Memory that glommio registers for its own file IO, of which a shard does none; glommio's floor is 64 KiB.
const GLOMMIO_IO_BYTES: usize = 64 << 10;
/// How often the histograms are shown to scrapes, in microseconds; the counters are shown every turn.
const SHOW_HISTOGRAMS_US: u64 = 500_000;

/// WebSockets from which on a shard dozes: fewer do not wake it all the time unless they want their answers at once.
const DOZES_FROM: u64 = 1_000;

/// What others see of a shard, and how they call it.
pub struct Shared {
    counters: Board<{ ShardCounters::LEN }>,
    /// Publish-to-write times, in microseconds.
    pub latency: HistogramBoard,
    /// Publish-to-pong times of writes to sockets that were behind, in microseconds.
    pub pong_ages: HistogramBoard,
    /// Lengths of turns, in microseconds.
    pub turns: HistogramBoard,
    leaving: AtomicBool,
    /// Rung by whoever has something for the shard.
    pub bell: Doorbell,
}

/// How a shard's thread has ended: well only after [`Shared::leave`].
#[derive(Debug)]
pub struct ShardEnd {
    /// Which.
    pub shard: ShardId,
    /// How.
    pub result: io::Result<()>,
}

/// What a shard's thread needs.
pub struct Seat {
    /// The core it is pinned to; none: it floats.
    pub core: Option<usize>,
    /// Rings, and the slots of each.
    pub rings: usize,
    /// See `rings`.
    pub table: u32,
    /// Completions that a ring holds at most (see `sys::completions_max`).
    pub completions_max: u32,
    /// This shard's own listeners.
    pub listeners: Vec<TcpListener>,
    /// The process's clock.
    pub clock: Clock,
    /// What others see.
    pub shared: Arc<Shared>,
    /// Where the end of the thread is told.
    pub ends: Sender<ShardEnd>,
}

/// Tells how the thread ended, also where it panicked, and where the executor never came to run it: glommio makes its
/// rings on the thread itself, and tells what they lack only to whoever joins it.
struct Farewell {
    ends: Sender<ShardEnd>,
    began: bool,
    end: Option<ShardEnd>,
    shard: ShardId,
}

impl Drop for Farewell {
    fn drop(&mut self) {
        let why = if self.began { "it panicked" } else { "its executor lacks descriptors or locked memory" };
        let early = || ShardEnd { shard: self.shard, result: Err(io::Error::other(why)) };
        // Whoever no longer listens has ended too.
        let _ = self.ends.send(self.end.take().unwrap_or_else(early));
    }
}

impl Shared {
    /// Nothing counted yet.
    pub fn new(bell: Doorbell) -> Self {
        Self {
            counters: Board::default(),
            latency: HistogramBoard::default(),
            pong_ages: HistogramBoard::default(),
            turns: HistogramBoard::default(),
            leaving: AtomicBool::new(false),
            bell,
        }
    }

    /// The counters of one moment.
    pub fn counters(&self) -> ShardCounters {
        ShardCounters::from_values(&self.counters.read())
    }

    /// Asks the shard to leave: its thread ends when nobody is connected any more.
    pub fn leave(&self) {
        self.leaving.store(true, Ordering::SeqCst);
        self.bell.ring_anyway();
    }

    fn leaving(&self) -> bool {
        self.leaving.load(Ordering::SeqCst)
    }
}

/// Starts a shard's thread; its end is told on `seat.ends`.
///
/// # Errors
/// The executor cannot be made (memlock, no such core).
pub fn run(seat: Seat, parts: Parts) -> io::Result<()> {
    let shard = parts.id;
    let farewell = Farewell { ends: seat.ends.clone(), began: false, end: None, shard };
    LocalExecutorBuilder::new(seat.core.map_or(Placement::Unbound, Placement::Fixed))
        .name(&format!("shard-{}", shard.0))
        .io_memory(GLOMMIO_IO_BYTES)
        .spawn(move || async move {
            let mut farewell = farewell; // whole, not the fields that are set
            farewell.began = true;
            let Seat { rings, table, completions_max, listeners, clock, shared, .. } = seat;
            let bell = shared.bell.as_raw_fd();
            let result = match UringSet::with_completions(rings, table, completions_max, listeners, bell) {
                Ok(ring) => drive(Shard::new(ring, parts), clock, &shared).await,
                Err(error) => Err(sys::explain_ring(error)),
            };
            farewell.end = Some(ShardEnd { shard, result });
        })
        .map(drop) // the thread goes on; its end is told by its farewell
        .map_err(|error| io::Error::other(format!("the executor of shard {} cannot start: {error}", shard.0)))
}

async fn drive(mut shard: Shard<UringSet>, clock: Clock, shared: &Shared) -> io::Result<()> {
    let bell = bell_file(&shared.bell)?;
    let mut turns = latency_histogram();
    let mut shown_us = 0;
    let mut moderation = Moderation::default();
    let mut dozed = false;
    loop {
        if shared.leaving() {
            shard.leave();
        }
        let began_us = clock.now_us();
        let more = shard.turn(began_us)?;
        let now_us = clock.now_us();
        turns.saturating_record(now_us - began_us);
        shard.took(now_us - began_us);
        shared.counters.publish(&shard.counters().values());
        if now_us - shown_us >= SHOW_HISTOGRAMS_US {
            show(&mut shown_us, now_us, shared, &shard, &turns);
        }
        if shard.has_left() {
            show(&mut shown_us, now_us, shared, &shard, &turns);
            return Ok(());
        }
        if more {
            glommio::yield_if_needed().await;
            continue;
        }
        // Sleep is announced first, then everything is looked at once more: whoever comes later sees the announcement.
        shared.bell.asleep();
        let leave = shared.leaving() && !shard.is_leaving();
        let idle = shard.ring_mut().may_sleep() && !shard.has_mail() && !leave;
        let crowded = shard.counters().websockets >= DOZES_FROM;
        if idle && crowded && moderation.is_busy() && !std::mem::replace(&mut dozed, true) {
            // What comes until then is found without being rung for.
            shared.bell.awake();
            shard.ring_mut().awake();
            glommio::timer::sleep(Moderation::DOZE).await;
            continue;
        }
        if idle {
            let sleeps_us = clock.now_us();
            bell.read_at(0, size_of::<u64>()).await.map_err(|error| io::Error::other(format!("the bell: {error}")))?;
            moderation.slept(sleeps_us, clock.now_us());
            dozed = false;
        }
        shared.bell.awake();
        shard.ring_mut().awake();
    }
}

fn show(shown_us: &mut u64, now_us: u64, shared: &Shared, shard: &Shard<UringSet>, turns: &Histogram<u64>) {
    *shown_us = now_us;
    shared.latency.publish(shard.latency());
    shared.pong_ages.publish(shard.pong_ages());
    shared.turns.publish(turns);
}
