//! What the clock of a socket promises.

use super::*;
use proptest::prelude::*;

const WINDOW: u32 = 64 << 10;

fn at(ms: u64) -> Millis {
    Millis::from_us(ms * 1000)
}

impl Pace {
    /// Sends `bytes` with a ping at their end; its payload.
    fn write(&mut self, bytes: u32, now: u64) -> [u8; 4] {
        let position = self.position(bytes);
        self.pinged(position, at(now));
        self.took(bytes);
        position
    }

    /// The most that may be sent now, to some bytes.
    fn room(&self) -> u32 {
        (0..8 * WINDOW).rev().step_by(64).find(|bytes| self.may_send(*bytes, WINDOW)).unwrap_or(0)
    }
}

/// A client that was sent `bytes` every `every` milliseconds, and whose pongs took `trip` milliseconds.
fn steady(bytes: u32, every: u64, trip: u64) -> Pace {
    let mut pace = Pace::default();
    for step in 1..100 {
        let ping = pace.write(bytes, step * every);
        assert!(pace.pong(&ping, at(step * every + trip)));
    }
    pace
}

/// How far a client may run ahead.
fn ahead(mut pace: Pace) -> u32 {
    pace.write(1, 1_000_000);
    pace.room()
}

#[test]
fn a_window_that_is_full_is_full_to_the_byte_and_any_update_may_go_where_nothing_is_unread() {
    let mut pace = Pace::default();
    assert!(pace.may_send(u32::MAX, 100));
    pace.took(60);
    assert!(pace.may_send(40, 100) && !pace.may_send(41, 100));
}

#[test]
fn a_far_client_and_one_that_reads_fast_run_further_ahead_and_a_slow_one_does_not() {
    let near = ahead(steady(5_000, 100, 1));
    assert!((WINDOW - 64..=WINDOW + 2_000).contains(&near), "50 bytes/ms nearby: {near}");
    let far = ahead(steady(5_000, 100, 50));
    assert!((2 * WINDOW - 64..=2 * WINDOW).contains(&far), "a window more for 50 ms: {far}");
    let fast = ahead(steady(40_000, 100, 1));
    assert!((195_000..=WINDOW * 4).contains(&fast), "half a second at 400 bytes/ms: {fast}");
    let fastest = ahead(steady(2_000_000, 100, 1));
    assert!((4 * WINDOW - 64..=4 * WINDOW).contains(&fastest), "three windows more at most: {fastest}");
    let slow = ahead(steady(400, 100, 10));
    assert!(slow <= WINDOW + WINDOW / 4, "4 bytes/ms: {slow}");
}

#[test]
fn a_ping_rides_at_each_half_of_the_window_and_oftener_with_a_far_client() {
    for (trip, part) in [(19, 2), (20, 8)] {
        let mut pace = steady(1_000, 100, trip);
        assert!(!pace.wants_ping(WINDOW / part - 1, WINDOW, at(10_000)));
        assert!(pace.wants_ping(WINDOW / part, WINDOW, at(10_000)));
        pace.took(WINDOW / part);
        assert!(pace.wants_ping(0, WINDOW, at(10_000)));
        pace.write(6, 10_000);
        assert!(!pace.wants_ping(WINDOW, WINDOW, at(10_000)), "one at a time");
    }
}

#[test]
fn a_ping_rides_by_time_the_oftener_the_less_the_client_is_trusted() {
    let mut pace = steady(1_000, 100, 0); // its last pong came at 9,900
    assert!(!pace.wants_ping(4_000, WINDOW, at(25_899)) && pace.wants_ping(4_000, WINDOW, at(25_900)));
    assert!(!pace.wants_ping(PING_BYTES_MIN - 1, WINDOW, at(60_000)), "for a few bytes none does");
    pace.fell_behind();
    assert!(pace.wants_ping(1, WINDOW, at(9_900)), "behind each write to one that is distrusted");
}

#[test]
fn of_whom_nothing_is_known_but_that_it_has_little_to_read_is_not_late() {
    let mut pace = Pace::default();
    pace.sends(at(1_000));
    pace.write(PING_BYTES_MIN - 1, 1_000);
    assert!(pace.is_unknown());
    pace.sends(at(9_000));
    assert!(!pace.is_late(false, at(60_000)) && pace.is_late(true, at(9_401)), "but for a kernel that takes no more");
    pace.took(1);
    assert!(!pace.is_unknown());
    pace.sends(at(9_200));
    assert!(!pace.is_late(false, at(9_400)), "the clock begins with what made it more");
    assert!(pace.is_late(false, at(9_401)));
}

