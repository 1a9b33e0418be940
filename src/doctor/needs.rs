//! The table of needs: what each is, what it must be for a plan, why, from where that is known, and how to undo a mend.

use super::host::Host;
use super::mend::Mend;
use super::plan::Plan;
use super::{cores, memory, network, queues, redis, rings};

/// Something that a host must allow.
pub struct Need {
    /// Its short name, for machines.
    pub id: &'static str,
    /// What it is, for people.
    pub what: &'static str,
    /// What it must be, as a formula of N sockets, in words.
    pub needed: &'static str,
    /// What happens where it is short, in one sentence.
    pub why: &'static str,
    /// From where that is known: a document of the kernel's, a measurement, a figure of [`super::FIGURES`].
    pub source: &'static str,
    /// How a mend is undone.
    pub undo: &'static str,
    /// Kernel settings that `tuning/99-spillgate.conf` carries for it, for a plan.
    pub sysctls: fn(&Plan, &Host) -> Vec<(&'static str, String)>,
    /// Whether a host has it.
    pub judge: fn(&Plan, &Host) -> Verdict,
}

/// What was found of one need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is there, and how much of it.
    Fine(String),
    /// It is short: what was seen beside what is needed, and the lines that mend it. Where there are several, all of
    /// them are needed, but for [`Verdict::ShortEither`].
    Short(String, Vec<Mend>),
    /// The same, where any one of the lines mends it.
    ShortEither(String, Vec<Mend>),
    /// It cannot be told from here, and why.
    Unknown(String),
}

impl Verdict {
    /// Whether something is short.
    pub fn is_short(&self) -> bool {
        matches!(self, Verdict::Short(..) | Verdict::ShortEither(..))
    }

    /// What was seen.
    pub fn seen(&self) -> &str {
        match self {
            Verdict::Fine(seen) | Verdict::Short(seen, _) | Verdict::ShortEither(seen, _) | Verdict::Unknown(seen) => {
                seen
            }
        }
    }

    /// The lines that mend it.
    pub fn mends(&self) -> &[Mend] {
        match self {
            Verdict::Short(_, mends) | Verdict::ShortEither(_, mends) => mends,
            Verdict::Fine(_) | Verdict::Unknown(_) => &[],
        }
    }
}

/// All of them, in the order in which they are told.
pub const NEEDS: &[Need] = &[
    rings::KERNEL,
    rings::DISABLED,
    rings::SECCOMP,
    rings::FEATURES,
    rings::MEMLOCK,
    rings::NOFILE,
    rings::CAPACITY,
    rings::NR_OPEN,
    rings::FILE_MAX,
    memory::AVAILABLE,
    memory::CGROUP,
    memory::TCP_MEM,
    memory::TCP_RMEM,
    memory::TCP_WMEM,
    memory::NOTSENT_LOWAT,
    memory::ORPHANS,
    memory::THP,
    queues::SOMAXCONN,
    queues::SYN_BACKLOG,
    queues::NETDEV_BACKLOG,
    queues::NETDEV_BUDGET,
    queues::EHASH,
    queues::CONNTRACK,
    queues::CONNTRACK_BUCKETS,
    network::LISTEN,
    network::PORT_RANGE,
    network::CONGESTION,
    network::SLOW_START,
    cores::SHARDS,
    cores::QUOTA,
    cores::GOVERNOR,
    cores::PACKETS,
    redis::VERSION,
    redis::OUTPUT_BUFFER,
];

/// Those that cannot be judged without the number of shards.
pub(super) const BY_SHARD: &[&str] = &[
    "memlock",
    "nofile",
    "capacity",
    "nr_open",
    "memory",
    "cgroup_memory",
    "somaxconn",
    "syn_backlog",
    "shards",
    "cgroup_cpu",
    "packet_cores",
];

/// The kernel settings that a host is asked for.
pub const SYSCTLS: &[&str] = &[
    "kernel.osrelease",
    "kernel.io_uring_disabled",
    "kernel.io_uring_group",
    "fs.nr_open",
    "fs.file-max",
    "net.ipv4.tcp_mem",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
    "net.ipv4.tcp_notsent_lowat",
    "net.ipv4.tcp_max_orphans",
    "net.core.somaxconn",
    "net.ipv4.tcp_max_syn_backlog",
    "net.ipv4.tcp_syncookies",
    "net.core.netdev_max_backlog",
    "net.core.netdev_budget",
    "net.core.netdev_budget_usecs",
    "net.ipv4.tcp_ehash_entries",
    "net.netfilter.nf_conntrack_max",
    "net.netfilter.nf_conntrack_count",
    "net.netfilter.nf_conntrack_buckets",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_congestion_control",
    "net.ipv4.tcp_allowed_congestion_control",
    "net.core.default_qdisc",
    "net.ipv4.tcp_slow_start_after_idle",
];

/// For needs that no line of the sysctl file serves.
pub(super) fn no_sysctls(_: &Plan, _: &Host) -> Vec<(&'static str, String)> {
    Vec::new()
}

