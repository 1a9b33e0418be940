//! The shard's timers: the sweep, and the updates that `max_rate` holds back. One TIMEOUT at the ring serves both.
//!
//! Invariant: what is held back is counted in `outbox_bytes`, and is never more at the end of a turn than its share of
//! `limits.outbox_bytes_per_shard_max`: past it, what is due first passes before its time. Nothing is lost for it.
//! Invariant: nothing of a channel that nobody is subscribed to is held back.

use super::{RUN_BYTES_MAX, Shard, sweep};
use crate::fanout::{Held, Update, Verdict};
use crate::ids::ChannelRef;
use crate::metrics::DropReason;
use crate::sys::{Op, Ring};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// What is held back may take this part of the bytes that wait for all sockets of a shard.
const HELD_SHARE: usize = 4;

/// When there is something to do. All times in microseconds of the process's clock.
#[derive(Debug)]
pub(super) struct Timers {
    /// When each update that is held back may pass, where it is (index and generation), and its key.
    held: BTreeSet<(u64, u32, u32, u64)>,
    /// Bytes of what is held back: once an update, however many it is owed to.
    pub held_bytes: u64,
    sweep_us: u64,
    /// The time of the earliest TIMEOUT at the ring.
    armed_us: u64,
}

impl Default for Timers {
    fn default() -> Self {
        Self { held: BTreeSet::new(), held_bytes: 0, sweep_us: 0, armed_us: u64::MAX }
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
        if update.critical || channel.throttle.is_none() || channel.is_deserted() {
            return false;
        }
        let owed = channel.owed(update);
        let Some(throttle) = &mut channel.throttle else { return false };
        match throttle.offer(update, owed, self.now_us) {
            Verdict::Pass => return false,
            Verdict::HeldUntil(at_us) => {
                self.timers.held.insert((at_us, place.index, place.generation, update.key));
            }
            Verdict::Replaced(older) => {
                self.counters.conflated += older.owed;
                self.let_go(&older);
            }
        }
        self.counters.due += owed;
        self.counters.outbox_messages += owed;
        self.timers.held_bytes += update.bytes() as u64;
        if self.holds_too_much() {
            self.release(RUN_BYTES_MAX);
        }
        true
    }

    /// What was held back is so no more.
    fn let_go(&mut self, held: &Held) {
        let bytes = held.update.bytes() as u64;
        self.counters.outbox_messages -= held.owed;
        self.timers.held_bytes -= bytes;
    }

    /// Whether more is held back than may be.
    pub(super) fn holds_too_much(&self) -> bool {
        self.timers.held_bytes > (self.config.limits.outbox_bytes_per_shard_max / HELD_SHARE) as u64
    }

    /// Lets pass what was held back until now, and sweeps where it is time. Whether nothing more is due: a channel's run
    /// takes no more than half of what it may from here, so that what was held back does not keep the inbox waiting.
    pub(super) fn release_due(&mut self) -> bool {
        if self.timers.sweep_us <= self.now_us {
            self.timers.sweep_us = self.now_us + sweep::TICK.as_micros() as u64;
            self.sweep();
        }
        self.release(RUN_BYTES_MAX / 2)
    }

    /// Lets pass what is over the share of what is held back; with a fan-out for each run that is full.
    pub(super) fn keep_to_share(&mut self) {
        while self.holds_too_much() && !self.timers.held.is_empty() {
            self.release(RUN_BYTES_MAX);
            self.fan_out();
        }
    }

    /// Lets pass what was held back until now, and, while too much is held back, what is due first, as long as it fits
    /// into runs of that size; whether all of it did.
    fn release(&mut self, run_bytes_max: usize) -> bool {
        while let Some(&first) = self.timers.held.first()
            && (first.0 <= self.now_us || self.holds_too_much())
        {
            let (at_us, index, generation, key) = first;
            let place = ChannelRef { index, generation };
            let channel = self.channels.find(place);
            let throttle = channel.and_then(|channel| Some((channel.arrived_bytes, channel.throttle.as_mut()?)));
            let Some((arrived_bytes, throttle)) = throttle else {
                debug_assert!(false, "a channel was forgotten, and not what is held back of it");
                self.timers.held.pop_first();
                continue;
            };
            let bytes = throttle.held(key).map_or(0, |held| held.update.bytes());
            if arrived_bytes > 0 && arrived_bytes + bytes > run_bytes_max {
                return false;
            }
            self.timers.held.pop_first();
            let Some(held) = throttle.release(key, self.now_us) else { continue };
            self.let_go(&held);
            self.counters.released_early += u64::from(at_us > self.now_us);
            // The fan-out counts it as due anew, to those who are still there.
            let still = self.channels.find(place).map_or(0, |channel| channel.owed(&held.update).min(held.owed));
            self.counters.due -= still;
            self.counters.drop_updates(DropReason::Left, held.owed - still);
            self.arrive_now(place, held.update);
        }
        true
    }

    /// Sees to it that the ring wakes the shard when there is something to do.
    pub(super) fn arm_timer(&mut self) {
        let held_us = self.timers.held.first().map_or(u64::MAX, |(at_us, ..)| *at_us);
        let next_us = self.timers.sweep_us.min(held_us);
        if next_us < self.timers.armed_us {
            self.timers.armed_us = next_us;
            self.ring.push(Op::Tick(Duration::from_micros(next_us.saturating_sub(self.now_us).max(1))));
        }
    }

    /// A channel that nobody is subscribed to any more gives up what it holds back.
    pub(super) fn forget_held(&mut self, index: u32) {
        let channel = self.channels.at_mut(index);
        let generation = channel.generation();
        let Some(throttle) = &mut channel.throttle else { return };
        let held: Vec<_> = throttle.clear().collect();
        // Whoever subscribes before the source is told stands behind it: nobody will see it.
        channel.seq = held.iter().fold(channel.seq, |seq, (_, held)| seq.max(held.update.seq));
        for (at_us, held) in held {
            self.timers.held.remove(&(at_us, index, generation, held.update.key));
            self.let_go(&held);
            self.counters.drop_updates(DropReason::Left, held.owed);
        }
    }
}
