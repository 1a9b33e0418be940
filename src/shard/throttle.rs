//! The shard's timers: the sweep, and the updates that `max_rate` holds back. One TIMEOUT at the ring serves both.

use super::{Shard, sweep};
use crate::fanout::{Held, Update, Verdict};
use crate::ids::ChannelRef;
use crate::metrics::DropReason;
use crate::sys::{Op, Ring};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::Duration;

/// When there is something to do. All times in microseconds of the process's clock.
#[derive(Debug)]
pub(super) struct Timers {
    /// When an update that is held back may pass, where it is, and its key.
    held: BinaryHeap<Reverse<(u64, u32, u32, u64)>>,
    sweep_us: u64,
    /// The time of the earliest TIMEOUT at the ring.
    armed_us: u64,
}

impl Default for Timers {
    fn default() -> Self {
        Self { held: BinaryHeap::new(), sweep_us: 0, armed_us: u64::MAX }
    }
}

impl Timers {
    /// A TIMEOUT has completed.
    pub fn fired(&mut self, now_us: u64) {
        if self.armed_us <= now_us {
            self.armed_us = u64::MAX;
        }
    }
}

impl<R: Ring> Shard<R> {
    /// Whether an update is held back, as its channel's `max_rate` wants it.
    pub(super) fn hold_back(&mut self, place: ChannelRef, update: &Arc<Update>) -> bool {
        let Some(channel) = self.channels.find(place) else { return false };
        if update.critical || channel.throttle.is_none() {
            return false;
        }
        let owed = channel.owed(update);
        let Some(throttle) = &mut channel.throttle else { return false };
        match throttle.offer(update, owed, self.now_us) {
            Verdict::Pass => return false,
            Verdict::HeldUntil(at_us) => {
                self.timers.held.push(Reverse((at_us, place.index, place.generation, update.key)));
            }
            Verdict::Replaced(older) => {
                self.counters.conflated += older.owed;
                self.counters.outbox_messages -= older.owed;
            }
        }
        self.counters.due += owed;
        self.counters.outbox_messages += owed;
        true
    }

    /// Lets pass what was held back until now, and sweeps where it is time.
    pub(super) fn release_due(&mut self) {
        if self.timers.sweep_us <= self.now_us {
            self.timers.sweep_us = self.now_us + sweep::TICK.as_micros() as u64;
            self.sweep();
        }
        while let Some(&Reverse((at_us, index, generation, key))) = self.timers.held.peek()
            && at_us <= self.now_us
        {
            self.timers.held.pop();
            let place = ChannelRef { index, generation };
            let Some(channel) = self.channels.find(place) else { continue };
            let Some(held) = channel.throttle.as_mut().and_then(|throttle| throttle.release(key, self.now_us)) else {
                continue;
            };
            // The fan-out counts it as due anew, to those who are still there.
            let still = channel.owed(&held.update).min(held.owed);
            self.counters.outbox_messages -= held.owed;
            self.counters.due -= still;
            self.counters.drop_updates(DropReason::Left, held.owed - still);
            self.arrive_now(place, held.update);
        }
    }

    /// Sees to it that the ring wakes the shard when there is something to do.
    pub(super) fn arm_timer(&mut self) {
        let held_us = self.timers.held.peek().map_or(u64::MAX, |Reverse((at_us, ..))| *at_us);
        let next_us = self.timers.sweep_us.min(held_us);
        if next_us < self.timers.armed_us {
            self.timers.armed_us = next_us;
            self.ring.push(Op::Tick(Duration::from_micros(next_us.saturating_sub(self.now_us).max(1))));
        }
    }

    /// A channel that nobody is subscribed to any more gives up what it holds back.
    pub(super) fn forget_held(&mut self, index: u32) {
        let channel = self.channels.at_mut(index);
        let Some(throttle) = &mut channel.throttle else { return };
        for Held { update, owed } in throttle.clear() {
            // Whoever subscribes before the source is told stands behind it: nobody will see it.
            channel.seq = channel.seq.max(update.seq);
            self.counters.outbox_messages -= owed;
            self.counters.drop_updates(DropReason::Left, owed);
        }
    }
}
