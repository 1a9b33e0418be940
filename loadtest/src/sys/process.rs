//! Processes that end with this one, on cores of their own.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

/// Starts a process on some cores (none: on all), in a process group of its own (Ctrl-C reaches this program alone, which then ends
/// what it started), and has the kernel kill it when the calling **thread** ends: call it from the main thread.
///
/// Errors: as [`Command::spawn`], or the cores do not exist.
pub fn spawn(command: &mut Command, cores: &[usize]) -> io::Result<Child> {
    let parent = std::process::id() as libc::pid_t;
    // SAFETY: a cpu_set_t is an array of bits, for which all zeroes is valid; CPU_SET writes within it, as the index is below its size.
    let set = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        for &core in cores.iter().filter(|core| **core < 8 * size_of::<libc::cpu_set_t>()) {
            libc::CPU_SET(core, &mut set);
        }
        set
    };
    let pin = !cores.is_empty();
    let prepare = move || {
        // SAFETY: between fork and exec only async-signal-safe calls are allowed; these are plain system calls on values
        // that the closure owns.
        unsafe {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) < 0 {
                return Err(io::Error::last_os_error());
            }
            if libc::getppid() != parent {
                return Err(io::Error::from_raw_os_error(libc::ESRCH)); // it ended before the line above
            }
            if pin && libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: `prepare` allocates nothing and takes no lock.
    unsafe { command.pre_exec(prepare) };
    command.process_group(0).spawn()
}

/// Raises the soft limit of open descriptors to the hard one, and answers what it is now: it bounds a ring's table.
pub fn nofile_raised() -> u32 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls read or write one rlimit on the stack.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) < 0 {
            return 1024;
        }
        let raised = libc::rlimit { rlim_cur: limit.rlim_max, ..limit };
        if libc::setrlimit(libc::RLIMIT_NOFILE, &raw const raised) == 0 {
            limit = raised;
        }
    }
    limit.rlim_cur.min(1 << 20) as u32
}

/// Whether this process may change the host's settings.
pub fn is_root() -> bool {
    // SAFETY: the call takes nothing and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// Moves the calling thread, and all that it starts from here on, into a network namespace of its own.
///
/// Errors: not root.
pub fn new_network() -> io::Result<()> {
    // SAFETY: the call takes flags only; a thread may always leave its network namespace.
    match unsafe { libc::unshare(libc::CLONE_NEWNET) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Asks a process and its group to end.
pub fn terminate(pid: u32) {
    signal(pid, libc::SIGTERM);
}

/// Ends a process and its group at once.
pub fn kill(pid: u32) {
    signal(pid, libc::SIGKILL);
}

fn signal(pid: u32, signal: libc::c_int) {
    // SAFETY: kill(2) takes numbers only. `pid` is a child that was not waited for yet, so it names no other process;
    // `spawn` made it the leader of its group.
    unsafe {
        libc::kill(-(pid as libc::pid_t), signal);
        libc::kill(pid as libc::pid_t, signal);
    }
}

/// SIGINT and SIGTERM are the parent's to handle.
pub fn ignore_interrupts() {
    // SAFETY: SIG_IGN is a handler that the kernel has itself.
    unsafe { libc::signal(libc::SIGINT, libc::SIG_IGN) };
}
