//! How connections end, and how everything that they held is given back.
//!
//! In order: what is owed is written (the close frame last), our direction is closed, the peer closes its own, all
//! requests on the descriptor are cancelled, hard-linked to its CLOSE; when all of them have completed the slot is free.

use super::Shard;
use super::conn::State;
use crate::ids::ConnId;
use crate::metrics::{DropReason, EndReason};
use crate::sys::{Op, Ring};
use crate::wire;

/// RFC 6455, 7.4.1: the endpoint is going away.
const GOING_AWAY: u16 = 1001;
/// RFC 6455, 7.4.1: a close without a status is answered with a normal closure.
const NORMAL: u16 = 1000;

impl<R: Ring> Shard<R> {
    /// Says goodbye with a close frame; what waits for the client besides replies is dropped.
    pub(super) fn close(&mut self, id: ConnId, code: u16, why: &str, reason: EndReason) {
        self.answer_and_leave(id, wire::close_frame(code, why), why, reason);
    }

    /// The client has closed: its code goes back to it.
    pub(super) fn echo_close(&mut self, id: ConnId, code: Option<u16>, _reason: &str) {
        self.close(id, code.unwrap_or(NORMAL), "", EndReason::ClientClosed);
    }

    /// Owes a last answer, and leaves when it is written. `why` is for the log: it holds nothing that a client has sent.
    pub(super) fn answer_and_leave(&mut self, id: ConnId, answer: Vec<u8>, why: &str, reason: EndReason) {
        let (_, conn) = self.conns.at(id.slot.0);
        if matches!(conn.state, State::Leaving | State::Closing) {
            return;
        }
        self.say_goodbye_to(id, why, reason);
        self.owe(id, answer);
    }

    /// Our direction ends here; the peer has `drain.close_timeout` to end its own.
    pub(super) fn shut(&mut self, id: ConnId) {
        let (_, conn) = self.conns.at(id.slot.0);
        if !std::mem::replace(&mut conn.shut, true) {
            self.arm(id, Op::Shutdown(id));
        }
    }

    /// Ends a connection at once, with a reset where something was still on its way.
    pub(super) fn finish(&mut self, id: ConnId, reason: EndReason) {
        let (_, conn) = self.conns.at(id.slot.0);
        if !matches!(conn.state, State::Leaving | State::Closing) {
            self.say_goodbye_to(id, "", reason);
        }
        self.finish_quietly(id);
    }

    /// The same, for a connection whose end was counted before.
    pub(super) fn finish_quietly(&mut self, id: ConnId) {
        let (_, conn) = self.conns.at(id.slot.0);
        if conn.state == State::Closing {
            return;
        }
        conn.state = State::Closing;
        self.counters.behind -= u64::from(std::mem::take(&mut conn.behind));
        let dropped = conn.out.as_ref().map_or(0, |out| out.pending());
        let bytes = conn.out.take().map_or(0, |out| out.owned_bytes());
        self.counters.outbox_messages -= dropped;
        self.outbox_owned -= bytes;
        self.counters.drop_updates(DropReason::Closed, dropped);
        self.arm(id, Op::CancelAll(id));
        self.arm(id, Op::Close(id));
    }

    /// A request that nobody waits for has completed.
    pub(super) fn settled(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.find(id) {
            conn.armed -= 1;
            self.release_if_done(id);
        }
    }

    pub(super) fn slot_closed(&mut self, id: ConnId, result: i32) {
        let Some(conn) = self.conns.find(id) else { return };
        debug_assert!(result >= 0, "the close of a slot that is known to be taken failed with {result}");
        conn.armed -= 1;
        conn.closed = true;
        self.outside_count -= u64::from(conn.outside);
        self.counters.connections -= 1;
        self.release_if_done(id);
    }

    /// The slot is free when its CLOSE and everything else that was armed has completed.
    pub(super) fn release_if_done(&mut self, id: ConnId) {
        let (_, conn) = self.conns.at(id.slot.0);
        if conn.closed && conn.armed == 0 {
            self.conns.release(id);
        }
    }

    /// Everyone gets a close frame; those who are no WebSocket yet are ended.
    pub(super) fn close_everyone(&mut self) {
        for slot in 0..self.conns.used() {
            let (id, conn) = self.conns.at(slot);
            match conn.state {
                State::Open => self.close(id, GOING_AWAY, "the gateway is going away", EndReason::Shutdown),
                State::Request | State::Confirming => self.finish(id, EndReason::Shutdown),
                State::Free | State::Accepting | State::Leaving | State::Closing => {}
            }
        }
    }

    /// A connection is counted out, and gives back its subscriptions and what waits for it.
    fn say_goodbye_to(&mut self, id: ConnId, why: &str, reason: EndReason) {
        let reason = self.tell_end(id, why, reason);
        // First, so that it is counted as closed, not as unsubscribed.
        let dropped = self.change_outbox(id, |outbox| outbox.forget_data()).unwrap_or_default();
        self.counters.drop_updates(DropReason::Closed, dropped);
        self.unsubscribe_all(id);
        let (_, conn) = self.conns.at(id.slot.0);
        let steps_out = conn.state != State::Open && !conn.outside;
        self.counters.websockets -= u64::from(conn.state == State::Open);
        self.counters.partial_bytes -= conn.kept_bytes() as u64;
        self.counters.end(reason);
        (conn.state, conn.since, conn.paused) = (State::Leaving, self.now, false);
        conn.kept = Default::default();
        if steps_out {
            self.step_outside(id);
        }
    }
}
