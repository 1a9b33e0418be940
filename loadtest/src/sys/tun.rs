//! TUN devices: packets of a network namespace that a program moves by hand.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

/// `_IOW('T', 202, int)` (include/uapi/linux/if_tun.h).
const TUNSETIFF: libc::c_ulong = 0x4004_54ca;

/// A new TUN device of that name (at most 15 bytes) in the calling thread's network namespace; it goes with the file.
///
/// Errors: not root, there is no /dev/net/tun, or the name is taken.
pub fn open_tun(name: &str) -> io::Result<File> {
    let device = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun")?;
    // SAFETY: an ifreq is plain old data, for which all zeroes is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes().take(libc::IFNAMSIZ - 1)) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes one ifreq, which lives on this stack.
    match unsafe { libc::ioctl(device.as_raw_fd(), TUNSETIFF, &raw mut request) } {
        0.. => Ok(device),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Moves the calling thread, and all that it starts from here on, into the network namespace of a process.
///
/// Errors: not root, or the process has ended.
pub fn enter_network_of(pid: u32) -> io::Result<()> {
    enter_network(&File::open(format!("/proc/{pid}/ns/net"))?)
}

/// The network namespace of the calling thread.
///
/// Errors: there is no /proc.
pub fn current_network() -> io::Result<File> {
    File::open("/proc/thread-self/ns/net")
}

/// Moves the calling thread, and all that it starts from here on, into a network namespace.
///
/// Errors: not root.
pub fn enter_network(namespace: &File) -> io::Result<()> {
    // SAFETY: the call takes a descriptor that is open here, and a flag.
    match unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Waits until one of the files has something to read, or the time is over (none: however long it takes).
pub fn wait_readable<const N: usize>(files: [&dyn AsRawFd; N], at_most: Option<Duration>) -> [bool; N] {
    let mut polls = files.map(|file| libc::pollfd { fd: file.as_raw_fd(), events: libc::POLLIN, revents: 0 });
    let time = at_most.map(|time| libc::timespec {
        tv_sec: time.as_secs() as libc::time_t,
        tv_nsec: libc::c_long::from(time.subsec_nanos() as i32),
    });
    let time = time.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: the call reads and writes the pollfds and reads the timespec, which both live on this stack.
    unsafe { libc::ppoll(polls.as_mut_ptr(), N as libc::nfds_t, time, std::ptr::null()) };
    polls.map(|poll| poll.revents != 0)
}
