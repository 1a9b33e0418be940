//! The work that is measured, each made ready first and done then: `parts` takes its time, `instructions` counts what it
//! executes. What has to be read or thrown away afterwards is handed back, so that it is no part of either.

pub mod ring;

use crate::bare::Bare;
use crate::fed::{Fed, Time, raw_update};
use ring::{Clients, Instant};
use spillgate::bus::{InboxLimits, InboxReceiver, InboxSender, Offer, ToShard, inbox};
use spillgate::config::{Limits, Policy};
use spillgate::fanout::{Chunk, Outbox, OutboxLimits, Run, Unsent, Update};
use spillgate::ids::{ChannelRef, Face};
use spillgate::sys::{Doorbell, Mode};
use spillgate::wire::envelope;
use spillgate::wire::sort::Sorter;
use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::rc::Rc;
use std::sync::Arc;

/// Sockets of a fan-out turn.
pub const SOCKETS: u32 = 1000;
/// Sockets of the real ring: each has both its ends in this process.
pub const RING_SOCKETS: u32 = 256;
/// Updates that a slow socket's outbox is offered, and the keys that they are of.
const OFFERS: u64 = 1000;
const KEYS: u64 = 40;
/// Bytes of one write to a socket that is behind.
const WRITE_BYTES: usize = 8 << 10;

/// A quote of one symbol, of exactly 512 bytes.
pub fn quote(n: u64) -> Vec<u8> {
    let book: Vec<_> = (0..8).map(|level| format!("[{}.{level},{}]", 187 + n % 7, 100 * level)).collect();
    let mut json = format!(
        r#"{{"type":"tick","quote":{{"symbol":"S{:03}","bid":187.21,"ask":187.24}},"n":{n},"book":[{}],"note":""#,
        n % KEYS,
        book.join(",")
    );
    json.push_str(&"~".repeat(510 - json.len()));
    json.push_str("\"}");
    json.into_bytes()
}

/// 512 bytes of text that is no JSON.
pub fn prose() -> Vec<u8> {
    b"A goal in the last minute, \"and what a goal\"; ".iter().copied().cycle().take(512).collect()
}

/// One envelope of the JSON face.
pub fn json_update(payload: &[u8]) -> Vec<u8> {
    envelope::json_update("scores", 17, 1_763_770_000_123, payload)
}

/// A sorter that asks for the key, and one that asks for the lane.
pub fn sorter(rule: &str) -> Sorter {
    let rule = toml::from_str(rule).expect("the rule is TOML");
    Sorter::of(&rule).expect("its pointers are pointers").expect("it asks for something")
}

/// The rule of a keyed channel.
pub const KEYED: &str = "match = 'q*'\nkey = '/quote/symbol'";
/// The rule of a channel some of whose updates are critical.
pub const CRITICAL: &str = "match = 'q*'\ncritical = { pointer = '/type', values = ['goal', 'suspended'] }";

/// An outbox, and what it is offered.
pub struct Slow {
    outbox: Outbox,
    limits: OutboxLimits,
    updates: Vec<Rc<Run>>,
}

impl Slow {
    /// One that keeps up to `slack` updates whole.
    pub fn new(slack: usize) -> Self {
        let updates = (0..OFFERS).map(|n| update(n, n % KEYS)).collect();
        let limits = OutboxLimits { slack, messages_max: 10_000, bytes_max: 16 << 20, critical_max: 32 };
        Self { outbox: Outbox::default(), limits, updates }
    }

    /// Offers all updates, and takes out what is left of them.
    pub fn offer_and_drain(mut self) -> (Self, u64) {
        for update in &self.updates {
            let offer = self.outbox.offer(Rc::clone(update), &self.limits);
            assert!(matches!(offer, spillgate::fanout::Offer::Queued(_)));
        }
        let mut written = 0;
        while let Some(chunk) = self.outbox.next(WRITE_BYTES) {
            written += u64::from(chunk.run.updates);
        }
        (self, written)
    }
}

/// A write of a turn's eight updates, of which the kernel took half.
pub struct Torn {
    outbox: Outbox,
    chunk: Chunk,
    limits: OutboxLimits,
}

impl Torn {
    /// See the type.
    pub fn new() -> Self {
        let chunk = Chunk::whole(Rc::new(Run::joined((0..8).map(|n| update(n, n)).collect())));
        Self { outbox: Outbox::default(), chunk, limits: Slow::new(16).limits }
    }

    /// Takes the rest back, and hands it out again.
    pub fn take_back(mut self) -> (Outbox, Unsent, Option<Chunk>) {
        let half = self.chunk.bytes().len() / 2;
        let unsent = self.outbox.unsent(self.chunk, half, &self.limits);
        let next = self.outbox.next(WRITE_BYTES);
        (self.outbox, unsent, next)
    }
}

