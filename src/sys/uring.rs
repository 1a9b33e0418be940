//! The kernel's io_uring as a [`Ring`]: one or more rings with direct descriptors that act as one.
//!
//! Invariant: memory that the kernel may read or write lives in here until the request's completion was reaped.

use super::ring::{BufId, Completion, Op, Ring};
use crate::fanout::Chunk;
use crate::ids::{ConnId, ListenerId, Slot};
use io_uring::{IoUring, cqueue, opcode, squeue, types};
use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, RawFd};

/// Requests that one ring queues before it must submit; also the largest number of SENDs in one system call.
const SUBMISSIONS: u32 = 2048;
/// Completions that one ring holds; what does not fit waits in the kernel (IORING_FEAT_NODROP), but ends multishot polls.
pub(super) const COMPLETIONS_MAX: u32 = 65_536;
pub(super) const COMPLETIONS_MIN: u32 = 2 * SUBMISSIONS;
/// Reads in flight at a time, and the size of each one's buffer: the only read memory of a shard.
const BUFFERS: usize = 64;
const BUFFER_BYTES: usize = 16 << 10;
/// Accepts that may be armed at a time in all rings together.
const ACCEPTS: usize = 256;

const _: () = assert!(BUFFERS <= 256 && ACCEPTS <= 256, "an index into either fits the 8 bits of a tag");

/// One or more rings of one shard.
pub struct UringSet {
    rings: Vec<One>,
    /// Slots of each ring.
    table: u32,
    /// What the SEND of each slot reads from; as long as the highest slot that was ever accepted into.
    in_flight: Vec<Option<Chunk>>,
    accepts: Box<[AcceptSlot]>,
    accepts_free: Vec<u8>,
    buffers: Box<[u8]>,
    buffers_free: Vec<u8>,
    listeners: Vec<Option<TcpListener>>,
    tick: Box<types::Timespec>,
    /// The ring whose completions are being reaped.
    reaping: usize,
    broken: Option<io::Error>,
}

struct One {
    uring: IoUring,
    /// Requests for which the submission queue had no room when the kernel would take none (out of memory).
    waiting: VecDeque<squeue::Entry>,
}

/// Where the kernel writes the address of whoever is accepted.
struct AcceptSlot {
    storage: libc::sockaddr_storage,
    len: libc::socklen_t,
    listener: ListenerId,
}

/// The kind of a request, in the top bits of its user data.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Tag {
    Accept = 1,
    Watch,
    Receive,
    Send,
    Writable,
    Done,
    Close,
    Tick,
    /// A request whose completion nobody awaits.
    Nothing,
}

/// User data: 4 bits of tag, 8 bits of index (accept or buffer), 20 bits of generation, 32 bits of slot.
fn user_data(tag: Tag, index: u8, conn: ConnId) -> u64 {
    (tag as u64) << 60 | u64::from(index) << 52 | u64::from(conn.generation) << 32 | u64::from(conn.slot.0)
}

fn conn_of(user_data: u64) -> ConnId {
    ConnId { slot: Slot(user_data as u32), generation: (user_data >> 32) as u32 & (ConnId::GENERATIONS - 1) }
}

impl UringSet {
    /// `rings` rings with `table` slots each, on the calling thread, which alone may use them. `bell` is an eventfd that
    /// is rung when a completion arrives while [`UringSet::may_sleep`] has announced sleep.
    ///
    /// Errors: io_uring is refused (kernel, seccomp, `io_uring_disabled`), or `table` is over RLIMIT_NOFILE.
    pub fn new(rings: usize, table: u32, listeners: Vec<TcpListener>, bell: RawFd) -> io::Result<Self> {
        Self::with_completions(rings, table, COMPLETIONS_MAX, listeners, bell)
    }

    /// The same with at most so many completions in a ring, where locked memory is scarce.
    ///
    /// # Errors
    /// See [`UringSet::new`].
    pub fn with_completions(
        rings: usize,
        table: u32,
        completions_max: u32,
        listeners: Vec<TcpListener>,
        bell: RawFd,
    ) -> io::Result<Self> {
        let one = |_| One::new(table, completions_max, bell);
        let rings = (0..rings.max(1)).map(one).collect::<io::Result<Vec<_>>>()?;
        let accept = || AcceptSlot {
            // SAFETY: sockaddr_storage is plain old data, for which all zeroes is a valid value (AF_UNSPEC).
            storage: unsafe { std::mem::zeroed() },
            len: 0,
            listener: ListenerId(0),
        };
        Ok(Self {
            rings,
            table,
            in_flight: Vec::new(),
            accepts: std::iter::repeat_with(accept).take(ACCEPTS).collect(),
            accepts_free: (0..ACCEPTS).map(|i| i as u8).rev().collect(),
            buffers: vec![0; BUFFERS * BUFFER_BYTES].into(),
            buffers_free: (0..BUFFERS).map(|i| i as u8).rev().collect(),
            listeners: listeners.into_iter().map(Some).collect(),
            tick: Box::new(types::Timespec::new()),
            reaping: 0,
            broken: None,
        })
    }

