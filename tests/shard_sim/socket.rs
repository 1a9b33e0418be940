//! One simulated TCP socket, both ends of it, as the kernel keeps it. FACTS names the source of each rule.
//!
//! Promise: bytes arrive in the order in which they were taken, once each; polls are edge-triggered.

use spillgate::ids::ConnId;
use std::collections::VecDeque;
use std::net::SocketAddr;

/// poll(2) flags, as the watch reports them.
const DATA: i32 = libc::POLLIN as i32;
const FIN: i32 = (libc::POLLIN | libc::POLLRDHUP) as i32;
const RESET: i32 = (libc::POLLIN | libc::POLLERR | libc::POLLHUP | libc::POLLRDHUP) as i32;
/// Bytes of one SEND that a fresh socket takes whole.
const FRESH_ROOM: usize = 32 << 10;

/// A poll that is armed: it holds the file.
#[derive(Debug)]
pub struct Poll {
    /// Whose it is.
    pub conn: ConnId,
    /// Something happened, and the poll looks at it in so many submits.
    pub woken: Option<u32>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Socket {
    /// Who has connected.
    pub peer: Option<SocketAddr>,
    /// Whose it is, while it sits in the table.
    pub owner: Option<ConnId>,
    /// The multishot poll for reading.
    pub watch: Option<Poll>,
    /// The one-shot POLLOUT.
    pub writable: Option<Poll>,
    /// Shutdowns that wait for a worker.
    pub shutdowns: usize,
    /// It waits to be accepted.
    pub queued: bool,
    /// Sent by the client, not read by the shard.
    pub unread: VecDeque<u8>,
    /// The client's direction is closed.
    pub fin: bool,
    /// The client has reset the connection.
    pub reset: bool,
    /// The shard's direction is closed.
    pub shut: bool,
    /// A SEND was not taken whole, and no POLLOUT was reported since.
    pub full: bool,
    /// Taken from the shard, not yet with the client.
    unsent: VecDeque<u8>,
    /// With the client, which has yet to read it.
    arrived: VecDeque<u8>,
    /// Bytes that the client's kernel takes for it.
    window: usize,
    /// Nothing holds the file any more.
    pub freed: bool,
    error_told: bool,
}

/// What a client's read gives.
#[derive(Debug, PartialEq, Eq)]
pub enum ClientRead {
    Bytes(Vec<u8>),
    /// Nothing now.
    Later,
    /// The shard's direction has ended, after every byte of it.
    End,
    /// The connection was cut off.
    Cut,
}

impl Socket {
    pub fn new(window: usize, peer: SocketAddr) -> Self {
        Self { window, peer: Some(peer), queued: true, ..Self::default() }
    }

    /// Whether a request that is armed keeps the file, whatever the table says.
    pub fn is_held(&self) -> bool {
        self.watch.is_some() || self.writable.is_some() || self.shutdowns > 0
    }

    /// What a poll for reading sees now.
    pub fn readable(&self) -> i32 {
        match () {
            () if self.reset => RESET,
            () if self.fin && self.shut => FIN | i32::from(libc::POLLHUP),
            () if self.fin => FIN,
            () if !self.unread.is_empty() => DATA,
            () => 0,
        }
    }

    /// What a poll for writing sees now; under TCP_NOTSENT_LOWAT=1 everything must have left.
    pub fn can_write(&self) -> i32 {
        match () {
            () if self.reset => i32::from(libc::POLLOUT | libc::POLLERR | libc::POLLHUP),
            () if self.unsent.is_empty() || self.shut => i32::from(libc::POLLOUT),
            () => 0,
        }
    }

    /// Something has happened to the socket: polls look at it, some of them late.
    pub fn wake(&mut self, rng: &mut fastrand::Rng) {
        for poll in [&mut self.watch, &mut self.writable].into_iter().flatten() {
            poll.woken.get_or_insert(if rng.u8(..) < 200 { 0 } else { rng.u32(1..4) });
        }
    }