fn update(n: u64, key: u64) -> Rc<Run> {
    let frames = [Some(envelope::raw_update(&quote(n)).into()), None];
    let update = Arc::new(Update { seq: n + 1, received_us: n, key: key + 1, critical: false, frames });
    Rc::new(Run::update(0, Policy::Conflate, &update, Face::Raw).expect("it was encoded for that face"))
}

/// A shard with sockets on a ring without a kernel.
pub struct Turns {
    fed: Fed<Instant>,
    payload: Vec<u8>,
    n: u64,
}

impl Turns {
    /// All sockets keep up, and have answered pings.
    pub fn idle() -> Self {
        let mut turns = Self::new(Clients::Read);
        (0..32).for_each(|_| turns.deliver());
        let counters = turns.fed.counters();
        assert_eq!((counters.behind, counters.delivered), (0, 32 * u64::from(SOCKETS)));
        turns
    }

    /// No socket takes anything, and each has an outbox that conflates.
    pub fn stalled() -> Self {
        let mut turns = Self::new(Clients::Stalled);
        for _ in 0..32 {
            turns.offer(1, 50_000); // late enough to be behind, and not for so long that they are closed
            turns.settle();
        }
        assert_eq!(turns.fed.counters().behind, u64::from(SOCKETS));
        assert!(turns.fed.counters().conflated > 0);
        turns
    }

    fn new(clients: Clients) -> Self {
        let bell = Doorbell::new(Mode::Blocking).expect("a descriptor is free");
        let mut fed = Fed::over(Instant::new(SOCKETS, clients), bell, Time::Told(1_000_000)).expect("a shard starts");
        fed.accept(SOCKETS).expect("all are let in");
        Self { fed, payload: quote(7), n: 0 }
    }

    /// One update to every socket, until every SEND has completed and every pong that came was read.
    pub fn deliver(&mut self) {
        self.offer(1, 125_000); // 8 a second
        self.settle();
    }

    /// Eight updates in one turn, joined to one SEND a socket.
    pub fn deliver_joined(&mut self) {
        self.offer(8, 1_000_000);
        self.settle();
    }

    /// One update to every stalled socket: it takes the place of the one that waits.
    pub fn conflate(&mut self) {
        self.offer(1, 10);
        self.settle();
    }

    fn offer(&mut self, updates: u64, later_us: u64) {
        self.fed.pass(later_us);
        (self.n..self.n + updates).for_each(|n| self.fed.offer(n, &self.payload));
        self.n += updates;
    }

    fn settle(&mut self) {
        while self.fed.turn().expect("this ring never fails") || !self.fed.ring().is_idle() {}
    }
}

/// Both ends of an inbox.
pub struct Mail {
    sender: InboxSender,
    receiver: InboxReceiver,
    bell: Doorbell,
    update: Arc<Update>,
}

impl Mail {
    /// An empty one.
    pub fn new() -> Self {
        let bell = || Doorbell::new(Mode::NonBlocking).expect("a descriptor is free");
        let shard = bell();
        let (sender, receiver) = inbox(InboxLimits::of(&Limits::default()), shard.clone(), bell());
        Self { sender, receiver, bell: shard, update: raw_update(1, 0, &quote(1)) }
    }

    /// An update to a shard that is awake, which takes it out.
    pub fn pass(&mut self) -> Option<ToShard> {
        let offer = self.sender.offer(ChannelRef { index: 0, generation: 0 }, Arc::clone(&self.update));
        self.sender.ring();
        let message = self.receiver.try_recv();
        self.receiver.settle();
        assert!(matches!(offer, Offer::Queued), "{offer:?}");
        message
    }

    /// The same to one that sleeps: its bell is rung, and it takes the ring.
    pub fn wake(&mut self) -> Option<ToShard> {
        self.bell.asleep();
        let passed = self.pass();
        self.bell.take().expect("it was rung");
        passed
    }
}

/// Sockets on the real ring, whose other ends are kept here.
pub struct Wire {
    bare: Bare,
    clients: Vec<TcpStream>,
    frame: Vec<u8>,
}

impl Wire {
    /// [`RING_SOCKETS`] of them, accepted.
    pub fn new() -> Self {
        let mut bare = Bare::listen(RING_SOCKETS).expect("a ring starts");
        let connect = |_| TcpStream::connect(bare.address).expect("the backlog has room");
        let clients: Vec<_> = (0..RING_SOCKETS).map(connect).collect();
        clients.iter().for_each(|client| client.set_nonblocking(true).expect("a socket can be non-blocking"));
        bare.accept(RING_SOCKETS).expect("all are let in");
        Self { bare, clients, frame: envelope::raw_update(&quote(1)) }
    }

    /// One frame to every socket, until every SEND has completed.
    pub fn send(&mut self) {
        self.bare.send(self.frame.clone()).expect("the ring works");
    }

    /// Reads what has arrived, so that no buffer fills.
    pub fn read(&mut self) {
        let mut bytes = [0; 64 << 10];
        for client in &mut self.clients {
            match client.read(&mut bytes) {
                Ok(1..) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                other => panic!("the ring's end has ended: {other:?}"),
            }
        }
    }
}
