//! All clients of a process: completions in, requests out.

use super::client::{Client, Ending, Phase, Reading, flag};
use super::frame;
use super::job::{Job, Kind, Order, What};
use super::timers::Timers;
use crate::parent::say;
use crate::sys::{BUFFER_BYTES, Event, Rings, nofile_raised, now_ns};
use crate::tally::{KindTally, Latencies, Report, Seen, Tally};
use anyhow::Context;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Duration;

/// Slots of a ring's table: what RLIMIT_NOFILE allows, but not so many that one fan-out overflows the completion queue.
const TABLE_MAX: u32 = 19_000;
const REPORT_EVERY_MS: u64 = 1000;
/// While clients connect.
const CONNECTING_EVERY_MS: u64 = 100;

/// See the module.
pub struct Swarm {
    pub(super) job: Job,
    pub(super) rings: Rings,
    pub(super) clients: Vec<Client>,
    pub(super) timers: Timers,
    /// Those that are to connect.
    pub(super) outside: VecDeque<u32>,
    /// Those whose handshake is under way.
    pub(super) opening: u32,
    /// Those that have something to read.
    ready: VecDeque<u32>,
    pub(super) tally: Tally,
    /// Ages since the last report: at fast readers, at all others.
    intervals: [Latencies; 2],
    replies: Vec<u8>,
    pub(super) next_source: u64,
    epoch_ns: u64,
    now_ns: u64,
    reported_ms: u64,
    pub(super) connects_allowed: f64,
    pub(super) churn_owed: f64,
    pub(super) paced_ms: u64,
    /// Updates flow: whoever opens from now on is late.
    pub(super) begun: bool,
    measure: bool,
    pub(super) resumed: bool,
    pub(super) finished: bool,
}

impl Swarm {
    /// All clients, none of them connected.
    ///
    /// # Errors
    /// io_uring is refused.
    pub fn new(job: Job) -> anyhow::Result<Self> {
        let table = nofile_raised().saturating_sub(64).min(TABLE_MAX);
        let rings = Rings::new(job.sockets, table).context(
            "io_uring is refused to the clients; set sysctl kernel.io_uring_disabled=0 (Linux 6.11 or newer is needed)",
        )?;
        let client = |i: u32| {
            let global = job.first + u64::from(i);
            Client::new((global % u64::from(job.channels)) as u32, job.mix.kind(global))
        };
        let clients: Vec<_> = (0..job.sockets).map(client).collect();
        let tally = Tally { kinds: vec![KindTally::default(); Kind::ALL.len()], ..Tally::default() };
        Ok(Self {
            rings,
            clients,
            timers: Timers::default(),
            outside: (0..job.sockets).collect(),
            opening: 0,
            ready: VecDeque::new(),
            tally,
            intervals: Default::default(),
            replies: Vec::new(),
            next_source: fastrand::u64(0..1 << 40),
            epoch_ns: now_ns(),
            now_ns: now_ns(),
            reported_ms: 0,
            connects_allowed: 0.0,
            churn_owed: 0.0,
            paced_ms: 0,
            begun: false,
            measure: false,
            resumed: false,
            finished: false,
            job,
        })
    }

    /// Whoever writes to it wakes the swarm.
    ///
    /// # Errors
    /// No descriptor is free.
    pub fn bell(&self) -> io::Result<File> {
        self.rings.bell()
    }

    /// Lives until there are no more orders to come.
    ///
    /// # Errors
    /// A ring is broken, or nobody hears the reports.
    pub fn live(mut self, orders: &Receiver<Order>) -> anyhow::Result<()> {
        loop {
            self.rings.submit()?;
            self.now_ns = now_ns();
            let mut quiet = true;
            while let Some(event) = self.rings.next() {
                quiet = false;
                self.on(event);
            }
            self.run_timers();
            self.pace();
            self.connect_more();
            self.read_more();
            loop {
                match orders.try_recv() {
                    Ok(order) => self.obey(order)?,
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return Ok(()),
                }
            }
            let every_ms = if self.begun { REPORT_EVERY_MS } else { CONNECTING_EVERY_MS };
            if self.now_ms() >= self.reported_ms + every_ms {
                self.reported_ms = self.now_ms();
                self.report(0, false)?;
            }
            if quiet && self.ready.is_empty() {
                let pause_ms = self.timers.pause_ms(self.now_ms()).unwrap_or(20).min(20);
                self.rings.sleep(Duration::from_millis(pause_ms));
            }
        }
    }

