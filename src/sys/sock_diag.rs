//! What the kernel holds in the queues of this gateway's sockets, asked by sock_diag(7) over netlink.
//!
//! Invariant: the kernel does a bounded piece of work for each [`SockDiag::read`], so that the caller sets the pace.

use socket2::{Domain, Protocol, Socket, Type};
use std::io::{self, Read};
use std::time::Duration;

/// linux/sock_diag.h
const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// Bytes of linux/netlink.h's `nlmsghdr`, and of linux/inet_diag.h's `inet_diag_req_v2` and `inet_diag_msg`.
const HEADER: usize = 16;
const REQUEST: usize = 56;
const ANSWER: usize = 72;
/// Where `inet_diag_msg` has `idiag_rqueue` and `idiag_wqueue`.
const READ_QUEUE_AT: usize = 56;
const WRITE_QUEUE_AT: usize = 60;
/// The kernel fills at most 32 KiB at a time (netlink_recvmsg).
const BUFFER: usize = 64 << 10;
/// The kernel answers while it is asked; this only keeps a broken one from holding the thread.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Bits of `idiag_states`, by the numbers of include/net/tcp_states.h.
const LISTENING: u32 = 1 << 10;
/// ESTABLISHED, FIN-WAIT-1, FIN-WAIT-2, CLOSE-WAIT, LAST-ACK, CLOSING.
const CONNECTED: u32 = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 11;

/// Which sockets of a port are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sockets {
    /// Those that listen: their read queue holds connections that wait to be accepted, their write queue is its limit.
    Listening,
    /// Those of clients.
    Connected,
}

/// Queues of some sockets, added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Queues {
    /// Sockets seen.
    pub sockets: u64,
    /// What their read queues hold: bytes, or connections where they listen.
    pub read: u64,
    /// The fullest read queue.
    pub read_max: u64,
    /// What their write queues hold: bytes not yet sent or not yet acknowledged; where they listen, the most that the
    /// read queue takes.
    pub write: u64,
    /// The fullest write queue.
    pub write_max: u64,
}

/// A netlink socket for sock_diag. After an error it is of no more use: open another.
#[derive(Debug)]
pub struct SockDiag {
    socket: Socket,
    buffer: Vec<u8>,
}

impl SockDiag {
    /// # Errors
    /// The kernel or a sandbox does not allow netlink (`RestrictAddressFamilies=` needs `AF_NETLINK`).
    pub fn open() -> io::Result<Self> {
        let protocol = Some(Protocol::from(libc::NETLINK_SOCK_DIAG));
        let socket = Socket::new(Domain::from(libc::AF_NETLINK), Type::RAW, protocol)?;
        socket.set_read_timeout(Some(TIMEOUT))?;
        Ok(Self { socket, buffer: vec![0; BUFFER] })
    }

    /// Begins to list the sockets of a local port, of IPv6 or IPv4; then call [`SockDiag::read`] until it says that no
    /// more come.
    ///
    /// # Errors
    /// The kernel takes no request.
    pub fn ask(&self, port: u16, v6: bool, sockets: Sockets) -> io::Result<()> {
        let family = if v6 { libc::AF_INET6 } else { libc::AF_INET };
        let states = match sockets {
            Sockets::Listening => LISTENING,
            Sockets::Connected => CONNECTED,
        };
        self.socket.send(&request(family as u8, port, states)).map(drop)
    }

    /// Takes in the next piece of the answer; whether more come.
    ///
    /// # Errors
    /// The kernel refuses (it has no `inet_diag`), or does not answer.
    pub fn read(&mut self, queues: &mut Queues) -> io::Result<bool> {
        let bytes = (&self.socket).read(&mut self.buffer)?;
        take(&self.buffer[..bytes], queues)
    }
}

