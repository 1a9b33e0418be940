//! What a host shows of itself, read once: below any root, so that made-up hosts can be read too.

use super::cgroup::{self, Cgroup};
use super::needs;
use super::redis::RedisSeen;
use crate::sys;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A host at one moment. What it does not show is missing here, which is no error.
#[derive(Clone, Debug, Default)]
pub struct Host {
    /// Kernel settings by their names, as they are read.
    pub sysctls: BTreeMap<&'static str, String>,
    /// RLIMIT_NOFILE of whoever asks.
    pub nofile: Option<Limit>,
    /// RLIMIT_MEMLOCK, in bytes.
    pub memlock: Option<Limit>,
    /// The mode of seccomp that we run under: 0 is none, 2 a filter.
    pub seccomp: Option<u64>,
    /// The groups that we are in.
    pub groups: Vec<u64>,
    /// Cores that we may run on.
    pub allowed: BTreeSet<usize>,
    /// Whether transparent huge pages are on for this very process (Linux 6.0 and newer tell).
    pub thp_here: Option<bool>,
    /// Transparent huge pages on this host: `always`, `madvise` or `never`.
    pub thp: Option<String>,
    /// Memory that can be had without swapping, in bytes.
    pub memory_available: Option<u64>,
    /// TCP sockets that belong to no process any more.
    pub orphans: Option<u64>,
    /// Packets taken in, all cores together.
    pub softnet: Option<Softnet>,
    /// Cores whose frequency is governed.
    pub cores: Vec<Core>,
    /// Network devices of hardware.
    pub networks: Vec<Network>,
    /// The limits of the control groups that we are in.
    pub cgroup: Cgroup,
    /// What was tried of io_uring.
    pub ring: RingProbe,
    /// The Redis of the configuration; none if there is none in it.
    pub redis: Option<RedisSeen>,
}

/// A limit of the process; `u64::MAX` where there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// The one that holds.
    pub soft: u64,
    /// How far the process may raise it.
    pub hard: u64,
}

/// Counts of packets since boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Softnet {
    /// Taken in.
    pub processed: u64,
    /// Dropped, because a core's queue was full.
    pub dropped: u64,
    /// Rounds that were cut short with packets left.
    pub squeezed: u64,
}

/// A core with its frequency governor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Core {
    /// Its number.
    pub number: usize,
    /// `performance`, `powersave`, `schedutil` …
    pub governor: String,
}

/// A network device of hardware.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// Its name.
    pub name: String,
    /// Queues into which it sorts what arrives.
    pub queues: usize,
    /// Cores that its interrupts go to.
    pub interrupted: BTreeSet<usize>,
    /// Cores that packets are handed to from there (`rps_cpus`).
    pub steered: BTreeSet<usize>,
}

/// What came of trying io_uring.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RingProbe {
    /// It was not tried.
    #[default]
    Untried,
    /// A ring was made; these features are missing.
    Made(Vec<&'static str>),
    /// No ring could be made.
    Refused(String),
}

impl RingProbe {
    /// Tries it here.
    pub fn here() -> Self {
        match sys::missing_features() {
            Ok(missing) => RingProbe::Made(missing),
            Err(error) => RingProbe::Refused(error.to_string()),
        }
    }
}