#[test]
fn who_has_not_answered_for_long_is_unheard() {
    let mut pace = steady(1_000, 100, 0); // its last pong came at 9,900
    let limit = Duration::from_secs(25);
    assert!(!pace.is_unheard(limit, at(34_899)) && pace.is_unheard(limit, at(34_900)));
    pace.write(1, 34_900);
    assert!(!pace.is_unheard(limit, at(90_000)), "a ping is on its way");
    assert!(!Pace::default().is_unheard(limit, at(90_000)), "it has never been asked");
}

#[test]
fn who_gets_little_is_pinged_at_a_limit_of_its_own() {
    let limit = |pong: u64, now: u64| {
        let mut pace = Pace::default();
        let ping = pace.write(1_000, pong);
        assert!(pace.pong(&ping, at(pong)));
        (0..WINDOW).find(|bytes| pace.wants_ping(*bytes, WINDOW, at(now))).unwrap()
    };
    assert_eq!(limit(9_000, 9_000 + 4 * 2_048 + 3), PING_BYTES_MIN);
    assert_eq!(limit(9_000, 9_000 + 4 * 3_000), 3_000, "250 bytes a second");
    assert_eq!(limit(9_000, 100_000), 4_096 + 808);
    assert_eq!(limit(9_001, 100_000), 4_096 + 809);
    assert_eq!(limit(4_095, u64::from(u32::MAX) / 3), 8_191);
}

#[test]
fn who_has_yet_to_answer_the_first_ping_is_silent_and_later_who_takes_longer_than_is_prompt() {
    let mut pace = Pace::default();
    assert!(pace.is_new() && !pace.is_silent(at(60_000)), "nothing is waited for");
    let ping = pace.write(1, 1_000);
    assert!(!pace.is_new() && pace.is_silent(at(1_000)));
    assert!(pace.pong(&ping, at(1_011)));
    assert!(!pace.is_new() && !pace.is_silent(at(60_000)));
    pace.write(1, 2_000);
    assert!(!pace.is_silent(at(2_061)) && pace.is_silent(at(2_062)), "50 ms beyond its round trip of 11 and 1");
}

#[test]
fn what_is_waited_for_begins_with_the_first_that_is() {
    let mut pace = Pace::default();
    assert!(pace.blocked(at(1_000)), "the kernel takes no more");
    assert!(!pace.is_late(false, at(1_401)) && !pace.is_late(true, at(1_400)) && pace.is_late(true, at(1_401)));
    assert!(pace.pinged(pace.position(6), at(2_000)), "a pong is waited for");
    assert!(!pace.blocked(at(2_400)), "and was before");
    assert!(pace.is_late(true, at(2_501)));
    assert!(!pace.pinged(pace.position(6), at(2_500)), "again");
}

#[test]
fn one_prompt_pong_shows_that_who_fell_behind_reads() {
    for (trip, prompt) in [(61, true), (62, false)] {
        let mut pace = steady(1_000, 100, 11);
        pace.fell_behind();
        let ping = pace.write(1_000, 20_000);
        assert!(pace.pong(&ping, at(20_000 + trip)));
        assert_eq!(pace.is_prompt(), prompt, "50 ms beyond its shortest round trip");
    }
}

#[test]
fn who_was_sent_more_than_it_reads_in_a_moment_before_it_fell_behind_reads_that_first() {
    let mut unknown = Pace::default();
    unknown.fell_behind();
    unknown.took(BEHIND_WRITE_BYTES);
    assert!(!unknown.must_drain());
    unknown.took(1);
    assert!(unknown.must_drain());
    let mut fast = steady(40_000, 100, 0);
    fast.fell_behind();
    let moment = u32::from(fast.rate) * 250;
    assert!(moment > 90_000, "400 bytes/ms: {moment}");
    fast.took(moment);
    assert!(!fast.must_drain());
    fast.took(1);
    assert!(fast.must_drain());
}

#[test]
fn a_ping_that_was_taken_back_is_not_waited_for() {
    let mut pace = Pace::default();
    let taken_back = pace.position(100);
    pace.pinged(taken_back, at(1));
    pace.took(50);
    pace.unpinged();
    assert!(!pace.is_waiting() && !pace.pong(&taken_back, at(2)), "nobody was sent it");
    assert!(!pace.may_send(51, 100), "what was sent is unread");
}

#[test]
fn the_first_write_to_who_falls_behind_is_what_it_reads_in_a_moment() {
    let mut pace = steady(1_000, 100, 0);
    assert!(pace.rate == 10, "{}", pace.rate);
    pace.fell_behind();
    assert_eq!(pace.write_bytes_max(), 2 << 10, "10 bytes/ms for 250 ms");
}

