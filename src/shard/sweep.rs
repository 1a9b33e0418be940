//! What time does: every tick a part of the table is looked at, so that every connection is looked at once a second.
//! No connection has a timer of its own, which would cost memory for each and work for every message.

use super::Shard;
use super::conn::State;
use crate::lifecycle::Millis;
use crate::metrics::EndReason;
use crate::sys::Ring;
use crate::wire;
use std::time::Duration;

/// Time between two ticks.
pub(super) const TICK: Duration = Duration::from_millis(100);
/// Ticks in which the whole table is looked at.
const TICKS_A_ROUND: u32 = 10;

/// How far the round has come.
#[derive(Debug, Default)]
pub(super) struct Sweeper {
    next: u32,
}

impl<R: Ring> Shard<R> {
    pub(super) fn sweep(&mut self) {
        self.listening.wake();
        self.look_at_laggards();
        let used = self.conns.used();
        let part = used.div_ceil(TICKS_A_ROUND);
        let from = if self.sweeper.next >= used { 0 } else { self.sweeper.next };
        let to = used.min(from + part);
        self.sweeper.next = to;
        (from..to).for_each(|slot| self.look_at(slot));
    }

    fn look_at(&mut self, slot: u32) {
        let (id, conn) = self.conns.at(slot);
        let now = self.now;
        let in_state = now.since(conn.since);
        match conn.state {
            State::Request if in_state > self.config.limits.request_timeout => {
                if self.is_check(id, EndReason::RequestTimeout) {
                    return self.finish(id, EndReason::RequestTimeout); // a proxy's, which has heard that we are here
                }
                let why = "the request was not complete in time; send it at once";
                let refusal = wire::Refusal::new(408, "request_timeout", why);
                self.answer_and_leave(id, refusal.response(), refusal.code, EndReason::RequestTimeout);
            }
            // With an HTTP answer, which may be longer than a close frame.
            State::Leaving if conn.outside && !self.leaving && in_state <= self.config.limits.request_timeout => {}
            State::Leaving if in_state > self.config.drain.close_timeout => self.finish_quietly(id),
            // It is owed something: not the heartbeat judges it, but whether it makes progress.
            State::Open if conn.out.is_some() || conn.sending => self.close_if_stalled(id),
            State::Open if conn.pinged && in_state > self.config.heartbeat.pong_timeout => {
                self.close(id, 1001, "a ping stayed unanswered", EndReason::PingTimeout);
            }
            State::Open
                if !conn.pinged
                    && now.since(Millis::max(conn.heard, conn.spoke)) >= self.config.heartbeat.ping_after =>
            {
                (conn.pinged, conn.since) = (true, now);
                self.owe_ping(id);
            }
            State::Open if !conn.pace.is_unknown() => self.close_if_stalled(id), // it may owe a pong
            _ => {}
        }
    }
}
