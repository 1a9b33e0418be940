//! Sockets that do not keep up: when one counts as behind, when as caught up, when as hopeless; and the shard's budget
//! for all of them together.

use super::conn::State;
use super::{Shard, write};
use crate::fanout::Gone;
use crate::ids::ConnId;
use crate::metrics::{DropReason, EndReason};
use crate::sys::Ring;
use crate::wire;

/// RFC 6455's registry: try again later.
const TRY_AGAIN_LATER: u16 = 1013;
/// Shortest delay that a slow consumer is told to wait, in milliseconds.
const RETRY_MIN_MS: u32 = 500;
/// Bytes of a ping frame with a position: 2 of header, 4 of payload.
const PING_BYTES: u32 = 6;
/// Windows of critical updates that a client may be sent beyond its last pong, and that may wait for it besides, while
/// nothing says that it does not read.
const CRITICAL_WINDOWS: usize = 4;
/// Over its budget a shard makes this much room, in percent of it, so that it need not look for more at once.
const BUDGET_AFTER_PERCENT: usize = 90;

impl<R: Ring> Shard<R> {
    /// The socket does not keep up: from here it is written to at the pace of its pongs.
    pub(super) fn fall_behind(&mut self, id: ConnId) {
        let now = self.now;
        let (_, conn) = self.conns.at(id.slot.0);
        if conn.state == State::Open && !std::mem::replace(&mut conn.behind, true) {
            conn.pace.fell_behind();
            conn.progress = now;
            self.counters.behind += 1;
            if !std::mem::replace(&mut conn.listed, true) {
                self.laggards.push(id);
            }
        }
    }

    /// Nothing is owed any more, and the client has read everything or reads fast.
    pub(super) fn catch_up(&mut self, id: ConnId) {
        let (_, conn) = self.conns.at(id.slot.0);
        conn.out = None;
        self.counters.behind -= u64::from(std::mem::take(&mut conn.behind));
    }

    /// Owes the client a ping; its pong says that everything before it was read.
    pub(super) fn owe_ping(&mut self, id: ConnId) {
        // What waits before it in the lane only makes the position that it proves too small by that.
        let ping = self.begin_ping(id, 0);
        self.control(id, ping);
    }

    /// A ping that rides behind the next `bytes`, whose pong is waited for from now on.
    pub(super) fn begin_ping(&mut self, id: ConnId, bytes: u32) -> Vec<u8> {
        let (now, free) = (self.now, self.free);
        let (_, conn) = self.conns.at(id.slot.0);
        let position = conn.pace.position(bytes + PING_BYTES);
        if conn.pace.pinged(position, free) {
            conn.progress = now;
        }
        wire::ping_frame(&position)
    }

    /// A pong has come.
    pub(super) fn ponged(&mut self, id: ConnId, payload: &[u8]) {
        let (now, free, now_us) = (self.now, self.free, self.now_us);
        let (_, conn) = self.conns.at(id.slot.0);
        if !conn.pace.pong(payload, free) {
            return; // unasked for, which RFC 6455 allows
        }
        conn.progress = now;
        if !conn.behind || conn.pace.is_waiting() {
            return;
        }
        if let Some(out) = &mut conn.out
            && let Some(written_us) = out.written_us.take()
        {
            self.pong_ages.saturating_record(now_us.saturating_sub(written_us));
        }
        let pending = conn.out.as_ref().map_or(0, |out| out.pending_bytes());
        if conn.pace.passes_trial(pending) {
            conn.behind = false;
            self.counters.behind -= 1;
        }
        self.flush_later(id);
    }

    /// Critical updates that may wait for a socket that is offered so many bytes more of them. A burst of them is no sign
    /// that a client is slow, nor is a SEND that has yet to complete, nor a kernel that takes no more for a moment: as long
    /// as neither it nor the pong is overdue, bytes bound them, and not their number.
    pub(super) fn critical_max(&mut self, id: ConnId, bytes: usize) -> usize {
        let (free, most) = (self.free, self.config.limits.window_bytes as usize * CRITICAL_WINDOWS);
        let (_, conn) = self.conns.at(id.slot.0);
        let waiting = conn.out.as_ref().map_or(0, |out| out.waiting_critical().2);
        match waiting + bytes <= most && !conn.pace.is_late(conn.awaiting_writable, free) {
            true => usize::MAX,
            false => self.outbox_limits.critical_max,
        }
    }

