//! What one socket that fell behind is still owed. Pure: no IO, no clock.
//!
//! Invariant: a frame that was started is finished before anything else is written.
//! Invariant: data never displaces control, and control goes first.
//! Invariant: the updates of a channel leave in the order in which they came.
//!
//! This is the first, plain form: bounded, and where it is full the oldest update is dropped, so that the newest state
//! is the one that gets through.

use super::{Chunk, Run};
use std::collections::VecDeque;
use std::rc::Rc;

/// The rest of a started frame up to this size is copied, so that it does not keep a whole shared run in memory; the
/// rest of a larger one shares the run, which costs less than a copy would.
const COPY_MAX: usize = 16 << 10;

/// How much may wait.
#[derive(Clone, Copy, Debug)]
pub struct OutboxLimits {
    /// Updates.
    pub messages_max: usize,
    /// Bytes of updates (one of any size is always taken).
    pub bytes_max: usize,
}

/// What became of an update that was offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Offer {
    /// It waits.
    Queued,
    /// It waits, and so many older ones were dropped for it.
    Displaced(u64),
}

/// See the module.
#[derive(Debug, Default)]
pub struct Outbox {
    /// The rest of what was started.
    started: Option<Chunk>,
    control: VecDeque<Rc<Run>>,
    data: VecDeque<Rc<Run>>,
    data_bytes: usize,
}

impl Outbox {
    /// An update that could not be written now.
    pub fn offer(&mut self, update: Rc<Run>, limits: &OutboxLimits) -> Offer {
        self.data_bytes += update.bytes().len();
        self.data.push_back(update);
        self.shed(limits)
    }

    /// Word of a channel's new epoch: never dropped, and at most one waits for each channel.
    pub fn notice(&mut self, notice: Rc<Run>) {
        if let Some(at) = self.data.iter().position(|run| run.updates == 0 && run.channel == notice.channel) {
            self.remove(at);
        }
        self.data_bytes += notice.bytes().len();
        self.data.push_back(notice);
    }

    /// A reply, pong, ping or close.
    pub fn control(&mut self, run: Rc<Run>) {
        self.control.push_back(run);
    }

    /// Control frames that wait.
    pub fn control_len(&self) -> usize {
        self.control.len()
    }

    /// Takes back what a write of `chunk` did not take after its first `written` bytes; the number of updates that were
    /// written whole, and of those that were dropped for want of room.
    pub fn unsent(&mut self, chunk: Chunk, written: usize, limits: &OutboxLimits) -> (u64, u64) {
        debug_assert!(self.started.is_none(), "one write at a time");
        let written = chunk.start as usize + written;
        // What was queued since may speak of these updates (`unsubscribed`, a close): it does not overtake them.
        let keeps_place = !self.control.is_empty();
        if chunk.run.parts().is_empty() {
            let untouched = written == 0 && chunk.run.channel != Run::NO_CHANNEL && !keeps_place;
            match untouched {
                true => self.put_back(chunk.run),
                false => self.started = Some(rest(chunk.run, written)),
            }
            return (0, self.shed(limits).displaced());
        }
        let (mut whole, mut end, mut back) = (0, 0, Vec::new());
        for part in chunk.run.parts() {
            let start = end;
            end += part.bytes().len();
            match () {
                () if end <= written => whole += u64::from(part.updates),
                () if start < written => self.started = Some(rest(Rc::clone(part), written - start)),
                () => back.push(Rc::clone(part)),
            }
        }
        if keeps_place {
            let run = &chunk.run;
            let rest = run.bytes()[written..].to_vec();
            let rest = Run::completing(rest, run.updates - whole as u32, run.received_us);
            self.started = Some(Chunk::whole(Rc::new(rest)));
        } else {
            back.into_iter().rev().for_each(|part| self.put_back(part));
        }
        (whole, self.shed(limits).displaced())
    }

