//! Where a thread's counters can be read by others: written by one thread, without a lock and without a
//! read-modify-write, as a sequence lock of plain atomic stores.

use hdrhistogram::Histogram;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::time::Duration;

/// A publish takes some hundred stores: whoever reads tries again so many times before it sleeps, and for so long.
const SPINS: u32 = 1000;
const PAUSE: Duration = Duration::from_micros(200);

/// The newest published state of `N` integers. One writer, any number of readers.
///
/// Readers see all integers of one moment (a sequence lock after Boehm, "Can seqlocks get along with programming
/// language memory models?", MSPC 2012).
#[derive(Debug)]
pub struct Board<const N: usize> {
    version: AtomicU64,
    values: [AtomicU64; N],
}

impl<const N: usize> Default for Board<N> {
    fn default() -> Self {
        Self { version: AtomicU64::new(0), values: [const { AtomicU64::new(0) }; N] }
    }
}

impl<const N: usize> Board<N> {
    /// Shows new values. Only ever called by the one thread that owns them.
    #[inline]
    pub fn publish(&self, values: &[u64; N]) {
        let version = self.version.load(Ordering::Relaxed);
        self.version.store(version + 1, Ordering::Relaxed);
        fence(Ordering::Release);
        for (shown, value) in self.values.iter().zip(values) {
            shown.store(*value, Ordering::Relaxed);
        }
        self.version.store(version + 2, Ordering::Release);
    }

    /// The values of one moment. Where the writer was taken off its core in the middle of [`Board::publish`], this waits
    /// until it runs again: asleep, for the core may be what it waits for.
    pub fn read(&self) -> [u64; N] {
        let mut spins = 0;
        loop {
            let before = self.version.load(Ordering::Acquire);
            let mut values = [0; N];
            for (value, shown) in values.iter_mut().zip(&self.values) {
                *value = shown.load(Ordering::Relaxed);
            }
            fence(Ordering::Acquire);
            if before.is_multiple_of(2) && self.version.load(Ordering::Relaxed) == before {
                return values;
            }
            if spins < SPINS {
                spins += 1;
                std::hint::spin_loop();
            } else {
                std::thread::sleep(PAUSE);
            }
        }
    }
}

/// The newest published state of a histogram, for a thread that never waits.
#[derive(Debug)]
pub struct HistogramBoard(Mutex<Histogram<u64>>);

impl Default for HistogramBoard {
    fn default() -> Self {
        Self(Mutex::new(latency_histogram()))
    }
}

impl HistogramBoard {
    /// Shows a new state, unless a reader holds the old one just now: then the next call will.
    pub fn publish(&self, histogram: &Histogram<u64>) {
        if let Ok(mut shown) = self.0.try_lock() {
            shown.clone_from(histogram);
        }
    }

    /// The newest published state.
    pub fn read(&self) -> Histogram<u64> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}

/// An empty histogram of durations in microseconds: 1 us to 1 hour, 2 significant digits (some 50 KiB).
pub fn latency_histogram() -> Histogram<u64> {
    const HOUR_US: u64 = 3_600_000_000;
    Histogram::new_with_bounds(1, HOUR_US, 2).expect("the bounds are constants that the crate accepts")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_sees_all_values_of_one_moment() {
        let board = Board::<8>::default();
        std::thread::scope(|scope| {
            scope.spawn(|| (0..200_000u64).for_each(|i| board.publish(&[i; 8])));
            scope.spawn(|| {
                for _ in 0..50_000 {
                    let seen = board.read();
                    assert!(seen.iter().all(|value| *value == seen[0]), "{seen:?}");
                }
            });
        });
        assert_eq!(board.read(), [199_999; 8]);
    }
}