#[test]
fn a_late_pong_costs_the_trust_beyond_the_most_or_a_part_of_it() {
    let mut pace = steady(1_000, 100, 0);
    assert_eq!(pace.trust, TRUST_MAX);
    for trust in [TRUSTED, TRUSTED - 1, TRUSTED - 2] {
        let ping = pace.write(1_000, 20_000);
        assert!(pace.pong(&ping, at(20_051)));
        assert_eq!(pace.trust, trust);
    }
}

#[test]
fn who_is_distrusted_is_waited_for_less() {
    let mut pace = steady(1_000, 100, 60);
    pace.fell_behind();
    pace.write(1_000, 20_000);
    assert!(!pace.is_late(false, at(20_000 + 170)) && pace.is_late(false, at(20_000 + 171)), "two trips and 50 ms");
}

#[test]
fn pongs_that_come_twice_or_for_no_ping_of_ours_prove_nothing() {
    let mut pace = Pace::default();
    let ping = pace.write(100, 1);
    for forged in [&b""[..], b"abc", b"abcde", &99u32.to_be_bytes(), &101u32.to_be_bytes(), &[0xff; 4]] {
        assert!(!pace.pong(forged, at(3)), "{forged:?}");
    }
    assert!(pace.is_waiting() && !pace.may_send(1, 100));
    assert!(pace.pong(&ping, at(4)) && !pace.is_waiting() && pace.may_send(100, 100));
    assert!(!pace.pong(&ping, at(5)), "twice");
}

#[test]
fn an_overdue_pong_is_late_and_a_hiccup_is_not() {
    let mut pace = steady(1_000, 100, 60);
    pace.write(1_000, 100_000);
    assert!(!pace.is_late(false, at(100_000 + 400)), "a hiccup of 300 ms over a round trip of 60");
    assert!(pace.is_late(false, at(100_000 + 500)));
    assert!(!steady(1_000, 100, 60).is_late(false, at(200_000)), "nothing is awaited");
}

#[test]
fn who_has_fallen_behind_is_trusted_again_after_a_row_of_prompt_pongs() {
    let mut pace = steady(1_000, 100, 10);
    pace.fell_behind();
    assert!(!pace.is_prompt() && !pace.is_slow(), "its pongs will tell");
    for late in [94_000, 97_000, 100_000] {
        let ping = pace.write(1_000, late);
        assert!(pace.pong(&ping, at(late + 3_000)) && !pace.is_slow(), "late pongs alone skip no update");
    }
    pace.conflates();
    assert!(pace.is_slow());
    let mut prompt = 0;
    while pace.patience() < OVERDUE_EXTRA {
        prompt += 1;
        let ping = pace.write(1_000, 103_000 + prompt * 100);
        assert!(pace.pong(&ping, at(103_010 + prompt * 100)));
    }
    assert_eq!(prompt, u64::from(TRUSTED));
    assert!(!pace.is_slow());
}

#[test]
fn whose_pong_takes_ten_seconds_is_stalled_and_so_is_whom_the_kernel_takes_nothing_for() {
    let mut pace = steady(1_000, 100, 10);
    assert!(!pace.is_stalled(false, at(60_000)), "nothing is waited for");
    let ping = pace.write(1_000, 100_000);
    assert!(!pace.is_stalled(false, at(110_000)) && pace.is_stalled(false, at(110_001)));
    assert!(pace.pong(&ping, at(111_000)) && !pace.is_stalled(true, at(121_000)) && pace.is_stalled(true, at(121_001)));
}

#[test]
fn a_round_trip_that_rose_for_good_is_measured_by_a_ping_alone() {
    let mut pace = steady(5_000, 100, 30);
    pace.fell_behind();
    let ping = pace.write(5_000, 20_000);
    assert!(pace.pong(&ping, at(20_130)));
    assert!(pace.wants_measure() && !pace.passes_trial(0), "other bytes were on their way with it");
    let ping = pace.write(6, 20_130);
    assert!(pace.is_on_trial(0, at(21_130)) && !pace.is_on_trial(0, at(21_131)));
    let kept = usize::from(pace.rate) * (3 * 30 + 500);
    assert!(pace.is_on_trial(kept, at(21_130)) && !pace.is_on_trial(kept + 1, at(21_130)));
    assert!(pace.pong(&ping, at(20_260)));
    assert_eq!(pace.shortest(), Duration::from_millis(130));
    let (before, mut slower) = (pace, pace);
    let reads = usize::from(pace.rate) * (3 * 130 + 500);
    assert!(pace.passes_trial(reads) && !slower.passes_trial(reads + 1));
    assert!(!pace.passes_trial(0) && !slower.passes_trial(0), "one trial, one verdict");
    assert!(!slower.wants_measure());
    pace = before;
    let ping = pace.write(5_000, 20_300);
    assert!(pace.pong(&ping, at(20_430)) && pace.trust > TRUST_BEHIND, "what was late is prompt now");
    let ping = pace.write(5_000, 20_500);
    assert!(pace.pong(&ping, at(20_560)));
    assert_eq!(pace.shortest(), Duration::from_millis(60), "a shorter one needs no proof");
}