    /// Whether critical updates are written to a socket before the pong that it owes, and how many bytes: where they fill
    /// more than half of their places, the kernel takes more, and no pong is overdue.
    pub(super) fn writes_through(&mut self, id: ConnId) -> Option<usize> {
        let (free, window) = (self.free, self.config.limits.window_bytes as usize);
        let half = self.outbox_limits.critical_max / 2;
        let (_, conn) = self.conns.at(id.slot.0);
        let (waiting, next, _) = conn.out.as_deref()?.waiting_critical();
        let bytes_max = write::WRITE_BYTES_MAX.min(window);
        let fits = conn.pace.ahead() as usize + next.max(bytes_max) <= window * CRITICAL_WINDOWS;
        (waiting > half && fits && !conn.pace.is_late(conn.awaiting_writable, free)).then_some(bytes_max)
    }

    /// Everyone who is behind: hopeless, or not?
    pub(super) fn look_at_laggards(&mut self) {
        for id in std::mem::take(&mut self.laggards) {
            let Some(conn) = self.conns.find(id) else { continue };
            conn.listed = conn.behind && conn.state == State::Open;
            if conn.listed {
                self.laggards.push(id);
                self.close_if_stalled(id);
            }
        }
    }

    /// Closes a connection that was owed something and made no progress for `stall_timeout`.
    pub(super) fn close_if_stalled(&mut self, id: ConnId) {
        let (limit, now) = (self.config.limits.stall_timeout, self.now);
        let (_, conn) = self.conns.at(id.slot.0);
        let owes = conn.behind || conn.pace.is_waiting() || conn.awaiting_writable;
        if !limit.is_zero() && owes && now.since(conn.progress) > limit {
            self.close_slow(id);
        }
    }

    /// Closes those whose rules say so, now that nobody walks the subscribers.
    pub(super) fn close_too_slow(&mut self) {
        for id in std::mem::take(&mut self.too_slow) {
            if self.conns.find(id).is_some_and(|conn| conn.state == State::Open) {
                self.close_slow(id);
            }
        }
    }

    /// Closes a slow consumer, and tells it when to come back: each its own time, so that they do not come together.
    fn close_slow(&mut self, id: ConnId) {
        let most = self.config.limits.retry_max.as_millis().min(u128::from(u32::MAX)) as u32;
        let retry_ms = self.retries.next(RETRY_MIN_MS, most);
        let why = serde_json::json!({ "reason": "slow consumer", "retry_ms": retry_ms }).to_string();
        self.close(id, TRY_AGAIN_LATER, &why, EndReason::SlowConsumer);
    }

    /// Over the shard's budget, those with most waiting conflate first, then drop their oldest; what may not be dropped
    /// goes with its socket.
    pub(super) fn keep_to_budget(&mut self) {
        let budget = self.config.limits.outbox_bytes_per_shard_max;
        if self.outbox_bytes() <= budget {
            return;
        }
        let target = budget / 100 * BUDGET_AFTER_PERCENT;
        let mut worst: Vec<(usize, ConnId)> = Vec::new();
        for at in 0..self.laggards.len() {
            let id = self.laggards[at];
            let bytes = self.conns.find(id).and_then(|conn| conn.out.as_ref()).map_or(0, |out| out.pending_bytes());
            worst.push((bytes, id));
        }
        worst.sort_unstable_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
        for (_, id) in &worst {
            if self.outbox_bytes() <= target {
                return;
            }
            let gone = self.change_outbox(*id, |outbox| outbox.conflate()).unwrap_or_default();
            self.count_gone(*id, gone, DropReason::ShardBudget);
        }
        // An update's memory is free when the last who waits for it has dropped it: another round drops more, of everyone.
        for round in 1.. {
            let mut dropped = 0;
            for (_, id) in &worst {
                let over = self.outbox_bytes().saturating_sub(target);
                if over == 0 {
                    return;
                }
                let gone = self.change_outbox(*id, |outbox| outbox.spill(over * round)).unwrap_or_default();
                self.count_gone(*id, gone, DropReason::ShardBudget);
                dropped += gone.dropped;
            }
            if dropped == 0 {
                break;
            }
        }
        for (_, id) in &worst {
            if self.outbox_bytes() <= budget {
                return;
            }
            let open = self.conns.find(*id).filter(|conn| conn.state == State::Open);
            if open.and_then(|conn| conn.out.as_ref()).is_some_and(|out| out.has_waiting()) {
                self.close_slow(*id);
            }
        }
    }

    /// Memory that all outboxes keep, and what `max_rate` holds back.
    pub(super) fn outbox_bytes(&self) -> usize {
        self.outbox_owned + self.outbox_shared.bytes() + self.timers.held_bytes as usize
    }

    /// Counts what went for want of room, and tells the client of what it will miss.
    pub(super) fn count_gone(&mut self, id: ConnId, gone: Gone, reason: DropReason) {
        self.counters.conflated += gone.conflated;
        self.counters.drop_updates(reason, gone.dropped);
        if gone.dropped > 0 {
            self.tell_missed(id);
        }
    }
}