    /// Announces that the shard is about to sleep on the bell; false: there is something to do, do not sleep.
    pub fn may_sleep(&mut self) -> bool {
        self.rings.iter_mut().all(|one| {
            one.uring.completion().enable_eventfd();
            // The kernel rings only for what arrives from now on: what arrived before is seen here.
            std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
            let submission = one.uring.submission();
            let idle =
                one.waiting.is_empty() && submission.is_empty() && !submission.taskrun() && !submission.cq_overflow();
            drop(submission);
            idle && one.uring.completion().is_empty()
        })
    }

    /// The shard is awake: the kernel need not ring.
    pub fn awake(&mut self) {
        self.rings.iter_mut().for_each(|one| one.uring.completion().disable_eventfd());
    }

    /// The ring of a slot, and the slot's index in its table.
    #[inline]
    fn place(&self, conn: ConnId) -> (usize, types::Fixed) {
        let (ring, index) = (conn.slot.0 / self.table, conn.slot.0 % self.table);
        (ring as usize, types::Fixed(index))
    }

    fn accept(&mut self, listener: ListenerId, conn: ConnId) {
        let (ring, types::Fixed(index)) = self.place(conn);
        let Some(fd) = self.listeners[listener.0 as usize].as_ref().map(AsRawFd::as_raw_fd) else { return };
        let at = self.accepts_free.pop().expect("the shard arms at most `accepts_max` accepts");
        let slot = &mut self.accepts[at as usize];
        slot.len = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
        slot.listener = listener;
        if self.in_flight.len() <= conn.slot.index() {
            self.in_flight.resize_with(conn.slot.index() + 1, || None);
        }
        let entry = opcode::Accept::new(types::Fd(fd), (&raw mut slot.storage).cast(), &raw mut slot.len)
            .file_index(Some(types::DestinationSlot::try_from_slot_target(index).expect("below the table's size")))
            .build();
        self.queue(ring, entry.user_data(user_data(Tag::Accept, at, conn)));
    }

    #[inline]
    fn queue(&mut self, ring: usize, entry: squeue::Entry) {
        let one = &mut self.rings[ring];
        // SAFETY: whatever an entry points to lives in `self` until the entry's completion was reaped: a SEND's bytes in
        // `in_flight` (kept by reference count), a RECV's in `buffers`, an ACCEPT's address in `accepts`; none of the
        // three moves or shrinks, and an index is given out again only when its completion was reaped. The tick's
        // timespec is read at submit. `Drop` ends the requests before the memory goes.
        if unsafe { one.waiting.is_empty() && one.uring.submission().push(&entry).is_ok() } {
            return;
        }
        one.waiting.push_back(entry);
        self.flush(ring);
    }

    /// Moves requests that wait into the submission queue, as far as there is room.
    fn refill(&mut self, ring: usize) {
        let One { uring, waiting } = &mut self.rings[ring];
        let mut submission = uring.submission();
        // SAFETY: as in `queue`: these are the same entries, and what they point to lives until they have completed.
        while let Some(entry) = waiting.front()
            && unsafe { submission.push(entry).is_ok() }
        {
            waiting.pop_front();
        }
    }

