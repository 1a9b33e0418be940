//! The source's side towards the shards: their queues, the table, and the counters.
//!
//! Invariant: nothing here waits for a shard.

use super::handle::SHOWN;
use super::health::AtMostEvery;
use super::publish::Asker;
use super::table::{Message, Received, Table, Word};
use super::{Reached, ShardLink};
use crate::bus::{Offer, PublishError, ToShard, ToSource};
use crate::ids::ShardId;
use crate::lifecycle::Clock;
use crate::metrics::SourceCounters;
use std::time::Duration;

/// Answers to clients that may wait in front of a full inbox. Past it the shard's requests are left where they are: its
/// outlet fills, and its clients are told that it is busy.
const ANSWERS_MAX: usize = 4096;

/// The shards, and what they want.
pub struct Desk {
    /// What the shards want.
    pub table: Table,
    /// What is counted; whatever the table counts is added in [`Desk::shown`].
    pub counters: SourceCounters,
    /// When `connected` changed last.
    pub since_us: u64,
    clock: Clock,
    shards: Vec<ShardLink>,
    /// What the table said and has yet to be offered; kept for its memory.
    words: Vec<Word>,
    too_large: AtMostEvery,
    overrun: AtMostEvery,
}

impl Desk {
    /// A desk for `shards`, in the order of their numbers.
    pub fn new(table: Table, clock: Clock, shards: Vec<ShardLink>) -> Self {
        Self {
            table,
            counters: SourceCounters::default(),
            since_us: clock.now_us(),
            clock,
            shards,
            words: Vec::new(),
            too_large: AtMostEvery::new(Duration::from_secs(1)),
            overrun: AtMostEvery::new(Duration::from_secs(1)),
        }
    }

    /// Microseconds of the process's clock.
    pub fn now_us(&self) -> u64 {
        self.clock.now_us()
    }

    /// Notes whether the source can be reached.
    pub fn set_connected(&mut self, connected: bool) {
        let connected = u64::from(connected);
        if self.counters.connected != connected {
            self.counters.lost += u64::from(connected == 0);
            (self.counters.connected, self.since_us) = (connected, self.now_us());
        }
    }

    /// Lets the table speak, and offers what it says to the shards.
    pub fn with_table<T>(&mut self, speak: impl FnOnce(&mut Table, &mut Vec<Word>) -> T) -> T {
        let spoken = speak(&mut self.table, &mut self.words);
        for word in self.words.drain(..) {
            match word {
                Word::Confirmed(shard, confirmed) => self.shards[shard.index()].inbox.confirm(confirmed),
                Word::Notice(shard, confirmed) => self.shards[shard.index()].inbox.notify(confirmed),
                Word::Update(shard, channel, update) => {
                    self.counters.offered += 1;
                    match self.shards[shard.index()].inbox.offer(channel, update) {
                        Offer::Queued | Offer::Held => {}
                        Offer::Conflated(_) => self.counters.conflated += 1,
                    }
                }
            }
        }
        spoken
    }

    /// Hands out what was published. Answers the number of sockets that listen.
    pub fn receive(&mut self, channel: &str, payload: &[u8], subscribing: bool) -> Result<u64, PublishError> {
        self.counters.received += 1;
        let now_us = self.now_us();
        let message = Message { channel, payload, now_us, ts_ms: self.clock.unix_ms(now_us), subscribing };
        match self.with_table(|table, words| table.receive(&message, words)) {
            Received::Given(sockets) => Ok(sockets),
            Received::TooLarge => {
                self.counters.too_large += 1;
                if self.too_large.allows(now_us) {
                    tracing::warn!(channel, bytes = payload.len(), "an update was larger than limits.update_bytes_max");
                }
                Err(PublishError::TooLarge)
            }
        }
    }

    /// Tells whoever published what became of it.
    pub fn answer(&mut self, asker: Asker, outcome: Result<Reached, PublishError>) {
        if !matches!(asker, Asker::Probe) {
            self.counters.publish_errors += u64::from(outcome.is_err());
        }
        match asker {
            Asker::Client(ticket) => {
                let answer = ToShard::Published { outcome: outcome.map(drop), ticket: ticket.clone() };
                self.shards[ticket.shard.index()].inbox.answer(answer);
            }
            Asker::Api(answer) => drop(answer.send(outcome)), // whoever asked may be gone
            Asker::Probe => {}
        }
    }

    /// The next request of a shard, if there is one and its answers do not pile up.
    pub fn next_request(&self, shard: usize) -> Option<ToSource> {
        let ShardLink { inbox, outlet } = &self.shards[shard];
        (inbox.answers_waiting() < ANSWERS_MAX).then(|| outlet.try_recv()).flatten()
    }

    /// Whether [`Desk::next_request`] has something for any shard.
    pub fn has_request(&self) -> bool {
        self.shards.iter().any(|shard| !shard.outlet.is_empty() && shard.inbox.answers_waiting() < ANSWERS_MAX)
    }

    /// How many shards there are.
    pub fn shard_count(&self) -> usize {
        self.shards.len()
    }

    /// Hands over what had to wait, as far as there is room, and wakes the shards: once a batch.
    pub fn hand_over(&mut self) {
        loop {
            for ShardLink { inbox, .. } in &mut self.shards {
                let _ = inbox.flush(); // where something stays, the shard rings when it has made room
            }
            if !self.tell_overrun() {
                break;
            }
        }
        self.shards.iter_mut().for_each(|shard| shard.inbox.ring());
    }

    /// What was lost in front of full inboxes is told: those channels begin new epochs. Whether there was anything new.
    fn tell_overrun(&mut self) -> bool {
        let (now_us, mut lost, mut untold) = (self.now_us(), 0, 0);
        for (shard, ShardLink { inbox, .. }) in self.shards.iter_mut().enumerate() {
            let shard = ShardId(shard as u16);
            for (channel, _) in inbox.take_lost() {
                lost += 1;
                self.table.missed(shard, channel, now_us);
            }
            for channel in inbox.take_untold() {
                untold += 1;
                self.table.missed(shard, channel, now_us);
            }
        }
        self.counters.overrun += lost;
        if lost > 0 && self.overrun.allows(now_us) {
            let lost = self.counters.overrun;
            tracing::warn!(lost, "a shard does not keep up and too much waited for it: updates were lost");
        }
        self.with_table(|table, words| {
            table.begin_epochs(now_us, words);
            !words.is_empty()
        }) || lost + untold > 0
    }

    /// Everything that is shown, as one array.
    pub fn shown(&mut self) -> [u64; SHOWN] {
        self.counters.held = self.shards.iter().map(|shard| shard.inbox.waiting() as u64).sum();
        self.counters.channels_wanted = self.table.channels_wanted();
        self.counters.channels_confirmed = self.table.channels_confirmed();
        let mut shown = [0; SHOWN];
        shown[..SourceCounters::LEN].copy_from_slice(&self.counters.values());
        shown[SourceCounters::LEN..].copy_from_slice(&[self.since_us, self.now_us()]);
        shown
    }
}
