//! Runs in the order in which they came, and their bytes: the lanes of an outbox in which nothing takes another's place.

use super::Run;
use std::collections::VecDeque;
use std::rc::Rc;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Lane {
    runs: VecDeque<Rc<Run>>,
    bytes: usize,
}

impl Lane {
    /// How many wait.
    pub fn len(&self) -> usize {
        self.runs.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Bytes of them all.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Who is next.
    pub fn front(&self) -> Option<&Rc<Run>> {
        self.runs.front()
    }

    /// To the end.
    pub fn push(&mut self, run: Rc<Run>) {
        self.bytes += run.bytes().len();
        self.runs.push_back(run);
    }

    /// To the front.
    pub fn push_front(&mut self, run: Rc<Run>) {
        self.bytes += run.bytes().len();
        self.runs.push_front(run);
    }

    /// The next one leaves.
    pub fn pop(&mut self) -> Option<Rc<Run>> {
        let run = self.runs.pop_front()?;
        self.bytes -= run.bytes().len();
        Some(run)
    }

    /// Drops all, of one channel if it is said; how many.
    pub fn forget(&mut self, channel: Option<u32>) -> u64 {
        let before = self.runs.len();
        self.runs.retain(|run| channel.is_some_and(|channel| run.channel != channel));
        self.bytes = self.runs.iter().map(|run| run.bytes().len()).sum();
        (before - self.runs.len()) as u64
    }
}