    /// One io_uring_enter, if there is anything to submit or to run.
    fn flush(&mut self, ring: usize) {
        loop {
            self.refill(ring);
            let uring = &mut self.rings[ring].uring;
            let submission = uring.submission();
            if submission.is_empty() && !submission.taskrun() && !submission.cq_overflow() {
                return;
            }
            drop(submission);
            match uring.submit() {
                Ok(_) if self.rings[ring].waiting.is_empty() => return,
                Ok(_) => {}
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINTR) => {}
                    // The completion queue is full: the caller reaps, and submits again next turn. Out of memory: likewise.
                    Some(libc::EBUSY | libc::EAGAIN) => return,
                    _ => {
                        self.broken = Some(error);
                        return;
                    }
                },
            }
        }
    }

    fn translate(&mut self, entry: &cqueue::Entry) -> Option<Completion> {
        let (data, result) = (entry.user_data(), entry.result());
        let (conn, index) = (conn_of(data), (data >> 52) as u8);
        Some(match data >> 60 {
            tag if tag == Tag::Send as u64 => {
                let chunk = self.in_flight[conn.slot.index()].take().expect("one SEND a slot, reaped once");
                Completion::Sent { conn, result, chunk }
            }
            tag if tag == Tag::Watch as u64 => Completion::Readable { conn, result, more: cqueue::more(entry.flags()) },
            tag if tag == Tag::Receive as u64 => Completion::Received { conn, result, buffer: BufId(index) },
            tag if tag == Tag::Writable as u64 => Completion::Writable { conn, result },
            tag if tag == Tag::Done as u64 => Completion::Done { conn },
            tag if tag == Tag::Close as u64 => Completion::Closed { conn, result },
            tag if tag == Tag::Accept as u64 => {
                let slot = &self.accepts[index as usize];
                let peer = (result >= 0).then(|| address(slot)).flatten();
                let listener = slot.listener;
                self.accepts_free.push(index);
                Completion::Accepted { listener, conn, result, peer }
            }
            tag if tag == Tag::Tick as u64 => Completion::Tick,
            _ => return None,
        })
    }
}

impl One {
    fn new(table: u32, completions_max: u32, bell: RawFd) -> io::Result<Self> {
        let most = completions_max.clamp(COMPLETIONS_MIN, COMPLETIONS_MAX);
        let completions = table.saturating_mul(2).clamp(COMPLETIONS_MIN, most).next_power_of_two();
        let mut uring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_cqsize(completions)
            .build(SUBMISSIONS)?;
        uring.completion().disable_eventfd();
        uring.submitter().register_eventfd(bell)?;
        uring.submitter().register_files_sparse(table)?;
        Ok(Self { uring, waiting: VecDeque::new() })
    }
}

impl Ring for UringSet {
    fn slots(&self) -> u32 {
        self.rings.len() as u32 * self.table
    }

    fn accepts_max(&self) -> usize {
        ACCEPTS
    }

    #[inline]
    fn push(&mut self, op: Op) {
        let (conn, entry) = match op {
            Op::Send(conn, chunk) => {
                let (_, fixed) = self.place(conn);
                let (bytes, len) = (chunk.bytes().as_ptr(), chunk.bytes().len() as u32);
                let before = self.in_flight[conn.slot.index()].replace(chunk);
                assert!(before.is_none(), "two SENDs to one socket in flight tear its stream");
                let entry = opcode::Send::new(fixed, bytes, len).flags(libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL).build();
                (conn, entry.user_data(user_data(Tag::Send, 0, conn)))
            }
            Op::Receive(conn) => {
                let (_, fixed) = self.place(conn);
                let at = self.buffers_free.pop().expect("the shard asks `buffers_free` first");
                let buffer = self.buffer(BufId(at), BUFFER_BYTES).as_mut_ptr();
                let entry = opcode::Recv::new(fixed, buffer, BUFFER_BYTES as u32).flags(libc::MSG_DONTWAIT).build();
                (conn, entry.user_data(user_data(Tag::Receive, at, conn)))
            }
            Op::Watch(conn) => {
                let flags = (libc::POLLIN | libc::POLLRDHUP) as u32;
                let entry = opcode::PollAdd::new(self.place(conn).1, flags).multi(true).build();
                (conn, entry.user_data(user_data(Tag::Watch, 0, conn)))
            }
            Op::AwaitWritable(conn) => {
                let entry = opcode::PollAdd::new(self.place(conn).1, libc::POLLOUT as u32).build();
                (conn, entry.user_data(user_data(Tag::Writable, 0, conn)))
            }
            Op::Shutdown(conn) => {
                let entry = opcode::Shutdown::new(self.place(conn).1, libc::SHUT_WR).build();
                (conn, entry.user_data(user_data(Tag::Done, 0, conn)))
            }
            Op::CancelAll(conn) => {
                let (ring, _) = self.place(conn);
                let submission = self.rings[ring].uring.submission();
                let room = submission.capacity() - submission.len();
                drop(submission);
                if room < 3 {
                    self.flush(ring); // a link must not be cut by the end of a submission
                }
                // Only a watch and a wait for POLLOUT can be armed (all else never waits). By descriptor the kernel would
                // look at every request of the ring, by user data at those of one bucket.
                let by = |tag| types::CancelBuilder::user_data(user_data(tag, 0, conn));
                let writable = opcode::AsyncCancel2::new(by(Tag::Writable)).build();
                let writable = writable.user_data(user_data(Tag::Nothing, 0, conn));
                self.queue(ring, writable.flags(squeue::Flags::IO_HARDLINK));
                let entry = opcode::AsyncCancel2::new(by(Tag::Watch)).build();
                (conn, entry.flags(squeue::Flags::IO_HARDLINK).user_data(user_data(Tag::Done, 0, conn)))
            }
            Op::Close(conn) => {
                let entry = opcode::Close::new(self.place(conn).1).build();
                (conn, entry.user_data(user_data(Tag::Close, 0, conn)))
            }
            Op::Accept { listener, conn } => return self.accept(listener, conn),
            Op::StopListening(listener) => {
                let Some(socket) = self.listeners[listener.0 as usize].take() else { return };
                for ring in 0..self.rings.len() {
                    self.flush(ring); // accepts that are still queued would not be found
                    let by_fd = types::CancelBuilder::fd(types::Fd(socket.as_raw_fd())).all();
                    if let Err(error) = self.rings[ring].uring.submitter().register_sync_cancel(None, by_fd)
                        && error.kind() != io::ErrorKind::NotFound
                    {
                        self.broken = Some(error);
                    }
                }
                return; // the socket closes here: nothing holds its file any more
            }
            Op::Tick(after) => {
                *self.tick = types::Timespec::from(after);
                let conn = ConnId { slot: Slot(0), generation: 0 };
                (conn, opcode::Timeout::new(&raw const *self.tick).build().user_data(user_data(Tag::Tick, 0, conn)))
            }
        };
        let (ring, _) = self.place(conn);
        self.queue(ring, entry);
    }

