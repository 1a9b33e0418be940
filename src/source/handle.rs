//! What other threads hold of the source: publish, look, stop.

use super::publish::{Asker, Publish};
use crate::bus::PublishError;
use crate::metrics::{Board, SourceCounters};
use std::sync::Arc;
use tokio::sync::{Notify, mpsc, oneshot};

/// Publishes that may wait for the source's attention.
pub(super) const ASKS_MAX: usize = 256;

/// Length of [`StatusBoard`].
pub(super) const SHOWN: usize = SourceCounters::LEN + 2;

/// The source's counters, and after them the time of the last change of `connected`, and that of the last turn.
pub(super) type StatusBoard = Board<SHOWN>;

/// The source, as other threads hold it.
#[derive(Clone, Debug)]
pub struct Handle {
    pub(super) asks: mpsc::Sender<Publish>,
    pub(super) board: Arc<StatusBoard>,
    pub(super) stop: Arc<Notify>,
    pub(super) update_bytes_max: usize,
}

/// Whom a publish reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reached {
    /// Subscribers at Redis: gateways, and whoever else listens there.
    Gateways(u64),
    /// Sockets of this process (the embedded engine).
    Sockets(u64),
}

/// How the source is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Whether updates can come: a message went through Redis and came back lately. Always so for the embedded engine.
    pub connected: bool,
    /// Since when it is so, in microseconds of the process's clock.
    pub since_us: u64,
    /// When the source took its last turn, in the same; it takes one each [`crate::lifecycle::SIGN_EVERY`] at least.
    pub last_turn_us: u64,
    /// What it counted.
    pub counters: SourceCounters,
}

impl Handle {
    /// Publishes, and answers whom it reached. Errors: the payload is too large, too many publishes wait already,
    /// Redis is away, or went away before it answered.
    pub async fn publish(&self, channel: &str, payload: Vec<u8>) -> Result<Reached, PublishError> {
        let (publish, answer) = self.ask(channel, payload)?;
        self.asks.try_send(publish).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => PublishError::Busy,
            mpsc::error::TrySendError::Closed(_) => PublishError::Unavailable,
        })?;
        answer.await.unwrap_or(Err(PublishError::Unknown))
    }

    /// The same for a thread without a runtime; waits where others publish too. Errors: as [`Handle::publish`].
    ///
    /// # Panics
    /// Inside an async runtime.
    pub fn publish_blocking(&self, channel: &str, payload: Vec<u8>) -> Result<Reached, PublishError> {
        let (publish, answer) = self.ask(channel, payload)?;
        self.asks.blocking_send(publish).map_err(|_| PublishError::Unavailable)?;
        answer.blocking_recv().unwrap_or(Err(PublishError::Unknown))
    }

    /// How the source is. Costs it nothing.
    pub fn status(&self) -> Status {
        let values = self.board.read();
        let counters = SourceCounters::from_values(&values[..SourceCounters::LEN]);
        let [.., since_us, last_turn_us] = values;
        Status { connected: counters.connected == 1, since_us, last_turn_us, counters }
    }

    /// Ends the source's thread.
    pub fn stop(&self) {
        self.stop.notify_one();
    }

    fn ask(&self, channel: &str, payload: Vec<u8>) -> Result<(Publish, Answer), PublishError> {
        if payload.len() > self.update_bytes_max {
            return Err(PublishError::TooLarge);
        }
        let (sender, answer) = oneshot::channel();
        Ok((Publish { channel: channel.into(), payload, asker: Asker::Api(sender) }, answer))
    }
}

type Answer = oneshot::Receiver<Result<Reached, PublishError>>;
