//! From the source to one shard: a queue bounded in messages and bytes, and behind it, for the time that it is full,
//! the newest update of each channel.
//!
//! Invariant: the source never waits. Invariant: for each channel the newest update, and the newest word on its
//! subscription, reach the shard. Invariant: what reaches the shard of one channel is in order.

use super::{Confirmed, ToShard};
use crate::fanout::Update;
use crate::ids::ChannelRef;
use crate::sys::Doorbell;
use crossbeam_channel::{Receiver, Sender, bounded};
use hashbrown::HashMap;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};

/// What became of an update that was offered to a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Offer {
    /// It is in the queue.
    Queued,
    /// The queue is full: it waits at the source as its channel's newest.
    Held,
    /// The queue is full: it waits at the source, and took the place of an older one, which nobody will see.
    Conflated,
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
    bytes_max: usize,
    shared: Arc<Shared>,
    bell: Doorbell,
    /// Something was put into the queue since the bell was rung last.
    news: bool,
    /// Answers to clients that had to wait, in order.
    answers: VecDeque<ToShard>,
    /// What had to wait of each channel.
    held: HashMap<ChannelRef, Held>,
    /// The channels in `held`, in the order in which they had to wait.
    order: VecDeque<ChannelRef>,
}

#[derive(Default)]
struct Held {
    confirmed: Option<Confirmed>,
    newest: Option<Arc<Update>>,
}

/// The shard's end.
pub struct InboxReceiver {
    queue: Receiver<ToShard>,
    shared: Arc<Shared>,
    source: Doorbell,
    /// Bytes taken out since the last [`InboxReceiver::settle`].
    taken: usize,
}

/// A queue of at most `messages_max` and `bytes_max` (an update of any size fits an empty queue); `shard` and `source`
/// are the bells of the two sides.
pub fn inbox(messages_max: usize, bytes_max: usize, shard: Doorbell, source: Doorbell) -> (InboxSender, InboxReceiver) {
    let (sender, receiver) = bounded(messages_max);
    let shared = Arc::new(Shared::default());
    let sender = InboxSender {
        queue: sender,
        bytes_max,
        shared: Arc::clone(&shared),
        bell: shard,
        news: false,
        answers: VecDeque::new(),
        held: HashMap::new(),
        order: VecDeque::new(),
    };
    (sender, InboxReceiver { queue: receiver, shared, source, taken: 0 })
}

impl InboxSender {
    /// Offers a channel's next update. Call [`InboxSender::ring`] after the last of a batch.
    pub fn offer(&mut self, channel: ChannelRef, update: Arc<Update>) -> Offer {
        if self.waiting() == 0 && self.push(|| ToShard::Update { channel, update: Arc::clone(&update) }, update.bytes())
        {
            return Offer::Queued;
        }
        match self.held(channel).newest.replace(update) {
            Some(_) => Offer::Conflated,
            None => Offer::Held,
        }
    }

