//! Writing: an update goes straight to every socket that is idle, and into the outbox of every socket that is not.

use super::Shard;
use super::conn::State;
use crate::fanout::{Chunk, Outbox, OutboxLimits, Run, Update};
use crate::ids::{ConnId, Face};
use crate::metrics::{DropReason, EndReason};
use crate::sys::{Op, Ring};
use std::rc::Rc;
use std::sync::Arc;

/// Bytes of one write to a socket that is not behind: it had something on its way when more came.
pub(super) const WRITE_BYTES_MAX: usize = 32 << 10;
/// Updates up to this size are copied for a ping to ride with them; behind a larger one the ping goes by itself.
const PING_COPY_MAX: u32 = 4 << 10;

impl<R: Ring> Shard<R> {
    /// Sends this turn's updates of each channel to its subscribers.
    pub(super) fn fan_out(&mut self) {
        for index in std::mem::take(&mut self.touched) {
            let channel = self.channels.at_mut(index);
            let updates = std::mem::take(&mut channel.arrived);
            channel.arrived_bytes = 0;
            // What `max_rate` held back comes in no order of its numbers.
            channel.seq = updates.iter().fold(channel.seq, |seq, update| seq.max(update.seq));
            for face in Face::ALL {
                self.fan_out_face(index, face, &updates);
            }
        }
    }

    fn fan_out_face(&mut self, index: u32, face: Face, updates: &[Arc<Update>]) {
        let channel = self.channels.at(index);
        let (audience, policy) = (&channel.audiences[face.index()], channel.policy);
        if !audience.confirmed || audience.members.is_empty() {
            return;
        }
        let members = audience.members.len();
        let owed = updates.iter().filter(|update| update.seq > audience.from_seq);
        let runs = owed.filter_map(|update| Run::update(index, policy, update, face));
        let mut runs: Vec<_> = runs.map(Rc::new).collect();
        let run = match runs.len() {
            0 => return,
            1 => runs.remove(0),
            _ => Rc::new(Run::joined(runs)),
        };
        self.counters.due += members as u64 * u64::from(run.updates);
        let free = self.free;
        let mut silent = std::mem::take(&mut self.silent);
        for at in 0..members {
            // Sending never changes who is subscribed: the list stays as it is while it is walked.
            let slot = self.channels.at(index).audiences[face.index()].members[at].slot;
            let (_, conn) = self.conns.at(slot);
            match conn.pace.is_silent(free) {
                true => silent.push(slot),
                false => self.deliver(slot, &run),
            }
        }
        // The kernel cuts what neighbours in time are sent from the same 32 KiB: what nobody reads would pin all of it.
        for slot in silent.drain(..) {
            self.deliver(slot, &run);
        }
        self.silent = silent;
        self.last_pinged = None;
    }

    /// One subscriber's copy of an update.
    #[inline(always)]
    fn deliver(&mut self, slot: u32, run: &Rc<Run>) {
        let (bytes, window, free) = (run.bytes().len() as u32, self.config.limits.window_bytes, self.free);
        let (id, conn) = self.conns.at(slot);
        if conn.out.is_some() || conn.sending {
            self.offer(id, run);
        } else if !conn.pace.may_send(bytes, window) || conn.pace.is_late(false, free) {
            self.fall_behind(id);
            self.offer(id, run);
        } else if bytes <= PING_COPY_MAX
            && (conn.pace.wants_ping(bytes, window, free)
                || conn.pace.is_unheard(self.config.heartbeat.ping_after, free)
                || conn.pace.is_new() && self.first_pings.take(self.now_us))
        {
            self.send_run_with_ping(id, run);
        } else {
            self.send(id, Chunk::whole(Rc::clone(run)));
        }
    }

