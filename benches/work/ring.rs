//! A ring without a kernel: every request completes at the next look, so that what is left of a turn is the shard's own
//! work. Its clients ask for `/raw/bench`, and answer pings.

use spillgate::fanout::Chunk;
use spillgate::ids::{ConnId, ListenerId};
use spillgate::sys::{BufId, Completion, Op, Ring};
use std::collections::VecDeque;
use std::io;

/// What a client sends first.
const REQUEST: &[u8] = b"GET /raw/bench HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
const BUFFERS: u8 = 64;
const BUFFER_BYTES: usize = 16 << 10;
/// A ping of the gateway: its header, before the four bytes of a position.
const PING: [u8; 2] = [0x89, 4];

/// What the sockets' send buffers do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clients {
    /// All is taken.
    Read,
    /// After the 101, nothing is taken.
    Stalled,
}

/// See the module.
pub struct Instant {
    clients: Clients,
    to_come: u32,
    done: VecDeque<Completion>,
    buffers: Vec<u8>,
    free: Vec<u8>,
    /// By slot.
    sockets: Vec<Socket>,
    armed: VecDeque<(ListenerId, ConnId)>,
}

#[derive(Clone, Default)]
struct Socket {
    /// What the client has sent and the shard has not read.
    unread: Vec<u8>,
    upgraded: bool,
}

impl Instant {
    /// `sockets` clients that come as soon as they can.
    pub fn new(sockets: u32, clients: Clients) -> Self {
        Self {
            clients,
            to_come: sockets,
            done: VecDeque::with_capacity(4 * sockets as usize),
            buffers: vec![0; usize::from(BUFFERS) * BUFFER_BYTES],
            free: (0..BUFFERS).collect(),
            sockets: vec![Socket::default(); sockets as usize + 64],
            armed: VecDeque::new(),
        }
    }

    /// Whether all that was asked for is done and was looked at.
    pub fn is_idle(&self) -> bool {
        self.done.is_empty()
    }

    fn come(&mut self) {
        while self.to_come > 0
            && let Some((listener, conn)) = self.armed.pop_front()
        {
            self.to_come -= 1;
            self.sockets[conn.slot.index()].unread = REQUEST.to_vec();
            self.done.push_back(Completion::Accepted { listener, conn, result: 0, peer: None });
        }
    }

    #[inline]
    fn send(&mut self, conn: ConnId, chunk: Chunk) {
        let socket = &mut self.sockets[conn.slot.index()];
        if self.clients == Clients::Stalled && socket.upgraded {
            return self.done.push_back(Completion::Sent { conn, result: -libc::EAGAIN, chunk });
        }
        socket.upgraded = true;
        let bytes = chunk.bytes();
        if let [.., a, b, c, d] = *bytes
            && bytes[..bytes.len() - 4].ends_with(&PING)
        {
            // A client's frames are masked; by zeroes it stays as it is.
            socket.unread.extend_from_slice(&[0x8a, 0x84, 0, 0, 0, 0, a, b, c, d]);
            self.done.push_back(Completion::Readable { conn, result: i32::from(libc::POLLIN), more: true });
        }
        self.done.push_back(Completion::Sent { conn, result: bytes.len() as i32, chunk });
    }
}

impl Ring for Instant {
    fn slots(&self) -> u32 {
        self.sockets.len() as u32
    }

    fn accepts_max(&self) -> usize {
        256
    }

    #[inline]
    fn push(&mut self, op: Op) {
        match op {
            Op::Send(conn, chunk) => self.send(conn, chunk),
            Op::Accept { listener, conn } => {
                self.armed.push_back((listener, conn));
                self.come();
            }
            Op::Watch(conn) => {
                if !self.sockets[conn.slot.index()].unread.is_empty() {
                    self.done.push_back(Completion::Readable { conn, result: i32::from(libc::POLLIN), more: true });
                }
            }
            Op::Receive(conn) => {
                let buffer = BufId(self.free.pop().expect("the shard asks `buffers_free` first"));
                let unread = std::mem::take(&mut self.sockets[conn.slot.index()].unread);
                self.buffer(buffer, unread.len()).copy_from_slice(&unread);
                let result = if unread.is_empty() { -libc::EAGAIN } else { unread.len() as i32 };
                self.done.push_back(Completion::Received { conn, result, buffer });
            }
            Op::Shutdown(conn) | Op::CancelAll(conn) => self.done.push_back(Completion::Done { conn }),
            Op::Close(conn) => self.done.push_back(Completion::Closed { conn, result: 0 }),
            // A stalled socket never takes more, and nobody waits for the time.
            Op::AwaitWritable(_) | Op::Tick(_) | Op::StopListening(_) => {}
        }
    }

    fn submit(&mut self) -> io::Result<()> {
        Ok(())
    }

    #[inline]
    fn next(&mut self) -> Option<Completion> {
        self.done.pop_front()
    }

    fn buffers_free(&self) -> usize {
        self.free.len()
    }

    fn buffer(&mut self, buffer: BufId, len: usize) -> &mut [u8] {
        let start = usize::from(buffer.0) * BUFFER_BYTES;
        &mut self.buffers[start..start + len]
    }

    fn release(&mut self, buffer: BufId) {
        self.free.push(buffer.0);
    }
}
