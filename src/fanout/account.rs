//! What waiting updates cost a shard in memory: each counts once, however many sockets it waits for.
//!
//! Invariant: an account holds what its charges hold together; a charge ends with the run that it lies in.

use std::cell::Cell;
use std::rc::Rc;

/// The sum of one shard. Its clones are the same account.
#[derive(Clone, Debug, Default)]
pub struct Account(Rc<Cell<usize>>);

/// A part of the sum, for as long as it lives.
#[derive(Debug)]
pub(super) struct Charge {
    account: Account,
    bytes: usize,
}

impl Account {
    /// Bytes that are charged now.
    pub fn bytes(&self) -> usize {
        self.0.get()
    }

    /// Charges so many bytes.
    pub(super) fn charge(&self, bytes: usize) -> Charge {
        self.0.set(self.0.get() + bytes);
        Charge { account: self.clone(), bytes }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.account.0.set(self.account.0.get() - self.bytes);
    }
}
