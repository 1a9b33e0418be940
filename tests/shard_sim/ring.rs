//! A ring without a kernel: it treats requests as io_uring does, seeded, and as badly as io_uring may.
//!
//! Promise: a request reaches whoever sits in the slot when it runs, and a test fails where that is somebody else; a
//! full completion queue ends watches and delays everything else; a close frees a socket only where nothing holds it.

mod enter;

use crate::socket::Socket;
use spillgate::ids::{ConnId, ListenerId};
use spillgate::sys::{BufId, Completion, Op, Ring};
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;

/// How often the kernel did what it may do: a run that did not see all of it has shown nothing.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub short_sends: u64,
    pub eagains: u64,
    /// Writes with a ping at their end that were not taken whole.
    pub cut_pings: u64,
    pub ended_polls: u64,
    pub overflows: u64,
    pub reused_slots: u64,
    pub full_tables: u64,
    pub accept_errors: u64,
    pub late_submits: u64,
    pub late_shutdowns: u64,
    pub resets: u64,
}

/// A socket's number in [`SimRing::sockets`].
pub type File = usize;

/// The sizes of a ring.
pub struct Sizes {
    pub slots: u32,
    pub submissions: usize,
    pub completions: usize,
    pub buffers: u8,
    pub buffer_bytes: usize,
    pub listeners: u8,
}

/// What runs later than its request was submitted.
enum Work {
    Close(ConnId),
    Shutdown(ConnId, File),
    Accept(ListenerId, ConnId, Result<File, i32>),
}

/// See the module.
pub struct SimRing {
    rng: fastrand::Rng,
    sizes: Sizes,
    pub now_us: u64,
    pub seen: Seen,
    pub sockets: Vec<Socket>,
    /// Sockets that something holds.
    live: Vec<File>,
    /// The direct descriptors.
    table: Vec<Option<File>>,
    used_before: Vec<bool>,
    /// Requests of each slot that have yet to complete, and whether its CLOSE was pushed.
    outstanding: Vec<(u32, bool)>,
    backlog: Vec<VecDeque<File>>,
    accepts: Vec<Vec<ConnId>>,
    listening: Vec<bool>,
    queue: Vec<Op>,
    works: Vec<(u32, Work)>,
    ticks: Vec<u64>,
    completions: VecDeque<Completion>,
    overflow: VecDeque<Completion>,
    /// Completions that the shard can see already.
    visible: usize,
    buffers: Vec<Vec<u8>>,
    buffers_free: Vec<u8>,
}

impl SimRing {
    pub fn new(seed: u64, sizes: Sizes) -> Self {
        let (slots, listeners) = (sizes.slots as usize, usize::from(sizes.listeners));
        Self {
            rng: fastrand::Rng::with_seed(seed),
            now_us: 0,
            seen: Seen::default(),
            sockets: Vec::new(),
            live: Vec::new(),
            table: vec![None; slots],
            used_before: vec![false; slots],
            outstanding: vec![(0, false); slots],
            backlog: vec![VecDeque::new(); listeners],
            accepts: vec![Vec::new(); listeners],
            listening: vec![true; listeners],
            queue: Vec::new(),
            works: Vec::new(),
            ticks: Vec::new(),
            completions: VecDeque::new(),
            overflow: VecDeque::new(),
            visible: 0,
            buffers: vec![vec![0; sizes.buffer_bytes]; usize::from(sizes.buffers)],
            buffers_free: (0..sizes.buffers).collect(),
            sizes,
        }
    }

    /// A client connects: it waits in the backlog of a listener.
    pub fn connect(&mut self, window: usize, peer: SocketAddr) -> File {
        let listener = self.rng.usize(..self.backlog.len());
        self.sockets.push(Socket::new(window, peer));
        let file = self.sockets.len() - 1;
        match self.listening[listener] {
            true => self.backlog[listener].push_back(file),
            false => self.sockets[file].free(),
        }
        file
    }

    /// The world goes on between two turns: bytes travel, connections are accepted.
    pub fn network(&mut self) {
        for &file in &self.live {
            self.sockets[file].carry(&mut self.rng);
        }
        for listener in 0..self.backlog.len() {
            while self.rng.u8(..) < 200
                && !self.accepts[listener].is_empty()
                && let Some(file) = self.backlog[listener].pop_front()
            {
                let armed = self.rng.usize(..self.accepts[listener].len());
                let conn = self.accepts[listener].swap_remove(armed);
                let result = match self.rng.u8(..) {
                    0..8 => Err(libc::ECONNABORTED),
                    8..11 => Err(libc::ENFILE),
                    _ => Ok(file),
                };
                if result.is_err() {
                    self.seen.accept_errors += 1;
                    self.sockets[file].free();
                }
                self.later(Work::Accept(ListenerId(listener as u8), conn, result));
            }
        }
        if self.table.iter().all(Option::is_some) {
            self.seen.full_tables += 1;
        }
    }

