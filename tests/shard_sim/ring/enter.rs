//! What the kernel does in one io_uring_enter: requests in order, then what was put off, then the polls that were woken.
//!
//! Promise: a request runs on whoever sits in the slot by then, and fails the test where that is somebody else; a close
//! of a socket that a poll holds fails it too.

use super::{File, SimRing, Work};
use crate::socket::{Poll, Socket};
use spillgate::fanout::Chunk;
use spillgate::ids::ConnId;
use spillgate::sys::{BufId, Completion, Op};

/// What several updates of a turn in one run may take together, a ping behind them included.
const JOINED_BYTES_MAX: usize = (32 << 10) + 64;

impl SimRing {
    /// io_uring_enter: requests run in order, then what was put off, then the polls that were woken.
    pub(super) fn enter(&mut self) {
        let mut cancelled = None;
        for op in std::mem::take(&mut self.queue) {
            let linked_to = cancelled.take();
            match op {
                Op::Accept { listener, conn } => {
                    assert!(conn.slot.index() < self.table.len(), "an accept beyond the table destroys a connection");
                    self.accepts[usize::from(listener.0)].push(conn);
                }
                Op::Watch(conn) => {
                    let socket = self.socket(conn);
                    assert!(socket.watch.is_none(), "{conn:?} is watched twice");
                    let woken = (socket.readable() != 0).then_some(0);
                    socket.watch = Some(Poll { conn, woken });
                }
                Op::AwaitWritable(conn) => {
                    let socket = self.socket(conn);
                    let woken = (socket.can_write() != 0).then_some(0);
                    let before = socket.writable.replace(Poll { conn, woken });
                    assert!(before.is_none(), "{conn:?} awaits POLLOUT twice");
                }
                Op::Receive(conn) => self.receive(conn),
                Op::Send(conn, chunk) => {
                    let (updates, bytes) = (chunk.run.parts().len(), chunk.run.bytes().len());
                    assert!(updates < 2 || bytes <= JOINED_BYTES_MAX, "{updates} updates in one run of {bytes} bytes");
                    self.send(conn, chunk);
                }
                Op::Shutdown(conn) => {
                    let file = self.file(conn);
                    self.sockets[file].shutdowns += 1;
                    self.later(Work::Shutdown(conn, file)); // the kernel gives it to a worker
                }
                Op::CancelAll(conn) => {
                    self.cancel(conn);
                    cancelled = Some(conn);
                }
                // A linked request is run when the one before it has completed, after the rest of the submission.
                Op::Close(conn) if linked_to == Some(conn) => self.later(Work::Close(conn)),
                Op::Close(conn) => self.close(conn),
                Op::Tick(after) => self.ticks.push(self.now_us + after.as_micros() as u64),
                Op::StopListening(_) => unreachable!("it runs when it is pushed"),
            }
        }
        for (submits, work) in std::mem::take(&mut self.works) {
            match submits {
                0 => self.work(work),
                _ => self.works.push((submits - 1, work)),
            }
        }
        self.run_polls();
        let now_us = self.now_us;
        for _ in self.ticks.extract_if(.., |due| *due <= now_us).collect::<Vec<_>>() {
            self.post(Completion::Tick);
        }
        while self.completions.len() < self.sizes.completions
            && let Some(completion) = self.overflow.pop_front()
        {
            self.completions.push_back(completion);
        }
        let all = self.completions.len();
        self.visible = if self.rng.u8(..) < 200 { all } else { self.rng.usize(..=all) };
    }

    fn receive(&mut self, conn: ConnId) {
        let file = self.file(conn);
        let buffer = self.buffers_free.pop().expect("a RECV without a free buffer");
        let result = self.sockets[file].receive(&mut self.buffers[usize::from(buffer)], &mut self.rng);
        self.seen.resets += u64::from(result == -libc::ECONNRESET);
        self.post(Completion::Received { conn, result, buffer: BufId(buffer) });
    }

    fn send(&mut self, conn: ConnId, chunk: Chunk) {
        let file = self.file(conn);
        let result = self.sockets[file].send(chunk.bytes(), &mut self.rng);
        self.seen.eagains += u64::from(result == -libc::EAGAIN);
        self.seen.short_sends += u64::from(result >= 0 && (result as usize) < chunk.bytes().len());
        self.seen.cut_pings += u64::from(chunk.run.ping && (result.max(0) as usize) < chunk.bytes().len());
        self.post(Completion::Sent { conn, result, chunk });
    }