    /// An update for a socket that has something to write already.
    #[cold]
    fn offer(&mut self, id: ConnId, run: &Rc<Run>) {
        let (free, window) = (self.free, self.config.limits.window_bytes);
        let (_, conn) = self.conns.at(id.slot.0);
        let pending = conn.out.as_ref().map_or(0, |out| out.pending_bytes()) + run.bytes().len();
        if !conn.behind
            && (!conn.pace.may_send(pending as u32, window) || conn.pace.is_late(conn.awaiting_writable, free))
        {
            self.fall_behind(id);
        }
        let limits = OutboxLimits { critical_max: self.critical_max(id, run.bytes().len()), ..self.limits_of(id) };
        run.charge(&self.outbox_shared);
        let (gone, too_slow) = self.change_outbox_made(id, |outbox| outbox.offer_all(run, &limits));
        if gone.conflated > 0 {
            let (_, conn) = self.conns.at(id.slot.0);
            conn.pace.conflates();
        }
        self.count_gone(id, gone, DropReason::OutboxFull);
        if too_slow {
            let (_, conn) = self.conns.at(id.slot.0);
            let critical = conn.out.as_deref().map_or(0, |out| out.waiting_critical().0);
            self.counters.critical_overflows += u64::from(critical >= limits.critical_max);
            self.too_slow.push(id);
        }
        self.flush_later(id);
    }

    /// Owes an open connection a reply, pong or ping: it goes before all updates.
    pub(super) fn control(&mut self, id: ConnId, frame: Vec<u8>) {
        if self.conns.find(id).is_some_and(|conn| conn.state == State::Open) {
            self.owe(id, frame); // nothing may follow a close frame
        }
    }

    /// The same, whatever the state: for the last answer.
    pub(super) fn owe(&mut self, id: ConnId, frame: Vec<u8>) {
        self.change_outbox_made(id, |outbox| outbox.control(Rc::new(Run::own(frame))));
        self.flush_later(id);
    }

    /// Puts a connection on the list of those to write to.
    pub(super) fn flush_later(&mut self, id: ConnId) {
        let (_, conn) = self.conns.at(id.slot.0);
        if !std::mem::replace(&mut conn.to_flush, true) {
            self.to_flush.push(id);
        }
    }

    /// Writes to everyone on the list who can be written to.
    pub(super) fn flush_ready(&mut self) {
        for id in std::mem::take(&mut self.to_flush) {
            if let Some(conn) = self.conns.find(id) {
                conn.to_flush = false;
                self.flush(id);
            }
        }
    }

    /// Begins the next write of what a connection is owed, unless one is on its way or its pong is awaited.
    fn flush(&mut self, id: ConnId) {
        let (free, window) = (self.free, self.config.limits.window_bytes);
        let (_, conn) = self.conns.at(id.slot.0);
        if conn.sending || conn.awaiting_writable || conn.state == State::Closing {
            return;
        }
        let Some(out) = conn.out.as_deref() else { return self.flushed(id) };
        let mut awaits_pong = conn.state == State::Open && conn.pace.is_waiting();
        let (started, pending) = (out.has_started(), out.pending_bytes() as u32);
        if awaits_pong && !started && !conn.behind && !conn.pace.may_send(pending, window) {
            self.fall_behind(id);
        }
        let (_, conn) = self.conns.at(id.slot.0);
        let (behind, open) = (conn.behind, conn.state == State::Open);
        if behind && open && !awaits_pong && !started && (conn.pace.must_drain() || conn.pace.wants_measure()) {
            self.owe_ping(id);
            awaits_pong = true;
        }
        let (_, conn) = self.conns.at(id.slot.0);
        let write_max = match behind {
            true if awaits_pong && started => 0, // only what was started
            true => conn.pace.write_bytes_max() as usize,
            false => WRITE_BYTES_MAX,
        };
        let through = if behind && awaits_pong && !started { self.writes_through(id) } else { None };
        let next = if let Some(bytes_max) = through {
            self.change_outbox(id, |outbox| outbox.next_critical(bytes_max)).flatten()
        } else if behind && awaits_pong && !started {
            // Replies do not wait: the pong may lie behind commands that are not read until they are answered.
            self.change_outbox(id, |outbox| outbox.next_control(write_max)).flatten()
        } else {
            self.change_outbox(id, |outbox| outbox.next(write_max)).flatten()
        };
        match next {
            Some(chunk) => {
                let (_, conn) = self.conns.at(id.slot.0);
                let bytes = chunk.bytes().len() as u32;
                let wants = chunk.run.updates > 0 && conn.pace.wants_ping(bytes, window, free);
                let pings = open && if behind { !awaits_pong } else { wants };
                if behind
                    && through.is_none()
                    && chunk.run.updates > 0
                    && let Some(out) = &mut conn.out
                {
                    out.written_us.get_or_insert(chunk.run.received_us);
                }
                match pings && bytes <= PING_COPY_MAX.max(write_max as u32) {
                    true => self.send_with_ping(id, &chunk),
                    false => self.send(id, chunk),
                }
            }
            None => self.flushed(id),
        }
        let (_, conn) = self.conns.at(id.slot.0);
        if conn.paused && conn.control_len() == 0 {
            self.resume(id);
        }
    }