    /// Milliseconds since the start.
    pub(super) fn now_ms(&self) -> u64 {
        (self.now_ns - self.epoch_ns) / 1_000_000
    }

    fn obey(&mut self, Order { number, what }: Order) -> anyhow::Result<()> {
        match what {
            What::Begin => self.begun = true,
            What::Measure => self.measure = true,
            What::Resume => self.resume(),
            What::Herd(fraction) => self.herd(fraction),
            What::Finish(last) => {
                self.finish(&last);
                return Ok(self.report(number, true)?);
            }
        }
        Ok(self.report(number, false)?)
    }

    fn report(&mut self, answers: u64, whole: bool) -> io::Result<()> {
        let [fast, slow] = &mut self.intervals;
        let seen = Seen {
            open: self.tally.open(),
            received: self.tally.received(),
            unlucky: self.tally.failed.values().sum::<u64>() + self.tally.refused.values().sum::<u64>(),
            ended: self.tally.kinds.iter().map(|kind| kind.ended).sum(),
            p50_us: fast.at(0.5),
            p99_us: fast.at(0.99),
            max_us: fast.max(),
            slow_p50_us: slow.at(0.5),
            slow_p99_us: slow.at(0.99),
        };
        fast.clear();
        slow.clear();
        say(&Report { answers, seen, tally: whole.then(|| self.tally.clone()) })
    }

    fn on(&mut self, event: Event) {
        match event {
            Event::Opened { client, result } => self.opened(client, result),
            Event::Readable { client, result, more } => self.readable(client, result, more),
            Event::Received { client, result, buffer } => self.received(client, result, buffer),
            Event::Sent { client, result } => self.sent(client, result),
            Event::Cancelled { client } | Event::Closed { client } => self.disarmed(client),
        }
    }

    fn readable(&mut self, at: u32, result: i32, more: bool) {
        let client = &mut self.clients[at as usize];
        if !more {
            client.armed -= 1;
            if client.phase == Phase::Closing {
                return self.gone_if_disarmed(at);
            }
            client.armed += 1;
            self.rings.watch(at);
        }
        let client = &mut self.clients[at as usize];
        if client.phase == Phase::Closing {
            return;
        }
        client.set(flag::READABLE, true);
        let ends = libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR;
        if result < 0 || result & i32::from(ends) != 0 {
            client.set(flag::HUNG_UP, true);
        }
        self.list(at);
    }

    /// Puts a client on the list of those to be read, if it reads.
    pub(super) fn list(&mut self, at: u32) {
        let client = &mut self.clients[at as usize];
        let reads = match client.kind {
            _ if client.is(flag::HUNG_UP) || client.phase != Phase::Open => true,
            Kind::Stalled => self.resumed,
            Kind::Trickle => false, // it sips
            _ => !client.is(flag::ASLEEP),
        };
        if reads && !client.is(flag::LISTED | flag::RECEIVING) {
            client.set(flag::LISTED, true);
            self.ready.push_back(at);
        }
    }

    fn read_more(&mut self) {
        while let Some(&at) = self.ready.front() {
            let client = &mut self.clients[at as usize];
            // Another connection may have taken the place of the one that was listed.
            if matches!(client.phase, Phase::Upgrading | Phase::Open | Phase::Leaving) && client.is(flag::LISTED) {
                if !self.receive(at, BUFFER_BYTES) {
                    return;
                }
            } else {
                client.set(flag::LISTED, false);
            }
            self.ready.pop_front();
        }
    }

    /// Asks for what there is. False: no buffer is free.
    pub(super) fn receive(&mut self, at: u32, len: usize) -> bool {
        if !self.rings.receive(at, len) {
            return false;
        }
        let client = &mut self.clients[at as usize];
        client.set(flag::LISTED | flag::READABLE, false);
        client.set(flag::RECEIVING, true);
        client.armed += 1;
        true
    }