    fn submit(&mut self) -> io::Result<()> {
        for ring in 0..self.rings.len() {
            self.flush(ring);
        }
        self.broken.take().map_or(Ok(()), Err)
    }

    #[inline]
    fn next(&mut self) -> Option<Completion> {
        let mut empty = 0;
        while empty < self.rings.len() {
            let entry = self.rings[self.reaping].uring.completion().next();
            match entry {
                Some(entry) => {
                    if let Some(completion) = self.translate(&entry) {
                        return Some(completion);
                    }
                }
                None => {
                    empty += 1;
                    self.reaping = (self.reaping + 1) % self.rings.len();
                }
            }
        }
        None
    }

    fn buffers_free(&self) -> usize {
        self.buffers_free.len()
    }

    fn buffer(&mut self, buffer: BufId, len: usize) -> &mut [u8] {
        let start = usize::from(buffer.0) * BUFFER_BYTES;
        &mut self.buffers[start..start + len]
    }

    fn release(&mut self, buffer: BufId) {
        debug_assert!(!self.buffers_free.contains(&buffer.0), "a buffer is given back once");
        self.buffers_free.push(buffer.0);
    }
}

impl Drop for UringSet {
    fn drop(&mut self) {
        for one in &self.rings {
            let cancelled = one.uring.submitter().register_sync_cancel(None, types::CancelBuilder::any().all());
            if cancelled.is_err_and(|error| error.kind() != io::ErrorKind::NotFound) {
                // The kernel may still write into these: better lost than written to by others.
                std::mem::forget(std::mem::take(&mut self.accepts));
                std::mem::forget(std::mem::take(&mut self.buffers));
                return;
            }
        }
    }
}

fn address(slot: &AcceptSlot) -> Option<SocketAddr> {
    // SAFETY: the kernel has completed the accept, so it has written `len` bytes of an address of the family that it
    // says; a sockaddr_storage is large and aligned enough for each of them.
    unsafe {
        match i32::from(slot.storage.ss_family) {
            libc::AF_INET => {
                let v4 = *(&raw const slot.storage).cast::<libc::sockaddr_in>();
                Some(SocketAddr::from((v4.sin_addr.s_addr.to_ne_bytes(), u16::from_be(v4.sin_port))))
            }
            libc::AF_INET6 => {
                let v6 = *(&raw const slot.storage).cast::<libc::sockaddr_in6>();
                Some(SocketAddr::from((v6.sin6_addr.s6_addr, u16::from_be(v6.sin6_port))))
            }
            _ => None,
        }
    }
}
