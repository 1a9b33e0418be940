//! The clock of a socket: how far what was sent may run ahead of what the client has read, by its pongs. Pure.
//!
//! POLLOUT says that bytes have left our kernel; a pong says that the client has read everything before its ping,
//! whatever queues lie between. Each ping carries the position in the stream at which it rides.
//!
//! A socket may run `window` bytes ahead, and besides what is in flight over its round trip anyway (the rate at which it
//! was seen to read, times its shortest round trip): a far client is not slow. A slow link has a long queue and a low
//! rate, so it gets next to nothing for its distance.

use super::Millis;
use std::time::Duration;

/// A ping rides when this part of the window was sent since the last one; with a far client oftener, because what it
/// has read since its last pong is not known.
const PINGS_PER_WINDOW: u32 = 2;
const PINGS_PER_WINDOW_FAR: u32 = 8;
/// A round trip from which a client counts as far.
const FAR: Duration = Duration::from_millis(20);
/// What is in flight over the round trip adds at most this many windows.
const FLIGHT_WINDOWS_MAX: u32 = 3;
/// Bytes of one write to a socket that is behind, until it has shown that more arrives as fast.
pub const BEHIND_WRITE_BYTES: u32 = 8 << 10;
/// A write counts as fast if its pong came within this time beyond the shortest round trip, or half of that again.
const FAST_EXTRA: Duration = Duration::from_millis(15);

/// See the module. Positions count the bytes of a connection and wrap; only their differences have a meaning.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    /// Bytes that the kernel has taken.
    sent: u32,
    /// Everything before this position was read by the client.
    read: u32,
    /// Where the last ping rides.
    pinged: u32,
    /// When it was sent.
    pinged_at: Millis,
    /// When the last pong came.
    ponged_at: Millis,
    /// Bytes per millisecond that the client was last seen to read.
    rate: u32,
    /// Shortest round trip seen, in milliseconds and 1; 0: none yet.
    round_trip: u16,
    /// Bytes of the next write while behind, in KiB; 0: as at first.
    write_kib: u8,
    /// The last ping has yet to be answered.
    waiting: bool,
}

impl Pace {
    /// Whether `bytes` more may be sent now without running more than the window ahead.
    #[inline]
    pub fn may_send(&self, bytes: u32, window: u32) -> bool {
        let ahead = self.sent.wrapping_sub(self.read);
        // A socket of which nothing is unread may take an update of any size.
        ahead == 0 || u64::from(ahead) + u64::from(bytes) <= u64::from(self.window(window))
    }

    /// Whether a ping should ride behind the next `bytes`.
    #[inline]
    pub fn wants_ping(&self, bytes: u32, window: u32) -> bool {
        let far = u128::from(self.round_trip) > FAR.as_millis();
        let part = window / if far { PINGS_PER_WINDOW_FAR } else { PINGS_PER_WINDOW };
        self.sent.wrapping_sub(self.pinged).saturating_add(bytes) >= part
    }

    /// The payload of a ping that ends `bytes` after what was sent.
    pub fn position(&self, bytes: u32) -> [u8; 4] {
        self.sent.wrapping_add(bytes).to_be_bytes()
    }

    /// The kernel has taken `bytes`.
    #[inline]
    pub fn took(&mut self, bytes: u32) {
        self.sent = self.sent.wrapping_add(bytes);
    }

    /// A ping with that position was handed over to be sent; whether it is the only one that waits for its pong.
    pub fn pinged(&mut self, position: [u8; 4], now: Millis) -> bool {
        self.pinged = u32::from_be_bytes(position);
        self.pinged_at = now;
        !std::mem::replace(&mut self.waiting, true)
    }

    /// The last ping was taken back before it was sent. The pongs of those before it still count.
    pub fn unpinged(&mut self) {
        self.pinged = self.sent;
        self.waiting = false;
    }

    /// A pong; whether it answers one of our pings, and not one that was answered before.
    pub fn pong(&mut self, payload: &[u8], now: Millis) -> bool {
        let Ok(position) = <[u8; 4]>::try_from(payload).map(u32::from_be_bytes) else { return false };
        let progress = position.wrapping_sub(self.read);
        let outstanding = self.pinged.wrapping_sub(self.read);
        if progress > outstanding || (progress == 0 && !(self.waiting && position == self.pinged)) {
            return false;
        }
        if progress > 0 {
            let since = now.since(self.ponged_at).as_millis().clamp(1, 60_000) as u32;
            self.rate = (progress / since).midpoint(self.rate);
        }
        self.read = position;
        self.ponged_at = now;
        if position == self.pinged {
            self.waiting = false;
            let trip = now.since(self.pinged_at);
            self.round_trip = match (self.round_trip, trip.as_millis().min(60_000) as u16 + 1) {
                (0, trip) => trip,
                (shortest, trip) => shortest.min(trip),
            };
            let shortest = Duration::from_millis(u64::from(self.round_trip) - 1);
            let fast = trip <= shortest + FAST_EXTRA.max(shortest / 2);
            self.write_kib = if fast { (self.write_kib.max(8)).saturating_mul(2).min(64) } else { 8 };
        }
        true
    }

