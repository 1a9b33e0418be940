//! The host's memory: what is left of it, and what the kernel holds.

use serde::Serialize;
use std::fs;

const PAGE_BYTES: u64 = 4096;

/// All in bytes, at one moment.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Host {
    /// What could still be given to programs.
    pub available: u64,
    /// In use by the kernel itself: what is neither free, nor page cache, nor objects that could be given up, nor any
    /// program's own. Steadier than `available`, which moves with whatever else this host does.
    pub kernel: u64,
    /// Kernel objects that could be given up.
    pub slab_reclaimable: u64,
    /// Kernel objects that cannot: sockets among them.
    pub slab_unreclaimable: u64,
    /// Charged to TCP buffers.
    pub tcp: u64,
    /// TCP sockets in use (a number).
    pub tcp_sockets: u64,
    /// Sockets of connections whose program has let go of them (a number).
    pub tcp_orphans: u64,
}

impl Host {
    /// Reads it; what cannot be read is 0.
    pub fn read() -> Self {
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let sockstat = fs::read_to_string("/proc/net/sockstat").unwrap_or_default();
        let kib = |name: &str| field(&meminfo, name, 1) * 1024;
        let tcp = sockstat.lines().find(|line| line.starts_with("TCP:")).unwrap_or_default();
        let of_tcp = |name: &str| {
            let mut words = tcp.split_ascii_whitespace().skip_while(|word| *word != name);
            words.nth(1).and_then(|word| word.parse().ok()).unwrap_or(0)
        };
        Self {
            available: kib("MemAvailable:"),
            kernel: ["MemFree:", "Buffers:", "Cached:", "SReclaimable:", "AnonPages:"]
                .iter()
                .fold(kib("MemTotal:"), |kernel, other| kernel.saturating_sub(kib(other))),
            slab_reclaimable: kib("SReclaimable:"),
            slab_unreclaimable: kib("SUnreclaim:"),
            tcp: of_tcp("mem") * PAGE_BYTES,
            tcp_sockets: of_tcp("inuse"),
            tcp_orphans: of_tcp("orphan"),
        }
    }

    /// Bytes of memory that the host has.
    pub fn total() -> u64 {
        field(&fs::read_to_string("/proc/meminfo").unwrap_or_default(), "MemTotal:", 1) * 1024
    }
}

/// The number in a column of the line that begins with a word.
fn field(text: &str, name: &str, column: usize) -> u64 {
    let line = text.lines().find(|line| line.starts_with(name));
    line.and_then(|line| line.split_ascii_whitespace().nth(column)?.parse().ok()).unwrap_or(0)
}
