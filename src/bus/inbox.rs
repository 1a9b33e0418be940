//! From the source to one shard: a queue bounded in messages and bytes, and behind it, for the time that it is full,
//! critical updates and the newest of each channel and key, bounded too.
//!
//! Invariant: the source never waits. Invariant: for each channel and key the newest update, every critical one, and the
//! newest word on a subscription reach the shard, or the loss is told (see [`InboxSender::take_lost`]).
//! Invariant: the answer to a demand goes before what waits of its channel, the notice of a new epoch behind it.
//! Invariant: what reaches the shard of one channel and key is in order, and so are critical updates.

mod held;

use super::{Confirmed, ToShard};
use crate::config::Limits;
use crate::fanout::Update;
use crate::ids::ChannelRef;
use crate::sys::Doorbell;
use crossbeam_channel::{Receiver, Sender, bounded};
use held::{Held, Next};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};

/// How much a queue holds, and how much waits behind it.
#[derive(Clone, Copy, Debug)]
pub struct InboxLimits {
    /// Messages in the queue.
    pub messages_max: usize,
    /// Bytes of updates in the queue (an update of any size fits an empty one), and as many that wait behind it.
    pub bytes_max: usize,
    /// Critical updates that wait behind it.
    pub critical_max: usize,
}

impl InboxLimits {
    /// Those of the configuration.
    pub fn of(limits: &Limits) -> Self {
        let Limits { inbox_messages_max, inbox_bytes_max, inbox_critical_max, .. } = *limits;
        Self { messages_max: inbox_messages_max, bytes_max: inbox_bytes_max, critical_max: inbox_critical_max }
    }
}

/// What became of an update that was offered to a shard.
#[derive(Clone, Debug)]
#[must_use]
pub enum Offer {
    /// It is in the queue.
    Queued,
    /// The queue is full: it waits at the source.
    Held,
    /// The queue is full: it waits at the source, and took the place of this older one, which nobody will see.
    Conflated(Arc<Update>),
}

/// What both ends see: paid once an update and shard, never a socket.
#[derive(Debug, Default)]
struct Shared {
    bytes: AtomicUsize,
    /// The source has something that did not fit: the shard rings when it has made room.
    waiting: AtomicBool,
}

/// The source's end.
pub struct InboxSender {
    queue: Sender<ToShard>,
    limits: InboxLimits,
    shared: Arc<Shared>,
    bell: Doorbell,
    /// Something was put into the queue since the bell was rung last.
    news: bool,
    /// Answers to clients that had to wait, in order.
    answers: VecDeque<ToShard>,
    held: Held,
    lost: Vec<(ChannelRef, u64)>,
    untold: Vec<ChannelRef>,
}

/// The shard's end.
pub struct InboxReceiver {
    queue: Receiver<ToShard>,
    shared: Arc<Shared>,
    source: Doorbell,
    /// Bytes taken out since the last [`InboxReceiver::settle`].
    taken: usize,
}

/// A queue with these limits; `shard` and `source` are the bells of the two sides.
pub fn inbox(limits: InboxLimits, shard: Doorbell, source: Doorbell) -> (InboxSender, InboxReceiver) {
    let (sender, receiver) = bounded(limits.messages_max);
    let shared = Arc::new(Shared::default());
    let sender = InboxSender {
        queue: sender,
        limits,
        shared: Arc::clone(&shared),
        bell: shard,
        news: false,
        answers: VecDeque::new(),
        held: Held::default(),
        lost: Vec::new(),
        untold: Vec::new(),
    };
    (sender, InboxReceiver { queue: receiver, shared, source, taken: 0 })
}

impl InboxSender {
    /// Offers a channel's next update. Call [`InboxSender::ring`] after the last of a batch.
    pub fn offer(&mut self, channel: ChannelRef, update: Arc<Update>) -> Offer {
        if self.waiting() == 0 && self.push_update(channel, &update) {
            return Offer::Queued;
        }
        let replaced = self.held.hold(channel, update);
        while self.held.is_over(&self.limits)
            && let Some((channel, update)) = self.held.lose(&self.limits)
        {
            self.lost.push((channel, update.seq));
        }
        replaced.map_or(Offer::Held, Offer::Conflated)
    }

    /// Updates that waited and went for want of room, though no newer one of their key took their place, by channel and
    /// seq: subscribers of these channels have to be told that they missed something.
    pub fn take_lost(&mut self) -> Vec<(ChannelRef, u64)> {
        std::mem::take(&mut self.lost)
    }