impl Host {
    /// Reads `proc` and `sys` below `root`: `/` for this host.
    pub fn read(root: &Path, ring: RingProbe, redis: Option<RedisSeen>) -> Self {
        let root = Root(root);
        let status = root.text("proc/self/status").unwrap_or_default();
        let field = |name: &str| field(&status, name);
        let limits = root.text("proc/self/limits").unwrap_or_default();
        let sysctl = |name: &&'static str| Some((*name, root.text(&sysctl_path(name))?.trim().replace('\t', " ")));
        Self {
            sysctls: needs::SYSCTLS.iter().filter_map(sysctl).collect(),
            nofile: limit(&limits, "Max open files"),
            memlock: limit(&limits, "Max locked memory"),
            seccomp: field("Seccomp").and_then(|mode| mode.parse().ok()),
            groups: ["Gid", "Groups"].iter().filter_map(|name| field(name)).flat_map(numbers).collect(),
            allowed: field("Cpus_allowed_list").map(core_list).unwrap_or_default(),
            thp_here: field("THP_enabled").map(|enabled| enabled != "0"),
            thp: root.text("sys/kernel/mm/transparent_hugepage/enabled").as_deref().and_then(chosen),
            memory_available: root.text("proc/meminfo").as_deref().and_then(available),
            orphans: root.text("proc/net/sockstat").as_deref().and_then(orphans),
            softnet: root.text("proc/net/softnet_stat").map(|text| softnet(&text)),
            cores: cores(&root),
            networks: networks(&root),
            cgroup: cgroup::read(&root),
            ring,
            redis,
        }
    }

    /// A kernel setting as it is read.
    pub fn sysctl(&self, name: &str) -> Option<&str> {
        self.sysctls.get(name).map(String::as_str)
    }

    /// The numbers of a kernel setting; none if it is not there.
    pub fn numbers(&self, name: &str) -> Option<Vec<i64>> {
        let numbers = self.sysctl(name)?.split_ascii_whitespace().map(|number| number.parse().ok());
        numbers.collect::<Option<Vec<_>>>().filter(|numbers| !numbers.is_empty())
    }

    /// The only number of a kernel setting, or its first.
    pub fn number(&self, name: &str) -> Option<u64> {
        // Beyond i64 there is nothing: the kernel prints signed numbers, or values below 2^63.
        self.numbers(name)?.first().copied().and_then(|number| u64::try_from(number).ok())
    }
}

/// The place below which everything is read.
pub(super) struct Root<'a>(&'a Path);

impl Root<'_> {
    pub(super) fn text(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.0.join(path)).ok()
    }

    /// Names in a directory, in order.
    pub(super) fn names(&self, path: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.0.join(path)) else { return Vec::new() };
        let mut names: Vec<_> = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        names
    }

    pub(super) fn exists(&self, path: &str) -> bool {
        self.0.join(path).exists()
    }
}

/// The file of a kernel setting, below the root.
fn sysctl_path(name: &str) -> String {
    format!("proc/sys/{}", name.replace('.', "/"))
}

fn field<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

fn numbers(text: &str) -> impl Iterator<Item = u64> {
    text.split_ascii_whitespace().filter_map(|number| number.parse().ok())
}

/// A line of `/proc/self/limits`: its name, soft limit, hard limit, unit.
fn limit(text: &str, name: &str) -> Option<Limit> {
    let mut words = text.lines().find_map(|line| line.strip_prefix(name))?.split_ascii_whitespace();
    let mut next = || match words.next()? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    };
    Some(Limit { soft: next()?, hard: next()? })
}

/// Cores as `0-3,8` lists them.
pub(super) fn core_list(text: &str) -> BTreeSet<usize> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.trim().parse::<usize>().ok()?..=last.trim().parse::<usize>().ok()?)
    };
    text.split(',').filter_map(range).flatten().collect()
}

/// Cores as a mask has them: hexadecimal words of 32 bits, the highest first.
fn core_mask(text: &str) -> BTreeSet<usize> {
    let words = text.trim().split(',').rev().map(|word| u32::from_str_radix(word, 16).unwrap_or(0));
    let cores = words
        .enumerate()
        .flat_map(|(at, word)| (0..32).filter(move |bit| word >> bit & 1 == 1).map(move |bit| at * 32 + bit));
    cores.collect()
}

/// The choice that stands in brackets: `always [madvise] never`.
fn chosen(text: &str) -> Option<String> {
    let (_, rest) = text.split_once('[')?;
    Some(rest.split_once(']')?.0.to_owned())
}

fn available(meminfo: &str) -> Option<u64> {
    let kilobytes = field(meminfo, "MemAvailable")?.split_ascii_whitespace().next()?;
    kilobytes.parse::<u64>().ok().map(|kilobytes| kilobytes << 10)
}

