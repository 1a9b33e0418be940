//! Sequences of operations on an outbox and on a plain model of it, side by side: for the property test and the fuzzer.
//!
//! Promise: after each operation both say the same, and what came out of the outbox is whole frames in order, each
//! update once: offered = handed out + conflated + dropped + pending.

mod model;
mod stream;

use model::{Item, Kind, Model};
use spillgate::config::Policy;
use spillgate::fanout::{Chunk, Gone, Offer, Outbox, OutboxLimits, Run, Update};
use spillgate::ids::Face;
use std::rc::Rc;
use std::sync::Arc;
use stream::Stream;

/// An operation before it is read: what to do, and three things about it.
pub type RawOp = (u8, u8, u8, u16);
/// Limits before they are read.
pub type RawLimits = (u8, u8, u16, u8);

/// Policies by channel. Those of 2 and 3 have keys.
const POLICIES: [Policy; 7] = [
    Policy::Conflate,
    Policy::Conflate,
    Policy::Conflate,
    Policy::Conflate,
    Policy::DropOldest,
    Policy::DropNewest,
    Policy::Disconnect,
];

/// How often something happened: a run that did not see all of it has shown nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    pub conflated: u64,
    pub dropped: u64,
    pub too_slow: u64,
    pub cut: u64,
    pub unpinged: u64,
    pub kept_place: u64,
    pub forgotten: u64,
    pub spilled: u64,
    pub handed: u64,
    pub missed: u64,
}

struct Trial {
    outbox: Outbox,
    model: Model,
    limits: OutboxLimits,
    /// Handed out, and not yet said what became of it.
    flight: Option<Chunk>,
    stream: Stream,
    seq: u32,
    offered: u64,
    seen: Seen,
}

/// Runs a sequence; what it saw.
pub fn run(limits: RawLimits, ops: &[RawOp]) -> Seen {
    let limits = OutboxLimits {
        slack: usize::from(limits.0 % 20),
        messages_max: 1 + usize::from(limits.1 % 60),
        bytes_max: 1 + usize::from(limits.2 % 16_000),
        critical_max: usize::from(limits.3 % 6),
    };
    let (model, stream) = (Model::new(limits), Stream::default());
    let (outbox, flight, seen) = (Outbox::default(), None, Seen::default());
    let mut trial = Trial { outbox, model, limits, flight, stream, seq: 0, offered: 0, seen };
    for op in ops {
        trial.apply(*op);
        trial.tell_missed();
        trial.compare();
    }
    trial.drain();
    trial.seen
}

impl Trial {
    fn apply(&mut self, (what, a, b, c): RawOp) {
        match what {
            0..110 => self.offer(a, b, c),
            110..125 => {
                let item = self.item(Kind::Control, u32::MAX, 0, c % 200);
                self.outbox.control(Rc::new(Run::own(item.bytes.clone())));
                self.model.control.push(item);
            }
            125..133 => {
                let item = self.item(Kind::Notice, u32::from(a % 7), 0, c % 100);
                self.outbox.notice(Rc::new(Run::notice(item.channel, item.bytes.clone())));
                self.model.notice(item);
            }
            133..178 if self.flight.is_none() => {
                let write_max = [1, 500, 2000, 8000, 40_000][usize::from(a % 5)];
                let chunk = self.outbox.next(write_max);
                self.take_off(chunk, b.is_multiple_of(2), |model| model.next(write_max));
            }
            182..186 if self.flight.is_none() && !self.outbox.has_started() => {
                let chunk = self.outbox.next_critical(usize::from(c % 600));
                self.take_off(chunk, false, |model| model.next_critical(usize::from(c % 600)));
            }
            178..182 if self.flight.is_none() && !self.outbox.has_started() => {
                let chunk = self.outbox.next_control(usize::from(c % 600));
                self.take_off(chunk, b.is_multiple_of(4), |model| model.next_control(usize::from(c % 600)));
            }
            186..196 if self.flight.is_none() && self.outbox.is_empty() => self.send_joined(a, b, c),
            196..204 => self.offer_joined(a, b, c),
            204..215 => self.land(),
            133..238 => self.cut(c),
            238..244 => {
                let dropped = self.outbox.forget_channel(u32::from(a % 7));
                assert_eq!(dropped, self.model.forget_channel(u32::from(a % 7)));
                self.seen.dropped += dropped;
                self.seen.forgotten += dropped;
            }
            244..249 => {
                let (gone, expected) = (self.outbox.conflate(), self.model.conflate());
                self.count(gone, expected);
            }
            249..254 => {
                let (gone, expected) =
                    (self.outbox.spill(usize::from(c % 4000)), self.model.spill(usize::from(c % 4000)));
                self.count(gone, expected);
                self.seen.spilled += gone.dropped;
            }
            _ => {
                let dropped = self.outbox.forget_data();
                assert_eq!(dropped, self.model.forget_data());
                self.seen.dropped += dropped;
            }
        }
    }

