//! What a host shows of itself, read once: below any root, so that made-up hosts can be read too.

use super::needs;
use super::redis::RedisSeen;
use super::unit::{self, Unit};
use crate::sys::{self, Cgroups};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

/// A host at one moment. What it does not show is missing here; what it hides is in [`Host::unread`] besides.
#[derive(Clone, Debug, Default)]
pub struct Host {
    /// Kernel settings by their names, as they are read.
    pub sysctls: BTreeMap<&'static str, String>,
    /// Files that could not be read, and why; not those that this kernel does not have.
    pub unread: BTreeMap<String, String>,
    /// Whether systemd runs this host.
    pub has_systemd: bool,
    /// The unit by which systemd runs the gateway here, if one is installed.
    pub unit: Option<Unit>,
    /// RLIMIT_NOFILE of whoever asks.
    pub nofile: Option<Limit>,
    /// RLIMIT_MEMLOCK of whoever asks, in bytes.
    pub memlock: Option<Limit>,
    /// Whether whoever asks may raise limits beyond the hard ones (CAP_SYS_RESOURCE).
    pub may_raise: bool,
    /// Whether whoever asks locks what memory it likes (CAP_IPC_LOCK).
    pub may_lock: bool,
    /// The mode of seccomp that we run under: 0 is none, 2 a filter.
    pub seccomp: Option<u64>,
    /// The groups that whoever asks is in.
    pub groups: Vec<u64>,
    /// Cores that the gateway may run on.
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
    /// The control groups that the gateway is in.
    pub cgroups: Cgroups,
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
    /// Reads `proc` and `sys` below `root` (`/` for this host), for a gateway that is yet to be started: by the unit that is
    /// installed, or else by whoever asks.
    pub fn read(root: &Path, ring: RingProbe, redis: Option<RedisSeen>) -> Self {
        Self::read_for(root, ring, redis, true)
    }

    /// The same for this very process, which has its limits already.
    pub fn read_for_this_process(root: &Path, ring: RingProbe) -> Self {
        Self::read_for(root, ring, None, false)
    }

    fn read_for(root: &Path, ring: RingProbe, redis: Option<RedisSeen>, by_unit: bool) -> Self {
        let root = Root::at(root);
        let status = root.text("proc/self/status").unwrap_or_default();
        let field = |name: &str| field(&status, name);
        let limits = root.text("proc/self/limits").unwrap_or_default();
        let memory = root.text("proc/meminfo").unwrap_or_default();
        let sysctl = |name: &&'static str| Some((*name, root.text(&sysctl_path(name))?.trim().replace('\t', " ")));
        let has_systemd = root.exists("run/systemd/system");
        let unit = (by_unit && has_systemd).then(|| unit::read(&root, kilobytes(&memory, "MemTotal"))).flatten();
        let mut allowed = field("Cpus_allowed_list").map(core_list).unwrap_or_default();
        let (cgroups, own) = match &unit {
            Some(unit) => (Cgroups::read_of(root.at, &unit.group), unit.cores.clone()),
            None => (Cgroups::read(root.at), None),
        };
        if let Some(own) = own {
            allowed.clone_from(&own);
        }
        if unit.as_ref().is_some_and(|unit| unit.odd.contains_key("CPUAffinity")) {
            allowed.clear(); // nobody knows
        }
        let mut host = Self {
            sysctls: needs::SYSCTLS.iter().filter_map(sysctl).collect(),
            nofile: limit(&limits, "Max open files"),
            memlock: limit(&limits, "Max locked memory"),
            may_raise: capable(field("CapEff"), CAP_SYS_RESOURCE),
            may_lock: capable(field("CapEff"), CAP_IPC_LOCK),
            seccomp: field("Seccomp").and_then(|mode| mode.parse().ok()),
            groups: ["Gid", "Groups"].iter().filter_map(|name| field(name)).flat_map(numbers).collect(),
            allowed,
            thp_here: field("THP_enabled").map(|enabled| enabled != "0"),
            thp: root.text("sys/kernel/mm/transparent_hugepage/enabled").as_deref().map(chosen),
            memory_available: kilobytes(&memory, "MemAvailable"),
            orphans: root.text("proc/net/sockstat").as_deref().and_then(orphans),
            softnet: root.text("proc/net/softnet_stat").and_then(|text| softnet(&text)),
            cores: cores(&root),
            networks: networks(&root),
            has_systemd,
            unit,
            cgroups,
            ring,
            redis,
            unread: BTreeMap::new(),
        };
        host.unread = root.unread.into_inner();
        host
    }

    /// What is said of files that could not be read: those whose path begins so.
    pub fn unread(&self, path: &str) -> Option<String> {
        let (file, why) = self.unread.range(path.to_owned()..).next().filter(|(file, _)| file.starts_with(path))?;
        Some(format!("cannot read /{file}: {why}"))
    }

    /// Whether this is another network namespace than the host's first, as in a container: only that one has `tcp_mem`.
    pub fn is_network_of_its_own(&self) -> bool {
        let tcp_mem = "net.ipv4.tcp_mem";
        let is_hidden = self.unread("proc/sys/net/ipv4/tcp_mem").is_some();
        !self.sysctls.contains_key(tcp_mem) && !is_hidden && self.sysctls.contains_key("net.ipv4.tcp_rmem")
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

/// The place below which everything is read. What cannot be read is noted, where it is not simply a thing that this kernel
/// does not have.
pub(super) struct Root<'a> {
    at: &'a Path,
    unread: RefCell<BTreeMap<String, String>>,
}

impl<'a> Root<'a> {
    pub(super) fn at(at: &'a Path) -> Self {
        Self { at, unread: RefCell::default() }
    }