/// A netlink message that asks for all TCP sockets of a family, port and states.
fn request(family: u8, port: u16, states: u32) -> [u8; HEADER + REQUEST] {
    let mut message = [0; HEADER + REQUEST];
    let flags = (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16;
    message[0..4].copy_from_slice(&((HEADER + REQUEST) as u32).to_ne_bytes());
    message[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    message[6..8].copy_from_slice(&flags.to_ne_bytes());
    message[16] = family;
    message[17] = libc::IPPROTO_TCP as u8;
    message[20..24].copy_from_slice(&states.to_ne_bytes());
    message[24..26].copy_from_slice(&port.to_be_bytes());
    message
}

/// Adds up the messages of one datagram; whether more datagrams come.
fn take(mut bytes: &[u8], queues: &mut Queues) -> io::Result<bool> {
    let word =
        |bytes: &[u8], at: usize| -> Option<u32> { bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes) };
    let half =
        |bytes: &[u8], at: usize| -> Option<u16> { bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes) };
    while let (Some(length), Some(kind)) = (word(bytes, 0), half(bytes, 4)) {
        let length = length as usize;
        if length < HEADER || length > bytes.len() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a netlink message of a wrong length"));
        }
        let body = &bytes[HEADER..length];
        match i32::from(kind) {
            libc::NLMSG_DONE => return Ok(false),
            libc::NLMSG_ERROR => {
                let error = word(body, 0).map_or(libc::EPROTO, |error| -(error as i32));
                return Err(io::Error::from_raw_os_error(error));
            }
            _ if kind == SOCK_DIAG_BY_FAMILY && body.len() >= ANSWER => {
                let queue = |at| u64::from(word(body, at).unwrap_or_default());
                let (read, write) = (queue(READ_QUEUE_AT), queue(WRITE_QUEUE_AT));
                queues.sockets += 1;
                (queues.read, queues.write) = (queues.read + read, queues.write + write);
                (queues.read_max, queues.write_max) = (queues.read_max.max(read), queues.write_max.max(write));
            }
            _ => {}
        }
        // Messages are aligned to 4 bytes (NLMSG_ALIGN); the last one may end without padding.
        bytes = &bytes[length.next_multiple_of(4).min(bytes.len())..];
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};

    fn look(port: u16, v6: bool, sockets: Sockets) -> Queues {
        let (mut diag, mut queues) = (SockDiag::open().unwrap(), Queues::default());
        diag.ask(port, v6, sockets).unwrap();
        while diag.read(&mut queues).unwrap() {}
        queues
    }

    /// Others' connections may leave from a port of this number, at another address.
    fn listener_of_an_unused_port(address: &str) -> TcpListener {
        let unused = |listener: &TcpListener| {
            let port = listener.local_addr().unwrap().port();
            [false, true].into_iter().all(|v6| look(port, v6, Sockets::Connected) == Queues::default())
        };
        std::iter::repeat_with(|| TcpListener::bind(address).unwrap()).take(100).find(unused).expect("an unused port")
    }

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut message = ((HEADER + body.len()) as u32).to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.resize(HEADER, 0);
        message.extend(body);
        message.resize(message.len().next_multiple_of(4), 0);
        message
    }

    #[test]
    fn the_kernel_tells_what_its_queues_hold() {
        for (address, v6) in [("127.0.0.1:0", false), ("[::1]:0", true)] {
            let listener = listener_of_an_unused_port(address);
            let port = listener.local_addr().unwrap().port();
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let waiting = look(port, v6, Sockets::Listening);
            assert_eq!((waiting.sockets, waiting.read), (1, 1), "it waits to be accepted");
            assert!(waiting.write > 1, "{waiting:?}");
            let (server, _) = listener.accept().unwrap();
            client.write_all(&[7; 1000]).unwrap();
            let unread = look(port, v6, Sockets::Connected);
            assert_eq!((unread.sockets, unread.read, unread.write), (1, 1000, 0));
            server.set_nonblocking(true).unwrap();
            while (&server).write(&[7; 65_536]).is_ok() {}
            let unsent = look(port, v6, Sockets::Connected);
            assert!(unsent.write > 65_536 && unsent.write_max == unsent.write, "{unsent:?}");
            assert_eq!(look(port, !v6, Sockets::Connected), Queues::default(), "the other family has none");
        }
    }

    #[test]
    fn answers_are_added_up_and_what_is_no_answer_is_an_error() {
        let answer = |read: u32, write: u32| {
            let mut body = vec![0; ANSWER + 8]; // attributes follow
            body[READ_QUEUE_AT..][..4].copy_from_slice(&read.to_ne_bytes());
            body[WRITE_QUEUE_AT..][..4].copy_from_slice(&write.to_ne_bytes());
            message(SOCK_DIAG_BY_FAMILY, &body)
        };
        let mut queues = Queues::default();
        let three = [answer(1, 10), answer(2, 30), answer(3, 20)].concat();
        assert!(take(&three, &mut queues).unwrap(), "more come");
        assert_eq!(queues, Queues { sockets: 3, read: 6, read_max: 3, write: 60, write_max: 30 });
        assert!(!take(&[answer(0, 0), message(3, &[0; 4])].concat(), &mut queues).unwrap(), "that was all");
        let refused = take(&message(2, &(-libc::ENOENT).to_ne_bytes()), &mut queues).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::ENOENT));
        for length in [0u32, 15, 17] {
            assert!(take(&[&length.to_ne_bytes()[..], &[20, 0], &[0; 10]].concat(), &mut queues).is_err(), "{length}");
        }
        assert!(take(&[], &mut queues).unwrap());
    }
}
