//! When a thread that is woken all the time should doze between, so that what wakes it comes in batches. Pure.
//!
//! A wake-up and the turns that it begins cost some 20 us however little there is to do: a shard with 200,000 clients, of
//! whom 8,000 a second answer a ping, spent half of its CPU time on them. Network cards do the same with interrupts
//! (`Documentation/networking/napi`, interrupt mitigation).

/// A thread that has slept so often in one `WINDOW_US` is busy with wake-ups.
const SLEEPS: u32 = 16;
const WINDOW_US: u64 = 2_000;
/// A sleep of this length shows that it is busy no more.
const QUIET_US: u64 = 1_000;

/// See the module.
#[derive(Debug, Default)]
pub struct Moderation {
    window_from_us: u64,
    sleeps: u32,
    busy: bool,
}

impl Moderation {
    /// A doze lasts so long: what comes meanwhile waits for as long at most.
    pub const DOZE: std::time::Duration = std::time::Duration::from_micros(500);

    /// The thread has slept, from and until a time in microseconds of one clock.
    pub fn slept(&mut self, from_us: u64, until_us: u64) {
        if until_us.saturating_sub(from_us) >= QUIET_US {
            (self.window_from_us, self.sleeps, self.busy) = (until_us, 0, false);
            return;
        }
        if until_us.saturating_sub(self.window_from_us) > WINDOW_US {
            (self.window_from_us, self.sleeps) = (until_us, 0);
        }
        self.sleeps += 1;
        self.busy |= self.sleeps >= SLEEPS;
    }

    /// Whether to doze before the next sleep.
    pub fn is_busy(&self) -> bool {
        self.busy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_woken_all_the_time_is_busy_until_a_sleep_is_long() {
        let mut moderation = Moderation::default();
        let mut now_us = 10_000;
        let mut sleep = |moderation: &mut Moderation, us: u64| {
            moderation.slept(now_us, now_us + us);
            now_us += us + 20;
        };
        (1..SLEEPS).for_each(|_| sleep(&mut moderation, 50));
        assert!(!moderation.is_busy());
        sleep(&mut moderation, 50);
        assert!(moderation.is_busy());
        sleep(&mut moderation, QUIET_US - 1);
        assert!(moderation.is_busy());
        sleep(&mut moderation, QUIET_US);
        assert!(!moderation.is_busy());
        (0..10 * SLEEPS).for_each(|_| sleep(&mut moderation, WINDOW_US / u64::from(SLEEPS)));
        assert!(!moderation.is_busy(), "a sleep every {WINDOW_US} / {SLEEPS} us and 20 is not too often");
    }
}
