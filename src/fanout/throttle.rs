//! `max_rate` of one channel: for each key, an update is let through at once if the last one is long enough ago, and
//! else held back until it is; of those held back only the newest is kept, for everyone. Pure: time is an argument.
//!
//! Invariant: of keys with nothing held back at most [`IDLE_KEYS_MAX`] are known. What is held back is bounded by whoever
//! holds the throttles, in bytes.

use super::Update;
use hashbrown::HashMap;
use std::collections::VecDeque;
use std::sync::Arc;

/// Keys that are known although nothing of them is held back; past it those whose time ends first are forgotten, and
/// their next update may pass before its time. About 1 MB a channel.
const IDLE_KEYS_MAX: usize = 16_384;
/// Tables of up to this many keys are not made smaller.
const KEYS_KEPT: usize = 64;

/// See the module.
#[derive(Debug)]
pub struct Throttle {
    interval_us: u64,
    keys: HashMap<u64, Pulse>,
    /// When a key's next one may pass, and the key, in order of time: each passing adds one, so some are no longer true.
    passed: VecDeque<(u64, u64)>,
}

#[derive(Debug)]
struct Pulse {
    /// When the next one may pass.
    next_us: u64,
    held: Option<Held>,
}

/// An update that is held back.
#[derive(Debug)]
pub struct Held {
    /// The newest so far.
    pub update: Arc<Update>,
    /// How many subscribers it is owed to.
    pub owed: u64,
}

/// What becomes of an update.
#[derive(Debug)]
pub enum Verdict {
    /// It passes now.
    Pass,
    /// It is held back until that time, in microseconds; nothing else of its key was.
    HeldUntil(u64),
    /// It is held back in the place of an older one, which nobody will see.
    Replaced(Held),
}

impl Throttle {
    /// `rate` updates a second for each key.
    pub fn new(rate: f64) -> Self {
        let interval_us = (1e6 / rate).clamp(1.0, 3.6e9) as u64;
        Self { interval_us, keys: HashMap::new(), passed: VecDeque::new() }
    }

    /// An update that is owed to `owed` subscribers arrives.
    pub fn offer(&mut self, update: &Arc<Update>, owed: u64, now_us: u64) -> Verdict {
        self.forget(now_us);
        let pulse = self.keys.entry(update.key).or_insert(Pulse { next_us: 0, held: None });
        if pulse.held.is_none() && pulse.next_us <= now_us {
            self.pass(update.key, now_us);
            return Verdict::Pass;
        }
        match pulse.held.replace(Held { update: Arc::clone(update), owed }) {
            Some(older) => Verdict::Replaced(older),
            None => Verdict::HeldUntil(pulse.next_us),
        }
    }

    /// What is held back of `key`.
    pub fn held(&self, key: u64) -> Option<&Held> {
        self.keys.get(&key)?.held.as_ref()
    }

    /// Lets what is held back of `key` pass now, whether its time has come or not.
    pub fn release(&mut self, key: u64, now_us: u64) -> Option<Held> {
        let held = self.keys.get_mut(&key)?.held.take()?;
        self.pass(key, now_us);
        self.forget(now_us);
        Some(held)
    }

    /// Takes everything that is held back, in no order, with its time.
    pub fn clear(&mut self) -> impl Iterator<Item = (u64, Held)> {
        self.passed = VecDeque::new();
        std::mem::take(&mut self.keys).into_values().filter_map(|pulse| Some((pulse.next_us, pulse.held?)))
    }

    fn pass(&mut self, key: u64, now_us: u64) {
        let next_us = now_us + self.interval_us;
        if let Some(pulse) = self.keys.get_mut(&key) {
            pulse.next_us = next_us;
            self.passed.push_back((next_us, key));
        }
    }

