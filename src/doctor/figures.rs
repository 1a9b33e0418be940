//! What a socket costs and what a host bears: figures that were measured, or read at a place that is named.

use crate::sys;

/// One figure.
#[derive(Clone, Copy, Debug)]
pub struct Figure {
    /// What it is the measure of.
    pub what: &'static str,
    /// How much, in `unit`.
    pub value: u64,
    /// The unit of `value`.
    pub unit: &'static str,
    /// Where it comes from: a measurement with its document, or a source that is trusted.
    pub source: &'static str,
}

macro_rules! figures {
    ($($(#[$doc:meta])* $name:ident = $value:expr, $unit:literal, $what:literal, $source:literal;)*) => {
        $($(#[$doc])* pub const $name: Figure = Figure { what: $what, value: $value, unit: $unit, source: $source };)*

        /// All of them.
        pub const FIGURES: &[Figure] = &[$($name),*];
    };
}

figures! {
    /// User memory of one socket.
    USER_BYTES = 227, "bytes", "the gateway's own memory, a socket",
        "measured: 223 to 227 at 1.2 and 2 million sockets (docs/capacity.md)";
    /// Kernel memory of one end of a connection that is silent.
    KERNEL_BYTES = 4_085, "bytes", "the kernel's memory, a silent socket",
        "socket, inode, file, directory entry and armed poll in the slabs of Linux 6.18, as read; measured: 6,529 to 6,727 for both ends of a connection, so some 3,300 an end (docs/capacity.md); the larger is reckoned with";
    /// What a socket that never reads takes of TCP's memory.
    STALLED_TCP_BYTES = 14_438, "bytes", "TCP's memory, a socket that does not read",
        "measured: 11.5 to 14.1 KiB, not growing (docs/measurements-slow.md)";
    /// What a socket that never reads takes of the host's memory, all in all: TCP's and its outbox are in it.
    STALLED_BYTES = 15_770, "bytes", "the host's memory, a socket that does not read, TCP's and the outbox in it",
        "measured: 15.4 KiB, not growing (docs/measurements-slow.md)";
    /// User memory of a socket that is behind: its outbox.
    OUTBOX_BYTES = 455, "bytes", "the gateway's outbox, a socket that does not read",
        "measured: 54.6 MB for 120,000 of them (docs/benchmarks.md)";
    /// The unit in which the kernel charges TCP's memory.
    PAGE_BYTES = 4_096, "bytes", "what TCP is charged for one update on its way to one socket, however small",
        "the kernel charges whole pages (net/core/sock.c, sk_mem_schedule; x86-64)";
    /// Memory of one ring's queues.
    RING_BYTES = 1_310_720, "bytes", "memory of one ring's queues",
        "65,536 completions of 16 bytes, 2,048 requests of 64 (src/sys/uring.rs)";
    /// Everything else that the process holds.
    PROCESS_BYTES = 67_108_864, "bytes", "the process without a socket, at most",
        "measured: 13.0 MB after a burst, 16.9 after storms (docs/measurements.md), and room for the queues of a burst";
    /// How many connections a shard takes in a second.
    ACCEPTS_PER_S = 50_000, "connections", "what one shard can accept in a second",
        "measured: 20 us of a core to accept and answer one, two million of them (docs/capacity.md)";
    /// How often one proxy address reaches one of ours, where the proxy is elsewhere.
    PORTS_PER_PROXY = 55_000, "connections", "from one proxy address elsewhere to one listen address",
        "tuning/haproxy.cfg: ports 10,240 to 65,535; tuning/nlb.md: an NLB's own bound";
    /// The same, where the proxy is on this host and its ports are known.
    PORTS_PER_PROXY_HERE = 64_000, "connections", "from one proxy address on this host to one listen address, at most",
        "a TCP connection is told by its addresses and ports: 1,024 to 65,535, but for ports in use; net.ipv4.ip_local_port_range says how many";
    /// How many connections may share one place of a table.
    PER_BUCKET_MAX = 2, "connections", "in one bucket of the kernel's table, at most",
        "measured: with 2,400,000 ends in 262,144 buckets, nine in each, the p99 of deliveries was 4.7 s and a quarter of the CPU went to the look-ups; in a larger table 13.4 ms (docs/benchmarks.md); two is a choice between";
    /// From which number of sockets on it matters which cores take packets in.
    STEER_FROM = 100_000, "sockets", "from here on it shows which cores take packets in",
        "measured at 1,200,000: 21.7 us a delivery with the packets on the shard's core, 13.1 without (docs/benchmarks.md); where it begins is a choice";
    /// What a connection tracker keeps of closed connections besides.
    CLOSED_TRACKED_PERCENT = 25, "percent", "closed connections that conntrack still holds",
        "an allowance: the kernel keeps each for 120 s (nf_conntrack_tcp_timeout_time_wait)";
    /// The memory lock limit below which glommio refuses to start.
    MEMLOCK_BYTES = 524_288, "bytes", "RLIMIT_MEMLOCK, below which glommio does not start",
        "glommio 0.9, src/sys/uring.rs, MIN_MEMLOCK_LIMIT";
    /// Locked memory of one shard.
    MEMLOCK_SHARD_BYTES = sys::MEMLOCK_SHARD, "bytes", "memory that one shard's executor locks",
        "measured on Linux 6.18: 65 pages";
    /// Locked memory of one of a shard's own rings.
    MEMLOCK_RING_BYTES = sys::MEMLOCK_RING_MIN, "bytes", "memory that one ring of a shard locks at the least",
        "2,048 submissions of 64 bytes and 4,096 completions of 16; measured on Linux 6.18: 291 pages with 65,536";
    /// Files of everything that is not a client's socket.
    FILES_BESIDE = 65_536, "files", "open on the host besides the clients' sockets",
        "an allowance; fs.file-nr tells how many there are";
    /// Ports that a proxy on this host may have for one address of the gateway.
    PORTS_WANTED = 55_296, "ports", "for connections from this host to one address",
        "10,240 to 65,535: those below are left to what listens (8080, 9090, Redis' 6379)";
    /// Where a packet queue is long enough.
    BACKLOG_PACKETS = 16_384, "packets", "for each core's queue, where packets were dropped from it",
        "a turn hands 2,048 sends to the kernel at once, and each is acknowledged (src/sys/uring.rs, SUBMISSIONS); eight of them";
    /// Where the budget of a round is large enough.
    BUDGET_PACKETS = 600, "packets", "for a core's round of taking in, where rounds were cut short",
        "twice the kernel's default (net/core/hotdata.c)";
    /// The same in time.
    BUDGET_US = 8_000, "us", "for such a round",
        "the kernel's default with 250 ticks a second (net/core/hotdata.c: two ticks)";
    /// The largest receive buffer that a new socket should begin with.
    RECEIVE_DEFAULT_MAX = 1_048_576, "bytes", "tcp_rmem's default, at most",
        "what a client that is not read may leave with us; the kernel's own default is 131,072";
    /// The smallest.
    RECEIVE_DEFAULT_MIN = 16_384, "bytes", "tcp_rmem's default, at least",
        "one read of a shard (src/sys/uring.rs, BUFFER_BYTES)";
    /// What fits the first flight after silence.
    FIRST_FLIGHT_BYTES = 14_480, "bytes", "sent at once after silence, where slow start begins anew",
        "RFC 6928: ten segments, of 1,448 bytes";
    /// Updates of the largest size that Redis must hold for us.
    REDIS_HARD_UPDATES = 32, "updates", "of update_bytes_max, that Redis may hold for a gateway",
        "Redis's default of 32 MB over ours of 1 MiB for an update";
    /// The same for a minute.
    REDIS_SOFT_UPDATES = 8, "updates", "of update_bytes_max, that Redis may hold for 60 s",
        "Redis's default of 8 MB over ours of 1 MiB for an update";
}