    /// Whether the last ping has yet to be answered.
    #[inline]
    pub fn is_waiting(&self) -> bool {
        self.waiting
    }

    /// Whether what was last written while behind was read without delay.
    #[inline]
    pub fn is_fast(&self) -> bool {
        self.write_kib >= 16
    }

    /// Bytes of the next write to a socket that is behind.
    pub fn write_bytes_max(&self) -> u32 {
        BEHIND_WRITE_BYTES.max(u32::from(self.write_kib) << 10)
    }

    /// The socket has fallen behind: it must show anew how much it takes.
    pub fn fell_behind(&mut self) {
        self.write_kib = 0;
    }

    fn window(&self, window: u32) -> u32 {
        let flight = u64::from(self.rate) * u64::from(self.round_trip.saturating_sub(1));
        window.saturating_add(flight.min(u64::from(window) * u64::from(FLIGHT_WINDOWS_MAX)) as u32)
    }
}

#[cfg(test)]
mod tests {
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

        /// The most that may be sent now.
        fn room(&self) -> u32 {
            (0..4 * WINDOW + 1).rev().step_by(64).find(|bytes| self.may_send(*bytes, WINDOW)).unwrap_or(0)
        }
    }

    /// A client of whom `bytes` are read every `every` milliseconds, `trip` milliseconds after they were sent.
    fn steady(bytes: u32, every: u64, trip: u64) -> Pace {
        let mut pace = Pace::default();
        for step in 1..100 {
            let ping = pace.write(bytes, step * every);
            assert!(pace.pong(&ping, at(step * every + trip)));
        }
        pace
    }

    #[test]
    fn a_far_client_runs_further_ahead_by_what_is_in_flight_and_a_near_one_does_not() {
        let ahead = |mut pace: Pace| {
            pace.write(1, 1_000_000);
            pace.room()
        };
        let (near, far) = (ahead(steady(20_000, 100, 0)), ahead(steady(20_000, 100, 60)));
        assert!(near <= WINDOW, "{near}");
        assert!((WINDOW + 9_000..WINDOW + 13_000).contains(&far), "200 bytes/ms for 60 ms: {far}");
        let farthest = ahead(steady(2_000_000, 100, 1000));
        assert!((4 * WINDOW - 100..=4 * WINDOW).contains(&farthest), "at most three windows more: {farthest}");
    }

    #[test]
    fn a_slow_link_gets_next_to_nothing_for_its_distance() {
        let mut pace = steady(400, 100, 60);
        // Its queue fills: pongs come seconds late, and the shortest round trip stays what it was.
        for step in 0..20 {
            let ping = pace.write(8_000, 20_000 + step * 2_000);
            assert!(pace.pong(&ping, at(21_900 + step * 2_000)));
            assert_eq!(pace.write_bytes_max(), BEHIND_WRITE_BYTES, "late pongs earn no larger writes");
            assert!(!pace.is_fast());
        }
        pace.write(1, 100_000);
        let room = pace.room();
        assert!(room < WINDOW + 400, "4 bytes/ms for 60 ms: {room}");
    }

    #[test]
    fn a_window_that_is_full_is_full_to_the_byte_and_any_update_may_go_where_nothing_is_unread() {
        let mut pace = Pace::default();
        assert!(pace.may_send(u32::MAX, 100));
        pace.took(60);
        assert!(pace.may_send(40, 100) && !pace.may_send(41, 100));
        pace.took(40);
        assert!(pace.may_send(0, 100) && !pace.may_send(1, 100));
    }

    #[test]
    fn a_ping_rides_at_each_half_of_the_window_and_oftener_with_a_far_client() {
        for (mut pace, part) in [(steady(1000, 100, 19), 2), (steady(1000, 100, 20), 8)] {
            assert!(!pace.wants_ping(WINDOW / part - 1, WINDOW));
            assert!(pace.wants_ping(WINDOW / part, WINDOW));
            pace.took(WINDOW / part);
            assert!(pace.wants_ping(0, WINDOW));
        }
    }

    #[test]
    fn pongs_that_come_late_twice_or_for_no_ping_of_ours_prove_nothing() {
        let mut pace = Pace::default();
        let (first, second) = (pace.write(100, 1), pace.write(100, 2));
        for forged in [&b""[..], b"abc", b"abcde", &0u32.to_be_bytes(), &201u32.to_be_bytes(), &[0xff; 4]] {
            assert!(!pace.pong(forged, at(3)), "{forged:?}");
        }
        assert!(pace.pong(&first, at(4)) && pace.is_waiting(), "the last one is still on its way");
        assert!(!pace.pong(&first, at(5)), "twice");
        assert!(pace.pong(&second, at(6)) && !pace.is_waiting());
        assert!(!pace.pong(&second, at(7)), "twice");
        pace.write(100, 8);
        assert!(!pace.pong(&first, at(9)) && !pace.pong(&second, at(9)), "late");
        assert!(pace.is_waiting());
    }

    #[test]
    fn a_pong_that_overtakes_another_says_what_both_say() {
        let mut pace = Pace::default();
        let (first, second) = (pace.write(100, 1), pace.write(100, 2));
        assert!(pace.pong(&second, at(3)) && !pace.is_waiting());
        assert!(!pace.pong(&first, at(4)));
        assert!(pace.may_send(u32::MAX, 100), "everything was read");
    }

    #[test]
    fn a_ping_that_was_taken_back_is_not_waited_for_and_those_before_it_count() {
        let mut pace = Pace::default();
        let first = pace.write(100, 1);
        let taken_back = pace.position(100);
        assert!(!pace.pinged(taken_back, at(2)), "it is not the only one");
        pace.took(50);
        pace.unpinged();
        assert!(!pace.is_waiting());
        assert!(pace.pong(&first, at(3)), "it was sent before");
        assert!(!pace.pong(&taken_back, at(4)), "nobody was sent that");
        assert!(pace.may_send(50, 100) && !pace.may_send(51, 100), "50 bytes are unread");
    }

    #[test]
    fn who_reads_fast_is_written_more_at_a_time_until_it_falls_behind_again() {
        let mut pace = Pace::default();
        let mut sizes = Vec::new();
        for step in 0..5 {
            sizes.push((pace.write_bytes_max() >> 10, pace.is_fast()));
            let ping = pace.write(8000, step * 100);
            assert!(pace.pong(&ping, at(step * 100 + 10)));
        }
        assert_eq!(sizes, [(8, false), (16, true), (32, true), (64, true), (64, true)]);
        pace.fell_behind();
        assert_eq!((pace.write_bytes_max(), pace.is_fast()), (BEHIND_WRITE_BYTES, false));
        let ping = pace.write(8000, 1000);
        assert!(pace.pong(&ping, at(1025)) && pace.is_fast(), "15 ms beyond the shortest");
        let ping = pace.write(8000, 2000);
        assert!(pace.pong(&ping, at(2026)) && !pace.is_fast(), "16 ms beyond the shortest");
    }

    proptest! {
        /// Whatever happened: who waits has a ping to wait for, and who does not can send one, whose pong opens the window.
        #[test]
        fn every_state_has_a_way_out(
            begins_at in any::<u32>(),
            ops in proptest::collection::vec((0..5u8, 0..100_000u32, any::<prop::sample::Index>()), 0..100),
        ) {
            let mut pace = Pace { sent: begins_at, read: begins_at, pinged: begins_at, ..Pace::default() };
            let (mut outstanding, mut now) = (Vec::new(), 0);
            for (what, bytes, which) in ops {
                now += u64::from(bytes % 300);
                match what {
                    0 => pace.took(bytes),
                    1 => outstanding.push(pace.write(bytes + 6, now)),
                    2 => {
                        pace.pinged(pace.position(bytes + 6), at(now));
                        pace.took(bytes / 2);
                        pace.unpinged();
                    }
                    3 if !outstanding.is_empty() => {
                        let ping = outstanding.swap_remove(which.index(outstanding.len()));
                        pace.pong(&ping, at(now));
                    }
                    _ => drop(pace.pong(&bytes.to_be_bytes(), at(now))),
                }
                let mut later = pace;
                if !later.is_waiting() {
                    later.write(6, now);
                }
                prop_assert!(later.is_waiting());
                prop_assert!(later.pong(&later.pinged.to_be_bytes(), at(now + 50)));
                prop_assert!(!later.is_waiting());
                let unread = later.sent.wrapping_sub(later.read);
                prop_assert!(unread == 0 || later.may_send(0, unread));
            }
        }
    }
}
