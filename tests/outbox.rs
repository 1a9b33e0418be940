//! The outbox against a plain model of it, over many sequences of operations. The fuzzer runs the same (`fuzz/`).

#[path = "common/outbox/mod.rs"]
mod outbox;

use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_no_update_is_lost_torn_doubled_or_out_of_order(
        limits in any::<outbox::RawLimits>(),
        ops in proptest::collection::vec(any::<outbox::RawOp>(), 0..300),
    ) {
        outbox::run(limits, &ops);
    }
}

#[test]
fn such_sequences_come_through_everything_that_can_happen() {
    let mut rng = fastrand::Rng::with_seed(1);
    let mut all = [0; 10];
    for _ in 0..500 {
        let limits = (rng.u8(..), rng.u8(..), rng.u16(..), rng.u8(..));
        let ops: Vec<_> = (0..300).map(|_| (rng.u8(..), rng.u8(..), rng.u8(..), rng.u16(..))).collect();
        let seen = outbox::run(limits, &ops);
        let outbox::Seen { conflated, dropped, too_slow, cut, .. } = seen;
        let outbox::Seen { unpinged, kept_place, forgotten, spilled, handed, missed, .. } = seen;
        let seen = [conflated, dropped, too_slow, cut, unpinged, kept_place, forgotten, spilled, handed, missed];
        all.iter_mut().zip(seen).for_each(|(sum, seen)| *sum += seen);
    }
    assert!(all.iter().all(|seen| *seen > 100), "{all:?}");
}