    /// Of whose newest some went is told, as the shard does.
    fn tell_missed(&mut self) {
        let missed = self.outbox.take_missed();
        assert_eq!(missed, std::mem::take(&mut self.model.missed), "whose newest went");
        for channel in missed {
            let item = self.item(Kind::Missed, channel, 1, 20);
            self.outbox.missed(Rc::new(Run::missed(channel, item.bytes.clone())));
            self.model.missed_notice(item);
            self.seen.missed += 1;
        }
    }

    fn offer(&mut self, a: u8, b: u8, c: u16) {
        let item = self.update(u32::from(a % 7), b, c);
        let offer = self.outbox.offer(item.run(), &self.limits);
        assert_eq!(offer, self.model.offer(item), "what became of an update that was offered");
        let (gone, dropped) = match offer {
            Offer::Queued(gone) => (gone, 0),
            Offer::Dropped => (Gone::default(), 1),
            Offer::TooSlow(gone) => (gone, 1),
        };
        self.seen.too_slow += u64::from(matches!(offer, Offer::TooSlow(_)));
        self.seen.dropped += dropped;
        self.count(gone, gone);
    }

    /// A turn's updates for a socket that is not idle.
    fn offer_joined(&mut self, a: u8, b: u8, c: u16) {
        let items: Vec<_> =
            (0..2 + a / 7 % 50).map(|at| self.update(u32::from(a % 7), b.wrapping_add(at), c / 8)).collect();
        let run = Rc::new(Run::joined(items.iter().map(Item::run).collect()));
        let (gone, too_slow) = self.outbox.offer_all(&run, &self.limits);
        let expected = self.model.offer_all(items);
        assert_eq!((gone, too_slow), expected, "what became of a turn's updates");
        self.seen.too_slow += u64::from(too_slow);
        self.count(gone, gone);
    }

    /// A turn's updates go straight to an idle socket.
    fn send_joined(&mut self, a: u8, b: u8, c: u16) {
        let items: Vec<_> =
            (0..1 + a / 7 % 50).map(|at| self.update(u32::from(a % 7), b.wrapping_add(at), c / 8)).collect();
        let runs: Vec<_> = items.iter().map(Item::run).collect();
        let run = if runs.len() == 1 { Rc::clone(&runs[0]) } else { Rc::new(Run::joined(runs)) };
        self.take_off(Some(Chunk::whole(run)), c.is_multiple_of(3), |model| {
            model.flight = Some(model::Flight::Parts(items));
            true
        });
    }

    /// A write begins, with a ping behind it or not; the model says what it must be.
    fn take_off(&mut self, chunk: Option<Chunk>, ping: bool, expected: impl FnOnce(&mut Model) -> bool) {
        let is_expected = expected(&mut self.model);
        assert_eq!(chunk.is_some(), is_expected, "whether there is something to write");
        self.flight = chunk;
        if let (true, Some(chunk)) = (ping, &mut self.flight) {
            self.seq += 1;
            let ping = stream::ping(self.seq);
            *chunk = Chunk::whole(Rc::new(Run::with_ping(chunk, &ping)));
            self.model.ping = ping.into();
        }
        if let Some(chunk) = &self.flight {
            let (bytes, updates) = self.model.in_flight();
            assert_eq!((chunk.bytes(), u64::from(chunk.run.updates)), (&*bytes, updates), "what is written");
        }
    }