    /// Nothing can be written now: all is, or a pong is awaited.
    fn flushed(&mut self, id: ConnId) {
        let (_, conn) = self.conns.at(id.slot.0);
        let empty = conn.out.as_ref().is_none_or(|out| out.is_empty());
        match conn.state {
            State::Leaving if empty => {
                self.catch_up(id);
                self.shut(id);
            }
            _ if empty && !(conn.behind && conn.pace.is_waiting()) => self.catch_up(id),
            _ => {}
        }
    }

    /// Sends, with a ping behind it whose pong says that all of it was read.
    fn send_with_ping(&mut self, id: ConnId, chunk: &Chunk) {
        let run = Run::with_ping(chunk, &self.begin_ping(id, chunk.bytes().len() as u32));
        self.send(id, Chunk::whole(Rc::new(run)));
    }

    /// The same in a fan-out: subscribers that were sent the same so far share the copy with the ping.
    fn send_run_with_ping(&mut self, id: ConnId, run: &Rc<Run>) {
        let ping = self.begin_ping(id, run.bytes().len() as u32);
        let fits = |(last, _): &&(Vec<u8>, Rc<Run>)| *last == ping;
        let pinged = match self.last_pinged.as_ref().filter(fits) {
            Some((_, pinged)) => Rc::clone(pinged),
            None => {
                let pinged = Rc::new(Run::with_ping(&Chunk::whole(Rc::clone(run)), &ping));
                self.last_pinged = Some((ping, Rc::clone(&pinged)));
                pinged
            }
        };
        self.send(id, Chunk::whole(pinged));
    }

    #[inline]
    fn send(&mut self, id: ConnId, chunk: Chunk) {
        let (_, conn) = self.conns.at(id.slot.0);
        debug_assert!(!conn.sending && !conn.shut && conn.state != State::Closing, "one SEND, and none after the end");
        conn.sending = true;
        conn.spoke = self.now;
        conn.pace.sends(self.free);
        self.counters.outbox_messages += u64::from(chunk.run.updates);
        self.arm(id, Op::Send(id, chunk));
    }

