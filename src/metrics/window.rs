//! The recent past of what only grows: snapshots at steps, and what was added since one of them. Pure: time comes in.

use hdrhistogram::Histogram;
use std::collections::VecDeque;

/// Snapshots of the recent past: always one that is as old as the span, once that much time has passed.
#[derive(Debug)]
pub struct Window<S> {
    span_us: u64,
    step_us: u64,
    snapshots: VecDeque<(u64, S)>,
}

impl<S> Window<S> {
    /// A window of `span_us` that moves in steps of `step_us`, both in microseconds.
    pub fn new(span_us: u64, step_us: u64) -> Self {
        Self { span_us, step_us, snapshots: VecDeque::new() }
    }

    /// When the next snapshot is due, in microseconds.
    pub fn due_us(&self) -> u64 {
        self.snapshots.back().map_or(0, |(at_us, _)| at_us + self.step_us)
    }

    /// Takes in a snapshot, and forgets those that are older than the window needs.
    pub fn push(&mut self, now_us: u64, snapshot: S) {
        self.snapshots.push_back((now_us, snapshot));
        while self.snapshots.get(1).is_some_and(|(at_us, _)| at_us + self.span_us <= now_us) {
            self.snapshots.pop_front();
        }
    }

    /// How it was when the window began: at most a step longer ago than the span, or at the first snapshot where that
    /// is younger.
    pub fn begin(&self, now_us: u64) -> Option<&S> {
        let old = self.snapshots.iter().rev().find(|(at_us, _)| at_us + self.span_us <= now_us);
        old.or_else(|| self.snapshots.front()).map(|(_, snapshot)| snapshot)
    }
}

/// The values of a histogram that occurred, and how often: a few kilobytes where the histogram has fifty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recorded(Vec<(u64, u64)>);

impl Recorded {
    /// What a histogram holds now.
    pub fn of(histogram: &Histogram<u64>) -> Self {
        Self(histogram.iter_recorded().map(|at| (at.value_iterated_to(), at.count_at_value())).collect())
    }

    /// What came since an earlier state of the same histogram.
    #[must_use]
    pub fn since(&self, earlier: &Recorded) -> Recorded {
        let mut before = earlier.0.iter().peekable();
        let new = self.0.iter().filter_map(|(value, count)| {
            while before.next_if(|(old, _)| old < value).is_some() {}
            let had = before.next_if(|(old, _)| old == value).map_or(0, |(_, count)| *count);
            (*count > had).then(|| (*value, count - had))
        });
        Self(new.collect())
    }

    /// The least value that so many of all (from 0 to 1) do not exceed; 0 where nothing was recorded.
    pub fn quantile(&self, share: f64) -> u64 {
        let all: u64 = self.0.iter().map(|(_, count)| count).sum();
        let rank = ((all as f64 * share).ceil() as u64).clamp(1, all.max(1));
        let mut below = 0;
        let found = self.0.iter().find(|(_, count)| {
            below += count;
            below >= rank
        });
        found.map_or(0, |(value, _)| *value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_begins_a_span_ago_or_when_everything_began() {
        let mut window = Window::new(60, 5);
        assert_eq!((window.begin(7), window.due_us()), (None, 0));
        for at in (0..=100).step_by(5) {
            window.push(at, at);
            let begin = *window.begin(at + 3).unwrap();
            assert_eq!(begin, (at + 3).saturating_sub(60) / 5 * 5, "at {at}");
            assert!(window.snapshots.len() <= 14, "{}", window.snapshots.len());
        }
        assert_eq!(window.due_us(), 105);
    }

    #[test]
    fn what_came_since_is_what_is_more_now() {
        let mut histogram = super::super::latency_histogram();
        [5, 5, 7].iter().for_each(|value| histogram.record(*value).unwrap());
        let earlier = Recorded::of(&histogram);
        assert_eq!(Recorded::of(&histogram).since(&earlier), Recorded::default());
        [3, 7, 7, 90].iter().for_each(|value| histogram.record(*value).unwrap());
        let new = Recorded::of(&histogram).since(&earlier);
        assert_eq!(new, Recorded(vec![(3, 1), (7, 2), (90, 1)]));
        assert_eq!(Recorded::of(&histogram).since(&Recorded::default()), Recorded::of(&histogram));
    }

    #[test]
    fn quantiles_are_those_of_the_sorted_values() {
        let ten = Recorded((1..=10).map(|value| (value * 10, 1)).collect());
        let at = |share| ten.quantile(share);
        assert_eq!((at(0.0), at(0.5), at(0.51), at(0.99), at(1.0)), (10, 50, 60, 100, 100));
        assert_eq!(Recorded(vec![(4, 99), (900, 1)]).quantile(0.99), 4);
        assert_eq!(Recorded::default().quantile(0.5), 0);
    }
}
