//! What one socket that fell behind is still owed. Pure: no IO, no clock.
//!
//! Invariant: a frame that was started is finished before anything else is written.
//! Invariant: data never displaces control or critical; control goes first, then critical, then data.
//! Invariant: once it conflates, at most one update is pending for each channel and key, until nothing is pending.
//! Invariant: updates of one channel and key leave in the order in which they came, and so do critical ones.
//! Invariant: the newest of a channel and key that conflates goes only for want of bytes, and then it is said which channel missed it.
//! Invariant: every update that was offered is pending, or was reported as conflated, dropped or handed out.

use super::lane::Lane;
use super::line::Line;
use super::{Chunk, Run};
use crate::config::Policy;
use std::rc::Rc;

/// The rest of a started frame up to this size is copied, so that it does not keep a whole shared run in memory; the
/// rest of a larger one shares the run, which costs less than a copy would.
const COPY_MAX: usize = 16 << 10;
/// What a place in line is reckoned to cost in memory, beside the bytes that wait in it: itself and its entry in an index.
const PLACE_BYTES: usize = 64;

/// How much may wait.
#[derive(Clone, Copy, Debug)]
pub struct OutboxLimits {
    /// Updates that are kept whole before it conflates.
    pub slack: usize,
    /// Updates that wait whole, critical ones not counted: those of channels that do not conflate, and of the others as
    /// many before they do.
    pub messages_max: usize,
    /// Bytes of updates, critical ones not counted (one update of any size is always taken).
    pub bytes_max: usize,
    /// Critical updates.
    pub critical_max: usize,
}

/// What became of an update that was offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Offer {
    /// It waits, and so many older ones went for it.
    Queued(Gone),
    /// It was dropped.
    Dropped,
    /// It was dropped, after so many older ones, and the socket must be closed: it is too slow.
    TooSlow(Gone),
}

/// Updates that will not be written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gone {
    /// A newer one of the same key took their place.
    pub conflated: u64,
    /// There was no room for them.
    pub dropped: u64,
}

/// What became of a write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unsent {
    /// Updates that were written whole.
    pub whole: u64,
    /// Updates that went for want of room.
    pub gone: Gone,
    /// A ping that rode at the end was taken back, and goes with the next write or not at all.
    pub unpinged: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Outbox {
    /// The rest of what was started.
    started: Option<Chunk>,
    control: Lane,
    critical: Lane,
    data: Line,
    /// More than `slack` updates waited since it was last empty.
    conflating: bool,
    /// Channels of whose newest updates some were dropped, since it was last asked.
    missed: Vec<u32>,
    /// When the oldest update of the last write was received, for the age that its pong proves.
    pub written_us: Option<u64>,
}

impl OutboxLimits {
    /// Updates that may wait before channels that conflate do so.
    fn whole_max(&self) -> usize {
        self.slack.min(self.messages_max)
    }
}

impl Gone {
    /// Both together.
    #[must_use]
    pub fn and(self, other: Gone) -> Gone {
        Gone { conflated: self.conflated + other.conflated, dropped: self.dropped + other.dropped }
    }
}

impl Outbox {
    /// An update that cannot be written now.
    pub fn offer(&mut self, update: Rc<Run>, limits: &OutboxLimits) -> Offer {
        if update.critical {
            if self.critical.len() >= limits.critical_max {
                return Offer::TooSlow(Gone::default());
            }
            self.critical.push(update);
            return Offer::Queued(Gone::default());
        }
        let mut gone = Gone::default();
        if update.policy == Policy::Conflate {
            gone.conflated = self.conflate_past(limits, &update);
        }
        let bytes = update.bytes().len();
        if self.conflating
            && let Some(older) = self.data.older(&update).map(|older| older.bytes().len())
        {
            gone.conflated += 1;
            if bytes <= older || self.data.bytes() - older + bytes <= limits.bytes_max {
                self.data.replace(update);
                return Offer::Queued(gone);
            }
            self.data.take_older(&update); // it is too large for the older one's place: as if it were new
        }
        loop {
            let untopical = self.data.untopical();
            let many = update.policy != Policy::Conflate && untopical > 0 && untopical >= limits.messages_max;
            let large = self.data.updates() > 0 && self.data.bytes() + bytes > limits.bytes_max;
            match update.policy {
                _ if !many && !large => break,
                Policy::DropNewest => return Offer::Dropped,
                Policy::Disconnect => return Offer::TooSlow(gone),
                Policy::DropOldest if self.drop_oldest(|older| older.channel == update.channel) => {}
                // Dropping what conflates makes room in bytes, not in places.
                _ if self.drop_oldest(|older| large || older.policy != Policy::Conflate) => {}
                _ => return Offer::TooSlow(gone), // all others are of channels that would rather have it closed
            }
            gone.dropped += 1;
        }
        self.data.push(update);
        Offer::Queued(gone)
    }

