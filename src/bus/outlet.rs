//! From the shards to the source: one bounded queue for each shard, one bell for all.

use super::ToSource;
use crate::sys::Doorbell;
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

/// A shard's end. Never waits.
pub struct Outlet {
    queue: Sender<ToSource>,
    bell: Doorbell,
}

/// The source's end of one shard's queue.
pub struct OutletReceiver {
    queue: Receiver<ToSource>,
}

/// A queue of at most `messages_max`, whose receiver is woken by `bell`.
pub fn outlet(messages_max: usize, bell: Doorbell) -> (Outlet, OutletReceiver) {
    let (sender, receiver) = bounded(messages_max);
    (Outlet { queue: sender, bell }, OutletReceiver { queue: receiver })
}

impl Outlet {
    /// Puts a message into the queue, or gives it back where the queue is full (or the source has ended).
    pub fn try_send(&self, message: ToSource) -> Result<(), ToSource> {
        match self.queue.try_send(message) {
            Ok(()) => {
                self.bell.ring();
                Ok(())
            }
            Err(TrySendError::Full(message) | TrySendError::Disconnected(message)) => Err(message),
        }
    }
}

impl OutletReceiver {
    /// The next message, if there is one.
    pub fn try_recv(&self) -> Option<ToSource> {
        self.queue.try_recv().ok()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}
