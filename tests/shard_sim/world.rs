//! The shard's world: a ring, clients, the source, and time. Turn by turn it does what may happen, and checks what must.
//!
//! Promise: whatever a seed does, it does again.

use crate::client::{Client, Manners, Pongs, View};
use crate::proxy::Way;
use crate::ring::{Seen, SimRing, Sizes};
use crate::settings::{Means, config};
use crate::source::Source;
use spillgate::bus::{InboxLimits, inbox, outlet};
use spillgate::ids::ShardId;
use spillgate::metrics::{DropReason, EndReason, ShardCounters};
use spillgate::shard::{Parts, Shard};
use spillgate::sys::{Doorbell, Mode};
use std::sync::Arc;

/// Steps in which a world without news must come to rest.
const REST_STEPS_MAX: u32 = 20_000;
/// Time that a rest lasts: a few ticks, so that what waits for a tick is done too, and longer than those who were
/// refused may keep a slot from another listener.
const REST_US: u64 = 800_000;
/// Time that a long one lasts: who answers no pings is found out.
const LONG_REST_US: u64 = 4_000_000;
/// Slots of a shard beyond the connections that it holds (`shard/accept.rs`).
const REFUSAL_SLOTS: usize = 32;

/// See the module.
pub struct World {
    rng: fastrand::Rng,
    shard: Shard<SimRing>,
    source: Source,
    clients: Vec<Client>,
    now_us: u64,
    /// When the last turn began.
    turned_us: u64,
    more: bool,
    pub turns: u64,
    /// Ids of commands that were given out.
    ids: u64,
    means: Means,
    tight: bool,
    leaving: bool,
    /// See [`View::window`].
    window: usize,
    /// Connections that there is room for, those that are refused included.
    capacity: usize,
    /// Clients at a time: where they are few, channels lose their last subscribers all the time.
    crowd: usize,
    /// See [`View::crowded`].
    crowded: bool,
    listeners: usize,
    /// Clients that connected with a PROXY header, or without one, that is not to be believed.
    unwelcome: u64,
    pub updates: u64,
    pub paces: Paces,
}

/// How often sockets came to be behind, and what for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Paces {
    pub fell_behind: u64,
    pub caught_up: u64,
    /// In a turn in which the kernel took everything.
    pub windows_exhausted: u64,
}

impl World {
    pub fn new(seed: u64) -> Self {
        fastrand::seed(seed); // the shard's own jitter
        let mut rng = fastrand::Rng::with_seed(seed);
        let sizes = Sizes {
            slots: rng.u32(40..100),
            submissions: rng.usize(4..64),
            completions: [8, 16, 64, 1024][rng.usize(..4)],
            buffers: rng.u8(2..8),
            buffer_bytes: rng.usize(40..600),
            listeners: rng.u8(1..3),
        };
        let (means, tight) = (Means::of(seed), seed.is_multiple_of(4));
        let config = config(&mut rng, means, tight);
        let (held, window) = (config.limits.connections_per_shard_max, config.limits.window_bytes as usize);
        let (slots, listeners) = (sizes.slots as usize, usize::from(sizes.listeners));
        let capacity = if held == 0 { slots } else { slots.min(held + REFUSAL_SLOTS) };
        let shard_bell = Doorbell::new(Mode::Blocking).expect("a descriptor");
        let source_bell = Doorbell::new(Mode::NonBlocking).expect("a descriptor");
        let (messages_max, bytes_max) = (rng.usize(2..40), rng.usize(2000..100_000));
        let (sender, receiver) =
            inbox(InboxLimits { messages_max, bytes_max, critical_max: 4 }, shard_bell, source_bell.clone());
        let (to_source, from_shard) = outlet(rng.usize(6..30), source_bell.clone());
        let parts = Parts {
            id: ShardId(0),
            config: Arc::new(config),
            listeners: sizes.listeners,
            page: Some(b"<p>the page"),
            inbox: receiver,
            outlet: to_source,
        };
        Self {
            shard: Shard::new(SimRing::new(rng.u64(..), sizes), parts),
            source: Source::new(rng.u64(..), sender, from_shard, source_bell),
            rng,
            clients: Vec::new(),
            now_us: 0,
            turned_us: 0,
            more: true,
            turns: 0,
            ids: 0,
            means,
            tight,
            leaving: false,
            window,
            capacity,
            crowd: [5, 15, capacity + 10, capacity + 10][seed as usize % 4],
            crowded: false,
            listeners,
            unwelcome: 0,
            updates: 0,
            paces: Paces::default(),
        }
    }

    /// Takes `turns` turns, with a rest now and then in which everything that is owed must be there.
    pub fn live(&mut self, turns: u64) {
        let end = self.turns + turns;
        while self.turns < end {
            let pause = self.turns + self.rng.u64(200..800);
            while self.turns < pause.min(end) {
                self.step(true);
            }
            self.rest();
        }
    }

