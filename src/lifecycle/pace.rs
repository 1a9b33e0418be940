//! The clock of a socket: how far what was sent may run ahead of what the client has read, by its pongs. Pure.
//!
//! POLLOUT says that bytes have left our kernel; a pong says that the client has read everything before its ping,
//! whatever queues lie between. A ping carries the position in the stream at which it rides, and at most one is on its
//! way, so that each pong measures a round trip.
//!
//! Two things make a socket fall behind. It may run `window` bytes ahead, and more the longer its round trip is (a far
//! client is not slow) or the faster it reads. And a pong may be overdue: on a slow link with a deep queue bytes say little,
//! time says it all. One that has fallen behind is distrusted until a row of prompt pongs has shown that it keeps up.
//!
//! The round trip may rise for good: a phone changes its network. So a socket that falls behind is first put on trial, and
//! one that stays behind is measured now and then: when everything is read, a ping goes alone, and its pong tells the round
//! trip as it is now. (The least of many pongs would not do: on a slow link they all wait behind our own bytes, and the
//! queue would grow with what we take for its round trip.)

use super::Millis;
use std::time::Duration;

/// A ping rides when this part of the window was sent since the last one; with a far client oftener, because what it
/// has read since its last pong is not known.
const PINGS_PER_WINDOW: u32 = 2;
const PINGS_PER_WINDOW_FAR: u32 = 8;
/// A round trip from which a client counts as far.
const FAR: Duration = Duration::from_millis(20);
/// Before that much, a ping rides by time: behind this many bytes, if the last pong is older than the trust allows.
const PING_BYTES_MIN: u32 = 2 << 10;
/// The same where fewer bytes come than one in so many milliseconds; there are no links that slow.
const PING_BYTES_SLOW: u32 = 4 << 10;
const PING_MS_A_BYTE: u32 = 4;
const PING_SPACINGS_MS: [u64; 5] = [0, 500, 2_000, 8_000, 16_000];
/// A client may be sent ahead what it was seen to read in this time, if that is more than the window: one that reads fast
/// and pauses for a moment (a garbage collection, a busy machine) has not fallen behind.
const PAUSE: Duration = Duration::from_millis(500);
/// For each so much of its round trip a client may have another window on its way, up to so many of them.
const FLIGHT_MS: u64 = 50;
const FLIGHT_WINDOWS_MAX: u64 = 3;
/// Bytes of one write to a socket that is behind, at first; then what it reads in `BEHIND_QUEUE`.
const BEHIND_WRITE_BYTES: u32 = 8 << 10;
const BEHIND_WRITE_KIB_MAX: u8 = 64;
const BEHIND_QUEUE: Duration = Duration::from_millis(250);
/// A pong is prompt within the shortest round trip and a half, or this much beyond it.
const PROMPT_EXTRA: Duration = Duration::from_millis(50);
/// It is overdue after two round trips (a lost packet costs one) and this much: a hiccup of a mobile link is no reason.
const OVERDUE_EXTRA: Duration = Duration::from_millis(300);
/// The same for a socket that is distrusted.
const OVERDUE_EXTRA_DISTRUSTED: Duration = Duration::from_millis(50);
/// The same before a round trip is known.
const OVERDUE_UNKNOWN: Duration = Duration::from_millis(400);
/// One whose pong has taken so long is not in a hiccup: what it missed is kept no longer, only what is newest. At less
/// than an update a second and a half, `slack` would keep minutes of stale updates for it.
const SLACK_TIME: Duration = Duration::from_secs(10);
/// How long a ping may take while its socket is on trial.
const TRIAL: Duration = Duration::from_secs(1);
/// Pings in which it must have been alone with one.
const TRIAL_PINGS_MAX: u8 = 4;
/// What a socket on trial passes with: it was seen to read what waits for it in this many round trips and `PAUSE`. It has
/// waited for one to be read, for another to be measured, and for a part of one to be found late.
const TRIAL_TRIPS: u32 = 3;
/// A ping is alone if at most so many bytes are unread with it: its own, and some reply's.
const ALONE_BYTES: u32 = 64;
/// One that stays behind is measured again after this many pongs.
const MEASURE_AFTER: u8 = 16;
/// What a socket that falls behind begins with: one prompt pong more shows that it reads (see [`Pace::is_prompt`]).
const TRUST_BEHIND: u8 = 2;
/// Prompt pongs in a row after which one that was behind is trusted again.
const TRUSTED: u8 = 8;
/// More of them only space out the pings.
const TRUST_MAX: u8 = TRUSTED + PING_SPACINGS_MS.len() as u8 - 1;

