//! Reading: silent clients are watched, and what they send is read into a buffer that all share. The watch is
//! edge-triggered, so a client is read until it has no more, a buffer a turn.

use super::conn::{Kept, Preface, State};
use super::{Shard, conn::Conn};
use crate::ids::{ConnId, Face};
use crate::metrics::EndReason;
use crate::sys::{BufId, Op, Ring};
use crate::wire::{self, Accept, ClientFrame, Flow, Request, proxy, request};

/// A read of so many bytes brought much: more than any client needs for its pongs and a command or two.
const MUCH_BYTES: usize = 4096;
/// What is answered costs a shard as much as so many bytes that are only taken in (measured: some 0.7 us).
const COMMAND_BYTES: usize = 64;

impl<R: Ring> Shard<R> {
    /// The watch has seen something.
    pub(super) fn readable(&mut self, id: ConnId, result: i32, more: bool) {
        let Some(conn) = self.conns.find(id) else { return };
        if !more {
            conn.armed -= 1;
        }
        if conn.state == State::Closing {
            return self.release_if_done(id);
        }
        let gone = i32::from(libc::POLLERR | libc::POLLHUP);
        let ended = gone | i32::from(libc::POLLRDHUP);
        conn.ended |= result >= 0 && result & ended != 0;
        let waits = conn.state == State::Confirming || conn.paused;
        if waits && conn.ended {
            // It is not read from now, and the edge will not come again.
            let reason = if result & gone != 0 { EndReason::SocketError } else { EndReason::Vanished };
            return self.finish(id, reason);
        }
        if !more {
            // The kernel ends a watch when its completion queue is full: without this the socket is deaf for ever.
            self.counters.polls_rearmed += 1;
            self.arm(id, Op::Watch(id));
        }
        self.read_later(id);
    }

    /// Puts a connection on the list of those to read from, if it may be read.
    pub(super) fn read_later(&mut self, id: ConnId) {
        self.read_in_turn(id, false);
    }

    /// The same, behind others who send as much, where the last read brought `much`.
    fn read_in_turn(&mut self, id: ConnId, much: bool) {
        let Some(conn) = self.conns.find(id) else { return };
        let reads = matches!(conn.state, State::Request | State::Open | State::Leaving) && !conn.paused;
        if reads && !conn.reading && !std::mem::replace(&mut conn.to_read, true) {
            self.to_read.push(id, much);
        }
    }

    /// Reads from as many as there are buffers, and as may be read in a turn; those that were paused have been read.
    pub(super) fn read_ready(&mut self) {
        let mut reads = self.intake.next_reads();
        while reads > 0
            && self.ring.buffers_free() > 0
            && let Some(id) = self.to_read.pop()
        {
            let Some(conn) = self.conns.find(id) else { continue };
            conn.to_read = false;
            if conn.state == State::Closing || conn.paused || conn.reading {
                continue;
            }
            reads -= 1;
            if conn.state == State::Open && conn.holds_frames() {
                self.take_in_frames(id, &mut []);
                self.read_in_turn(id, true);
                continue;
            }
            conn.reading = true;
            self.arm(id, Op::Receive(id));
        }
    }

    pub(super) fn received(&mut self, id: ConnId, result: i32, buffer: BufId) {
        let mut bytes = std::mem::take(&mut self.scratch);
        bytes.clear();
        if result > 0 {
            self.intake.took(result as usize);
            bytes.extend_from_slice(self.ring.buffer(buffer, result as usize));
        }
        self.ring.release(buffer);
        if let Some(conn) = self.conns.find(id) {
            conn.armed -= 1;
            conn.reading = false;
            if conn.state == State::Closing {
                self.release_if_done(id);
            } else if result > 0 {
                (conn.heard, conn.pinged) = (self.now, false);
                self.take_in(id, &mut bytes);
                self.read_in_turn(id, result as usize >= MUCH_BYTES);
            } else if result == 0 {
                self.peer_ended(id);
            } else if result != -libc::EAGAIN && result != -libc::EINTR {
                self.finish(id, EndReason::SocketError);
            } else if result == -libc::EINTR {
                self.read_later(id);
            }
        }
        self.scratch = bytes;
    }