    /// The updates of a run that cannot be written now, in order; what went, and whether the socket must be closed.
    pub fn offer_all(&mut self, run: &Rc<Run>, limits: &OutboxLimits) -> (Gone, bool) {
        let parts = if run.parts().is_empty() { std::slice::from_ref(run) } else { run.parts() };
        let (mut gone, mut too_slow) = (Gone::default(), false);
        let newest = run.newest().filter(|newest| {
            parts.first().is_some_and(|part| part.policy == Policy::Conflate)
                && (self.conflating || self.data.updates() + newest.displaceable > limits.whole_max())
        });
        let owed = newest.map_or(parts, |newest| &newest.parts);
        if owed.len() < parts.len() {
            // What a later one of the same run replaces need not be put in line first.
            gone = self.conflate();
            gone.conflated += (parts.len() - owed.len()) as u64;
        }
        for part in owed {
            match self.offer(Rc::clone(part), limits) {
                Offer::Queued(more) => gone = gone.and(more),
                Offer::Dropped => gone.dropped += 1,
                Offer::TooSlow(more) => {
                    gone = gone.and(more).and(Gone { conflated: 0, dropped: 1 });
                    too_slow = true;
                }
            }
        }
        (gone, too_slow)
    }

    /// Word of a channel's new epoch: never dropped, and at most one waits for each channel.
    pub fn notice(&mut self, notice: Rc<Run>) {
        self.data.take_notice(&notice);
        self.data.push(notice);
    }

    /// Word that a channel's newest state was not kept: the same, but a newer one takes the older one's place, so that it
    /// is not put off for as long as more is missed.
    pub fn missed(&mut self, notice: Rc<Run>) {
        self.data.renew_notice(notice);
    }

