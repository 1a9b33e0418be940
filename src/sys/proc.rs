//! What the kernel says of this process and of its host, read from /proc.
//!
//! Whatever a host does not have (a limit, IPv4) is left out, and no error.

use super::host::{clock_ticks_per_second, page_bytes};
use std::fs;

/// This process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ProcessUse {
    /// Memory that is resident, in bytes.
    pub resident_bytes: u64,
    /// Address space, in bytes.
    pub virtual_bytes: u64,
    /// Time on a CPU since the start, in user and kernel mode, in seconds.
    pub cpu_seconds: f64,
    /// When it started, in seconds since 1970.
    pub start_seconds: f64,
    /// Descriptors in its table; accepted sockets are in the rings' own tables.
    pub open_fds: u64,
    /// RLIMIT_NOFILE.
    pub fds_max: Option<u64>,
    /// Threads.
    pub threads: u64,
}

/// This host, or the container that it looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostUse {
    /// Memory, in bytes.
    pub memory_bytes: Option<u64>,
    /// Memory that can be had without swapping, in bytes.
    pub memory_available_bytes: Option<u64>,
    /// Memory of all TCP sockets, in bytes.
    pub tcp_bytes: Option<u64>,
    /// Above it, TCP is under pressure: buffers shrink (the second number of net.ipv4.tcp_mem, in bytes).
    pub tcp_pressure_bytes: Option<u64>,
    /// Above it, TCP gets no more (the third number of net.ipv4.tcp_mem, in bytes).
    pub tcp_max_bytes: Option<u64>,
    /// Connections that the kernel dropped because a listener's queue was full.
    pub listen_overflows: Option<u64>,
}

/// How this process is.
pub fn process_use() -> ProcessUse {
    let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let booted = field(&text("/proc/stat"), "btime").unwrap_or_default();
    ProcessUse {
        open_fds: fs::read_dir("/proc/self/fd").map_or(0, |fds| fds.count() as u64),
        fds_max: fds_max(&text("/proc/self/limits")),
        ..process(&text("/proc/self/stat"), booted as f64, clock_ticks_per_second() as f64, page_bytes())
            .unwrap_or_default()
    }
}

/// How the host is.
pub fn host_use() -> HostUse {
    let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let (memory, pages) = (text("/proc/meminfo"), page_bytes());
    let kib = |name| field(&memory, name).map(|kib| kib << 10);
    let limits = text("/proc/sys/net/ipv4/tcp_mem");
    let limit = |at: usize| limits.split_ascii_whitespace().nth(at)?.parse::<u64>().ok()?.checked_mul(pages);
    HostUse {
        memory_bytes: kib("MemTotal:"),
        memory_available_bytes: kib("MemAvailable:"),
        tcp_bytes: tcp_pages(&text("/proc/net/sockstat")).map(|used| used * pages),
        tcp_pressure_bytes: limit(1),
        tcp_max_bytes: limit(2),
        listen_overflows: column(&text("/proc/net/netstat"), "TcpExt:", "ListenOverflows"),
    }
}

/// The fields of /proc/self/stat (proc_pid_stat(5)), which are counted behind the name: it may hold anything.
fn process(stat: &str, booted: f64, ticks: f64, page: u64) -> Option<ProcessUse> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    Some(ProcessUse {
        cpu_seconds: (number(14)? + number(15)?) as f64 / ticks,
        threads: number(20)?,
        start_seconds: booted + number(22)? as f64 / ticks,
        virtual_bytes: number(23)?,
        resident_bytes: number(24)? * page,
        ..ProcessUse::default()
    })
}

/// The soft limit; `unlimited` is none.
fn fds_max(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// The number behind a name at the start of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().map(|line| line.split_ascii_whitespace());
    lines.find_map(|mut words| (words.next()? == name).then(|| words.next()?.parse().ok())?)
}

/// Pages of all TCP sockets, in /proc/net/sockstat.
fn tcp_pages(sockstat: &str) -> Option<u64> {
    let line = sockstat.lines().find_map(|line| line.strip_prefix("TCP:"))?;
    let mut words = line.split_ascii_whitespace();
    words.find(|word| *word == "mem")?;
    words.next()?.parse().ok()
}

/// A number in a table that has its names on one line and its numbers on the next, both under the same head.
fn column(text: &str, head: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(head));
    let at = lines.next()?.split_ascii_whitespace().position(|word| word == name)?;
    lines.next()?.split_ascii_whitespace().nth(at)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_seen_as_it_is() {
        let held = vec![1u8; 8 << 20];
        let (us, host) = (process_use(), host_use());
        assert!(us.resident_bytes > held.len() as u64 / 2 && us.virtual_bytes > us.resident_bytes, "{us:?}");
        assert!(us.open_fds >= 3 && us.fds_max.is_none_or(|max| max > us.open_fds) && us.threads > 0, "{us:?}");
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        assert!(us.start_seconds < now + 2.0 && us.start_seconds > now - 3600.0, "{us:?} at {now}");
        assert!(host.memory_available_bytes < host.memory_bytes, "{host:?}");
        assert!(host.tcp_pressure_bytes < host.tcp_max_bytes && host.tcp_bytes.is_some(), "{host:?}");
        assert!(host.listen_overflows.is_some());
        assert!(held.iter().all(|byte| *byte == 1));
    }

    #[test]
    fn a_process_may_have_any_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 200 0 0 0 150 50 0 0 20 0 9 0 4000 1048576 25 184467";
        let expected = ProcessUse {
            cpu_seconds: 2.0,
            threads: 9,
            start_seconds: 1040.0,
            virtual_bytes: 1 << 20,
            resident_bytes: 25 * 4096,
            ..ProcessUse::default()
        };
        assert_eq!(process(stat, 1000.0, 100.0, 4096), Some(expected));
        assert_eq!(process("7 (a) S 1", 0.0, 100.0, 4096), None);
    }

    #[test]
    fn numbers_are_found_by_their_names() {
        assert_eq!(tcp_pages("sockets: used 12\nTCP: inuse 1 orphan 0 tw 4 alloc 1 mem 406\nUDP: mem 3"), Some(406));
        assert_eq!(tcp_pages("TCP6: inuse 1"), None);
        let netstat = "TcpExt: A ListenOverflows B\nTcpExt: 1 22 3\nIpExt: ListenOverflows\nIpExt: 9";
        assert_eq!(column(netstat, "TcpExt:", "ListenOverflows"), Some(22));
        assert_eq!(column(netstat, "TcpExt:", "Nothing"), None);
        assert_eq!(field("btime 12\nbtimes 13", "btime"), Some(12));
        assert_eq!(fds_max("Limit Soft Hard\nMax open files            20000   30000   files"), Some(20_000));
        assert_eq!(fds_max("Max open files            unlimited   unlimited   files"), None);
    }
}
