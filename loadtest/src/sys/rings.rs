//! Sockets of clients in rings with direct descriptors: opened, written, read and closed by requests alone.
//!
//! Invariant: memory that the kernel may read or write lives in here until the request's completion was reaped.

use io_uring::{IoUring, cqueue, opcode, squeue, types};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd, FromRawFd};
use std::time::Duration;

/// Requests that one ring queues before it must submit.
const SUBMISSIONS: u32 = 1024;
/// Completions that one ring holds: every socket of a table may become readable at once.
const COMPLETIONS: u32 = 32_768;
/// Bytes of one read at most.
pub const BUFFER_BYTES: usize = 16 << 10;
/// Reads in flight at a time, over all rings.
const BUFFERS: usize = 256;

/// What became of a request. A result is the kernel's: 0 or more, or a negated errno.
#[derive(Clone, Copy, Debug)]
pub enum Event {
    /// The socket is connected and the request was sent (0), or a step failed; then the socket must be closed.
    Opened { client: u32, result: i32 },
    /// There is something to read (poll(2) flags in `result`); where `more` is false it must be watched again.
    Readable { client: u32, result: i32, more: bool },
    /// Bytes were read into a buffer, which must be given back; 0: the server's side has ended.
    Received { client: u32, result: i32, buffer: u32 },
    /// Everything was written, or the socket failed.
    Sent { client: u32, result: i32 },
    /// The requests on a socket that is being closed were cancelled.
    Cancelled { client: u32 },
    /// The slot is empty.
    Closed { client: u32 },
}

/// How a socket is opened.
#[derive(Debug)]
pub struct Opening {
    /// The address and port to connect from; none leaves both to the kernel.
    pub source: Option<SocketAddrV4>,
    /// Where to.
    pub target: SocketAddrV4,
    /// SO_RCVBUF, where it is not the kernel's own choice.
    pub receive_buffer: Option<u32>,
    /// What is sent first.
    pub request: Vec<u8>,
}

/// Several rings that act as one; client `i` has slot `i % table` of ring `i / table`.
pub struct Rings {
    rings: Vec<One>,
    table: u32,
    bell: File,
    openings: Slab<Box<OpeningSlot>>,
    sends: Slab<Vec<u8>>,
    buffers: Box<[u8]>,
    buffers_free: Vec<u32>,
    reaping: usize,
    broken: Option<io::Error>,
}

struct One {
    uring: IoUring,
    /// Requests for which the submission queue had no room.
    waiting: VecDeque<squeue::Entry>,
}

/// What the requests of an opening point to, and what has become of them.
struct OpeningSlot {
    source: libc::sockaddr_in,
    target: libc::sockaddr_in,
    receive_buffer: libc::c_int,
    request: Vec<u8>,
    steps_left: u8,
    result: i32,
}

#[derive(Clone, Copy)]
#[repr(u8)]
enum Tag {
    Open = 1,
    Watch,
    Receive,
    Send,
    Cancel,
    Close,
}

/// User data: 8 bits of tag, 24 bits of index (opening, send or buffer), 32 bits of client.
fn user_data(tag: Tag, index: u32, client: u32) -> u64 {
    (tag as u64) << 56 | u64::from(index) << 32 | u64::from(client)
}