    /// The next write: the rest of what was started, then control, then updates, of at most `write_max` bytes (more
    /// only where a single frame is larger). `None`: nothing is owed.
    pub fn next(&mut self, write_max: usize) -> Option<Chunk> {
        let first = match self.started.take() {
            Some(chunk) => chunk,
            None => Chunk::whole(self.pop()?),
        };
        let mut size = first.bytes().len();
        if self.peek().is_none_or(|next| size + next.bytes().len() > write_max) {
            return Some(first);
        }
        let mut bytes = Vec::with_capacity(write_max);
        bytes.extend_from_slice(first.bytes());
        let (mut updates, mut received_us) = (first.run.updates, first.run.received_us);
        while let Some(next) = self.peek()
            && size + next.bytes().len() <= write_max
        {
            let Some(run) = self.pop() else { break };
            bytes.extend_from_slice(run.bytes());
            size = bytes.len();
            if updates == 0 {
                received_us = run.received_us;
            }
            updates += run.updates;
        }
        Some(Chunk::whole(Rc::new(Run::completing(bytes, updates, received_us))))
    }

    /// Drops the updates that wait of one channel (those that were not started); how many.
    pub fn forget_channel(&mut self, channel: u32) -> u64 {
        let before = self.updates();
        self.data.retain(|run| run.channel != channel);
        self.data_bytes = self.data.iter().map(|run| run.bytes().len()).sum();
        before - self.updates()
    }

    /// Drops all updates that were not started; how many.
    pub fn forget_data(&mut self) -> u64 {
        let dropped = self.updates();
        self.data.clear();
        self.data_bytes = 0;
        dropped
    }

    /// Updates that wait, the one that is started included.
    pub fn pending(&self) -> u64 {
        self.updates() + self.started.as_ref().map_or(0, |chunk| u64::from(chunk.run.updates))
    }

    /// Bytes of updates that wait, and of what is started.
    pub fn pending_bytes(&self) -> usize {
        self.data_bytes + self.started.as_ref().map_or(0, |chunk| chunk.bytes().len())
    }

    /// Whether nothing is owed.
    pub fn is_empty(&self) -> bool {
        self.started.is_none() && self.control.is_empty() && self.data.is_empty()
    }

    fn updates(&self) -> u64 {
        self.data.iter().map(|run| u64::from(run.updates)).sum()
    }

    fn peek(&self) -> Option<&Rc<Run>> {
        self.control.front().or_else(|| self.data.front())
    }

    fn pop(&mut self) -> Option<Rc<Run>> {
        self.control.pop_front().or_else(|| {
            let run = self.data.pop_front()?;
            self.data_bytes -= run.bytes().len();
            Some(run)
        })
    }

    fn put_back(&mut self, run: Rc<Run>) {
        self.data_bytes += run.bytes().len();
        self.data.push_front(run);
    }

    fn remove(&mut self, at: usize) -> Option<Rc<Run>> {
        let run = self.data.remove(at)?;
        self.data_bytes -= run.bytes().len();
        Some(run)
    }

    fn shed(&mut self, limits: &OutboxLimits) -> Offer {
        let mut dropped = 0;
        let mut oldest = 0;
        let mut updates = self.updates() as usize;
        while updates > 1 && (updates > limits.messages_max || self.data_bytes > limits.bytes_max) {
            // Notices are not counted and not dropped.
            let Some(run) = self.data.get(oldest) else { break };
            if run.updates == 0 {
                oldest += 1;
                continue;
            }
            self.remove(oldest);
            updates -= 1;
            dropped += 1;
        }
        if dropped > 0 { Offer::Displaced(dropped) } else { Offer::Queued }
    }
}

impl Offer {
    fn displaced(self) -> u64 {
        match self {
            Offer::Queued => 0,
            Offer::Displaced(dropped) => dropped,
        }
    }
}

fn rest(run: Rc<Run>, written: usize) -> Chunk {
    let rest = &run.bytes()[written..];
    if rest.len() > COPY_MAX && run.parts().is_empty() {
        return Chunk { start: written as u32, run };
    }
    Chunk::whole(Rc::new(Run::completing(rest.to_vec(), run.updates, run.received_us)))
}
