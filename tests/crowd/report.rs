//! What a crowd has seen, as it says it to whoever started it.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Counted as it happens, over all sockets.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Tally {
    /// Sockets that have their answer, whatever it is.
    pub answered: u64,
    /// WebSockets that are open now.
    pub open: u64,
    /// Sockets that were answered with something else than a 101, by status.
    pub refused: BTreeMap<u16, u64>,
    /// Sockets that could not connect, or ended before any answer.
    pub cut_off: u64,
    /// Close frames, by code.
    pub closes: BTreeMap<u16, u64>,
    /// Updates received.
    pub updates: u64,
    /// Updates whose number was not higher than the one before.
    pub disordered: u64,
    /// Numbers that were passed over between two updates of one socket.
    pub missed: u64,
    /// Frames that no server may send, payloads that were not whole, streams that ended within a frame.
    pub torn: u64,
    /// Pings, each answered.
    pub pings: u64,
}

/// The tally, and what is known only by asking every socket.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// See [`Tally`].
    pub tally: Tally,
    /// Fewest and most updates that one of the open sockets has received; stalled ones, which read nothing, apart.
    pub updates_each: (u64, u64),
    /// The lowest number of the newest update of one of these; none where one of them had no update.
    pub newest_at_least: Option<u64>,
    /// Sockets that have no answer yet.
    pub unanswered: u64,
}

impl Tally {
    /// Sockets that were refused, whatever the status.
    pub fn refused_all(&self) -> u64 {
        self.refused.values().sum()
    }
}