impl Rings {
    /// Rings for `clients` sockets, at most `table` in each.
    ///
    /// Errors: io_uring is refused, or `table` is over RLIMIT_NOFILE.
    pub fn new(clients: u32, table: u32) -> io::Result<Self> {
        // SAFETY: eventfd returns a descriptor that nobody else owns, or -1.
        let bell = unsafe {
            match libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) {
                -1 => return Err(io::Error::last_os_error()),
                fd => File::from_raw_fd(fd),
            }
        };
        let one = |ring: u32| One::new((clients - ring * table).min(table), &bell);
        let rings = (0..clients.div_ceil(table).max(1)).map(one).collect::<io::Result<Vec<_>>>()?;
        Ok(Self {
            rings,
            table,
            bell,
            openings: Slab::default(),
            sends: Slab::default(),
            buffers: vec![0; BUFFERS * BUFFER_BYTES].into(),
            buffers_free: (0..BUFFERS as u32).rev().collect(),
            reaping: 0,
            broken: None,
        })
    }

    /// Whoever writes eight bytes to it wakes [`Rings::sleep`].
    ///
    /// Errors: no descriptor is free.
    pub fn bell(&self) -> io::Result<File> {
        self.bell.try_clone()
    }

    /// Socket, source, connection and request, each linked to the one before: [`Event::Opened`] tells the end.
    pub fn open(&mut self, client: u32, opening: Opening) {
        let (ring, fixed) = self.place(client);
        let address = |at: SocketAddrV4| sockaddr(*at.ip(), at.port());
        let slot = Box::new(OpeningSlot {
            source: opening.source.map_or_else(|| sockaddr(Ipv4Addr::UNSPECIFIED, 0), address),
            target: address(opening.target),
            receive_buffer: opening.receive_buffer.unwrap_or(0) as libc::c_int,
            request: opening.request,
            steps_left: 3 + u8::from(opening.source.is_some()) + u8::from(opening.receive_buffer.is_some()),
            result: 0,
        });
        let len = size_of::<libc::sockaddr_in>() as libc::socklen_t;
        let destination = types::DestinationSlot::try_from_slot_target(fixed.0).expect("a table is below 2^32 - 2");
        let index = self.openings.insert(slot);
        let slot = self.openings.get(index);
        let data = user_data(Tag::Open, index, client);
        let stream = libc::SOCK_STREAM | libc::SOCK_NONBLOCK;
        let mut steps = vec![opcode::Socket::new(libc::AF_INET, stream, 0).file_index(Some(destination)).build()];
        if opening.receive_buffer.is_some() {
            let (level, name) = (libc::SOL_SOCKET as u32, libc::SO_RCVBUF as u32);
            let value = (&raw const slot.receive_buffer).cast();
            steps.push(opcode::SetSockOpt::new(fixed, level, name, value, size_of::<libc::c_int>() as u32).build());
        }
        if opening.source.is_some() {
            steps.push(opcode::Bind::new(fixed, (&raw const slot.source).cast(), len).build());
        }
        steps.push(opcode::Connect::new(fixed, (&raw const slot.target).cast(), len).build());
        let flags = libc::MSG_WAITALL | libc::MSG_NOSIGNAL;
        steps.push(opcode::Send::new(fixed, slot.request.as_ptr(), slot.request.len() as u32).flags(flags).build());
        self.make_room(ring, steps.len());
        let last = steps.len() - 1;
        for (i, step) in steps.into_iter().enumerate() {
            let link = if i < last { squeue::Flags::IO_LINK } else { squeue::Flags::empty() };
            self.queue(ring, step.flags(link).user_data(data));
        }
    }

    /// Tells, again and again, when there is something to read. Edge-triggered.
    pub fn watch(&mut self, client: u32) {
        let (ring, fixed) = self.place(client);
        let entry = opcode::PollAdd::new(fixed, (libc::POLLIN | libc::POLLRDHUP) as u32).multi(true).build();
        self.queue(ring, entry.user_data(user_data(Tag::Watch, 0, client)));
    }

    /// Reads at most `len` bytes of what there is, without waiting. False: no buffer is free.
    #[must_use]
    pub fn receive(&mut self, client: u32, len: usize) -> bool {
        let Some(buffer) = self.buffers_free.pop() else { return false };
        let (ring, fixed) = self.place(client);
        let start = buffer as usize * BUFFER_BYTES;
        let bytes = &mut self.buffers[start..start + len.min(BUFFER_BYTES)];
        let entry = opcode::Recv::new(fixed, bytes.as_mut_ptr(), bytes.len() as u32).flags(libc::MSG_DONTWAIT).build();
        self.queue(ring, entry.user_data(user_data(Tag::Receive, buffer, client)));
        true
    }

    /// Writes all of it, however long that takes. At most one for a socket between this and [`Event::Sent`].
    pub fn send(&mut self, client: u32, bytes: Vec<u8>) {
        let (ring, fixed) = self.place(client);
        let (pointer, len) = (bytes.as_ptr(), bytes.len() as u32);
        let index = self.sends.insert(bytes); // the bytes of a Vec stay where they are when it is moved
        let entry = opcode::Send::new(fixed, pointer, len).flags(libc::MSG_WAITALL | libc::MSG_NOSIGNAL).build();
        self.queue(ring, entry.user_data(user_data(Tag::Send, index, client)));
    }

    /// Cancels what is armed on a socket, and closes it: a request that is armed would hold the file for ever. What is
    /// armed is its watch alone, unless `others` says that there is more.
    pub fn close(&mut self, client: u32, others: bool) {
        let (ring, fixed) = self.place(client);
        self.make_room(ring, 2);
        // By descriptor the kernel looks at every request of the ring, by user data at those of one bucket.
        let armed = if others {
            types::CancelBuilder::fd(fixed).all()
        } else {
            types::CancelBuilder::user_data(user_data(Tag::Watch, 0, client))
        };
        let cancel = opcode::AsyncCancel2::new(armed).build();
        self.queue(ring, cancel.flags(squeue::Flags::IO_HARDLINK).user_data(user_data(Tag::Cancel, 0, client)));
        self.queue(ring, opcode::Close::new(fixed).build().user_data(user_data(Tag::Close, 0, client)));
    }

    /// The bytes of an [`Event::Received`].
    pub fn buffer(&self, buffer: u32, len: usize) -> &[u8] {
        let start = buffer as usize * BUFFER_BYTES;
        &self.buffers[start..start + len]
    }

    /// Gives a buffer back.
    pub fn release(&mut self, buffer: u32) {
        self.buffers_free.push(buffer);
    }

    /// Hands over everything that was queued.
    ///
    /// Errors: a ring is broken for good.
    pub fn submit(&mut self) -> io::Result<()> {
        for ring in 0..self.rings.len() {
            self.flush(ring);
        }
        self.broken.take().map_or(Ok(()), Err)
    }

    /// The next completion, if there is one.
    pub fn next(&mut self) -> Option<Event> {
        for _ in 0..self.rings.len() {
            loop {
                let Some(entry) = self.rings[self.reaping].uring.completion().next() else { break };
                if let Some(event) = self.translate(&entry) {
                    return Some(event);
                }
            }
            self.reaping = (self.reaping + 1) % self.rings.len();
        }
        None
    }

    /// Sleeps until a completion arrives, the bell rings, or the time is over.
    pub fn sleep(&mut self, at_most: Duration) {
        let idle = self.rings.iter_mut().all(|one| {
            one.uring.completion().enable_eventfd();
            // The kernel rings only for what arrives from now on: what arrived before is seen here.
            std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
            let submission = one.uring.submission();
            let idle = one.waiting.is_empty() && submission.is_empty();
            let idle = idle && !submission.taskrun() && !submission.cq_overflow();
            drop(submission);
            idle && one.uring.completion().is_empty()
        });
        if idle {
            let mut poll = libc::pollfd { fd: self.bell.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: the call reads and writes one pollfd, which lives on this stack.
            unsafe { libc::poll(&raw mut poll, 1, at_most.as_millis().max(1) as libc::c_int) };
            let _ = self.bell.read(&mut [0; 8]); // nothing to read: the time was over
        }
        self.rings.iter_mut().for_each(|one| one.uring.completion().disable_eventfd());
    }

    /// The ring of a client, and its index in the ring's table.
    fn place(&self, client: u32) -> (usize, types::Fixed) {
        ((client / self.table) as usize, types::Fixed(client % self.table))
    }

    /// Submits, if a chain of that many requests would be cut by the end of the queue.
    fn make_room(&mut self, ring: usize, requests: usize) {
        let submission = self.rings[ring].uring.submission();
        let room = submission.capacity() - submission.len();
        drop(submission);
        if room < requests {
            self.flush(ring);
        }
    }

    fn queue(&mut self, ring: usize, entry: squeue::Entry) {
        let one = &mut self.rings[ring];
        // SAFETY: whatever an entry points to lives in `self` until its completion was reaped: addresses, option and
        // request of an opening in its box in `openings`, a SEND's bytes in `sends`, a RECV's in `buffers`. None of
        // them moves, and an index is given out again only when its completions were reaped. `Drop` ends the
        // requests before the memory goes.
        if unsafe { one.waiting.is_empty() && one.uring.submission().push(&entry).is_ok() } {
            return;
        }
        one.waiting.push_back(entry);
        self.flush(ring);
    }

    fn refill(&mut self, ring: usize) {
        let One { uring, waiting } = &mut self.rings[ring];
        let mut submission = uring.submission();
        // SAFETY: as in `queue`: these are the same entries.
        while let Some(entry) = waiting.front()
            && unsafe { submission.push(entry).is_ok() }
        {
            waiting.pop_front();
        }
    }

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
                    Some(libc::EBUSY | libc::EAGAIN) => return, // reap first, then again
                    _ => {
                        self.broken = Some(error);
                        return;
                    }
                },
            }
        }
    }

    fn translate(&mut self, entry: &cqueue::Entry) -> Option<Event> {
        let (data, result) = (entry.user_data(), entry.result());
        let (client, index) = (data as u32, (data >> 32) as u32 & 0xff_ffff);
        Some(match (data >> 56) as u8 {
            tag if tag == Tag::Watch as u8 => Event::Readable { client, result, more: cqueue::more(entry.flags()) },
            tag if tag == Tag::Receive as u8 => Event::Received { client, result, buffer: index },
            tag if tag == Tag::Send as u8 => {
                self.sends.remove(index);
                Event::Sent { client, result }
            }
            tag if tag == Tag::Open as u8 => {
                let slot = self.openings.get_mut(index);
                slot.steps_left -= 1;
                if result < 0 && (slot.result == 0 || slot.result == -libc::ECANCELED) {
                    slot.result = result;
                }
                if slot.steps_left > 0 {
                    return None;
                }
                let result = slot.result;
                self.openings.remove(index);
                Event::Opened { client, result }
            }
            tag if tag == Tag::Cancel as u8 => Event::Cancelled { client },
            tag if tag == Tag::Close as u8 => Event::Closed { client },
            _ => return None,
        })
    }
}

