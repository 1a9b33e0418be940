//! A shard: a state machine over a [`Ring`]. Completions, updates and time come in, requests go out; it does no IO.
//!
//! Invariant: a socket belongs to one shard for life. Invariant: at most one SEND a socket is at the ring.
//! Invariant: after a CLOSE was pushed nothing more is pushed for its slot, and the slot has a new owner only when
//! every request of the old one has completed.

mod accept;
mod behind;
mod caller;
mod commands;
mod conn;
mod leave;
mod preface;
mod read;
mod read_queue;
mod run;
mod subscribe;
mod sweep;
mod tell;
mod throttle;
mod write;

pub use accept::{CAPACITY_SLOTS, REFUSAL_SLOTS};
pub use conn::{Conn, State};
pub use run::{Seat, ShardEnd, Shared, run};

use crate::bus::{Demand, InboxReceiver, Outlet, ToShard, ToSource};
use crate::config::Config;
use crate::fanout::{Account, Channels, OutboxLimits, Run, Telling, Update};
use crate::ids::{ChannelRef, ConnId, ShardId};
use crate::lifecycle::{Allowance, Intake, Lines, Millis, Spread};
use crate::metrics::{EndReason, ShardCounters, latency_histogram};
use crate::sys::{Completion, Ring};
use conn::Conns;
use hdrhistogram::Histogram;
use read_queue::ReadQueue;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

/// Messages that one turn takes from the inbox, and completions that it takes from the ring: what is more waits a turn.
const INBOX_PER_TURN: usize = 1024;
const COMPLETIONS_PER_TURN: usize = 16_384;
/// Bytes of one channel's updates that are joined into one SEND (a fresh socket takes 32 KiB whole; FACTS.md).
const RUN_BYTES_MAX: usize = 32 << 10;

/// Where clients wait to be read or taken in, they have the shard for this part of what the last fan-out took.
const CLIENTS_SHARE: u64 = 2;

/// A pong costs about as much as a delivery: these are a twentieth of what a core delivers.
const FIRST_PINGS_PER_S: u32 = 5_000;
const FIRST_PINGS_AT_ONCE: u32 = 16_384;

/// See the module.
pub struct Shard<R: Ring> {
    ring: R,
    id: ShardId,
    config: Arc<Config>,
    /// Served at `/`, where there is one.
    page: Option<&'static [u8]>,
    outbox_limits: OutboxLimits,
    /// Memory that outboxes keep: what each has for itself, and what they share, once.
    outbox_owned: usize,
    outbox_shared: Account,
    conns: Conns,
    channels: Channels,
    inbox: InboxReceiver,
    outlet: Outlet,
    /// Channels with updates that arrived this turn.
    touched: Vec<u32>,
    /// Of the subscribers that are walked, those who are sent to last; empty between.
    silent: Vec<u32>,
    /// While subscribers are walked: the last ping that rode behind their update, and both as one run.
    last_pinged: Option<(Vec<u8>, Rc<Run>)>,
    /// First pings: one rides behind any update, but not so many that their pongs would hold up a million's updates.
    first_pings: Allowance,
    /// When slow consumers may come back.
    retries: Spread,
    /// An update that did not fit into this turn's run of its channel.
    carried: Option<(ChannelRef, Arc<Update>)>,
    to_read: ReadQueue,
    /// Those that take no place (see [`Conn::outside`]), in the order in which they came to that; some have left since.
    outside: VecDeque<ConnId>,
    outside_count: u64,
    intake: Intake,
    to_flush: Vec<ConnId>,
    /// Those that are behind, each once (see [`Conn::listed`]); some may have caught up or left since.
    laggards: Vec<ConnId>,
    /// Those that are to be closed as too slow, when the list of subscribers is not walked any more.
    too_slow: Vec<ConnId>,
    timers: throttle::Timers,
    scratch: Vec<u8>,
    listening: accept::Listening,
    sweeper: sweep::Sweeper,
    /// The last turn sent what there was to send; if clients wait, they are served until then before the next one does.
    fanned_out: bool,
    clients_until_us: u64,
    now_us: u64,
    now: Millis,
    /// The time that the shard has not spent in its turns: the clock for pongs. One that waits for us to read it is not
    /// late, or an overload would make every socket slow, and the pings to all of them would make it worse.
    free: Millis,
    busy_us: u64,
    latency: Histogram<u64>,
    /// Publish-to-pong times of writes to sockets that are behind, in microseconds.
    pong_ages: Histogram<u64>,
    counters: ShardCounters,
    /// For each reason to end, how many lines the log may have of it: a flood of one kind hides no other.
    lines: [Lines; EndReason::COUNT],
    leaving: bool,
}

