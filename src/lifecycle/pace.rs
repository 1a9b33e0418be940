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