    /// Whether the shard would not sleep.
    pub fn has_work(&self) -> bool {
        let woken = |file: &File| {
            let socket = &self.sockets[*file];
            [&socket.watch, &socket.writable].into_iter().flatten().any(|poll| poll.woken.is_some())
        };
        !(self.queue.is_empty() && self.works.is_empty() && self.completions.is_empty() && self.overflow.is_empty())
            || self.ticks.iter().any(|due| *due <= self.now_us)
            || self.live.iter().any(woken)
    }

    /// Whether the network has something to carry, or somebody to accept.
    pub fn is_moving(&self) -> bool {
        let accepting =
            self.backlog.iter().zip(&self.accepts).any(|(queued, armed)| !queued.is_empty() && !armed.is_empty());
        accepting || self.live.iter().any(|file| self.sockets[*file].is_moving())
    }

    pub fn occupied(&self) -> usize {
        self.table.iter().flatten().count()
    }

    /// Clients in the backlogs.
    pub fn waiting(&self) -> usize {
        self.backlog.iter().map(VecDeque::len).sum()
    }

    pub fn live(&self) -> usize {
        self.live.len()
    }

    pub fn all_buffers_are_free(&self) -> bool {
        self.buffers_free.len() == self.buffers.len()
    }

    /// Runs something in this submit or a later one.
    fn later(&mut self, work: Work) {
        let submits = if self.rng.bool() { 0 } else { self.rng.u32(1..5) };
        self.works.push((submits, work));
    }

    fn stop_listening(&mut self, listener: ListenerId) {
        self.enter();
        let at = usize::from(listener.0);
        self.listening[at] = false;
        for file in std::mem::take(&mut self.backlog[at]) {
            self.sockets[file].free();
        }
        for conn in std::mem::take(&mut self.accepts[at]) {
            self.later(Work::Accept(listener, conn, Err(libc::ECANCELED)));
        }
    }

    /// Counts a request of a slot in: its promises are checked where it is pushed.
    fn check(&mut self, op: &Op) {
        let Some(conn) = conn_of(op) else { return };
        if conn.slot.index() >= self.table.len() {
            return; // told when it runs
        }
        let (outstanding, closing) = &mut self.outstanding[conn.slot.index()];
        if let Op::Accept { listener, .. } = op {
            assert!(*outstanding == 0, "a slot has a new owner before all requests of the old one have completed");
            assert!(self.listening[usize::from(listener.0)], "an accept at a listener that is closed never completes");
            *closing = false;
        }
        assert!(!*closing, "a request was pushed after the CLOSE of its slot: {op:?}");
        *closing = matches!(op, Op::Close(_));
        *outstanding += 1;
    }
}

impl Ring for SimRing {
    fn slots(&self) -> u32 {
        self.sizes.slots
    }

    fn accepts_max(&self) -> usize {
        256
    }

    fn push(&mut self, op: Op) {
        self.check(&op);
        if let Op::StopListening(listener) = op {
            return self.stop_listening(listener);
        }
        let needed = if matches!(op, Op::CancelAll(_)) { 2 } else { 1 };
        if self.queue.len() + needed > self.sizes.submissions {
            self.enter();
        }
        self.queue.push(op);
    }

    fn submit(&mut self) -> io::Result<()> {
        match self.rng.u8(..) {
            0..6 => self.seen.late_submits += 1, // EAGAIN: the kernel was short of memory
            _ => self.enter(),
        }
        Ok(())
    }

    fn next(&mut self) -> Option<Completion> {
        self.visible = self.visible.checked_sub(1)?;
        let completion = self.completions.pop_front()?;
        if let Some(conn) = completed(&completion)
            && let Some((outstanding, _)) = self.outstanding.get_mut(conn.slot.index())
        {
            *outstanding -= 1;
        }
        Some(completion)
    }

    fn buffers_free(&self) -> usize {
        let queued = self.queue.iter().filter(|op| matches!(op, Op::Receive(_))).count();
        self.buffers_free.len() - queued
    }

    fn buffer(&mut self, buffer: BufId, len: usize) -> &mut [u8] {
        &mut self.buffers[usize::from(buffer.0)][..len]
    }

    fn release(&mut self, buffer: BufId) {
        assert!(!self.buffers_free.contains(&buffer.0), "a buffer is given back once");
        self.buffers_free.push(buffer.0);
    }
}

fn conn_of(op: &Op) -> Option<ConnId> {
    match *op {
        Op::Accept { conn, .. }
        | Op::Watch(conn)
        | Op::Receive(conn)
        | Op::Send(conn, _)
        | Op::AwaitWritable(conn)
        | Op::Shutdown(conn)
        | Op::CancelAll(conn)
        | Op::Close(conn) => Some(conn),
        Op::StopListening(_) | Op::Tick(_) => None,
    }
}

/// Whose request is over with this completion.
fn completed(completion: &Completion) -> Option<ConnId> {
    match *completion {
        Completion::Readable { more: true, .. } | Completion::Tick => None,
        Completion::Readable { conn, .. }
        | Completion::Accepted { conn, .. }
        | Completion::Received { conn, .. }
        | Completion::Sent { conn, .. }
        | Completion::Writable { conn, .. }
        | Completion::Done { conn }
        | Completion::Closed { conn, .. } => Some(conn),
    }
}