impl One {
    fn new(table: u32, bell: &File) -> io::Result<Self> {
        let completions = table.saturating_mul(2).clamp(2 * SUBMISSIONS, COMPLETIONS).next_power_of_two();
        let mut uring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_cqsize(completions)
            .build(SUBMISSIONS)?;
        uring.completion().disable_eventfd();
        uring.submitter().register_eventfd(bell.as_raw_fd())?;
        uring.submitter().register_files_sparse(table.max(1))?;
        Ok(Self { uring, waiting: VecDeque::new() })
    }
}

impl Drop for Rings {
    fn drop(&mut self) {
        for one in &self.rings {
            let cancelled = one.uring.submitter().register_sync_cancel(None, types::CancelBuilder::any().all());
            if cancelled.is_err_and(|error| error.kind() != io::ErrorKind::NotFound) {
                // The kernel may still write into these: better lost than written to by others.
                std::mem::forget(std::mem::take(&mut self.openings));
                std::mem::forget(std::mem::take(&mut self.sends));
                std::mem::forget(std::mem::take(&mut self.buffers));
                return;
            }
        }
    }
}

fn sockaddr(ip: Ipv4Addr, port: u16) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: port.to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(ip.octets()) },
        sin_zero: [0; 8],
    }
}

/// Things by number; numbers are used again.
struct Slab<T> {
    items: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { items: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slab<T> {
    fn insert(&mut self, item: T) -> u32 {
        let index = self.free.pop().unwrap_or_else(|| {
            self.items.push(None);
            self.items.len() as u32 - 1
        });
        assert!(index < 1 << 24, "an index fits the 24 bits of a tag");
        self.items[index as usize] = Some(item);
        index
    }

    fn get(&self, index: u32) -> &T {
        self.items[index as usize].as_ref().expect("it was not removed yet")
    }

    fn get_mut(&mut self, index: u32) -> &mut T {
        self.items[index as usize].as_mut().expect("it was not removed yet")
    }

    fn remove(&mut self, index: u32) {
        self.items[index as usize] = None;
        self.free.push(index);
    }
}