fn orphans(sockstat: &str) -> Option<u64> {
    let mut words = field(sockstat, "TCP")?.split_ascii_whitespace();
    words.find(|word| *word == "orphan")?;
    words.next()?.parse().ok()
}

/// A line a core: processed, dropped, squeezed and more, in hexadecimal.
fn softnet(text: &str) -> Softnet {
    let mut all = Softnet::default();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace().map(|word| u64::from_str_radix(word, 16).unwrap_or(0));
        all.processed += words.next().unwrap_or(0);
        all.dropped += words.next().unwrap_or(0);
        all.squeezed += words.next().unwrap_or(0);
    }
    all
}

fn cores(root: &Root) -> Vec<Core> {
    let all = "sys/devices/system/cpu";
    let core = |name: &String| {
        let number = name.strip_prefix("cpu")?.parse().ok()?;
        let governor = root.text(&format!("{all}/{name}/cpufreq/scaling_governor"))?;
        Some(Core { number, governor: governor.trim().to_owned() })
    };
    root.names(all).iter().filter_map(core).collect()
}

fn networks(root: &Root) -> Vec<Network> {
    let all = "sys/class/net";
    let hardware = |name: &String| root.exists(&format!("{all}/{name}/device"));
    root.names(all).into_iter().filter(hardware).map(|name| network(root, &format!("{all}/{name}"), name)).collect()
}

fn network(root: &Root, device: &str, name: String) -> Network {
    let queues: Vec<_> = root.names(&format!("{device}/queues")).into_iter().filter(|q| q.starts_with("rx-")).collect();
    let steered = queues.iter().filter_map(|queue| root.text(&format!("{device}/queues/{queue}/rps_cpus")));
    // A virtio device has its interrupts at the bus device above it.
    let interrupts = ["device/msi_irqs", "device/../msi_irqs"].map(|place| root.names(&format!("{device}/{place}")));
    let taken_by = |interrupt: &String| {
        ["effective_affinity_list", "smp_affinity_list"]
            .iter()
            .find_map(|list| root.text(&format!("proc/irq/{interrupt}/{list}")).filter(|text| !text.trim().is_empty()))
    };
    let interrupted = interrupts.iter().flatten().filter_map(taken_by).flat_map(|list| core_list(&list)).collect();
    Network { name, queues: queues.len(), interrupted, steered: steered.flat_map(|mask| core_mask(&mask)).collect() }
}

/// The path of a kernel's file as it is named on the host itself.
pub(super) fn on_host(path: &str) -> String {
    PathBuf::from("/").join(path).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_prints_is_read() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                      Max open files            1024                 524288               files     \n\
                      Max locked memory         unlimited            unlimited            bytes     \n";
        assert_eq!(limit(limits, "Max open files"), Some(Limit { soft: 1024, hard: 524_288 }));
        assert_eq!(limit(limits, "Max locked memory"), Some(Limit { soft: u64::MAX, hard: u64::MAX }));
        assert_eq!(limit(limits, "Max cpu time"), None);
        assert_eq!(Vec::from_iter(core_list("0-2,8\n")), [0, 1, 2, 8]);
        assert_eq!(Vec::from_iter(core_mask("8,00000001,80000002\n")), [1, 31, 32, 67]);
        assert_eq!(Vec::from_iter(core_mask("0\n")), [0; 0]);
        assert_eq!(chosen("always [madvise] never\n").as_deref(), Some("madvise"));
        assert_eq!(available("MemTotal: 9 kB\nMemAvailable:   1024 kB\n"), Some(1 << 20));
        assert_eq!(orphans("sockets: used 16\nTCP: inuse 1 orphan 7 tw 4 alloc 1 mem 406\n"), Some(7));
        let two = softnet("0000000a 00000001 00000002 0 0\n00000010 00000000 00000001 0 0\n");
        assert_eq!(two, Softnet { processed: 26, dropped: 1, squeezed: 3 });
        assert_eq!(Vec::from_iter(numbers("4 24 x")), [4, 24]);
    }
}