    pub(super) fn text(&self, path: &str) -> Option<String> {
        let why = match fs::read_to_string(self.at.join(path)) {
            Ok(text) if !text.trim().is_empty() => return Some(text),
            Ok(_) => "it is empty".to_owned(), // as a masked file of a container is
            Err(error) if error.kind() == ErrorKind::NotFound && self.shows(path) => return None,
            Err(error) => reason(&error),
        };
        self.unread.borrow_mut().insert(path.to_owned(), why);
        None
    }

    /// Names in a directory, in order.
    fn names(&self, path: &str) -> Vec<String> {
        let why = match fs::read_dir(self.at.join(path)) {
            Ok(entries) => match entries.count() {
                0 => "it is empty".to_owned(),
                _ => return self.quiet_names(path),
            },
            Err(error) if error.kind() == ErrorKind::NotFound && self.shows(path) => return Vec::new(),
            Err(error) => reason(&error),
        };
        self.unread.borrow_mut().insert(path.to_owned(), why);
        Vec::new()
    }

    /// Whether what is not there is missing because the kernel does not have it: its surroundings are shown.
    fn shows(&self, path: &str) -> bool {
        let end = path.match_indices('/').nth(2).map_or(0, |(at, _)| at);
        end > 0 && !self.quiet_names(&path[..end]).is_empty()
    }

    /// A file that nothing is wrong with where it is not there.
    pub(super) fn quiet(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.at.join(path)).ok()
    }

    /// The same of a directory.
    pub(super) fn quiet_names(&self, path: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.at.join(path)) else { return Vec::new() };
        let mut names: Vec<_> = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        names
    }

    pub(super) fn exists(&self, path: &str) -> bool {
        self.at.join(path).exists()
    }
}

/// What an error says, without its number.
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    text.split_once(" (os error").map_or(text.as_str(), |(reason, _)| reason).to_owned()
}

/// Bits of capabilities (linux/capability.h).
const CAP_IPC_LOCK: u32 = 14;
const CAP_SYS_RESOURCE: u32 = 24;

fn capable(mask: Option<&str>, bit: u32) -> bool {
    mask.and_then(|hex| u64::from_str_radix(hex, 16).ok()).is_some_and(|mask| mask >> bit & 1 == 1)
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
fn core_list(text: &str) -> BTreeSet<usize> {
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

/// The choice that stands in brackets: `always [madvise] never`; without any all of it.
fn chosen(text: &str) -> String {
    let choice = text.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
    choice.map_or(text.trim(), |(choice, _)| choice).to_owned()
}

/// A line of `/proc/meminfo`, in bytes.
fn kilobytes(meminfo: &str, name: &str) -> Option<u64> {
    let kilobytes = field(meminfo, name)?.split_ascii_whitespace().next()?;
    kilobytes.parse::<u64>().ok().map(|kilobytes| kilobytes << 10)
}

fn orphans(sockstat: &str) -> Option<u64> {
    let mut words = field(sockstat, "TCP")?.split_ascii_whitespace();
    words.find(|word| *word == "orphan")?;
    words.next()?.parse().ok()
}

/// A line a core: processed, dropped, squeezed and more, in hexadecimal.
fn softnet(text: &str) -> Option<Softnet> {
    let mut all = Softnet::default();
    for line in text.trim_end().lines() {
        let mut words = line.split_ascii_whitespace().map(|word| u64::from_str_radix(word, 16).ok());
        all.processed += words.next()??;
        all.dropped += words.next()??;
        all.squeezed += words.next()??;
    }
    Some(all)
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
    let interrupts = ["device/msi_irqs", "device/../msi_irqs"].map(|at| root.quiet_names(&format!("{device}/{at}")));
    let taken_by = |interrupt: &String| {
        ["effective_affinity_list", "smp_affinity_list"]
            .iter()
            .find_map(|list| root.text(&format!("proc/irq/{interrupt}/{list}")))
    };
    let interrupted = interrupts.iter().flatten().filter_map(taken_by).flat_map(|list| core_list(&list)).collect();
    Network { name, queues: queues.len(), interrupted, steered: steered.flat_map(|mask| core_mask(&mask)).collect() }
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
        assert_eq!(chosen("always [madvise] never\n"), "madvise");
        assert_eq!(kilobytes("MemTotal: 9 kB\nMemAvailable:   1024 kB\n", "MemAvailable"), Some(1 << 20));
        assert_eq!(orphans("sockets: used 16\nTCP: inuse 1 orphan 7 tw 4 alloc 1 mem 406\n"), Some(7));
        let two = softnet("0000000a 00000001 00000002 0 0\n00000010 00000000 00000001 0 0\n");
        assert_eq!(two, Some(Softnet { processed: 26, dropped: 1, squeezed: 3 }));
        assert_eq!(softnet("what is this?"), None);
        assert_eq!(Vec::from_iter(numbers("4 24 x")), [4, 24]);
        assert!(capable(Some("0000000000004000"), CAP_IPC_LOCK) && !capable(Some("4000"), CAP_SYS_RESOURCE));
        assert!(!capable(None, CAP_IPC_LOCK));
    }
}