    fn take_in(&mut self, id: ConnId, bytes: &mut [u8]) {
        let Some(conn) = self.conns.find(id) else { return };
        match conn.state {
            State::Request => self.take_in_request(id, bytes),
            State::Open => self.take_in_frames(id, bytes),
            // Read only to see the end.
            _ => {}
        }
    }

    fn take_in_request(&mut self, id: ConnId, bytes: &mut [u8]) {
        let Some(conn) = self.conns.find(id) else { return };
        let mut kept = match std::mem::take(&mut conn.kept) {
            Kept::Request(kept) => kept,
            _ => Box::default(),
        };
        self.counters.partial_bytes -= kept.capacity() as u64;
        let mut new_from = kept.len();
        kept.extend_from_slice(bytes);
        if conn.preface == Preface::Awaited {
            match self.take_in_preface(id, &kept) {
                Ok(None) => return self.keep(id, Kept::Request(kept)),
                Ok(Some(len)) => drop(kept.drain(..len)),
                Err(fault) => return self.refuse_preface(id, fault),
            }
            let named = self.conns.find(id).is_some_and(|conn| conn.preface == Preface::Given);
            if named && self.is_beyond(id) {
                return self.refuse_for_room(id);
            }
            if kept.is_empty() {
                return;
            }
            new_from = 0;
        }
        let limits = &self.config.limits;
        // A head ends with a line's end: a client that sends single bytes does not have its head parsed at each.
        let promising = kept[new_from..].contains(&b'\n') || kept.len() >= limits.request_bytes_max;
        match if promising { request::parse(&kept, limits) } else { Ok(None) } {
            Ok(None) => self.keep(id, Kept::Request(kept)),
            _ if self.answer_check(id, &kept) => {}
            Ok(Some(_)) if self.is_beyond(id) => self.refuse_for_room(id),
            Ok(Some((request, head))) => self.begin(id, request, &mut kept[head..]),
            Err(_) if proxy::is_header(&kept) => self.refuse_unasked_preface(id),
            Err(refusal) => self.answer_and_leave(id, refusal.response(), refusal.code, EndReason::RequestRefused),
        }
    }

    /// A whole request has arrived, and perhaps the first frames behind it.
    fn begin(&mut self, id: ConnId, request: Request, behind: &mut [u8]) {
        let (_, conn) = self.conns.at(id.slot.0);
        match request {
            Request::Page { head_only } => match self.page {
                Some(page) => {
                    let answer = wire::page_response(page, head_only);
                    self.answer_and_leave(id, answer, "", EndReason::Served);
                }
                None => {
                    let what = "there is no page here: connect a WebSocket to /raw/{channel} or /ws?channels=a,b";
                    let refusal = wire::Refusal::new(404, "not_found", what);
                    self.answer_and_leave(id, refusal.response(), refusal.code, EndReason::RequestRefused);
                }
            },
            Request::Raw { channel, accept } => {
                conn.set_face(Face::Raw);
                conn.state = State::Confirming;
                self.keep(id, Kept::Upgrade(Box::new((accept, behind.to_vec()))));
                let kept = self.conns.find(id).is_some_and(|conn| conn.state == State::Confirming);
                if kept && self.subscribe(id, &channel, None) {
                    self.open(id);
                }
            }
            Request::Json { channels, accept } => {
                conn.set_face(Face::Json);
                self.switch(id, &accept);
                for channel in &channels {
                    self.subscribe_and_reply(id, channel, None);
                }
                // Only now: these may unsubscribe, or close.
                self.take_in_frames(id, behind);
            }
        }
    }

    /// Answers 101 to a request that was kept, and takes in what came behind it.
    pub(super) fn open(&mut self, id: ConnId) {
        let Some(conn) = self.conns.find(id) else { return };
        self.counters.partial_bytes -= conn.kept_bytes() as u64;
        let Kept::Upgrade(upgrade) = std::mem::take(&mut conn.kept) else { return };
        let (accept, mut behind) = *upgrade;
        self.switch(id, &accept);
        self.take_in_frames(id, &mut behind);
        self.read_later(id); // what came while it was not read gives no further edge
    }

