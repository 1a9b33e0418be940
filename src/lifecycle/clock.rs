//! Time as the data plane sees it: microseconds since the process began, and a coarse 4-byte time for connections.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The process's clock; copies agree with each other.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    began: Instant,
    began_unix: Duration,
}

impl Clock {
    /// A clock that starts now.
    pub fn start() -> Self {
        let began_unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { began: Instant::now(), began_unix }
    }

    /// Microseconds since the clock started.
    #[inline]
    pub fn now_us(&self) -> u64 {
        self.began.elapsed().as_micros() as u64
    }

    /// Milliseconds since 1970 at `now_us` (set once at the start: steps of the system's clock are not followed, so
    /// that time never runs backwards within a process).
    pub fn unix_ms(&self, now_us: u64) -> u64 {
        (self.began_unix + Duration::from_micros(now_us)).as_millis() as u64
    }
}

/// A coarse time in milliseconds that wraps after 49 days: only differences between near times have a meaning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Millis(u32);

impl Millis {
    /// The coarse form of a time in microseconds.
    #[inline]
    pub fn from_us(us: u64) -> Self {
        Self((us / 1000) as u32)
    }

    /// How long ago `earlier` was; zero if it lies ahead (by less than 24 days).
    #[inline]
    pub fn since(self, earlier: Millis) -> Duration {
        let millis = self.0.wrapping_sub(earlier.0);
        Duration::from_millis(if millis > u32::MAX / 2 { 0 } else { u64::from(millis) })
    }

    /// The milliseconds, modulo `divisor`: as good as chance among many times.
    #[inline]
    pub fn remainder(self, divisor: u32) -> u32 {
        self.0 % divisor
    }

    /// The later of two times.
    #[inline]
    pub fn max(self, other: Millis) -> Millis {
        if self.since(other).is_zero() { other } else { self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coarse_time_survives_its_wrap() {
        let before = Millis(u32::MAX - 10);
        let after = Millis(20);
        assert_eq!(after.since(before), Duration::from_millis(31));
        assert_eq!(before.since(after), Duration::ZERO);
        assert_eq!(before.max(after), after);
        assert_eq!(after.max(before), after);
    }
}
