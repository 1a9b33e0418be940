//! What the host allows: kernel version, io_uring, descriptors.

use std::io;

/// The oldest kernel that has all we use (IORING_SETUP_DEFER_TASKRUN, 6.1).
pub const KERNEL_MIN: (u32, u32) = (6, 1);

/// Why this host cannot run a gateway.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The kernel is older than [`KERNEL_MIN`].
    #[error("this host runs Linux {0}; Spillgate needs 6.1 or newer (io_uring with DEFER_TASKRUN)")]
    Kernel(String),
    /// io_uring is switched off or filtered.
    #[error(
        "the kernel refuses io_uring ({0}); set sysctl kernel.io_uring_disabled=0, and in a container use a seccomp \
         profile that allows io_uring_setup, io_uring_enter and io_uring_register"
    )]
    IoUring(io::Error),
}

/// Checks kernel and io_uring.
pub fn check_host() -> Result<(), HostError> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    let version: (u32, u32) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if !release.is_empty() && version < KERNEL_MIN {
        return Err(HostError::Kernel(release.to_owned()));
    }
    io_uring::IoUring::new(2).map(drop).map_err(HostError::IoUring)
}

/// Raises the soft limit of open descriptors to the hard one, and answers what it is now: it bounds a ring's table.
pub fn raise_nofile() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls read or write one rlimit on the stack.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) < 0 {
            return 1024;
        }
        let raised = libc::rlimit { rlim_cur: limit.rlim_max, ..limit };
        if libc::setrlimit(libc::RLIMIT_NOFILE, &raw const raised) == 0 { raised.rlim_cur } else { limit.rlim_cur }
    }
}

/// Bytes of a page of memory.
pub fn page_bytes() -> u64 {
    // SAFETY: the call takes a number and answers one; it touches no memory of ours.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(bytes).unwrap_or(4096)
}

/// Ticks a second of the times in /proc/self/stat.
pub fn clock_ticks_per_second() -> u64 {
    // SAFETY: the call takes a number and answers one; it touches no memory of ours.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    u64::try_from(ticks).unwrap_or(100)
}