#[test]
fn who_stays_behind_is_measured_now_and_then_and_who_is_slow_has_no_trial() {
    let mut pace = steady(5_000, 100, 30);
    pace.conflates();
    pace.fell_behind();
    assert!(!pace.is_on_trial(0, at(0)) && !pace.wants_measure());
    let mut measures = 0;
    for step in 0..100 {
        let alone = pace.wants_measure();
        measures += u32::from(alone);
        let ping = pace.write(if alone { 6 } else { 1_000 }, 20_000 + step * 400);
        assert!(pace.pong(&ping, at(20_000 + step * 400 + if alone { 90 } else { 300 })));
    }
    assert_eq!((measures, pace.shortest()), (5, Duration::from_millis(90)));
}

#[test]
fn a_client_whose_replies_ride_with_every_ping_still_gets_its_updates() {
    let mut pace = steady(5_000, 100, 30);
    pace.fell_behind();
    let mut waited = 0;
    for step in 0..100 {
        waited += u32::from(pace.wants_measure());
        let ping = pace.write(500, 20_000 + step * 100);
        assert!(pace.pong(&ping, at(20_030 + step * 100)));
    }
    assert!((4..12).contains(&waited), "{waited} of 100 writes waited for a measure");
}

#[test]
fn writes_to_a_slow_socket_shrink_and_grow_with_its_pongs() {
    let mut pace = Pace::default();
    pace.fell_behind();
    assert_eq!(pace.write_bytes_max(), BEHIND_WRITE_BYTES);
    let ping = pace.write(8_000, 0);
    assert!(pace.pong(&ping, at(50)) && pace.write_bytes_max() == BEHIND_WRITE_BYTES, "40 KB in a moment");
    let ping = pace.write(8_000, 1_000);
    assert!(pace.pong(&ping, at(1_050)) && pace.write_bytes_max() == 2 * BEHIND_WRITE_BYTES, "as fast as ever seen");
    let ping = pace.write(16_000, 2_000);
    assert!(pace.pong(&ping, at(6_000)) && pace.write_bytes_max() == BEHIND_WRITE_BYTES, "four seconds");

    let mut slow = Pace::default();
    slow.fell_behind();
    let ping = slow.write(8_000, 0);
    assert!(slow.pong(&ping, at(2_000)) && slow.write_bytes_max() == 1 << 10, "4 bytes/ms are 1 KB in a moment");
}

proptest! {
    /// Whatever happened: who waits has a ping to wait for, and who does not can send one, whose pong opens the window.
    #[test]
    fn every_state_has_a_way_out(
        begins_at in any::<u32>(),
        ops in proptest::collection::vec((0..6u8, 0..100_000u32), 0..100),
    ) {
        let mut pace = Pace { sent: begins_at, read: begins_at, pinged: begins_at, ..Pace::default() };
        let mut now = 0;
        for (what, bytes) in ops {
            now += u64::from(bytes % 300);
            match what {
                0 => pace.took(bytes),
                1 if !pace.is_waiting() => drop(pace.write(bytes + 6, now)),
                2 if !pace.is_waiting() => {
                    pace.pinged(pace.position(bytes + 6), at(now));
                    pace.took(bytes / 2);
                    pace.unpinged();
                }
                3 => drop(pace.pong(&pace.pinged.to_be_bytes(), at(now))),
                4 => pace.fell_behind(),
                _ => drop(pace.pong(&bytes.to_be_bytes(), at(now))),
            }
            prop_assert!(pace.write_bytes_max() > 0);
            let mut later = pace;
            if !later.is_waiting() {
                later.write(6, now);
            }
            prop_assert!(later.pong(&later.pinged.to_be_bytes(), at(now + 50)) && !later.is_waiting());
            let unread = later.sent.wrapping_sub(later.read);
            prop_assert!(unread == 0 || later.may_send(0, unread));
        }
    }
}
