//! `max_rate` of one channel: for each key, an update is let through at once if the last one is long enough ago, and
//! else held back until it is; of those held back only the newest is kept, for everyone. Pure: time is an argument.

use super::Update;
use hashbrown::HashMap;
use std::sync::Arc;

/// Keys whose time is over are forgotten when there are more than this many.
const KEYS_KEPT: usize = 64;

/// See the module.
#[derive(Debug)]
pub struct Throttle {
    interval_us: u64,
    keys: HashMap<u64, Pulse>,
    prune_at: usize,
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
        Self { interval_us, keys: HashMap::new(), prune_at: KEYS_KEPT }
    }

    /// An update that is owed to `owed` subscribers arrives.
    pub fn offer(&mut self, update: &Arc<Update>, owed: u64, now_us: u64) -> Verdict {
        if self.keys.len() >= self.prune_at {
            self.keys.retain(|_, pulse| pulse.held.is_some() || pulse.next_us > now_us);
            self.prune_at = (self.keys.len() * 2).max(KEYS_KEPT);
        }
        let pulse = self.keys.entry(update.key).or_insert(Pulse { next_us: 0, held: None });
        if pulse.held.is_none() && pulse.next_us <= now_us {
            pulse.next_us = now_us + self.interval_us;
            return Verdict::Pass;
        }
        match pulse.held.replace(Held { update: Arc::clone(update), owed }) {
            Some(older) => Verdict::Replaced(older),
            None => Verdict::HeldUntil(pulse.next_us),
        }
    }

    /// The update of `key` that was held back until now, if it still is.
    pub fn release(&mut self, key: u64, now_us: u64) -> Option<Held> {
        let pulse = self.keys.get_mut(&key)?;
        let held = pulse.held.take_if(|_| pulse.next_us <= now_us)?;
        pulse.next_us = now_us + self.interval_us;
        Some(held)
    }

    /// Takes everything that is held back, in no order.
    pub fn clear(&mut self) -> impl Iterator<Item = Held> {
        self.keys.drain().filter_map(|(_, pulse)| pulse.held)
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
        assert!(throttle.release(7, 100_999).is_none(), "not yet");
        let held = throttle.release(7, 101_000).unwrap();
        assert_eq!((held.update.seq, held.owed), (4, 5));
        assert!(throttle.release(7, 101_000).is_none(), "once");
        assert!(matches!(throttle.offer(&update(5, 7), 5, 150_000), Verdict::HeldUntil(201_000)));
        assert_eq!(throttle.clear().map(|held| held.owed).sum::<u64>(), 5);
        assert_eq!(throttle.clear().count(), 0);
    }

    #[test]
    fn keys_that_were_heard_of_once_are_forgotten() {
        let mut throttle = Throttle::new(1000.0);
        for key in 0..100_000 {
            let _ = throttle.offer(&update(key, key), 1, key * 1_000);
        }
        assert!(throttle.keys.len() <= 2 * KEYS_KEPT, "{}", throttle.keys.len());
    }

    #[test]
    fn keys_whose_time_is_not_over_and_what_is_held_back_are_not_forgotten() {
        let mut throttle = Throttle::new(1.0);
        for key in 0..200 {
            assert!(matches!(throttle.offer(&update(key, key), 1, 0), Verdict::Pass));
        }
        assert_eq!(throttle.prune_at, 256, "it looks through all of them only when there are twice as many");
        for key in 0..200 {
            assert!(matches!(throttle.offer(&update(key, key), 1, 10), Verdict::HeldUntil(1_000_000)));
        }
        for key in 1000..1400 {
            assert!(matches!(throttle.offer(&update(key, key), 1, 2_000_000), Verdict::Pass));
        }
        assert!((0..200).all(|key| throttle.release(key, 2_000_000).is_some()));
    }
}