/// See the module. Positions count the bytes of a connection and wrap; only their differences have a meaning.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Bytes that the kernel has taken.
    sent: u32,
    /// Everything before this position was read by the client.
    read: u32,
    /// Where the last ping rides.
    pinged: u32,
    /// Since when its pong, or that the kernel takes more, is waited for.
    waiting_since: Millis,
    /// When the last pong came; before the first, when so little was unread that none was needed.
    ponged_at: Millis,
    /// Bytes per millisecond that the client was last seen to read; 0: not known.
    rate: u16,
    /// Shortest round trip seen, in milliseconds and 1; 0: none yet.
    round_trip: u16,
    /// KiB of the next write while behind.
    write_kib: u8,
    /// Prompt pongs in a row since it was behind; one that never was has `TRUSTED`.
    trust: u8,
    /// The last ping has yet to be answered.
    waiting: bool,
    /// More waited for it than its slack since it was last trusted.
    conflated: bool,
    /// It fell behind, and it is not known yet whether it is slow.
    trial: bool,
    /// The last ping was alone.
    alone: bool,
    /// Pongs since one that was alone.
    unmeasured: u8,
}

impl Default for Pace {
    fn default() -> Self {
        let (waiting_since, ponged_at) = (Millis::default(), Millis::default());
        let (rate, round_trip, trust, waiting) = (0, 0, TRUSTED, false);
        let write_kib = (BEHIND_WRITE_BYTES >> 10) as u8;
        Self {
            sent: 0,
            read: 0,
            pinged: 0,
            waiting_since,
            ponged_at,
            rate,
            round_trip,
            write_kib,
            trust,
            waiting,
            conflated: false,
            trial: false,
            alone: false,
            unmeasured: 0,
        }
    }
}

impl Pace {
    /// Bytes that were sent beyond the last pong.
    pub fn ahead(&self) -> u32 {
        self.sent.wrapping_sub(self.read)
    }

    /// Whether `bytes` more may be sent now without running more than the window ahead.
    #[inline]
    pub fn may_send(&self, bytes: u32, window: u32) -> bool {
        let ahead = self.ahead();
        // A socket of which nothing is unread may take an update of any size.
        ahead == 0 || u64::from(ahead) + u64::from(bytes) <= u64::from(self.window(window))
    }

    /// Whether a pong is overdue, or, if `blocked`, that the kernel takes more.
    #[inline]
    pub fn is_late(&self, blocked: bool, now: Millis) -> bool {
        let waits = blocked || (self.waiting && !self.is_unknown());
        waits && now.since(Millis::max(self.waiting_since, self.ponged_at)) > self.patience()
    }

    /// Whether nothing is known of it but that it has little to read: no reason to call it late, however long it takes.
    #[inline]
    pub fn is_unknown(&self) -> bool {
        self.round_trip == 0 && self.ahead() < PING_BYTES_MIN
    }

    /// Something is about to be sent.
    #[inline]
    pub fn sends(&mut self, now: Millis) {
        if self.is_unknown() {
            self.ponged_at = now;
        }
    }

    /// Whether it has not shown for so long that it reads.
    #[inline]
    pub fn is_unheard(&self, limit: Duration, now: Millis) -> bool {
        !self.waiting && self.round_trip > 0 && now.since(self.ponged_at) >= limit
    }

    /// Whether its pong takes longer than a prompt one; the first pong counts as prompt only once it is there.
    #[inline]
    pub fn is_silent(&self, now: Millis) -> bool {
        let known = || now.since(self.waiting_since) > self.prompt();
        self.waiting && (self.round_trip == 0 || known())
    }