    /// The channels of whose newest updates some were dropped since this was last asked.
    pub fn take_missed(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.missed)
    }

    /// A reply, pong, ping or close.
    pub fn control(&mut self, run: Rc<Run>) {
        self.control.push(run);
    }

    /// Control frames that wait.
    pub fn control_len(&self) -> usize {
        self.control.len()
    }

    /// Conflates from now on, whatever the slack; what went.
    pub fn conflate(&mut self) -> Gone {
        self.conflating = true;
        Gone { conflated: self.data.collapse(), dropped: 0 }
    }

    /// Drops the oldest updates that may be dropped, until `bytes` fewer wait; what went.
    pub fn spill(&mut self, bytes: usize) -> Gone {
        let bytes_max = self.data.bytes().saturating_sub(bytes);
        let mut gone = Gone::default();
        while self.data.bytes() > bytes_max && self.drop_oldest(|_| true) {
            gone.dropped += 1;
        }
        gone
    }

    /// Takes back what a write of `chunk` did not take after its first `written` bytes: a frame that was started is
    /// kept to be finished, the others wait again, before what came later.
    pub fn unsent(&mut self, chunk: Chunk, written: usize, limits: &OutboxLimits) -> Unsent {
        debug_assert!(self.started.is_none(), "one write at a time");
        let written = chunk.start as usize + written;
        let mut unsent = Unsent::default();
        // What was queued since may speak of these updates (`unsubscribed`, a close): it does not overtake them.
        let keeps_place = !self.control.is_empty();
        if chunk.run.parts().is_empty() {
            match written == 0 && chunk.run.channel != Run::NO_CHANNEL && !keeps_place {
                true => unsent.gone = self.put_back(vec![chunk.run], limits),
                false => self.started = Some(rest(chunk.run, written)),
            }
            return unsent;
        }
        let (mut end, mut back) = (0, Vec::new());
        for part in chunk.run.parts() {
            let start = end;
            end += part.bytes().len();
            match () {
                () if end <= written => unsent.whole += u64::from(part.updates),
                () if start < written => self.started = Some(rest(Rc::clone(part), written - start)),
                () => back.push(Rc::clone(part)),
            }
        }
        if written >= end {
            // All updates went, and not all of the ping behind them.
            self.started = Some(Chunk::whole(Rc::new(Run::own(chunk.run.bytes()[written..].to_vec()))));
            return unsent;
        }
        if keeps_place {
            let run = &chunk.run;
            let updates = run.updates - unsent.whole as u32;
            let rest = Run::completing(run.bytes()[written..].to_vec(), updates, run.received_us);
            self.started = Some(Chunk::whole(Rc::new(rest)));
            return unsent;
        }
        unsent.gone = self.put_back(back, limits);
        unsent.unpinged = chunk.run.ping;
        unsent
    }

    /// The next write: the rest of what was started, then control, critical and data, of at most `write_max` bytes (more
    /// only where a single frame is larger). `None`: nothing is owed.
    pub fn next(&mut self, write_max: usize) -> Option<Chunk> {
        let first = match self.started.take() {
            Some(chunk) => chunk,
            None => Chunk::whole(self.pop()?),
        };
        let next = self.fill(first, write_max, Self::peek, Self::pop);
        self.settle();
        Some(next)
    }

    /// The same of control and critical alone, for a socket that may not be sent data now.
    pub fn next_critical(&mut self, write_max: usize) -> Option<Chunk> {
        debug_assert!(self.started.is_none(), "a started frame is finished first");
        let first = Chunk::whole(self.pop_critical()?);
        Some(self.fill(first, write_max, Self::peek_critical, Self::pop_critical))
    }

    /// The next control frames, of at most `write_max` bytes together, for a socket that may not be sent data now.
    pub fn next_control(&mut self, write_max: usize) -> Option<Chunk> {
        debug_assert!(self.started.is_none(), "a started frame is finished first");
        let mut bytes = self.control.pop()?.bytes().to_vec();
        while let Some(run) = self.control.front()
            && bytes.len() + run.bytes().len() <= write_max
        {
            bytes.extend_from_slice(run.bytes());
            self.control.pop();
        }
        Some(Chunk::whole(Rc::new(Run::own(bytes))))
    }

    /// Drops the updates that wait of one channel (those that were not started); how many.
    pub fn forget_channel(&mut self, channel: u32) -> u64 {
        self.missed.retain(|missed| *missed != channel);
        self.critical.forget(Some(channel)) + self.data.forget(Some(channel))
    }

    /// Drops all updates that were not started; how many.
    pub fn forget_data(&mut self) -> u64 {
        self.missed.clear();
        self.critical.forget(None) + self.data.forget(None)
    }

    /// Updates that wait, the one that is started included.
    pub fn pending(&self) -> u64 {
        let started = self.started.as_ref().map_or(0, |chunk| u64::from(chunk.run.updates));
        (self.data.updates() + self.critical.len()) as u64 + started
    }

    /// Bytes of updates that wait, and of what is started.
    pub fn pending_bytes(&self) -> usize {
        self.data.bytes() + self.critical.bytes() + self.started.as_ref().map_or(0, |chunk| chunk.bytes().len())
    }

    /// Bytes of memory that this outbox alone keeps: its places, and what no other socket shares. What waits of an
    /// update is charged to the shard instead (see [`Run::charge`]).
    pub fn owned_bytes(&self) -> usize {
        let places = self.data.taken() + self.critical.len() + self.control.len();
        let started = self.started.as_ref().map_or(0, |chunk| chunk.run.owned_bytes() + PLACE_BYTES);
        places * PLACE_BYTES + self.data.owned() + self.control.bytes() + started
    }

    /// Critical updates that wait, and the bytes of the next of them and of all.
    pub fn waiting_critical(&self) -> (usize, usize, usize) {
        let next = self.critical.front().map_or(0, |run| run.bytes().len());
        (self.critical.len(), next, self.critical.bytes())
    }

    /// Whether updates wait besides the one that is started.
    pub fn has_waiting(&self) -> bool {
        self.data.updates() + self.critical.len() > 0
    }

    /// Whether a frame was started and not finished.
    pub fn has_started(&self) -> bool {
        self.started.is_some()
    }

    /// Whether nothing is owed.
    pub fn is_empty(&self) -> bool {
        self.started.is_none() && self.peek().is_none()
    }

    /// Begins to conflate if `update` would be one more than may wait whole; how many went for it.
    fn conflate_past(&mut self, limits: &OutboxLimits, update: &Rc<Run>) -> u64 {
        let (updates, bytes) = (self.data.updates(), self.data.bytes() + update.bytes().len());
        let large = updates > 0 && bytes > limits.bytes_max;
        if self.conflating || (updates + update.updates as usize <= limits.whole_max() && !large) {
            return 0;
        }
        self.conflate().conflated
    }

    /// Drops the oldest update that fits and may be dropped; whether there was one.
    fn drop_oldest(&mut self, fits: impl Fn(&Run) -> bool) -> bool {
        let Some(run) = self.data.drop_oldest(fits) else { return false };
        let was_newest = run.policy == Policy::Conflate && self.data.older(&run).is_none();
        if was_newest && !self.missed.contains(&run.channel) {
            self.missed.push(run.channel);
        }
        true
    }

    /// `first`, and what follows of those whom `peek` and `pop` give, as one write of at most `write_max` bytes.
    fn fill(
        &mut self,
        first: Chunk,
        write_max: usize,
        peek: impl Fn(&Self) -> Option<&Rc<Run>>,
        pop: impl Fn(&mut Self) -> Option<Rc<Run>>,
    ) -> Chunk {
        let mut size = first.bytes().len();
        if peek(self).is_none_or(|next| size + next.bytes().len() > write_max) {
            return first;
        }
        let mut bytes = Vec::with_capacity(write_max);
        bytes.extend_from_slice(first.bytes());
        let (mut updates, mut received_us) = (first.run.updates, first.run.received_us);
        while peek(self).is_some_and(|next| size + next.bytes().len() <= write_max)
            && let Some(run) = pop(self)
        {
            bytes.extend_from_slice(run.bytes());
            size = bytes.len();
            if updates == 0 {
                received_us = run.received_us;
            }
            updates += run.updates;
        }
        Chunk::whole(Rc::new(Run::completing(bytes, updates, received_us)))
    }

    fn settle(&mut self) {
        self.conflating &= !self.data.is_empty();
    }

    fn peek(&self) -> Option<&Rc<Run>> {
        self.peek_critical().or_else(|| self.data.front())
    }

    fn pop(&mut self) -> Option<Rc<Run>> {
        self.pop_critical().or_else(|| self.data.pop())
    }

    fn peek_critical(&self) -> Option<&Rc<Run>> {
        self.control.front().or_else(|| self.critical.front())
    }

    fn pop_critical(&mut self) -> Option<Rc<Run>> {
        self.control.pop().or_else(|| self.critical.pop())
    }

    /// Puts runs back that were handed out and not written, in front of what came after them.
    fn put_back(&mut self, runs: Vec<Rc<Run>>, limits: &OutboxLimits) -> Gone {
        let mut gone = Gone::default();
        let conflates = runs.iter().any(|run| run.updates > 0 && run.policy == Policy::Conflate);
        for run in runs.into_iter().rev() {
            match () {
                () if run.critical => self.critical.push_front(run),
                // What came since is newer: it stays, in the older one's place.
                () if self.conflating && self.data.older(&run).is_some() => {
                    self.data.advance(&run);
                    gone.conflated += 1;
                }
                () if run.updates == 0 && self.data.has_notice(&run) => {} // what came since says it too
                () => self.data.push_front(run),
            }
        }
        if conflates && !self.conflating && self.data.updates() > limits.whole_max() {
            gone = gone.and(self.conflate());
        }
        let whole = |run: &Run| run.policy != Policy::Conflate;
        while self.data.untopical() > limits.messages_max && self.drop_oldest(whole) {
            gone.dropped += 1;
        }
        gone
    }
}

fn rest(run: Rc<Run>, written: usize) -> Chunk {
    let rest = &run.bytes()[written..];
    if rest.len() > COPY_MAX && run.parts().is_empty() {
        return Chunk { start: written as u32, run };
    }
    Chunk::whole(Rc::new(Run::completing(rest.to_vec(), run.updates, run.received_us)))
}

#[cfg(test)]
mod tests;
