//! Writing: an update goes straight to every socket that is idle, and into the outbox of every socket that is not.

use super::Shard;
use super::conn::State;
use crate::fanout::{Chunk, Offer, Outbox, Run, Update};
use crate::ids::{ConnId, Face};
use crate::metrics::{DropReason, EndReason};
use crate::sys::{Op, Ring};
use std::rc::Rc;
use std::sync::Arc;

/// Bytes of one write to a socket that is behind.
const WRITE_BYTES_MAX: usize = 8 << 10;

impl<R: Ring> Shard<R> {
    /// Sends this turn's updates of each channel to its subscribers.
    pub(super) fn fan_out(&mut self) {
        for index in std::mem::take(&mut self.touched) {
            let channel = self.channels.at_mut(index);
            let updates = std::mem::take(&mut channel.arrived);
            channel.arrived_bytes = 0;
            channel.seq = channel.seq.max(updates.last().map_or(0, |update| update.seq));
            for face in Face::ALL {
                self.fan_out_face(index, face, &updates);
            }
        }
    }

    fn fan_out_face(&mut self, index: u32, face: Face, updates: &[Arc<Update>]) {
        let audience = &self.channels.at(index).audiences[face.index()];
        if !audience.confirmed || audience.members.is_empty() {
            return;
        }
        let owed = updates.iter().filter(|update| update.seq > audience.from_seq);
        let mut runs: Vec<_> = owed.filter_map(|update| Run::update(index, update, face)).map(Rc::new).collect();
        let run = match runs.len() {
            0 => return,
            1 => runs.remove(0),
            _ => Rc::new(Run::joined(runs)),
        };
        // Sending never changes who is subscribed: the list stays as it is while it is walked.
        for at in 0..audience.members.len() {
            let slot = self.channels.at(index).audiences[face.index()].members[at].slot;
            let (id, conn) = self.conns.at(slot);
            if conn.out.is_none() && !conn.sending {
                self.send(id, Chunk::whole(Rc::clone(&run)));
            } else {
                self.offer(id, &run);
            }
        }
    }

    /// An update for a socket that has something to write already.
    #[cold]
    fn offer(&mut self, id: ConnId, run: &Rc<Run>) {
        let limits = self.outbox_limits;
        let parts = if run.parts().is_empty() { std::slice::from_ref(run) } else { run.parts() };
        let dropped = self.change_outbox_made(id, |outbox| {
            let offers = parts.iter().map(|part| outbox.offer(Rc::clone(part), &limits));
            offers.map(|offer| if let Offer::Displaced(dropped) = offer { dropped } else { 0 }).sum()
        });
        self.counters.drop_updates(DropReason::OutboxFull, dropped);
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

    /// Begins the next write of what a connection is owed, unless one is on its way.
    fn flush(&mut self, id: ConnId) {
        let (_, conn) = self.conns.at(id.slot.0);
        if conn.sending || conn.awaiting_writable || conn.state == State::Closing {
            return;
        }
        match self.change_outbox(id, |outbox| outbox.next(WRITE_BYTES_MAX)).flatten() {
            Some(chunk) => {
                self.send(id, chunk);
                let (_, conn) = self.conns.at(id.slot.0);
                // Its commands wait for the replies alone: updates may come for ever.
                if conn.paused && conn.control_len() == 0 {
                    self.resume(id);
                }
            }
            None => {
                let (_, conn) = self.conns.at(id.slot.0);
                conn.out = None;
                match conn.state {
                    State::Leaving => self.shut(id),
                    _ if conn.paused => self.resume(id),
                    _ => {}
                }
            }
        }
    }

    #[inline]
    fn send(&mut self, id: ConnId, chunk: Chunk) {
        let (_, conn) = self.conns.at(id.slot.0);
        debug_assert!(!conn.sending && !conn.shut && conn.state != State::Closing, "one SEND, and none after the end");
        conn.sending = true;
        conn.spoke = self.now;
        self.arm(id, Op::Send(id, chunk));
    }

    pub(super) fn sent(&mut self, id: ConnId, result: i32, chunk: Chunk) {
        let Some(conn) = self.conns.find(id) else { return };
        conn.armed -= 1;
        conn.sending = false;
        let state = conn.state;
        let all = chunk.bytes().len();
        if result >= 0 && result as usize == all {
            self.counters.delivered += u64::from(chunk.run.updates);
            if chunk.run.updates > 0 {
                let age_us = self.now_us.saturating_sub(chunk.run.received_us);
                self.latency.saturating_record_n(age_us, u64::from(chunk.run.updates));
            }
            match conn.state {
                State::Closing => self.release_if_done(id),
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
        // It is behind: the rest is its own from here, and the shared run is let go.
        conn.awaiting_writable = true;
        let (written, limits) = (result.max(0) as usize, self.outbox_limits);
        let (whole, dropped) = self.change_outbox_made(id, |outbox| outbox.unsent(chunk, written, &limits));
        self.counters.delivered += whole;
        self.counters.drop_updates(DropReason::OutboxFull, dropped);
        self.arm(id, Op::AwaitWritable(id));
    }

    pub(super) fn writable(&mut self, id: ConnId, result: i32) {
        let Some(conn) = self.conns.find(id) else { return };
        conn.armed -= 1;
        conn.awaiting_writable = false;
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
        let before = (outbox.pending(), outbox.pending_bytes() as u64);
        let changed = change(outbox);
        self.counters.outbox_messages = self.counters.outbox_messages + outbox.pending() - before.0;
        self.counters.outbox_bytes = self.counters.outbox_bytes + outbox.pending_bytes() as u64 - before.1;
        Some(changed)
    }

    /// The same, with an outbox made where there is none.
    pub(super) fn change_outbox_made<T>(&mut self, id: ConnId, change: impl FnOnce(&mut Outbox) -> T) -> T {
        let (_, conn) = self.conns.at(id.slot.0);
        conn.out.get_or_insert_default();
        self.change_outbox(id, change).expect("it was made just now")
    }
}
