//! Times that lie far apart, for those who must not come back together. Pure.

/// 2^32 divided by the golden ratio: its multiples, modulo 2^32, fill the range more evenly than chance would, and any
/// number of them in a row lie apart (D. Knuth, The Art of Computer Programming, vol. 3, section 6.4, theorem S).
const STEP: u32 = 0x9E37_79B9;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct Spread(u32);

impl Spread {
    /// Begins anywhere: several shards begin at different places.
    pub fn new(seed: u32) -> Self {
        Self(seed)
    }

    /// The next of `least..=most`, which lies apart from the last ones; `least` where the range is empty.
    pub fn next(&mut self, least: u32, most: u32) -> u32 {
        self.0 = self.0.wrapping_add(STEP);
        let places = u64::from(most.saturating_sub(least)) + 1;
        least + ((u64::from(self.0) * places) >> 32) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn a_thousand_in_a_row_are_all_different_and_evenly_spread(seed: u32) {
            let mut spread = Spread::new(seed);
            let times: BTreeSet<u32> = (0..1_000).map(|_| spread.next(500, 10_000)).collect();
            prop_assert_eq!(times.len(), 1_000);
            for second in 0..9 {
                let from = 500 + second * 1_000;
                let here = times.range(from..from + 1_000).count();
                prop_assert!((100..=110).contains(&here), "{} of 1,000 within a second of 9.5", here);
            }
        }

        #[test]
        fn no_time_lies_outside(seed: u32, least: u32, more: u32) {
            let most = least.saturating_add(more);
            prop_assert!((least..=most).contains(&Spread::new(seed).next(least, most)));
            prop_assert_eq!(Spread::new(seed).next(most, least), most);
        }
    }
}
