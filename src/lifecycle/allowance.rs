//! So many of something a second, and some at once. Pure.

/// A token bucket (ITU-T I.371's leaky bucket as a meter). Times are microseconds.
#[derive(Clone, Copy, Debug)]
pub struct Allowance {
    per_second: u64,
    at_once: u64,
    /// What is left, in millionths.
    left: u64,
    filled_us: u64,
}

impl Allowance {
    /// A full one.
    pub fn new(per_second: u32, at_once: u32) -> Self {
        let at_once = u64::from(at_once) * 1_000_000;
        Self { per_second: per_second.into(), at_once, left: at_once, filled_us: 0 }
    }

    /// Takes one, if there is one.
    pub fn take(&mut self, now_us: u64) -> bool {
        let passed = now_us.saturating_sub(self.filled_us);
        self.left = passed.saturating_mul(self.per_second).saturating_add(self.left).min(self.at_once);
        self.filled_us = self.filled_us.max(now_us);
        let one = self.left.checked_sub(1_000_000);
        self.left = one.unwrap_or(self.left);
        one.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_at_once_then_so_many_a_second() {
        let mut allowance = Allowance::new(4, 10);
        let mut taken = |now_us| std::iter::repeat_with(|| allowance.take(now_us)).take_while(|took| *took).count();
        assert_eq!(taken(5), 10);
        assert_eq!(taken(250_004), 0);
        assert_eq!(taken(250_005), 1);
        assert_eq!(taken(0), 0, "time that goes back brings none");
        assert_eq!(taken(1_000_005), 3);
        assert_eq!(taken(u64::MAX), 10, "they do not pile up");
    }
}