    /// Whether a ping should ride behind the next `bytes`: at each part of the window, and by time.
    #[inline]
    pub fn wants_ping(&self, bytes: u32, window: u32, now: Millis) -> bool {
        if self.waiting {
            return false;
        }
        let far = u128::from(self.round_trip) > FAR.as_millis();
        let part = window / if far { PINGS_PER_WINDOW_FAR } else { PINGS_PER_WINDOW };
        let since_last = self.sent.wrapping_sub(self.pinged).saturating_add(bytes);
        let due = || match self.trust.checked_sub(TRUSTED) {
            Some(trust) => now.since(self.ponged_at).as_millis() >= u128::from(PING_SPACINGS_MS[usize::from(trust)]),
            None => true,
        };
        since_last >= part || ((since_last >= self.ping_bytes(now) || self.trust < TRUSTED) && due())
    }

    /// Whether no pong has come yet, and none is waited for: its first ping may ride behind any update.
    #[inline]
    pub fn is_new(&self) -> bool {
        self.round_trip == 0 && !self.waiting
    }

    /// Bytes behind which a ping rides by time: the more, the more slowly they come. Those who get little each have a limit
    /// of their own, or a million who were sent the same would all be due for a ping with the same update.
    fn ping_bytes(&self, now: Millis) -> u32 {
        if self.round_trip == 0 {
            return PING_BYTES_MIN;
        }
        let slow = now.since(self.ponged_at).as_millis().min(u128::from(u32::MAX)) as u32 / PING_MS_A_BYTE;
        let own = PING_BYTES_SLOW + self.ponged_at.remainder(PING_BYTES_SLOW);
        slow.clamp(PING_BYTES_MIN, own)
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

    /// The kernel takes nothing more for now; whether that, and no pong, is what is waited for.
    pub fn blocked(&mut self, now: Millis) -> bool {
        if !self.waiting {
            self.waiting_since = now;
        }
        !self.waiting
    }

    /// A ping with that position was handed over to be sent; whether it is the only one that waits for its pong.
    pub fn pinged(&mut self, position: [u8; 4], now: Millis) -> bool {
        self.pinged = u32::from_be_bytes(position);
        self.alone = self.pinged.wrapping_sub(self.read) <= ALONE_BYTES;
        self.waiting_since = now;
        !std::mem::replace(&mut self.waiting, true)
    }

    /// The last ping was taken back before it was sent. The pongs of those before it still count.
    pub fn unpinged(&mut self) {
        self.pinged = self.sent;
        self.waiting = false;
    }

    /// A pong; whether it answers our last ping, and not one that was answered before.
    pub fn pong(&mut self, payload: &[u8], now: Millis) -> bool {
        if !self.waiting || payload != self.pinged.to_be_bytes() {
            return false;
        }
        let first_rate = self.rate == 0;
        if !self.alone {
            let began = if self.round_trip == 0 { self.waiting_since } else { self.ponged_at };
            let since = now.since(began).as_millis().clamp(1, 60_000) as u32;
            let rate = (self.pinged.wrapping_sub(self.read) / since).min(u32::from(u16::MAX)) as u16;
            self.rate = if self.rate == 0 { rate } else { rate.midpoint(self.rate) };
        }
        (self.read, self.ponged_at, self.waiting) = (self.pinged, now, false);
        let trip = now.since(self.waiting_since);
        let trip_ms = trip.as_millis().min(60_000) as u16 + 1;
        let measured = self.alone || self.round_trip == 0;
        self.round_trip = if measured { trip_ms } else { trip_ms.min(self.round_trip) };
        // Replies may ride with every ping: then it is not measured this time.
        self.unmeasured = if measured || self.unmeasured >= MEASURE_AFTER { 0 } else { self.unmeasured + 1 };
        self.trial &= measured || self.unmeasured < TRIAL_PINGS_MAX;
        self.waiting_since = now;
        if trip <= self.prompt() {
            self.trust = (self.trust + 1).min(TRUST_MAX);
            self.conflated &= self.trust < TRUSTED;
            self.write_kib = self.write_kib.saturating_mul(2).clamp(1, BEHIND_WRITE_KIB_MAX);
        } else {
            self.trust = if self.trust > TRUSTED { TRUSTED } else { self.trust.saturating_sub(1) };
            if trip > self.shortest() + BEHIND_QUEUE {
                self.write_kib = (self.write_kib / 2).max(1);
            }
        }
        if first_rate {
            self.write_kib = self.first_write_kib();
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
    pub fn is_prompt(&self) -> bool {
        self.trust > TRUST_BEHIND
    }

    /// More waits for it than its slack.
    pub fn conflates(&mut self) {
        self.conflated = true;
    }

    /// Whether it is slow: more waited for it than its slack, and it is not trusted since. One that falls behind at every
    /// turn would have its slack filled with old updates each time; and pongs that are merely late (a busy machine) are
    /// no reason to skip updates.
    pub fn is_slow(&self) -> bool {
        self.conflated
    }

    /// Whether its pong, or that the kernel takes more, has taken too long for a hiccup: slack is not for it.
    pub fn is_stalled(&self, blocked: bool, now: Millis) -> bool {
        (self.waiting || blocked) && now.since(self.waiting_since) > SLACK_TIME
    }

    /// Whether it is on trial, and may pass it yet, with `pending` bytes: it fell behind, and nobody knows whether it is
    /// slow. Nothing is skipped for it.
    #[inline]
    pub fn is_on_trial(&self, pending: usize, now: Millis) -> bool {
        self.trial && now.since(self.waiting_since) <= TRIAL && self.reads_in_time(pending)
    }

    /// The end of a trial, if the last pong is one; whether it was passed: it reads fast enough for `pending` bytes, and
    /// has but another round trip.
    pub fn passes_trial(&mut self, pending: usize) -> bool {
        if !self.trial || !self.alone || self.waiting {
            return false;
        }
        self.trial = false;
        self.reads_in_time(pending)
    }

    fn reads_in_time(&self, pending: usize) -> bool {
        pending as u128 <= u128::from(self.rate) * (self.shortest() * TRIAL_TRIPS + PAUSE).as_millis()
    }

    /// Whether a ping should go alone, now that the last one was answered and a socket is behind.
    pub fn wants_measure(&self) -> bool {
        self.trial || self.unmeasured >= MEASURE_AFTER
    }

    /// Whether so much was sent before it fell behind that it must be read first.
    pub fn must_drain(&self) -> bool {
        let in_time = u32::from(self.rate) * (self.shortest() + BEHIND_QUEUE).as_millis() as u32;
        self.ahead() > in_time.max(self.write_bytes_max())
    }

    /// Bytes of the next write to a socket that is behind.
    pub fn write_bytes_max(&self) -> u32 {
        u32::from(self.write_kib) << 10
    }

    /// The socket has fallen behind: it must show anew how much it takes.
    pub fn fell_behind(&mut self) {
        self.trust = TRUST_BEHIND;
        self.trial = !self.conflated && self.round_trip > 0;
        self.unmeasured = 0;
        self.write_kib = self.first_write_kib();
    }

    /// KiB of the first write while behind: what it was seen to read in a moment, where it was.
    fn first_write_kib(&self) -> u8 {
        let most = BEHIND_WRITE_BYTES >> 10;
        let read = (u32::from(self.rate) * BEHIND_QUEUE.as_millis() as u32) >> 10;
        (if self.rate == 0 { most } else { read.clamp(1, most) }) as u8
    }

    fn shortest(&self) -> Duration {
        Duration::from_millis(u64::from(self.round_trip.saturating_sub(1)))
    }

    /// What a prompt pong takes at most.
    fn prompt(&self) -> Duration {
        let shortest = self.shortest();
        shortest + PROMPT_EXTRA.max(shortest / 2)
    }

    fn patience(&self) -> Duration {
        match self.round_trip {
            0 => OVERDUE_UNKNOWN,
            _ if self.trust < TRUSTED => self.shortest() * 2 + OVERDUE_EXTRA_DISTRUSTED,
            _ => self.shortest() * 2 + OVERDUE_EXTRA,
        }
    }

    fn window(&self, window: u32) -> u32 {
        let trip_ms = u64::from(self.round_trip.saturating_sub(1));
        let flight = u64::from(window) * trip_ms / FLIGHT_MS;
        let pause = u64::from(self.rate) * PAUSE.as_millis() as u64;
        let more = flight.max(pause.saturating_sub(u64::from(window)));
        window.saturating_add(more.min(u64::from(window) * FLIGHT_WINDOWS_MAX) as u32)
    }
}

#[cfg(test)]
#[path = "pace_tests.rs"]
mod tests;