    /// Channels that have to be told so once more: what they lost lay behind the notice that told it.
    pub fn take_untold(&mut self) -> Vec<ChannelRef> {
        std::mem::take(&mut self.untold)
    }

    /// Answers a demand; replaces an older answer that still waits. It goes before the channel's updates that wait.
    pub fn confirm(&mut self, confirmed: Confirmed) {
        if self.waiting() > 0 || !self.push(|| ToShard::Confirmed(confirmed), 0) {
            self.held.confirmed.insert(confirmed.channel, confirmed);
        }
    }

    /// Says that a channel is in a new epoch, behind its updates that wait, so that the seq in it holds when it is read.
    pub fn notify(&mut self, confirmed: Confirmed) {
        if self.waiting() > 0 || !self.push(|| ToShard::Confirmed(confirmed), 0) {
            self.held.notify(confirmed);
        }
    }

    /// Answers a client's publish. The caller bounds the answers that may wait (see [`InboxSender::answers_waiting`]).
    pub fn answer(&mut self, answer: ToShard) {
        if self.waiting() > 0 || !self.push(|| answer.clone(), 0) {
            self.answers.push_back(answer);
        }
    }

    /// Hands over what had to wait, as far as there is room; whether all of it went. While it answers false, the shard
    /// rings the source's bell as soon as it has made room.
    pub fn flush(&mut self) -> bool {
        if self.flush_once() {
            return true;
        }
        self.shared.waiting.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst); // pairs with the one in `settle`: one of the two sides sees the other
        self.flush_once() // the shard may have emptied the queue just before it could see the flag
    }

    /// Wakes the shard if it sleeps and there is something for it.
    pub fn ring(&mut self) {
        if std::mem::take(&mut self.news) {
            self.bell.ring();
        }
    }

    /// Messages in the queue.
    pub fn depth(&self) -> usize {
        self.queue.len()
    }

    /// Things that wait for room.
    pub fn waiting(&self) -> usize {
        self.answers.len() + self.held.len()
    }

    /// Answers that wait for room.
    pub fn answers_waiting(&self) -> usize {
        self.answers.len()
    }

    fn flush_once(&mut self) -> bool {
        while let Some(answer) = self.answers.front().cloned() {
            if !self.push(|| answer, 0) {
                return false;
            }
            self.answers.pop_front();
        }
        while let Some((_, &confirmed)) = self.held.confirmed.last() {
            if !self.push(|| ToShard::Confirmed(confirmed), 0) {
                return false;
            }
            self.held.confirmed.pop();
        }
        while let Some(next) = self.held.front() {
            let pushed = match next {
                Next::Update(channel, update) => self.push_update(channel, &update),
                Next::Notice(confirmed) => self.push(|| ToShard::Confirmed(confirmed), 0),
            };
            if !pushed {
                return false;
            }
            self.untold.extend(self.held.pop());
        }
        true
    }

    fn push_update(&mut self, channel: ChannelRef, update: &Arc<Update>) -> bool {
        self.push(|| ToShard::Update { channel, update: Arc::clone(update) }, update.bytes())
    }

    /// Puts a message of `bytes` into the queue; whether there was room.
    fn push(&mut self, message: impl FnOnce() -> ToShard, bytes: usize) -> bool {
        let queued = self.shared.bytes.load(Ordering::Relaxed);
        if self.queue.is_full() || (queued > 0 && queued + bytes > self.limits.bytes_max) {
            return false;
        }
        self.shared.bytes.fetch_add(bytes, Ordering::Relaxed);
        // There is one sender, so the room that was seen is still there; a shard that has ended takes nothing any more.
        let _ = self.queue.try_send(message());
        self.news = true;
        true
    }
}

impl InboxReceiver {
    /// The next message, if there is one.
    pub fn try_recv(&mut self) -> Option<ToShard> {
        let message = self.queue.try_recv().ok()?;
        if let ToShard::Update { update, .. } = &message {
            self.taken += update.bytes();
        }
        Some(message)
    }

    /// Gives the room of what was taken back to the source, and wakes it where it waits for room. Call it once a turn.
    pub fn settle(&mut self) {
        if self.taken > 0 {
            self.shared.bytes.fetch_sub(self.taken, Ordering::Relaxed);
            self.taken = 0;
        }
        fence(Ordering::SeqCst);
        if self.shared.waiting.load(Ordering::SeqCst) && self.shared.waiting.swap(false, Ordering::SeqCst) {
            self.source.ring();
        }
    }

    /// Messages in the queue.
    pub fn depth(&self) -> usize {
        self.queue.len()
    }
}

#[cfg(test)]
mod tests;