    /// Answers 101: from here on it is a WebSocket.
    fn switch(&mut self, id: ConnId, accept: &Accept) {
        let (_, conn) = self.conns.at(id.slot.0);
        conn.state = State::Open;
        self.counters.websockets += 1;
        self.tell_open(id);
        self.control(id, wire::switching_protocols(accept));
    }

    /// Goes on with a client whose commands were not read while its replies waited.
    pub(super) fn resume(&mut self, id: ConnId) {
        let Some(conn) = self.conns.find(id) else { return };
        conn.paused = false;
        self.read_in_turn(id, true);
    }

    fn take_in_frames(&mut self, id: ConnId, bytes: &mut [u8]) {
        let Some(conn) = self.conns.find(id) else { return };
        let mut partial = match std::mem::take(&mut conn.kept) {
            Kept::Frames(partial) => Some(partial),
            _ => None,
        };
        self.counters.partial_bytes -= partial.as_ref().map_or(0, |partial| partial.bytes()) as u64;
        let bytes_max = self.config.limits.message_bytes_max;
        let verdict = wire::decode(&mut partial, bytes, bytes_max, &mut |frame| self.take_frame(id, frame));
        match verdict {
            Err(violation) => {
                let reason = if violation.code == 1009 { EndReason::MessageTooBig } else { EndReason::ProtocolError };
                self.close(id, violation.code, violation.reason, reason);
            }
            Ok(()) => {
                if let Some(partial) = partial
                    && self.conns.find(id).is_some_and(|conn| conn.state == State::Open)
                {
                    self.keep(id, Kept::Frames(partial));
                }
            }
        }
    }

    fn take_frame(&mut self, id: ConnId, frame: ClientFrame<'_>) -> Flow {
        match frame {
            ClientFrame::Text(text) => {
                self.counters.received += 1;
                self.intake.took(COMMAND_BYTES);
                self.take_text(id, text);
            }
            ClientFrame::Binary(_) => {
                self.counters.received += 1;
                self.intake.took(COMMAND_BYTES);
                self.take_binary(id);
            }
            ClientFrame::Ping(payload) => {
                self.intake.took(COMMAND_BYTES);
                self.control(id, wire::pong_frame(payload));
            }
            ClientFrame::Pong(payload) => self.ponged(id, payload),
            ClientFrame::Close { code, reason } => {
                self.echo_close(id, code, reason);
                return Flow::Stop;
            }
        }
        let control_max = self.config.limits.control_messages_max;
        match self.conns.find(id) {
            Some(conn) if conn.state != State::Open => Flow::Stop,
            Some(conn) if conn.control_len() >= control_max => {
                conn.paused = true;
                Flow::Pause
            }
            _ => Flow::Continue,
        }
    }

    /// Keeps bytes of a client until there are more, within the shard's budget.
    fn keep(&mut self, id: ConnId, kept: Kept) {
        let (_, conn) = self.conns.at(id.slot.0);
        conn.kept = kept;
        self.counters.partial_bytes += conn.kept_bytes() as u64;
        if self.counters.partial_bytes > self.config.limits.partial_bytes_per_shard_max as u64 {
            match conn.state {
                State::Open => {
                    let why = "the gateway keeps too many unfinished messages; send yours at once";
                    self.close(id, 1013, why, EndReason::PartialBudget);
                }
                _ => self.finish(id, EndReason::PartialBudget),
            }
        }
    }

    /// The peer has closed its direction.
    fn peer_ended(&mut self, id: ConnId) {
        let Some(conn) = self.conns.find(id) else { return };
        conn.ended = true;
        match conn.state {
            // Our side was closed first, and what we sent was taken: nothing is owed any more.
            State::Leaving if conn.shut => self.finish_quietly(id),
            // It still gets what it is owed; then the sweep ends it, when the peer had time to take it.
            State::Leaving => {}
            _ => self.finish(id, EndReason::Vanished),
        }
    }
}

impl Conn {
    /// Whether frames wait that were read before it was paused.
    fn holds_frames(&self) -> bool {
        matches!(&self.kept, Kept::Frames(partial) if partial.is_paused())
    }

    /// Control frames that wait.
    pub(super) fn control_len(&self) -> usize {
        self.out.as_ref().map_or(0, |out| out.control_len())
    }
}
