//! Tries what Spillgate uses of io_uring, on a small ring of its own.

use io_uring::{IoUring, Probe, opcode, types};
use std::io;
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Slots of the ring's table.
const TABLE: u32 = 4;
/// How long one request may take.
const REQUEST_MAX: Duration = Duration::from_secs(2);

/// The requests that the shards make, by the names of the kernel's header.
const REQUESTS: [(&str, u8); 9] = [
    ("IORING_OP_ACCEPT", opcode::Accept::CODE),
    ("IORING_OP_SEND", opcode::Send::CODE),
    ("IORING_OP_RECV", opcode::Recv::CODE),
    ("IORING_OP_POLL_ADD", opcode::PollAdd::CODE),
    ("IORING_OP_SHUTDOWN", opcode::Shutdown::CODE),
    ("IORING_OP_ASYNC_CANCEL", opcode::AsyncCancel2::CODE),
    ("IORING_OP_CLOSE", opcode::Close::CODE),
    ("IORING_OP_TIMEOUT", opcode::Timeout::CODE),
    ("IORING_OP_READ", opcode::Read::CODE), // glommio's, for the bell
];

/// What Spillgate uses of io_uring and this kernel does not do; empty where all is there.
///
/// A ring is made with the same flags as a shard's, asked which requests it knows, and given a table; a connection is
/// accepted into the table and closed from there.
///
/// # Errors
/// No ring can be made at all: by EPERM a filter or `kernel.io_uring_disabled` refuses it, by ENOSYS the kernel or a
/// filter, by EINVAL the kernel is too old for the flags.
pub fn missing_features() -> io::Result<Vec<&'static str>> {
    let mut ring = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .setup_submit_all()
        .setup_cqsize(16)
        .build(8)?;
    let mut missing = Vec::new();
    let mut probe = Probe::new();
    match ring.submitter().register_probe(&mut probe) {
        Ok(()) => missing.extend(REQUESTS.iter().filter(|(_, code)| !probe.is_supported(*code)).map(|(name, _)| *name)),
        Err(_) => missing.push("IORING_REGISTER_PROBE"),
    }
    if ring.submitter().register_sync_cancel(None, types::CancelBuilder::any().all()).is_err_and(|error| {
        error.kind() != io::ErrorKind::NotFound // there is nothing to cancel
    }) {
        missing.push("IORING_REGISTER_SYNC_CANCEL");
    }
    if ring.submitter().register_files_sparse(TABLE).is_err() {
        missing.push("IORING_REGISTER_FILES2 (a sparse table)");
    } else if accepts_into_table(&mut ring).is_err() {
        missing.push("direct descriptors");
    }
    Ok(missing)
}

/// Accepts a connection into the table, and closes it there. By a Unix socket: a host without a network has these too.
fn accepts_into_table(ring: &mut IoUring) -> io::Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let name = format!("spillgate-probe-{}-{now}", std::process::id());
    let address = SocketAddr::from_abstract_name(name)?;
    let listener = UnixListener::bind_addr(&address)?;
    let _client = UnixStream::connect_addr(&address)?;
    let slot = types::DestinationSlot::try_from_slot_target(0).map_err(|_| io::Error::other("no slot 0"))?;
    let listening = types::Fd(listener.as_raw_fd());
    let accept =
        opcode::Accept::new(listening, std::ptr::null_mut(), std::ptr::null_mut()).file_index(Some(slot)).build();
    // SAFETY: the entry points to no memory, and the listener is open until the accept has completed or was cancelled.
    unsafe { ring.submission().push(&accept) }.map_err(io::Error::other)?;
    complete(ring)?;
    // SAFETY: the entry points to no memory; the slot is of this ring's own table.
    unsafe { ring.submission().push(&opcode::Close::new(types::Fixed(0)).build()) }.map_err(io::Error::other)?;
    complete(ring)
}

/// Submits, and waits for the one completion.
fn complete(ring: &mut IoUring) -> io::Result<()> {
    let patience = types::Timespec::from(REQUEST_MAX);
    let arguments = types::SubmitArgs::new().timespec(&patience);
    ring.submitter().submit_with_args(1, &arguments)?;
    match ring.completion().next() {
        Some(entry) if entry.result() >= 0 => Ok(()),
        Some(entry) => Err(io::Error::from_raw_os_error(-entry.result())),
        None => Err(io::ErrorKind::TimedOut.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernel_does_all_that_the_other_tests_need() {
        assert_eq!(missing_features().unwrap(), [""; 0]);
    }
}