    fn received(&mut self, at: u32, result: i32, buffer: u32) {
        let client = &mut self.clients[at as usize];
        client.armed -= 1;
        client.set(flag::RECEIVING, false);
        if client.phase == Phase::Closing {
            self.rings.release(buffer);
            return self.gone_if_disarmed(at);
        }
        if result <= 0 {
            self.rings.release(buffer);
            return match -result {
                0 => self.ended(at, "fin", None),
                libc::EAGAIN => self.read_again_if(at, self.clients[at as usize].is(flag::READABLE)),
                libc::ECONNRESET | libc::EPIPE => self.ended(at, "reset", None),
                libc::ETIMEDOUT | libc::EHOSTUNREACH | libc::ENETUNREACH => self.ended(at, "network", None),
                _ => self.ended(at, "error", None),
            };
        }
        let phase = client.phase;
        let kind = client.kind;
        let mut reading = Reading {
            job: &self.job,
            face: self.job.face.face(),
            now_ns: self.now_ns,
            epoch_ns: self.epoch_ns,
            measure: self.measure,
            tally: &mut self.tally.kinds[kind as usize],
            interval: &mut self.intervals[usize::from(!kind.is_healthy())],
            replies: &mut self.replies,
        };
        let ending = client.take(self.rings.buffer(buffer, result as usize), &mut reading);
        self.rings.release(buffer);
        if phase == Phase::Upgrading && self.clients[at as usize].phase == Phase::Open {
            self.upgraded(at);
        }
        if !self.replies.is_empty() {
            let replies = std::mem::take(&mut self.replies);
            self.send(at, &replies);
            self.replies = replies;
            self.replies.clear();
        }
        match ending {
            None => {}
            Some(Ending::Refused { status, retry_ms }) => return self.refused(at, status, retry_ms),
            Some(Ending::Closed { code, retry_ms }) => return self.closed(at, code, retry_ms),
            Some(Ending::Torn) => return self.ended(at, "torn", None),
        }
        // A short read has emptied the socket, unless its end is still to be read.
        let client = &self.clients[at as usize];
        let more = result as usize == BUFFER_BYTES || client.is(flag::READABLE) || client.is(flag::HUNG_UP);
        self.read_again_if(at, more || client.kind == Kind::Trickle);
    }

    fn read_again_if(&mut self, at: u32, more: bool) {
        if more {
            self.clients[at as usize].set(flag::READABLE, true);
            self.list(at);
        }
    }

    /// Sends, now or when the write at the ring is done.
    pub(super) fn send(&mut self, at: u32, bytes: &[u8]) {
        let client = &mut self.clients[at as usize];
        if client.is(flag::SENDING) {
            return client.keep_replies(bytes);
        }
        client.set(flag::SENDING, true);
        client.armed += 1;
        self.rings.send(at, bytes.to_vec());
    }

    fn sent(&mut self, at: u32, _result: i32) {
        let client = &mut self.clients[at as usize];
        client.armed -= 1;
        client.set(flag::SENDING, false);
        if client.phase == Phase::Closing {
            return self.gone_if_disarmed(at);
        }
        let kept = client.take_replies();
        if !kept.is_empty() {
            self.send(at, &kept);
        }
    }

    fn disarmed(&mut self, at: u32) {
        self.clients[at as usize].armed -= 1;
        self.gone_if_disarmed(at);
    }

    fn run_timers(&mut self) {
        let now_ms = self.now_ms();
        while let Some((at, generation, action)) = self.timers.next(now_ms) {
            if self.clients[at as usize].generation == generation {
                self.act(at, action);
            }
        }
    }

    /// Sends a close frame of our own, and waits for the server's end.
    pub(super) fn leave(&mut self, at: u32) {
        self.clients[at as usize].phase = Phase::Leaving;
        let mut close = Vec::new();
        frame::control(0x8, &1000u16.to_be_bytes(), &mut close);
        self.send(at, &close);
    }
}
