//! An eventfd that is rung only when the other side sleeps.
//!
//! The sleeper announces its sleep, looks at its queues once more, then waits; the ringer fills the queue, then looks
//! whether the sleep was announced. One of the two always sees the other (sequentially consistent fences on both sides).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

/// Both ends of a bell; clone it for each ringer.
#[derive(Clone, Debug)]
pub struct Doorbell {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    asleep: AtomicBool,
    eventfd: OwnedFd,
}

/// How the sleeping side waits on the eventfd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A read waits (io_uring answers EAGAIN at once on a non-blocking eventfd instead of waiting).
    Blocking,
    /// A read answers EAGAIN when the bell was not rung (for tokio's `AsyncFd`).
    NonBlocking,
}

impl Doorbell {
    /// A bell that nobody waits at yet. Errors: no descriptor is free.
    pub fn new(mode: Mode) -> io::Result<Self> {
        let flags = libc::EFD_CLOEXEC | if mode == Mode::NonBlocking { libc::EFD_NONBLOCK } else { 0 };
        // SAFETY: eventfd takes no pointer; a result of 0 or more is a descriptor that nobody else owns.
        let eventfd = unsafe {
            let fd = libc::eventfd(0, flags);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(fd)
        };
        Ok(Self { inner: Arc::new(Inner { asleep: AtomicBool::new(false), eventfd }) })
    }

    /// Wakes the other side if it sleeps. Call it after the queue was filled.
    #[inline]
    pub fn ring(&self) {
        fence(Ordering::SeqCst);
        if self.inner.asleep.load(Ordering::Relaxed) && self.inner.asleep.swap(false, Ordering::AcqRel) {
            self.ring_anyway();
        }
    }

    /// Makes the eventfd readable, asleep or not.
    pub fn ring_anyway(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: the descriptor is open as long as `inner` lives, and the kernel reads 8 bytes from an array of 8.
        // The result is of no interest: the counter only refuses at 2^64 - 1 unread rings.
        unsafe { libc::write(self.inner.eventfd.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    /// Announces sleep. Look at the queues once more after it, and [`Doorbell::awake`] if they are not empty.
    #[inline]
    pub fn asleep(&self) {
        self.inner.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Takes the announcement back.
    #[inline]
    pub fn awake(&self) {
        self.inner.asleep.store(false, Ordering::Relaxed);
    }

    /// Takes all rings so far (non-blocking bells only). Errors: the eventfd's, `WouldBlock` where there was no ring.
    pub fn take(&self) -> io::Result<()> {
        let mut rings = [0u8; 8];
        // SAFETY: the descriptor is open as long as `inner` lives, and the kernel writes at most 8 bytes into 8.
        let read = unsafe { libc::read(self.inner.eventfd.as_raw_fd(), rings.as_mut_ptr().cast(), rings.len()) };
        if read < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

/// The bell (a blocking one) as a file that glommio can read: `read_at(0, 8)` completes at a ring. The file has a
/// descriptor of its own. Errors: no descriptor is free.
pub fn bell_file(bell: &Doorbell) -> io::Result<glommio::io::BufferedFile> {
    let copy = bell.as_fd().try_clone_to_owned()?;
    // SAFETY: the copy is an open descriptor that nobody else owns, and the file takes it over.
    Ok(unsafe { glommio::io::BufferedFile::from_raw_fd(copy.into_raw_fd()) })
}

impl AsRawFd for Doorbell {
    fn as_raw_fd(&self) -> RawFd {
        self.inner.eventfd.as_raw_fd()
    }
}

impl AsFd for Doorbell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.eventfd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bell_is_rung_only_for_a_sleeper() {
        let bell = Doorbell::new(Mode::NonBlocking).unwrap();
        bell.ring();
        assert_eq!(bell.take().unwrap_err().kind(), io::ErrorKind::WouldBlock, "nobody slept");
        bell.asleep();
        bell.ring();
        bell.ring();
        bell.take().unwrap();
        assert_eq!(bell.take().unwrap_err().kind(), io::ErrorKind::WouldBlock, "one ring for two calls");
        bell.asleep();
        bell.awake();
        bell.ring();
        assert_eq!(bell.take().unwrap_err().kind(), io::ErrorKind::WouldBlock, "it was awake again");
    }
}
