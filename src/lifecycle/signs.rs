//! That a thread lives, as others see it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How often a thread that serves shows that it lives, also where it has nothing to do: as often as a shard ticks. The
/// shortest patience that is taken is 250 ms (half of a watchdog's limit of 500 ms).
pub const SIGN_EVERY: Duration = Duration::from_millis(100);

/// When a thread gave its last sign of life, in microseconds of the process's clock.
#[derive(Debug)]
pub struct Signs(AtomicU64);

impl Signs {
    /// Those of a thread that starts at `now_us`.
    pub fn new(now_us: u64) -> Self {
        Self(AtomicU64::new(now_us))
    }

    /// It lives at `now_us`.
    pub fn give(&self, now_us: u64) {
        self.0.store(now_us, Ordering::Relaxed);
    }

    /// When it gave the last one.
    pub fn last_us(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