    pub(super) fn sent(&mut self, id: ConnId, result: i32, chunk: Chunk) {
        let (now, free, window) = (self.now, self.free, self.config.limits.window_bytes);
        let Some(conn) = self.conns.find(id) else { return };
        self.counters.outbox_messages -= u64::from(chunk.run.updates);
        conn.armed -= 1;
        conn.sending = false;
        let state = conn.state;
        let (all, written) = (chunk.bytes().len(), result.max(0) as usize);
        conn.pace.took(written as u32);
        if written > 0 && (!conn.pace.is_waiting() || conn.pace.is_unknown()) {
            conn.progress = now;
        }
        if result >= 0 && written == all {
            self.counters.delivered += u64::from(chunk.run.updates);
            if chunk.run.updates > 0 {
                let age_us = self.now_us.saturating_sub(chunk.run.received_us);
                self.latency.saturating_record_n(age_us, u64::from(chunk.run.updates));
            }
            match state {
                State::Closing => self.release_if_done(id),
                // The update was too large for a ping to ride with it.
                State::Open if chunk.run.updates > 0 && conn.pace.wants_ping(0, window, free) => self.owe_ping(id),
                State::Open if conn.behind && conn.pace.is_prompt() && conn.owes_nothing() => self.catch_up(id),
                _ if conn.out.is_some() => self.flush_later(id),
                State::Leaving => self.shut(id),
                _ => {}
            }
            return;
        }
        let failed = result < 0 && result != -libc::EAGAIN && result != -libc::EINTR;
        if state == State::Closing || failed {
            self.counters.drop_updates(DropReason::Closed, u64::from(chunk.run.updates));
            return match state {
                State::Closing => self.release_if_done(id),
                _ => self.finish(id, EndReason::SocketError),
            };
        }
        // The rest is its own from here, and the shared run is let go. It is not behind for that: the kernel takes no more
        // than the network does, which is little at the start of a healthy connection.
        conn.awaiting_writable = true;
        let limits = self.limits_of(id);
        chunk.run.charge(&self.outbox_shared);
        let unsent = self.change_outbox_made(id, |outbox| outbox.unsent(chunk, written, &limits));
        self.counters.delivered += unsent.whole;
        self.count_gone(id, unsent.gone, DropReason::OutboxFull);
        if unsent.unpinged {
            let (_, conn) = self.conns.at(id.slot.0);
            conn.pace.unpinged();
        }
        let (_, conn) = self.conns.at(id.slot.0);
        if conn.pace.blocked(free) {
            conn.progress = now;
        }
        self.arm(id, Op::AwaitWritable(id));
    }

    /// What may wait for a connection: while it is not behind, all that its window allows; if it is slow or
    /// stalled, only the newest.
    fn limits_of(&mut self, id: ConnId) -> OutboxLimits {
        let free = self.free;
        let (_, conn) = self.conns.at(id.slot.0);
        let slack = match conn.behind {
            true if conn.pace.is_slow() || conn.pace.is_stalled(conn.awaiting_writable, free) => 0,
            true if conn.pace.is_on_trial(conn.out.as_ref().map_or(0, |out| out.pending_bytes()), free) => usize::MAX,
            true => self.outbox_limits.slack,
            false => usize::MAX,
        };
        OutboxLimits { slack, ..self.outbox_limits }
    }

    pub(super) fn writable(&mut self, id: ConnId, result: i32) {
        let Some(conn) = self.conns.find(id) else { return };
        conn.armed -= 1;
        conn.awaiting_writable = false;
        if !conn.pace.is_waiting() || conn.out.as_ref().is_some_and(|out| out.has_started()) {
            conn.progress = self.now;
        }
        match conn.state {
            State::Closing => self.release_if_done(id),
            _ if result < 0 => self.finish(id, EndReason::SocketError),
            _ => self.flush_later(id), // a socket in error says so to the next SEND
        }
    }

    /// Changes a connection's outbox, if it has one, and the sums over all outboxes with it.
    pub(super) fn change_outbox<T>(&mut self, id: ConnId, change: impl FnOnce(&mut Outbox) -> T) -> Option<T> {
        let (_, conn) = self.conns.at(id.slot.0);
        let outbox = conn.out.as_deref_mut()?;
        let before = (outbox.pending(), outbox.owned_bytes());
        let changed = change(outbox);
        self.counters.outbox_messages = self.counters.outbox_messages + outbox.pending() - before.0;
        self.outbox_owned = self.outbox_owned + outbox.owned_bytes() - before.1;
        Some(changed)
    }

    /// The same, with an outbox made where there is none.
    pub(super) fn change_outbox_made<T>(&mut self, id: ConnId, change: impl FnOnce(&mut Outbox) -> T) -> T {
        let (_, conn) = self.conns.at(id.slot.0);
        conn.out.get_or_insert_default();
        self.change_outbox(id, change).expect("it was made just now")
    }
}