    /// send(2) with MSG_DONTWAIT.
    pub fn send(&mut self, bytes: &[u8], rng: &mut fastrand::Rng) -> i32 {
        if self.reset || self.shut {
            return -libc::EPIPE;
        }
        assert!(!self.full, "written to again before its POLLOUT, after a SEND that was not taken whole");
        let room = match (self.unsent.is_empty(), rng.u8(..)) {
            (true, 50..) => FRESH_ROOM,
            (true, _) => rng.usize(..=bytes.len()),
            (false, 200..) => rng.usize(..200), // small frames append to the unsent tail
            (false, _) => 0,
        };
        let taken = room.min(bytes.len());
        self.unsent.extend(&bytes[..taken]);
        self.full = taken < bytes.len();
        if taken == 0 { -libc::EAGAIN } else { taken as i32 }
    }

    /// recv(2) with MSG_DONTWAIT, of any part of what is there.
    pub fn receive(&mut self, buffer: &mut [u8], rng: &mut fastrand::Rng) -> i32 {
        if self.reset {
            return if std::mem::replace(&mut self.error_told, true) { 0 } else { -libc::ECONNRESET };
        }
        let most = self.unread.len().min(buffer.len());
        if most == 0 {
            return if self.fin { 0 } else { -libc::EAGAIN };
        }
        let len = if rng.bool() { most } else { rng.usize(1..=most) };
        self.unread.drain(..len).zip(buffer).for_each(|(byte, place)| *place = byte);
        len as i32
    }

    /// The network carries some of what the kernel took to the client.
    pub fn carry(&mut self, rng: &mut fastrand::Rng) {
        let most = self.unsent.len().min(self.window.saturating_sub(self.arrived.len()));
        if most == 0 || self.reset || rng.u8(..) < 40 {
            return;
        }
        let len = if rng.u8(..) < 160 { most } else { rng.usize(1..=most) };
        self.arrived.extend(self.unsent.drain(..len));
        if self.unsent.is_empty() {
            self.wake(rng);
        }
    }

    /// Whether the network has something to carry.
    pub fn is_moving(&self) -> bool {
        !self.freed && !self.reset && !self.unsent.is_empty() && self.arrived.len() < self.window
    }

    /// The client writes.
    pub fn client_write(&mut self, bytes: &[u8], rng: &mut fastrand::Rng) {
        if !self.freed && !self.reset && !self.fin {
            self.unread.extend(bytes);
            self.wake(rng);
        }
    }

    /// The client closes its direction.
    pub fn client_fin(&mut self, rng: &mut fastrand::Rng) {
        if !self.freed && !self.fin {
            self.fin = true;
            self.wake(rng);
        }
    }

    /// The client is gone: what was on its way in either direction is lost.
    pub fn client_reset(&mut self, rng: &mut fastrand::Rng) {
        if !self.freed && !self.reset {
            self.reset = true;
            self.unread.clear();
            self.unsent.clear();
            self.wake(rng);
        }
    }

    /// The client reads.
    pub fn client_read(&mut self, rng: &mut fastrand::Rng) -> ClientRead {
        let len = if rng.bool() { self.arrived.len() } else { self.arrived.len().min(rng.usize(1..4000)) };
        match () {
            () if len > 0 => ClientRead::Bytes(self.arrived.drain(..len).collect()),
            () if self.shut && self.unsent.is_empty() => ClientRead::End,
            () if self.freed => ClientRead::Cut,
            () => ClientRead::Later,
        }
    }

    /// Whether the client has something to read, or to see that it was cut off.
    pub fn has_news(&self) -> bool {
        self.freed || !self.arrived.is_empty()
    }

    /// The last reference is gone. SO_LINGER 0: what has not left is lost.
    pub fn free(&mut self) {
        if !self.unsent.is_empty() {
            (self.unsent, self.shut) = (VecDeque::new(), false);
        }
        self.freed = true;
        self.unread = VecDeque::new();
    }
}
