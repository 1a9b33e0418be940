//! Who is to be read from, in two queues that are served in turn: those whose last read brought much, and all others. A
//! client that answers a ping does not wait for a thousand that send without end. Pure.

use crate::ids::ConnId;
use std::collections::VecDeque;

/// See the module.
#[derive(Debug, Default)]
pub struct ReadQueue {
    little: VecDeque<ConnId>,
    much: VecDeque<ConnId>,
    much_is_next: bool,
}

impl ReadQueue {
    /// To the end of one queue.
    pub fn push(&mut self, id: ConnId, much: bool) {
        if much { &mut self.much } else { &mut self.little }.push_back(id);
    }

    /// Who is next.
    pub fn pop(&mut self) -> Option<ConnId> {
        self.much_is_next = !self.much_is_next;
        let (first, second) = match self.much_is_next {
            true => (&mut self.little, &mut self.much),
            false => (&mut self.much, &mut self.little),
        };
        first.pop_front().or_else(|| second.pop_front())
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.little.is_empty() && self.much.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Slot;

    fn id(slot: u32) -> ConnId {
        ConnId { slot: Slot(slot), generation: 0 }
    }

    #[test]
    fn who_brought_little_waits_for_as_many_of_those_who_brought_much_as_stand_before_it_among_its_like() {
        let mut queue = ReadQueue::default();
        (0..1000).for_each(|slot| queue.push(id(slot), true));
        (1000..1003).for_each(|slot| queue.push(id(slot), false));
        let order: Vec<u32> = std::iter::from_fn(|| queue.pop()).map(|id| id.slot.0).collect();
        assert_eq!(order[..7], [1000, 0, 1001, 1, 1002, 2, 3]);
        assert_eq!(order.len(), 1003);
        assert!(queue.is_empty());
    }
}