    /// The write was taken whole.
    fn land(&mut self) {
        let Some(chunk) = self.flight.take() else { return };
        self.stream.push(chunk.bytes());
        self.seen.handed += u64::from(chunk.run.updates);
        (self.model.flight, self.model.ping) = (None, Vec::new());
    }

    /// The write was cut, or not taken at all.
    fn cut(&mut self, c: u16) {
        let Some(chunk) = self.flight.take() else { return };
        let written = if c.is_multiple_of(3) { 0 } else { usize::from(c / 3) % chunk.bytes().len() };
        self.stream.push(&chunk.bytes()[..written]);
        self.seen.kept_place += u64::from(self.outbox.control_len() > 0);
        let unsent = self.outbox.unsent(chunk, written, &self.limits);
        assert_eq!(unsent, self.model.unsent(written), "what became of a write of which {written} bytes were taken");
        self.seen.handed += unsent.whole;
        self.seen.cut += 1;
        self.seen.unpinged += u64::from(unsent.unpinged);
        self.count(unsent.gone, unsent.gone);
    }

    fn compare(&self) {
        let Trial { outbox, model, .. } = self;
        assert_eq!(outbox.pending(), model.pending(), "updates that wait");
        assert_eq!(outbox.pending_bytes(), model.pending_bytes(), "bytes that wait");
        assert_eq!(outbox.control_len(), model.control.len());
        assert_eq!(outbox.has_started(), model.started.is_some());
        assert_eq!(outbox.has_waiting(), model.pending() > model.started.as_ref().map_or(0, |started| started.1));
        assert_eq!(outbox.is_empty(), model.is_empty());
        let in_flight = self.flight.as_ref().map_or(0, |chunk| u64::from(chunk.run.updates));
        let gone = self.seen.handed + self.seen.conflated + self.seen.dropped;
        assert_eq!(self.offered, gone + outbox.pending() + in_flight, "an update was lost, or counted twice");
    }

    /// Everything is written, and nothing is left.
    fn drain(&mut self) {
        self.land();
        while !self.outbox.is_empty() {
            self.apply((133, 3, 1, 0));
            assert!(self.flight.is_some(), "something is owed, and nothing comes");
            self.land();
            self.compare();
        }
        assert_eq!((self.outbox.pending(), self.outbox.pending_bytes()), (0, 0));
        assert_eq!(self.stream.end(), self.seen.handed, "updates in the stream");
    }

    fn count(&mut self, gone: Gone, expected: Gone) {
        assert_eq!(gone, expected);
        self.seen.conflated += gone.conflated;
        self.seen.dropped += gone.dropped;
    }

    fn update(&mut self, channel: u32, b: u8, c: u16) -> Item {
        let kind = if b < 30 { Kind::Critical } else { Kind::Update };
        let key = match channel {
            2 => u64::from(b % 4),
            3 => u64::from(b % 100),
            _ => 0,
        };
        self.offered += 1;
        let size = if c > 65_000 { 20_000 } else { c % 700 };
        self.item(kind, channel, key, size)
    }

    fn item(&mut self, kind: Kind, channel: u32, key: u64, size: u16) -> Item {
        self.seq += 1;
        let policy = POLICIES.get(channel as usize).copied().unwrap_or_default();
        Item { kind, channel, key, policy, bytes: stream::frame(kind, channel, key, self.seq, size) }
    }
}

impl Item {
    fn run(&self) -> Rc<Run> {
        let Item { kind, channel, key, policy, .. } = *self;
        let frames = [Some(self.bytes.clone().into()), None];
        let update = Update { seq: 0, received_us: 0, key, critical: kind == Kind::Critical, frames };
        Rc::new(Run::update(channel, policy, &Arc::new(update), Face::ALL[0]).expect("it was encoded for that face"))
    }
}
