//! What a scrape cannot look at itself: how it was a minute ago, and what the kernel holds for our sockets. A thread of
//! its own looks, at its own pace, and costs the shards nothing.
//!
//! Invariant: listing the sockets takes at most [`SHARE`] of a core, however many there are: then it takes longer. It is done
//! in pieces, and each is a sign of life.

use crate::lifecycle::{Clock, SIGN_EVERY, Signs};
use crate::metrics::{Recorded, Window};
use crate::shard::Shared;
use crate::sys::{Queues, SockDiag, Sockets};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What "the last minute" is in the metrics, and the steps in which it moves.
const MINUTE: Duration = Duration::from_secs(60);
const STEP: Duration = Duration::from_secs(5);
/// Time from one listing of the kernel's sockets to the next, at least.
const LIST_EVERY: Duration = Duration::from_secs(5);
/// After a piece of work this thread rests for so many times as long: it takes one part in fifty, 2 % of a core.
const SHARE: u32 = 49;

/// What the thread has seen.
#[derive(Debug)]
pub struct Recent {
    moments: Mutex<Window<Moment>>,
    kernel: Mutex<Option<Kernel>>,
    signs: Signs,
}

/// What only grows, at one moment.
#[derive(Clone, Debug, Default)]
pub struct Moment {
    /// Updates owed to sockets, of all shards.
    pub due: u64,
    /// Updates written whole, of all shards.
    pub delivered: u64,
    /// Lengths of turns in microseconds, by shard.
    pub turns: Vec<Recorded>,
}

/// What the kernel's queues held.
#[derive(Clone, Copy, Debug)]
pub struct Kernel {
    /// When the listing was complete, in microseconds of the process's clock.
    pub taken_us: u64,
    /// The sockets that listen.
    pub listening: Queues,
    /// Those of clients.
    pub connected: Queues,
}

impl Recent {
    /// Starts the thread; `listening` says which sockets are ours.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn watch(clock: Clock, shards: &Arc<[Arc<Shared>]>, listening: &[SocketAddr]) -> io::Result<Arc<Self>> {
        let mut moments = Window::new(MINUTE.as_micros() as u64, STEP.as_micros() as u64);
        let now_us = clock.now_us();
        moments.push(now_us, Moment { turns: vec![Recorded::default(); shards.len()], ..Moment::default() });
        let recent =
            Arc::new(Self { moments: Mutex::new(moments), kernel: Mutex::new(None), signs: Signs::new(now_us) });
        let mut ports: Vec<_> = listening.iter().map(|address| (address.port(), address.is_ipv6())).collect();
        ports.sort_unstable();
        ports.dedup();
        let watcher = Watcher { clock, shards: Arc::clone(shards), ports, recent: Arc::clone(&recent) };
        std::thread::Builder::new().name("watcher".into()).spawn(move || watcher.run())?;
        Ok(recent)
    }

    /// The thread's signs of life.
    pub fn signs(&self) -> &Signs {
        &self.signs
    }

    /// How it was when the last minute began.
    pub fn begin(&self, now_us: u64) -> Moment {
        lock(&self.moments).begin(now_us).cloned().unwrap_or_default()
    }

    /// What the kernel's queues held when they were listed last; `None` before the first time, and where the kernel
    /// does not tell.
    pub fn kernel(&self) -> Option<Kernel> {
        *lock(&self.kernel)
    }
}

impl Moment {
    /// How it is now.
    pub fn now(shards: &[Arc<Shared>]) -> Self {
        let mut moment = Self::default();
        for shard in shards {
            let counters = shard.counters();
            moment.due += counters.due;
            moment.delivered += counters.delivered;
            moment.turns.push(Recorded::of(&shard.turns.read()));
        }
        moment
    }
}

/// The thread's own.
struct Watcher {
    clock: Clock,
    shards: Arc<[Arc<Shared>]>,
    /// Ports that are listened on, and whether by IPv6.
    ports: Vec<(u16, bool)>,
    recent: Arc<Recent>,
}

impl Watcher {
    fn run(self) {
        let mut told = false;
        loop {
            let began = Instant::now();
            let kernel = self.list();
            if let Err(error) = &kernel
                && !std::mem::replace(&mut told, true)
            {
                tracing::warn!(%error, "the kernel does not list sockets (sock_diag): metrics of its queues are missing");
            }
            *lock(&self.recent.kernel) = kernel.ok();
            self.rest(LIST_EVERY.saturating_sub(began.elapsed()));
        }
    }

    fn list(&self) -> io::Result<Kernel> {
        let mut diag = SockDiag::open()?;
        let listening = self.add_up(&mut diag, Sockets::Listening)?;
        let connected = self.add_up(&mut diag, Sockets::Connected)?;
        Ok(Kernel { taken_us: self.clock.now_us(), listening, connected })
    }

    fn add_up(&self, diag: &mut SockDiag, sockets: Sockets) -> io::Result<Queues> {
        let mut queues = Queues::default();
        for &(port, v6) in &self.ports {
            diag.ask(port, v6, sockets)?;
            let mut more = true;
            while more {
                let began = Instant::now();
                more = diag.read(&mut queues)?;
                self.rest(began.elapsed() * SHARE);
            }
        }
        Ok(queues)
    }

    /// Sleeps, but for the moments that are due meanwhile, and for signs of life.
    fn rest(&self, pause: Duration) {
        let until_us = self.clock.now_us() + pause.as_micros() as u64;
        loop {
            let mut now_us = self.clock.now_us();
            self.recent.signs.give(now_us);
            let due_us = lock(&self.recent.moments).due_us();
            if now_us >= due_us {
                let moment = Moment::now(&self.shards);
                lock(&self.recent.moments).push(now_us, moment);
                now_us = self.clock.now_us();
            }
            if now_us >= until_us {
                return;
            }
            let pause = Duration::from_micros(until_us.min(due_us.max(now_us + 1)) - now_us);
            std::thread::sleep(pause.min(SIGN_EVERY));
        }
    }
}

/// Whoever panicked while it held the lock ends the process anyway.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