    /// Everybody goes; whatever was taken must have been given back.
    pub fn end(&mut self) {
        self.everybody_goes();
        assert!(self.source.channels.len() > 1 && !self.source.is_wanted(), "channels are left without subscribers");
        if !self.leaving {
            self.fill_every_slot();
            self.everybody_goes();
        }
        let ring = self.shard.ring_mut();
        assert_eq!((ring.occupied(), ring.live()), (0, 0), "slots are taken, or sockets live on, without a client");
        assert!(ring.all_buffers_are_free(), "a read buffer was not given back");
        let counters = self.shard.counters();
        let ended: u64 = counters.ended.iter().sum();
        assert_eq!(counters.accepted, ended, "every connection ends once: {counters:?}");
        let refused = counters.ended[EndReason::ProxyHeader as usize];
        assert!(refused <= self.unwelcome, "{refused} were refused for their PROXY headers: {counters:?}");
        let gauges = [
            counters.connections,
            counters.websockets,
            counters.outbox_messages,
            counters.outbox_bytes,
            counters.partial_bytes,
            counters.behind,
        ];
        assert_eq!(gauges, [0; 6], "something is counted that is not there: {counters:?}");
        let [full, spilled] =
            [DropReason::OutboxFull, DropReason::ShardBudget].map(|why| counters.dropped[why as usize]);
        assert!(self.means == Means::Scarce || full + spilled == 0, "nothing was to be dropped");
    }

    /// SIGTERM in mid traffic: everybody who has an open WebSocket is told, and the shard comes to its end. How many
    /// were told.
    pub fn leave(&mut self) -> usize {
        self.shard.leave();
        self.leaving = true;
        let told: Vec<bool> =
            self.clients.iter().map(|client| client.is_owed() && client.status == Some(101)).collect();
        let deadline_us = self.now_us + 10_000_000;
        while !self.shard.has_left() {
            assert!(self.now_us < deadline_us, "it never has left");
            self.step(false);
        }
        for _ in 0..200 {
            self.step(false);
        }
        for (client, told) in self.clients.iter().zip(&told) {
            assert!(!*told || client.close_code == Some(1001), "it was not told that the shard leaves: {client:?}");
        }
        told.iter().filter(|told| **told).count()
    }

    pub fn counters(&self) -> &ShardCounters {
        self.shard.counters()
    }

    pub fn seen(&mut self) -> Seen {
        self.shard.ring_mut().seen.clone()
    }

    pub fn source(&self) -> &Source {
        &self.source
    }

    /// A little time passes, and everybody does something; the shard takes a turn unless it sleeps.
    fn step(&mut self, busy: bool) {
        self.now_us += match self.rng.u8(..) {
            0..4 => self.rng.u64(1000..200_000),
            4..80 => self.rng.u64(0..50),
            _ => self.rng.u64(100..4000),
        };
        if busy {
            self.connect();
            self.act();
        }
        let (means, tight, leaving, window) = (self.means, self.tight, self.leaving, self.window);
        self.crowded |= self.shard.ring_mut().occupied() + self.listeners >= self.capacity;
        let view = View { source: &self.source, means, tight, leaving, crowded: self.crowded, window };
        let ring = self.shard.ring_mut();
        ring.now_us = self.now_us;
        for client in &mut self.clients {
            client.write(&mut self.rng, ring);
            if self.rng.u8(..) < 200 {
                client.read(&mut self.rng, ring, view);
            }
        }
        ring.network();
        self.source.run(self.now_us, busy);
        if self.more || self.shard.ring_mut().has_work() || self.shard.has_mail() {
            self.turn();
        }
    }

    /// The shard takes a turn, after which its books are balanced.
    fn turn(&mut self) {
        let (before, cut) = (self.counters().behind, self.cut());
        let since_us = self.now_us - self.turned_us;
        self.shard.took(if self.rng.u8(..) < 64 { self.rng.u64(..=since_us) } else { 0 }); // the last turn
        self.turned_us = self.now_us;
        self.more = self.shard.turn(self.now_us).expect("the ring never breaks");
        self.turns += 1;
        let counters = self.shard.counters();
        let dropped: u64 = counters.dropped.iter().sum();
        let accounted = counters.delivered + counters.conflated + dropped + counters.outbox_messages;
        assert_eq!(counters.due, accounted, "an update was lost, or counted twice: {counters:?}");
        assert!(counters.behind <= counters.connections, "more are behind than there are: {counters:?}");
        let behind = counters.behind;
        self.paces.fell_behind += behind.saturating_sub(before);
        self.paces.caught_up += before.saturating_sub(behind);
        if behind > before && self.cut() == cut {
            self.paces.windows_exhausted += 1;
        }
    }

    /// Writes that the kernel did not take whole.
    fn cut(&mut self) -> u64 {
        let seen = &self.shard.ring_mut().seen;
        seen.eagains + seen.short_sends
    }