    /// Forgets the keys whose time is over, and some of those whose time is not, where there are too many.
    fn forget(&mut self, now_us: u64) {
        while self.passed.len() >= IDLE_KEYS_MAX || self.passed.front().is_some_and(|(next_us, _)| *next_us <= now_us) {
            let Some((next_us, key)) = self.passed.pop_front() else { break };
            if self.keys.get(&key).is_some_and(|pulse| pulse.next_us == next_us && pulse.held.is_none()) {
                self.keys.remove(&key);
            }
        }
        if self.keys.len() * 4 < self.keys.capacity() && self.keys.capacity() > KEYS_KEPT {
            self.keys.shrink_to(self.keys.len() * 2);
        }
        if self.passed.len() * 4 < self.passed.capacity() && self.passed.capacity() > KEYS_KEPT {
            self.passed.shrink_to(self.passed.len() * 2);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn update(seq: u64, key: u64) -> Arc<Update> {
        Arc::new(Update { seq, received_us: 0, key, critical: false, frames: [None, None] })
    }

    #[test]
    fn between_two_that_pass_only_the_newest_of_each_key_is_kept() {
        let mut throttle = Throttle::new(10.0);
        assert!(matches!(throttle.offer(&update(1, 7), 3, 1_000), Verdict::Pass));
        assert!(matches!(throttle.offer(&update(2, 8), 3, 1_000), Verdict::Pass), "another key");
        assert!(matches!(throttle.offer(&update(3, 7), 3, 2_000), Verdict::HeldUntil(101_000)));
        let replaced = throttle.offer(&update(4, 7), 5, 3_000);
        assert!(matches!(replaced, Verdict::Replaced(held) if held.update.seq == 3 && held.owed == 3));
        assert!(throttle.held(8).is_none() && throttle.held(7).is_some_and(|held| held.update.seq == 4));
        let held = throttle.release(7, 101_000).unwrap();
        assert_eq!((held.update.seq, held.owed), (4, 5));
        assert!(throttle.release(7, 101_000).is_none(), "once");
        assert!(matches!(throttle.offer(&update(5, 7), 5, 150_000), Verdict::HeldUntil(201_000)));
        assert_eq!(throttle.clear().map(|(at_us, held)| (at_us, held.owed)).collect::<Vec<_>>(), [(201_000, 5)]);
        assert_eq!(throttle.clear().count(), 0);
    }

    #[test]
    fn keys_that_were_heard_of_once_are_forgotten() {
        let mut throttle = Throttle::new(1000.0);
        for key in 0..100_000 {
            let _ = throttle.offer(&update(key, key), 1, key * 1_000);
        }
        assert!(throttle.keys.len() <= 2 && throttle.passed.len() <= 2, "{throttle:?}");
        assert!(throttle.keys.capacity() <= 2 * KEYS_KEPT && throttle.passed.capacity() <= 2 * KEYS_KEPT);
    }

    #[test]
    fn room_is_given_back_when_less_than_a_quarter_is_used_and_not_below_what_is_kept() {
        let mut throttle = Throttle::new(1.0);
        for key in 0..1_000 {
            let _ = throttle.offer(&update(key, key), 1, 0);
        }
        let room = |throttle: &Throttle| (throttle.keys.capacity(), throttle.passed.capacity());
        let most = room(&throttle);
        assert!(most.0 >= 1_000 && most.1 >= 1_000);
        for key in 0..600 {
            let _ = throttle.offer(&update(key, 5_000 + key), 1, 1_000_000 - 1);
        }
        assert!(room(&throttle) >= most, "all of it is used");
        let _ = throttle.offer(&update(1, 9_000), 1, 1_500_000); // 1,000 are forgotten, and 601 are left
        assert_eq!(throttle.keys.len(), 601);
        let full = room(&throttle);
        assert!(full.0 > 700 && full.1 >= most.1, "more than a quarter of it is used: {full:?} of {most:?}");
        let _ = throttle.offer(&update(1, 9_001), 1, 2_200_000);
        assert_eq!(throttle.keys.len(), 2);
        assert!(room(&throttle).0 < 16 && room(&throttle).1 < 16, "{:?}", room(&throttle));
    }

    #[test]
    fn keys_whose_time_is_not_over_and_what_is_held_back_are_not_forgotten() {
        let mut throttle = Throttle::new(1.0);
        for key in 0..200 {
            assert!(matches!(throttle.offer(&update(key, key), 1, 0), Verdict::Pass));
        }
        for key in 0..200 {
            assert!(matches!(throttle.offer(&update(key, key), 1, 10), Verdict::HeldUntil(1_000_000)));
        }
        for key in 1000..1400 {
            assert!(matches!(throttle.offer(&update(key, key), 1, 2_000_000), Verdict::Pass));
        }
        assert!((0..200).all(|key| throttle.release(key, 2_000_000).is_some()));
    }

    #[test]
    fn of_too_many_keys_at_a_time_those_whose_time_ends_first_are_forgotten() {
        let mut throttle = Throttle::new(0.001);
        let most = IDLE_KEYS_MAX as u64;
        assert!(matches!(throttle.offer(&update(1, 0), 1, 0), Verdict::Pass));
        assert!(matches!(throttle.offer(&update(2, 0), 1, 0), Verdict::HeldUntil(_)));
        for key in 1..3 * most {
            assert!(matches!(throttle.offer(&update(key, key), 1, key), Verdict::Pass));
        }
        assert!(throttle.passed.len() <= IDLE_KEYS_MAX && throttle.keys.len() <= IDLE_KEYS_MAX + 1);
        assert!(matches!(throttle.offer(&update(9, 1), 1, 3 * most), Verdict::Pass), "it was forgotten");
        assert!(matches!(throttle.offer(&update(9, 3 * most - 1), 1, 3 * most), Verdict::HeldUntil(_)));
        assert!(throttle.release(0, 3 * most).is_some_and(|held| held.update.seq == 2), "what is held back is not");
    }
}