    fn cancel(&mut self, conn: ConnId) {
        let socket = self.socket(conn);
        let (watch, writable) = (socket.watch.take(), socket.writable.take());
        if let Some(poll) = watch {
            self.post(Completion::Readable { conn: poll.conn, result: -libc::ECANCELED, more: false });
        }
        if let Some(poll) = writable {
            self.post(Completion::Writable { conn: poll.conn, result: -libc::ECANCELED });
        }
        self.post(Completion::Done { conn });
    }

    fn close(&mut self, conn: ConnId) {
        let file = self.file(conn);
        self.table[conn.slot.index()] = None;
        self.sockets[file].owner = None;
        let socket = &self.sockets[file];
        let polled = socket.watch.is_some() || socket.writable.is_some();
        assert!(!polled, "{conn:?} was closed while a poll held its socket: nothing will ever free it");
        self.free_unless_held(file);
        self.post(Completion::Closed { conn, result: 0 });
    }

    fn work(&mut self, work: Work) {
        match work {
            Work::Close(conn) => self.close(conn),
            Work::Shutdown(conn, file) => {
                let socket = &mut self.sockets[file];
                (socket.shut, socket.shutdowns) = (true, socket.shutdowns - 1);
                socket.wake(&mut self.rng); // the kernel wakes whoever polls
                self.seen.late_shutdowns += 1;
                self.free_unless_held(file);
                self.post(Completion::Done { conn });
            }
            Work::Accept(listener, conn, accepted) => {
                let slot = conn.slot.index();
                if let Ok(file) = accepted {
                    assert!(self.table[slot].is_none(), "an accept into a slot that is taken destroys a connection");
                    self.seen.reused_slots += u64::from(std::mem::replace(&mut self.used_before[slot], true));
                    self.table[slot] = Some(file);
                    self.live.push(file);
                    (self.sockets[file].owner, self.sockets[file].queued) = (Some(conn), false);
                }
                let result = accepted.map_or_else(|errno| -errno, |_| 0);
                let peer = accepted.ok().and_then(|file| self.sockets[file].peer);
                self.post(Completion::Accepted { listener, conn, result, peer });
            }
        }
    }

    /// Polls that were woken look at their sockets. What happened since the last look is one event.
    fn run_polls(&mut self) {
        for at in 0..self.live.len() {
            let file = self.live[at];
            let socket = &mut self.sockets[file];
            if let Some(conn) = due(&mut socket.watch) {
                let result = socket.readable();
                // The kernel cannot let one event of many overflow: it ends the poll instead.
                let full = self.completions.len() >= self.sizes.completions || !self.overflow.is_empty();
                if result != 0 {
                    if full {
                        self.seen.ended_polls += 1;
                        self.sockets[file].watch = None;
                    }
                    self.post(Completion::Readable { conn, result, more: !full });
                }
            }
            let socket = &mut self.sockets[file];
            if let Some(conn) = due(&mut socket.writable)
                && socket.can_write() != 0
            {
                (socket.writable, socket.full) = (None, false);
                let result = socket.can_write();
                self.post(Completion::Writable { conn, result });
            }
        }
    }

    fn post(&mut self, completion: Completion) {
        if self.completions.len() < self.sizes.completions && self.overflow.is_empty() {
            self.completions.push_back(completion);
        } else {
            self.seen.overflows += 1;
            self.overflow.push_back(completion);
        }
    }

    fn free_unless_held(&mut self, file: File) {
        let socket = &mut self.sockets[file];
        if socket.owner.is_none() && !socket.is_held() {
            socket.free();
            self.live.retain(|live| *live != file);
        }
    }

    /// The socket in a slot: the kernel asks nobody whose it is, so this does.
    fn file(&self, conn: ConnId) -> File {
        let Some(file) = self.table[conn.slot.index()] else { panic!("a request of {conn:?} found its slot empty") };
        let owner = self.sockets[file].owner;
        assert!(owner == Some(conn), "a request of {conn:?} reached the socket of {owner:?}");
        file
    }

    fn socket(&mut self, conn: ConnId) -> &mut Socket {
        let file = self.file(conn);
        &mut self.sockets[file]
    }
}

/// Whose poll it is that looks now, if it was woken.
fn due(poll: &mut Option<Poll>) -> Option<ConnId> {
    let poll = poll.as_mut()?;
    match poll.woken? {
        0 => {
            poll.woken = None;
            Some(poll.conn)
        }
        submits => {
            poll.woken = Some(submits - 1);
            None
        }
    }
}