    fn connect(&mut self) {
        if self.rng.u8(..) < 40 && self.clients.len() < self.crowd {
            let pongs = match self.rng.u8(..) {
                0..13 => Pongs::Never,
                13..26 => Pongs::Wrong,
                26..60 => Pongs::Late,
                60..90 => Pongs::Twice,
                _ => Pongs::Prompt,
            };
            let manners = Manners { pongs, eager: self.rng.u8(..) < 100, tidy: self.rng.u8(..) < 230 };
            let window = [200, 2000, 60_000][self.rng.usize(..3)];
            let way = Way::draw(&mut self.rng);
            self.unwelcome += u64::from(!way.is_welcome());
            let peer = way.peer(&mut self.rng);
            let mut client = Client::new(self.shard.ring_mut().connect(window, peer), manners);
            client.begin(&mut self.rng, &self.source, way);
            self.clients.push(client);
        }
    }

    fn act(&mut self) {
        for _ in 0..self.rng.usize(..3).min(self.clients.len()) {
            let at = self.rng.usize(..self.clients.len());
            let client = &mut self.clients[at];
            if client.stalled {
                client.stalled = self.rng.u8(..) < 240;
            } else if client.may_speak() {
                self.ids += 1;
                client.act(&mut self.rng, &self.source, self.ids);
            }
            // Those who have ended go; others break off, whatever they are doing.
            if client.ended || self.rng.u8(..) < 4 {
                self.drop_client(at);
            }
        }
    }

    fn drop_client(&mut self, at: usize) {
        let client = self.clients.swap_remove(at);
        self.updates += client.updates;
        self.shard.ring_mut().sockets[client.file].client_reset(&mut self.rng);
    }

    /// Nothing new happens until nothing is left to do. Then everything that is owed is there.
    fn rest(&mut self) {
        for client in &mut self.clients {
            client.stalled &= self.rng.bool();
        }
        let end_us = self.now_us + if self.rng.u8(..) < 60 { LONG_REST_US } else { REST_US };
        for _ in 0..REST_STEPS_MAX {
            self.step(false);
            if self.now_us >= end_us && self.is_at_rest() {
                return self.check();
            }
        }
        panic!("the world never comes to rest");
    }

    fn is_at_rest(&mut self) -> bool {
        let ring = self.shard.ring_mut();
        let idle = !ring.has_work() && !ring.is_moving() && self.clients.iter().all(|client| !client.is_busy(ring));
        idle && !self.more && self.source.is_idle()
    }

    fn check(&mut self) {
        let (means, tight, leaving, window) = (self.means, self.tight, self.leaving, self.window);
        let view = View { source: &self.source, means, tight, leaving, crowded: self.crowded, window };
        let ring = self.shard.ring_mut();
        let room = ring.occupied() < self.capacity;
        assert!(!room || ring.waiting() == 0, "there is room, and {} wait to be accepted", ring.waiting());
        for client in &self.clients {
            let socket = &ring.sockets[client.file];
            if client.is_owed() && !socket.queued {
                assert!(socket.unread.is_empty(), "a deaf socket: {} bytes were not read", socket.unread.len());
                client.check(view);
            }
        }
        let excused = self.clients.iter().filter(|client| !client.is_owed()).count() as u64;
        let behind = self.counters().behind;
        let counters = self.counters();
        let waits = (counters.outbox_messages, counters.outbox_bytes);
        assert!(excused > 0 || waits == (0, 0), "nothing waits for anyone, and {waits:?} are counted");
        assert!(behind <= excused, "{behind} are behind, and only {excused} have a reason to be");
    }

    fn everybody_goes(&mut self) {
        for client in &mut self.clients {
            client.stalled &= self.rng.bool();
            client.end();
        }
        let half_us = self.now_us + 2_000_000;
        while self.now_us < half_us {
            self.step(false);
        }
        // Some never read again, and some wait for a goodbye that never comes: their kernels reset.
        while !self.clients.is_empty() {
            self.drop_client(0);
        }
        let end_us = self.now_us + 2_000_000;
        while self.now_us < end_us || !self.is_at_rest() {
            self.step(false);
        }
    }

    /// Silent clients take every slot that there is: none was lost.
    fn fill_every_slot(&mut self) {
        let manners = Manners { pongs: Pongs::Prompt, eager: false, tidy: false };
        let peer = Way::Direct.peer(&mut self.rng);
        let end_us = self.now_us + 1_000_000;
        let mut most = 0;
        while self.now_us < end_us && most < self.capacity {
            if self.clients.len() < 2 * self.capacity {
                let mut client = Client::new(self.shard.ring_mut().connect(2000, peer), manners);
                client.stalled = true;
                self.clients.push(client);
            }
            self.step(false);
            most = most.max(self.shard.ring_mut().occupied());
        }
        assert_eq!(most, self.capacity, "a slot was lost");
    }
}
