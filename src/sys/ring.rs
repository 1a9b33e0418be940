//! What a shard asks of io_uring, as a trait: requests go in, completions come out. The shard is a state machine over
//! it; the kernel is one implementation ([`super::UringSet`]), a seeded simulation in the tests is another.

use crate::fanout::Chunk;
use crate::ids::{ConnId, ListenerId};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// A request.
#[derive(Debug)]
pub enum Op {
    /// Accept one connection into the slot of `conn`. The slot must be free.
    Accept {
        /// Where to accept.
        listener: ListenerId,
        /// Where the socket goes.
        conn: ConnId,
    },
    /// Tell, again and again, when the socket has something to read or has ended. Edge-triggered: read to EAGAIN or 0.
    Watch(ConnId),
    /// Read what there is into one of the ring's buffers; never waits. One of [`Ring::buffers_free`] must be free.
    Receive(ConnId),
    /// Write; never waits. At most one for a socket between submit and completion: two tear the stream.
    Send(ConnId, Chunk),
    /// Tell once when everything that the kernel took has left (with TCP_NOTSENT_LOWAT=1), or the socket has ended.
    AwaitWritable(ConnId),
    /// Close our direction (FIN) after what was written.
    Shutdown(ConnId),
    /// Cancel every request on the socket, hard-linked to the next request, which must be its `Close`: a request that is
    /// still armed holds the file, and a close alone would leave the socket behind for ever.
    CancelAll(ConnId),
    /// Give the slot back. From here on nothing may be pushed for it: it would reach the next owner.
    Close(ConnId),
    /// Cancel the accepts on a listener, and stop listening.
    StopListening(ListenerId),
    /// Complete once, after this time.
    Tick(Duration),
}

/// One of the ring's read buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BufId(pub u8);

/// What became of a request. A result is the kernel's: 0 or more, or a negated errno.
#[derive(Debug)]
pub enum Completion {
    /// A socket is in the slot (0), or the accept failed and the slot is still free.
    Accepted {
        /// Where.
        listener: ListenerId,
        /// The slot that was asked for.
        conn: ConnId,
        /// The kernel's answer.
        result: i32,
        /// Who connected, where it is known.
        peer: Option<SocketAddr>,
    },
    /// The socket has something to read (poll(2) flags), or the watch failed.
    Readable {
        /// Which.
        conn: ConnId,
        /// The kernel's answer.
        result: i32,
        /// Whether the watch goes on; if not, the socket is deaf until it is watched again.
        more: bool,
    },
    /// Bytes were read, 0: the peer's side has ended.
    Received {
        /// Which.
        conn: ConnId,
        /// The kernel's answer.
        result: i32,
        /// Where the bytes are; to be given back by [`Ring::release`].
        buffer: BufId,
    },
    /// Bytes were written.
    Sent {
        /// Which.
        conn: ConnId,
        /// The kernel's answer.
        result: i32,
        /// What was to be written.
        chunk: Chunk,
    },
    /// Everything has left, or the socket has ended.
    Writable {
        /// Which.
        conn: ConnId,
        /// The kernel's answer (poll(2) flags).
        result: i32,
    },
    /// A `Shutdown` or `CancelAll` is done.
    Done {
        /// Which.
        conn: ConnId,
    },
    /// The slot is empty.
    Closed {
        /// Which.
        conn: ConnId,
        /// The kernel's answer.
        result: i32,
    },
    /// The time of a `Tick` is over.
    Tick,
}

/// A ring, or several that act as one.
pub trait Ring {
    /// Slots for sockets, numbered from 0.
    fn slots(&self) -> u32;

    /// Accepts that may be armed at a time.
    fn accepts_max(&self) -> usize;

    /// Queues a request; where the queue is full it is submitted first.
    fn push(&mut self, op: Op);

    /// Hands over everything that was pushed. Errors: the ring is broken for good.
    fn submit(&mut self) -> io::Result<()>;

    /// The next completion, if there is one.
    fn next(&mut self) -> Option<Completion>;

    /// Read buffers that are free.
    fn buffers_free(&self) -> usize;

    /// The bytes of a [`Completion::Received`].
    fn buffer(&mut self, buffer: BufId, len: usize) -> &mut [u8];

    /// Gives a read buffer back.
    fn release(&mut self, buffer: BufId);
}