/// What a shard is made of besides its ring.
pub struct Parts {
    /// Its number.
    pub id: ShardId,
    /// The settings.
    pub config: Arc<Config>,
    /// Number of listeners that the ring knows.
    pub listeners: u8,
    /// Served at `/`, where there is one.
    pub page: Option<&'static [u8]>,
    /// From the source.
    pub inbox: InboxReceiver,
    /// To the source.
    pub outlet: Outlet,
}

impl<R: Ring> Shard<R> {
    /// A shard that has not begun: the first turn arms its accepts.
    pub fn new(ring: R, parts: Parts) -> Self {
        let limits = &parts.config.limits;
        let listening = accept::Listening::new(&ring, parts.listeners, limits.connections_per_shard_max);
        Self {
            outbox_limits: OutboxLimits {
                messages_max: limits.outbox_messages_max,
                bytes_max: limits.outbox_bytes_max,
                slack: limits.slack,
                critical_max: limits.critical_messages_max,
            },
            outbox_owned: 0,
            outbox_shared: Account::default(),
            conns: Conns::new(listening.slots()),
            counters: ShardCounters {
                connections_max: u64::from(listening.connections_max()),
                ..ShardCounters::default()
            },
            listening,
            ring,
            id: parts.id,
            page: parts.page,
            channels: Channels::default(),
            inbox: parts.inbox,
            outlet: parts.outlet,
            touched: Vec::new(),
            silent: Vec::new(),
            last_pinged: None,
            first_pings: Allowance::new(FIRST_PINGS_PER_S, FIRST_PINGS_AT_ONCE),
            retries: Spread::new(fastrand::u32(..)),
            carried: None,
            to_read: ReadQueue::default(),
            outside: VecDeque::new(),
            outside_count: 0,
            intake: Intake::default(),
            to_flush: Vec::new(),
            laggards: Vec::new(),
            too_slow: Vec::new(),
            timers: throttle::Timers::default(),
            scratch: Vec::new(),
            sweeper: sweep::Sweeper::default(),
            fanned_out: false,
            clients_until_us: 0,
            now_us: 0,
            now: Millis::default(),
            free: Millis::default(),
            busy_us: 0,
            latency: latency_histogram(),
            pong_ages: latency_histogram(),
            lines: Default::default(),
            config: parts.config,
            leaving: false,
        }
    }

    /// Does what there is to do at `now_us` (microseconds of the process's clock), within bounds; whether there is more.
    ///
    /// # Errors
    /// The ring is broken for good.
    pub fn turn(&mut self, now_us: u64) -> io::Result<bool> {
        self.now_us = now_us;
        self.now = Millis::from_us(now_us);
        self.free = Millis::from_us(now_us.saturating_sub(self.busy_us));
        let accepted = self.counters.accepted;
        let mut completions = 0;
        while completions < COMPLETIONS_PER_TURN
            && let Some(completion) = self.ring.next()
        {
            self.complete(completion);
            completions += 1;
        }
        let herd = self.counters.accepted - accepted >= self.listening.armed_max() as u64;
        self.fanned_out = !self.is_clients_turn(herd);
        let drained = self.fanned_out && self.take_updates();
        self.keep_to_share();
        self.close_too_slow();
        debug_assert!(!self.holds_too_much());
        self.keep_to_budget();
        self.channels.tell(|telling| tell(&self.outlet, self.id, telling));
        self.read_ready();
        self.flush_ready();
        self.arm_accepts();
        self.arm_timer();
        self.ring.submit()?;
        self.counters.turns += 1;
        self.counters.last_turn_us = now_us;
        self.counters.inbox_depth = self.inbox.depth() as u64;
        self.counters.outbox_bytes = self.outbox_bytes() as u64;
        let taken = completions < COMPLETIONS_PER_TURN && drained;
        Ok(!taken || !self.to_read.is_empty() || !self.to_flush.is_empty())
    }

    /// Says how long the last turn took, in microseconds.
    pub fn took(&mut self, turn_us: u64) {
        self.busy_us += turn_us;
        if self.fanned_out {
            self.clients_until_us = self.now_us + turn_us + turn_us / CLIENTS_SHARE;
        }
    }

