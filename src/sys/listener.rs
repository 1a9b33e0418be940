//! Listening sockets: one for each address and shard, that share the address by SO_REUSEPORT.

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::time::Duration;

/// Connections that wait to be accepted; the kernel caps it at net.core.somaxconn.
const BACKLOG: i32 = 65_535;

/// What accepted sockets inherit besides what all have.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// TCP_USER_TIMEOUT: the time after which sent bytes must be acknowledged. It also ends a live client whose receive
    /// window is closed, so it belongs to `stall_timeout`.
    pub user_timeout: Option<Duration>,
    /// SO_SNDBUF, where the kernel's own choice is not wanted. It ends autotuning, and so throttles far clients.
    pub send_buffer_bytes: Option<usize>,
}

/// `shards` listeners on each address, as `[shard][address]`; a port of 0 becomes one that is free, the same for all
/// shards.
///
/// The first socket of an address listens alone before it lets others share: so an address that any other process
/// listens on is refused, whether that one set SO_REUSEPORT or not.
///
/// Errors: the address is taken, is not one of this host, or may not be used.
pub fn listen(addresses: &[SocketAddr], shards: usize, options: Options) -> Result<Vec<Vec<TcpListener>>, ListenError> {
    let mut seats: Vec<Vec<TcpListener>> = (0..shards).map(|_| Vec::new()).collect();
    for &wanted in addresses {
        let at = |error| ListenError { address: wanted, error };
        let first = socket(wanted, options).and_then(|socket| {
            socket.listen(BACKLOG)?;
            socket.set_reuse_port(true)?;
            Ok(TcpListener::from(socket))
        });
        let first = first.map_err(at)?;
        let address = first.local_addr().map_err(at)?;
        let mut sockets = vec![first];
        for _ in 1..shards {
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP)).map_err(at)?;
            socket.set_reuse_port(true).and_then(|()| prepare(&socket, address, options)).map_err(at)?;
            socket.listen(BACKLOG).map_err(at)?;
            sockets.push(TcpListener::from(socket));
        }
        seats.iter_mut().zip(sockets).for_each(|(seat, socket)| seat.push(socket));
    }
    Ok(seats)
}

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {}", self.advice())]
pub struct ListenError {
    /// The address.
    pub address: SocketAddr,
    error: io::Error,
}

impl ListenError {
    /// Whether somebody else listens there.
    pub fn is_in_use(&self) -> bool {
        self.error.kind() == io::ErrorKind::AddrInUse
    }

    fn advice(&self) -> String {
        match self.error.kind() {
            io::ErrorKind::AddrInUse => {
                "another process (another gateway, perhaps) listens there; end it, or choose another --listen".into()
            }
            io::ErrorKind::AddrNotAvailable => "this host has no such address; see `ip address`".into(),
            io::ErrorKind::PermissionDenied => "ports below 1024 need CAP_NET_BIND_SERVICE".into(),
            _ => self.error.to_string(),
        }
    }
}

fn socket(address: SocketAddr, options: Options) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    prepare(&socket, address, options)?;
    Ok(socket)
}

/// Sets what accepted sockets inherit, and binds.
fn prepare(socket: &Socket, address: SocketAddr, options: Options) -> io::Result<()> {
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_tcp_nodelay(true)?;
    // A close gives everything back at once, also what a stalled peer never took (FACTS: FIN-WAIT-1).
    socket.set_linger(Some(Duration::ZERO))?;
    set_notsent_lowat(socket, 1)?;
    socket.set_tcp_user_timeout(options.user_timeout)?;
    if let Some(bytes) = options.send_buffer_bytes {
        socket.set_send_buffer_size(bytes)?;
    }
    socket.bind(&address.into())
}

/// The kernel takes new bytes only while fewer than `bytes` are unsent, so that it hoards nothing (FACTS).
fn set_notsent_lowat(socket: &Socket, bytes: libc::c_int) -> io::Result<()> {
    let fd = SockRef::from(socket).as_raw_fd();
    let len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the descriptor is open as long as `socket` lives, and the kernel reads `len` bytes from an int on the stack.
    let set =
        unsafe { libc::setsockopt(fd, libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, (&raw const bytes).cast(), len) };
    if set < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_in_use_is_refused_whether_its_owner_shares_or_not() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let ours = listen(&[any], 3, Options::default()).unwrap();
        let address = ours[0][0].local_addr().unwrap();
        assert!(ours.iter().all(|seat| seat[0].local_addr().unwrap() == address), "all shards share the address");
        let refused = listen(&[address], 3, Options::default()).unwrap_err();
        assert!(refused.to_string().contains("another process"), "{refused}");
        let wildcard = SocketAddr::from(([0, 0, 0, 0], address.port()));
        assert!(listen(&[wildcard], 1, Options::default()).is_err(), "and by way of the wildcard too");
        drop(ours);
        let alone = TcpListener::bind(address).unwrap();
        assert!(listen(&[address], 2, Options::default()).is_err());
        drop(alone);
        listen(&[address], 2, Options::default()).unwrap();
    }
}