    /// Says what holds for a channel's subscription; replaces an older word that still waits.
    pub fn confirm(&mut self, confirmed: Confirmed) {
        if self.waiting() > 0 || !self.push(|| ToShard::Confirmed(confirmed), 0) {
            self.held(confirmed.channel).confirmed = Some(confirmed);
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

    /// Things that wait for room: channels and answers.
    pub fn waiting(&self) -> usize {
        self.order.len() + self.answers.len()
    }

    /// Answers that wait for room.
    pub fn answers_waiting(&self) -> usize {
        self.answers.len()
    }

    fn held(&mut self, channel: ChannelRef) -> &mut Held {
        self.held.entry(channel).or_insert_with(|| {
            self.order.push_back(channel);
            Held::default()
        })
    }

    fn flush_once(&mut self) -> bool {
        while let Some(answer) = self.answers.front().cloned() {
            if !self.push(|| answer, 0) {
                return false;
            }
            self.answers.pop_front();
        }
        while let Some(&channel) = self.order.front() {
            let Held { confirmed, newest } = self.held.remove(&channel).unwrap_or_default();
            let said = confirmed.is_none_or(|confirmed| self.push(|| ToShard::Confirmed(confirmed), 0));
            // What was published before a confirmation is not owed to those whom it confirms: they drop it by its seq.
            let given = said
                && newest.as_ref().is_none_or(|update| {
                    self.push(|| ToShard::Update { channel, update: Arc::clone(update) }, update.bytes())
                });
            if !given {
                self.held.insert(channel, Held { confirmed: confirmed.filter(|_| !said), newest });
                return false;
            }
            self.order.pop_front();
        }
        true
    }

    /// Puts a message of `bytes` into the queue; whether there was room.
    fn push(&mut self, message: impl FnOnce() -> ToShard, bytes: usize) -> bool {
        let queued = self.shared.bytes.load(Ordering::Relaxed);
        if self.queue.is_full() || (queued > 0 && queued + bytes > self.bytes_max) {
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
mod tests {
    use super::*;
    use crate::ids::{Epoch, Faces};
    use crate::sys::Mode;

    fn channel(index: u32) -> ChannelRef {
        ChannelRef { index, generation: 0 }
    }

    fn update(seq: u64, bytes: usize) -> Arc<Update> {
        Arc::new(Update { seq, received_us: 0, key: 0, critical: false, frames: [Some(vec![0; bytes].into()), None] })
    }

    fn confirmed(index: u32, seq: u64) -> Confirmed {
        Confirmed { channel: channel(index), version: 1, faces: Faces::NONE, epoch: Epoch(1), seq }
    }

    fn pair(messages_max: usize, bytes_max: usize) -> (InboxSender, InboxReceiver, Doorbell) {
        let source = Doorbell::new(Mode::NonBlocking).unwrap();
        let (sender, receiver) = inbox(messages_max, bytes_max, Doorbell::new(Mode::Blocking).unwrap(), source.clone());
        (sender, receiver, source)
    }

    /// What arrives, as `channel:seq`, a confirmation with a `c` before it.
    fn drain(receiver: &mut InboxReceiver) -> Vec<String> {
        let seen = std::iter::from_fn(|| receiver.try_recv()).map(|message| match message {
            ToShard::Update { channel, update } => format!("{}:{}", channel.index, update.seq),
            ToShard::Confirmed(c) => format!("c{}:{}", c.channel.index, c.seq),
            ToShard::Published { .. } => "answer".into(),
        });
        let seen = seen.collect();
        receiver.settle();
        seen
    }

    #[test]
    fn a_full_inbox_keeps_the_newest_of_each_channel_in_the_order_of_waiting() {
        let (mut sender, mut receiver, source) = pair(2, 1 << 20);
        assert_eq!(sender.offer(channel(1), update(1, 10)), Offer::Queued);
        assert_eq!(sender.offer(channel(1), update(2, 10)), Offer::Queued);
        assert_eq!(sender.offer(channel(1), update(3, 10)), Offer::Held);
        assert_eq!(sender.offer(channel(2), update(7, 10)), Offer::Held);
        assert_eq!(sender.offer(channel(1), update(4, 10)), Offer::Conflated);
        sender.confirm(confirmed(2, 7));
        assert!(!sender.flush());
        source.asleep();
        assert_eq!(drain(&mut receiver), ["1:1", "1:2"]);
        source.take().expect("the source is woken once there is room");
        assert!(!sender.flush(), "three things wait, two fit");
        assert_eq!(drain(&mut receiver), ["1:4", "c2:7"]);
        assert!(sender.flush());
        assert_eq!(drain(&mut receiver), ["2:7"]);
        assert_eq!(sender.waiting(), 0);
    }

    #[test]
    fn a_shard_is_woken_only_where_there_is_something_for_it() {
        let (bell, source) = (Doorbell::new(Mode::NonBlocking).unwrap(), Doorbell::new(Mode::NonBlocking).unwrap());
        let (mut sender, mut receiver) = inbox(1, 1 << 20, bell.clone(), source);
        bell.asleep();
        sender.ring();
        assert!(bell.take().is_err(), "it is empty");
        assert_eq!(sender.offer(channel(1), update(1, 1)), Offer::Queued);
        assert_eq!(sender.offer(channel(1), update(2, 1)), Offer::Held);
        sender.ring();
        bell.take().unwrap();
        bell.asleep();
        assert!(!sender.flush());
        sender.ring();
        assert!(bell.take().is_err(), "what waits does not fit yet");
        drain(&mut receiver);
        assert!(sender.flush());
        sender.ring();
        bell.take().unwrap();
    }

    #[test]
    fn bytes_bound_the_queue_but_any_update_fits_an_empty_one() {
        let (mut sender, mut receiver, _source) = pair(100, 1000);
        assert_eq!(sender.offer(channel(1), update(1, 5000)), Offer::Queued);
        assert_eq!(sender.offer(channel(1), update(2, 1)), Offer::Held);
        assert_eq!(drain(&mut receiver), ["1:1"]);
        assert!(sender.flush());
        assert_eq!(drain(&mut receiver), ["1:2"]);
    }

    #[test]
    fn what_waits_is_never_overtaken_by_what_comes_later() {
        let (mut sender, mut receiver, _source) = pair(1, 1 << 20);
        assert_eq!(sender.offer(channel(1), update(1, 1)), Offer::Queued);
        assert_eq!(sender.offer(channel(1), update(2, 1)), Offer::Held);
        assert_eq!(drain(&mut receiver), ["1:1"]);
        assert_eq!(sender.offer(channel(1), update(3, 1)), Offer::Conflated, "there is room, but 2 waits");
        assert!(sender.flush());
        assert_eq!(drain(&mut receiver), ["1:3"]);
    }
}
