//! What the host allows: kernel version, io_uring, locked memory, descriptors.
//!
//! Promise: where io_uring is refused, one sentence says by whom and what mends it. Nobody is left with a bare EPERM.

use io_uring::{IoUring, opcode};
use std::fs;
use std::io;

/// The oldest kernel that has all we use (IORING_SETUP_DEFER_TASKRUN, 6.1).
pub const KERNEL_MIN: (u32, u32) = (6, 1);
/// Locked memory below which glommio starts no executor (`sys/uring.rs`, `MIN_MEMLOCK_LIMIT`), in bytes.
pub const MEMLOCK_MIN: u64 = 512 << 10;

/// What a shard's executor locks (glommio's three rings and its registered memory), measured on Linux 6.18: 65 pages.
pub const MEMLOCK_SHARD: u64 = 65 << 12;
/// What one of our rings locks besides its completions: 2,048 submissions of 64 bytes, and a page.
const MEMLOCK_RING: u64 = 33 << 12;
/// What one completion locks.
const MEMLOCK_COMPLETION: u64 = 16;
/// What one of our rings locks with its fewest completions.
pub const MEMLOCK_RING_MIN: u64 = MEMLOCK_RING + MEMLOCK_COMPLETION * super::uring::COMPLETIONS_MIN as u64;
/// The bit of CAP_IPC_LOCK, which frees a process from RLIMIT_MEMLOCK (capabilities(7)).
const CAP_IPC_LOCK: u64 = 1 << 14;

/// Descriptors that are left to everything that is not a client.
pub const DESCRIPTORS_LEFT: u64 = 64;
/// The kernel's limit of a ring's table (IORING_MAX_FIXED_FILES).
pub const TABLE_MAX: u64 = 1 << 20;

/// Why this host cannot run a gateway.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The kernel is older than [`KERNEL_MIN`].
    #[error("this host runs Linux {0}; Spillgate needs 6.1 or newer (io_uring with DEFER_TASKRUN)")]
    Kernel(String),
    /// io_uring is switched off, filtered, or lacks something.
    #[error("io_uring is refused ({call}: {error}): {mend}")]
    IoUring {
        /// The system call that was refused.
        call: &'static str,
        /// With what.
        error: io::Error,
        /// By whom, and what to do about it.
        mend: String,
    },
    /// RLIMIT_MEMLOCK is below [`MEMLOCK_MIN`].
    #[error(
        "RLIMIT_MEMLOCK is {0} bytes, and io_uring needs 524288 or more: raise it (`ulimit -l 65536`, LimitMEMLOCK=64M, \
         `docker run --ulimit memlock=67108864`)"
    )]
    Memlock(u64),
}

/// Checks kernel, io_uring and locked memory.
///
/// # Errors
/// What is missing, in a sentence that says what to do.
pub fn check_host() -> Result<(), HostError> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    let version: (u32, u32) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if !release.is_empty() && version < KERNEL_MIN {
        return Err(HostError::Kernel(release.to_owned()));
    }
    if let Err((call, error)) = try_io_uring() {
        let mend = mend_here(error.raw_os_error().unwrap_or(0));
        return Err(HostError::IoUring { call, error, mend });
    }
    match limit(libc::RLIMIT_MEMLOCK) {
        Some(limit) if limit.rlim_cur < MEMLOCK_MIN => Err(HostError::Memlock(limit.rlim_cur)),
        _ => Ok(()),
    }
}

/// Completions that each ring may hold, so that all fit into three quarters of the locked memory that this process may
/// have (other processes of its user share it). Newer kernels charge rings to it, with 16 bytes a completion.
pub fn completions_max(shards: usize, rings: usize) -> u32 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    match limit(libc::RLIMIT_MEMLOCK) {
        Some(limit) if limit.rlim_cur != libc::RLIM_INFINITY && !is_capable(&status, CAP_IPC_LOCK) => {
            completions_within(limit.rlim_cur, shards as u64, rings as u64)
        }
        _ => super::uring::COMPLETIONS_MAX,
    }
}