/// The sysctl lines of a need as mends.
pub(super) fn as_mends(host: &Host, sysctls: Vec<(&'static str, String)>) -> Vec<Mend> {
    sysctls.into_iter().map(|(name, value)| Mend::Sysctl(name, at_least(host, name, &value))).collect()
}

/// What is wanted of a kernel setting, and number by number no less than the host has.
pub(super) fn at_least(host: &Host, name: &str, wanted: &str) -> String {
    let numbers = || wanted.split(' ').map(|number| number.parse().ok()).collect::<Option<Vec<i64>>>();
    let (Some(has), Some(mut all)) = (host.numbers(name), numbers()) else { return wanted.to_owned() };
    if SWITCHES.contains(&name) || has.len() != all.len() {
        return wanted.to_owned();
    }
    // Of a range the first number is the larger, the more there are.
    let is_range = name == "net.ipv4.ip_local_port_range";
    for (at, (wanted, has)) in all.iter_mut().zip(has).enumerate() {
        *wanted = if is_range && at == 0 { has.min(*wanted) } else { has.max(*wanted) };
    }
    all.iter().map(i64::to_string).collect::<Vec<_>>().join(" ")
}

/// Kernel settings of which a larger value is not more.
const SWITCHES: [&str; 2] = ["kernel.io_uring_disabled", "net.ipv4.tcp_slow_start_after_idle"];

/// For a kernel setting that this host does not show, or not as numbers.
pub(super) fn not_shown(host: &Host, name: &str) -> Verdict {
    let path = format!("proc/sys/{}", name.replace('.', "/"));
    Verdict::Unknown(match (host.unread(&path), host.sysctl(name)) {
        (Some(why), _) => why,
        (None, Some(text)) => format!("/{path} says {text:?}, which is not understood"),
        (None, None) => format!("{name} is not shown here (another network namespace, or no such kernel setting)"),
    })
}

/// For a file that could not be read, or does not hold what it should.
pub(super) fn not_told(host: &Host, path: &str) -> Verdict {
    Verdict::Unknown(host.unread(path).unwrap_or_else(|| format!("/{path} does not tell")))
}

/// How sysctls are undone.
pub(super) const UNDO_SYSCTL: &str = "`tuning/install.sh --undo`, or `sysctl -w` with the earlier value";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::figures::{self, Figure};
    use crate::doctor::text::thousands;

    #[test]
    fn what_is_said_to_be_needed_has_the_figures_that_it_is_judged_by() {
        let mentions: &[(Need, &[u64])] = &[
            (rings::FILE_MAX, &[figures::FILES_BESIDE.value]),
            (memory::AVAILABLE, &[figures::USER_BYTES.value, figures::KERNEL_BYTES.value, figures::PAGE_BYTES.value]),
            (memory::AVAILABLE, &[figures::STALLED_BYTES.value, figures::STALLED_TCP_BYTES.value]),
            (memory::TCP_RMEM, &[figures::RECEIVE_DEFAULT_MIN.value, figures::RECEIVE_DEFAULT_MAX.value]),
            (queues::SOMAXCONN, &[figures::ACCEPTS_PER_S.value]),
            (queues::NETDEV_BACKLOG, &[figures::BACKLOG_PACKETS.value]),
            (queues::NETDEV_BUDGET, &[figures::BUDGET_PACKETS.value, figures::BUDGET_US.value]),
            (queues::CONNTRACK, &[figures::CLOSED_TRACKED_PERCENT.value]),
            (network::LISTEN, &[figures::PORTS_PER_PROXY.value, figures::PORTS_PER_PROXY_HERE.value]),
            (network::PORT_RANGE, &[figures::PORTS_WANTED.value]),
            (cores::PACKETS, &[figures::STEER_FROM.value]),
            (redis::OUTPUT_BUFFER, &[figures::REDIS_HARD_UPDATES.value, figures::REDIS_SOFT_UPDATES.value]),
        ];
        for (need, values) in mentions {
            for value in *values {
                assert!(need.needed.contains(&thousands(*value)), "{}: {value} in {:?}", need.id, need.needed);
            }
        }
        let in_units = |figure: Figure, bytes: u64| assert_eq!(figure.value, bytes);
        in_units(figures::MEMLOCK_BYTES, 512 << 10); // said as 512, 260 and 196 KiB
        in_units(figures::MEMLOCK_SHARD_BYTES, 260 << 10);
        in_units(figures::MEMLOCK_RING_BYTES, 196 << 10);
        in_units(figures::RING_BYTES, 1280 << 10); // said as 1.25 MiB and 64 MiB
        in_units(figures::PROCESS_BYTES, 64 << 20);
        in_units(figures::STALLED_TCP_BYTES, figures::PAGE_BYTES.value * 7 / 2 + 102); // said as 3.5 pages
        in_units(figures::PER_BUCKET_MAX, 2); // said as N / 2
    }
}
