//! What is to happen to a client later.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// What is to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// Connect again.
    Retry,
    /// Read no more for a while.
    Sleep,
    /// Read again.
    Wake,
    /// Read a little.
    Sip,
    /// Stop waiting for the server.
    GiveUp,
}

/// Timed actions; a client's generation says whether the connection is still the one that was meant.
#[derive(Debug, Default)]
pub struct Timers(BinaryHeap<Reverse<(u64, u32, u16, Action)>>);

impl Timers {
    /// Something happens to a client at a time, in milliseconds.
    pub fn at(&mut self, at_ms: u64, client: u32, generation: u16, action: Action) {
        self.0.push(Reverse((at_ms, client, generation, action)));
    }

    /// The next that is due, as client, generation and action.
    pub fn next(&mut self, now_ms: u64) -> Option<(u32, u16, Action)> {
        let Reverse((at_ms, client, generation, action)) = *self.0.peek()?;
        if at_ms > now_ms {
            return None;
        }
        self.0.pop();
        Some((client, generation, action))
    }

    /// Milliseconds until the next is due.
    pub fn pause_ms(&self, now_ms: u64) -> Option<u64> {
        self.0.peek().map(|Reverse((at_ms, ..))| at_ms.saturating_sub(now_ms))
    }
}