fn completions_within(memlock: u64, shards: u64, rings: u64) -> u32 {
    let of_a_shard = (memlock / 4 * 3 / shards.max(1)).saturating_sub(MEMLOCK_SHARD);
    let most = (of_a_shard / rings.max(1)).saturating_sub(MEMLOCK_RING) / MEMLOCK_COMPLETION;
    let power = most.checked_ilog2().map_or(1, |log| 1 << log.min(31));
    u32::clamp(power, super::uring::COMPLETIONS_MIN, super::uring::COMPLETIONS_MAX)
}

fn is_capable(status: &str, capability: u64) -> bool {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).is_some_and(|has| has & capability != 0)
}

/// Why a shard's ring could not be made, with what mends it.
pub fn explain_ring(error: io::Error) -> io::Error {
    let Some(errno) = error.raw_os_error() else { return error };
    io::Error::other(format!("its ring cannot be made ({error}): {}", mend_here(errno)))
}

/// Makes a ring as the shards do, and uses each of the three system calls once.
fn try_io_uring() -> Result<(), (&'static str, io::Error)> {
    let ring: io::Result<IoUring> = IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(2);
    let mut ring = ring.map_err(|error| ("io_uring_setup", error))?;
    ring.submitter().register_files_sparse(1).map_err(|error| ("io_uring_register", error))?;
    let nothing = opcode::Nop::new().build();
    // SAFETY: a NOP points to no memory.
    let pushed = unsafe { ring.submission().push(&nothing) };
    pushed.map_err(|_| ("io_uring_setup", io::Error::other("a new queue is full")))?;
    ring.submit_and_wait(1).map_err(|error| ("io_uring_enter", error))?;
    Ok(())
}

/// The same as [`mend`], with what this host says.
fn mend_here(errno: i32) -> String {
    let disabled = fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    mend(errno, disabled.trim(), is_filtered(&status))
}

/// By whom io_uring was refused, and what to do about it. `disabled` is what the sysctl says, if there is one;
/// `filtered`: a seccomp filter is in force.
fn mend(errno: i32, disabled: &str, filtered: bool) -> String {
    match (errno, disabled) {
        (libc::EPERM, "2") => {
            "the host has switched it off; switch it on with `sysctl -w kernel.io_uring_disabled=0`".to_owned()
        }
        (libc::EPERM, "1") if !filtered => {
            "the host keeps it for one group (kernel.io_uring_disabled is 1); run as a member of the group \
             kernel.io_uring_group, or `sysctl -w kernel.io_uring_disabled=0`"
                .to_owned()
        }
        (libc::EPERM | libc::EACCES | libc::ENOSYS, _) if filtered => {
            "a seccomp filter forbids it, as container engines do by default; run the container with `--security-opt \
             seccomp=tuning/seccomp.json`, or allow io_uring_setup, io_uring_enter and io_uring_register in the filter \
             (SystemCallFilter= of a unit, docs/containers.md)"
                .to_owned()
        }
        (libc::EPERM | libc::EACCES, _) => {
            "no seccomp filter does that here, so a security module does; allow this program io_uring there (SELinux: \
             `ausearch -m avc`)"
                .to_owned()
        }
        (libc::ENOSYS, _) => "this kernel is built without it; use one with CONFIG_IO_URING=y".to_owned(),
        (libc::ENOMEM, _) => {
            "there is not enough memory for a ring; raise the memory limit of the cgroup or container (rings are \
             charged to it), and RLIMIT_MEMLOCK (`ulimit -l`, LimitMEMLOCK=)"
                .to_owned()
        }
        (libc::EMFILE | libc::ENFILE, _) => {
            "no descriptor is free; raise RLIMIT_NOFILE (`ulimit -n`, LimitNOFILE=) or fs.file-max".to_owned()
        }
        (libc::EINVAL, _) => {
            "this kernel lacks a feature of Linux 6.1 that Spillgate needs; use a newer one".to_owned()
        }
        _ => "see docs/containers.md for what io_uring needs".to_owned(),
    }
}