    /// Begins to leave: no more accepts, and everyone gets a close frame with code 1001.
    pub fn leave(&mut self) {
        if !std::mem::replace(&mut self.leaving, true) {
            self.stop_listening();
            self.close_everyone();
        }
    }

    /// Whether it has begun to leave and nobody is connected any more.
    pub fn has_left(&self) -> bool {
        self.leaving && self.counters.connections == 0 && self.listening.armed() == 0
    }

    /// Whether it has begun to leave.
    pub fn is_leaving(&self) -> bool {
        self.leaving
    }

    /// What it has counted.
    pub fn counters(&self) -> &ShardCounters {
        &self.counters
    }

    /// Publish-to-write times of all deliveries, in microseconds.
    pub fn latency(&self) -> &Histogram<u64> {
        &self.latency
    }

    /// Publish-to-pong times of writes to sockets that were behind, in microseconds.
    pub fn pong_ages(&self) -> &Histogram<u64> {
        &self.pong_ages
    }

    /// The ring.
    pub fn ring_mut(&mut self) -> &mut R {
        &mut self.ring
    }

    /// Whether the inbox holds something.
    pub fn has_mail(&self) -> bool {
        self.inbox.depth() > 0
    }

    fn complete(&mut self, completion: Completion) {
        match completion {
            Completion::Sent { conn, result, chunk } => self.sent(conn, result, chunk),
            Completion::Readable { conn, result, more } => self.readable(conn, result, more),
            Completion::Received { conn, result, buffer } => self.received(conn, result, buffer),
            Completion::Writable { conn, result } => self.writable(conn, result),
            Completion::Accepted { listener, conn, result, peer } => self.accepted(listener, conn, result, peer),
            Completion::Done { conn } => self.settled(conn),
            Completion::Closed { conn, result } => self.slot_closed(conn, result),
            Completion::Tick => self.timers.fired(self.now_us),
        }
    }

    /// Whether this turn is for clients alone: more of them wait to be read or taken in than one turn does, and the
    /// updates have had their share. A turn that sends to many is long, and others would wait for as many of them as there
    /// are turns' worth of clients: a herd comes back while updates go on.
    fn is_clients_turn(&self, herd: bool) -> bool {
        let fits = self.inbox.depth() < self.config.limits.inbox_messages_max / 2; // or updates would be lost for it
        (herd || !self.to_read.is_empty()) && self.now_us < self.clients_until_us && fits
    }

    /// Sends what there is to send, within bounds; whether that was all.
    fn take_updates(&mut self) -> bool {
        if let Some((channel, update)) = self.carried.take() {
            self.arrive(channel, update);
        }
        let released = self.release_due();
        let drained = self.drain_inbox();
        self.fan_out();
        released && drained
    }

    /// Takes what the source has sent, within bounds; whether that was all.
    fn drain_inbox(&mut self) -> bool {
        let mut taken = 0;
        while taken < INBOX_PER_TURN && self.carried.is_none() && !self.holds_too_much() {
            let Some(message) = self.inbox.try_recv() else {
                self.inbox.settle();
                return true;
            };
            taken += 1;
            match message {
                ToShard::Update { channel, update } => self.arrive(channel, update),
                ToShard::Confirmed(confirmed) => self.confirmed(confirmed),
                ToShard::Published { ticket, outcome } => self.published(ticket, outcome),
            }
        }
        self.inbox.settle();
        false
    }

    /// An update joins this turn's run of its channel, or waits for the next turn's where that one is full.
    fn arrive(&mut self, place: ChannelRef, update: Arc<Update>) {
        let Some(channel) = self.channels.find(place) else { return };
        if channel.arrived_bytes > 0 && channel.arrived_bytes + update.bytes() > RUN_BYTES_MAX {
            self.carried = Some((place, update));
            return;
        }
        if self.hold_back(place, &update) {
            return;
        }
        self.arrive_now(place, update);
    }

    /// The same, for one that nothing holds back.
    fn arrive_now(&mut self, place: ChannelRef, update: Arc<Update>) {
        let Some(channel) = self.channels.find(place) else { return };
        if channel.arrived.is_empty() {
            self.touched.push(place.index);
        }
        channel.arrived_bytes += update.bytes();
        channel.arrived.push(update);
    }
}

/// Tells the source what is wanted of a channel; whether there was room to say it.
fn tell(outlet: &Outlet, shard: ShardId, telling: Telling) -> bool {
    let Telling { channel, name, faces, sockets, version } = telling;
    outlet.try_send(ToSource::Demand(Demand { shard, channel, name, faces, sockets, version })).is_ok()
}
