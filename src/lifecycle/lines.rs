//! How many lines of one kind clients can cause in the log. Pure.

use super::Allowance;

/// Lines of one kind a second, and at once: enough to see what goes on and from where, too few to fill a disk.
const PER_SECOND: u32 = 2;
const AT_ONCE: u32 = 20;

/// A limit for one kind of line, which knows how many it has kept back.
#[derive(Clone, Copy, Debug)]
pub struct Lines {
    allowance: Allowance,
    kept_back: u64,
}

impl Lines {
    /// Nothing written yet.
    pub fn new() -> Self {
        Self { allowance: Allowance::new(PER_SECOND, AT_ONCE), kept_back: 0 }
    }

    /// Whether a line may be written now (microseconds); if so, how many were kept back since the last.
    pub fn take(&mut self, now_us: u64) -> Option<u64> {
        if self.allowance.take(now_us) {
            return Some(std::mem::take(&mut self.kept_back));
        }
        self.kept_back += 1;
        None
    }
}

impl Default for Lines {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_and_the_next_line_says_by_how_much() {
        let mut lines = Lines::new();
        let written = (0..1000).filter(|_| lines.take(7).is_some()).count();
        assert_eq!(written, AT_ONCE as usize);
        assert_eq!(lines.take(500_007), Some(1000 - u64::from(AT_ONCE)));
        assert_eq!(lines.take(500_007), None);
        assert_eq!(lines.take(1_000_007), Some(1));
    }
}