/// Whether `/proc/self/status` tells of a seccomp filter.
fn is_filtered(status: &str) -> bool {
    status.lines().any(|line| line.strip_prefix("Seccomp:").is_some_and(|mode| mode.trim() == "2"))
}

/// Raises the soft limit of open descriptors to the hard one, and answers what it is now: it bounds a ring's table.
pub fn raise_nofile() -> u64 {
    let Some(limit) = limit(libc::RLIMIT_NOFILE) else { return 1024 };
    let raised = libc::rlimit { rlim_cur: limit.rlim_max, ..limit };
    // SAFETY: the call reads one rlimit on the stack.
    let is_raised = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const raised) == 0 };
    if is_raised { raised.rlim_cur } else { limit.rlim_cur }
}

fn limit(of: libc::__rlimit_resource_t) -> Option<libc::rlimit> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the call writes one rlimit on the stack.
    let is_read = unsafe { libc::getrlimit(of, &raw mut limit) == 0 };
    is_read.then_some(limit)
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

/// Switches transparent huge pages off for this process, whatever the host's setting (prctl(2)): they keep memory resident
/// that is not held any more. Whether that was allowed.
pub fn avoid_huge_pages() -> bool {
    // SAFETY: the call takes numbers and answers one; it touches no memory of ours.
    unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_refuses_io_uring_is_named_with_the_mend() {
        for (errno, disabled, filtered, part) in [
            (libc::EPERM, "0", true, "--security-opt seccomp=tuning/seccomp.json"),
            (libc::ENOSYS, "", true, "--security-opt seccomp=tuning/seccomp.json"),
            (libc::EPERM, "1", true, "--security-opt"),
            (libc::EPERM, "2", true, "sysctl -w kernel.io_uring_disabled=0"),
            (libc::EPERM, "2", false, "sysctl -w kernel.io_uring_disabled=0"),
            (libc::EPERM, "1", false, "kernel.io_uring_group"),
            (libc::EPERM, "0", false, "SELinux"),
            (libc::ENOSYS, "", false, "CONFIG_IO_URING"),
            (libc::ENOMEM, "0", false, "LimitMEMLOCK"),
            (libc::EMFILE, "0", false, "LimitNOFILE"),
            (libc::EINVAL, "0", true, "6.1"),
            (libc::EIO, "0", true, "docs/containers.md"),
        ] {
            let text = mend(errno, disabled, filtered);
            assert!(text.contains(part), "{errno} {disabled:?} {filtered}: {text}");
            assert!(!text.contains('\n') && !text.contains(". "), "one sentence: {text}");
        }
    }

    #[test]
    fn rings_fit_into_what_may_be_locked_and_hold_all_where_that_is_enough() {
        assert_eq!(completions_within(64 << 20, 2, 1), 65_536);
        for (mib, shards, rings) in [(8, 1, 1), (8, 5, 1), (8, 8, 1), (8, 16, 1), (64, 64, 1), (64, 8, 16)] {
            let completions = completions_within(mib << 20, shards, rings);
            let ring = MEMLOCK_RING + MEMLOCK_COMPLETION * u64::from(completions);
            assert!(shards * (MEMLOCK_SHARD + rings * ring) <= mib << 20, "{mib} MiB, {shards} shards: {completions}");
        }
        assert_eq!(completions_within(1 << 20, 16, 1), 4096, "the least, whatever the limit");
        assert!(is_capable("CapPrm:\t0\nCapEff:\t0000000000004000\n", CAP_IPC_LOCK));
        assert!(!is_capable("CapEff:\t0000000000003fff\n", CAP_IPC_LOCK) && !is_capable("", CAP_IPC_LOCK));
    }

    #[test]
    fn a_filter_is_seen_in_the_status_of_the_process() {
        assert!(is_filtered("Name:\ta\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t1\n"));
        assert!(!is_filtered("Seccomp:\t0\nSeccomp_filters:\t0\n"));
        assert!(!is_filtered("Name:\tSeccomp:\t2\n"));
    }
}
