//! A host that is made up: a directory with the files of `/proc` and `/sys` that the doctor reads.

use spillgate::config::{self, Config, Overrides};
use spillgate::doctor::{Host, Mend, Plan, PubsubLimit, RedisSeen, RingProbe};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// What a host of 4 cores and 32 GiB shows that is short of nothing for a million sockets. Cores 0 to 3.
const FINE: &[(&str, &str)] = &[
    ("proc/sys/kernel/osrelease", "6.12.9-amd64"),
    ("proc/sys/kernel/io_uring_disabled", "0"),
    ("proc/sys/kernel/io_uring_group", "-1"),
    ("proc/sys/fs/nr_open", "1073741816"),
    ("proc/sys/fs/file-max", "9223372036854775807"),
    ("proc/sys/net/ipv4/tcp_mem", "1500000\t2000000\t3000000"),
    ("proc/sys/net/ipv4/tcp_rmem", "4096\t131072\t6291456"),
    ("proc/sys/net/ipv4/tcp_wmem", "4096\t16384\t4194304"),
    ("proc/sys/net/ipv4/tcp_notsent_lowat", "4294967295"),
    ("proc/sys/net/ipv4/tcp_max_orphans", "131072"),
    ("proc/sys/net/core/somaxconn", "65535"),
    ("proc/sys/net/ipv4/tcp_max_syn_backlog", "4096"),
    ("proc/sys/net/ipv4/tcp_syncookies", "1"),
    ("proc/sys/net/core/netdev_max_backlog", "1000"),
    ("proc/sys/net/core/netdev_budget", "300"),
    ("proc/sys/net/core/netdev_budget_usecs", "8000"),
    ("proc/sys/net/ipv4/tcp_ehash_entries", "524288"),
    ("proc/sys/net/netfilter/nf_conntrack_max", "262144"),
    ("proc/sys/net/netfilter/nf_conntrack_count", "0"),
    ("proc/sys/net/netfilter/nf_conntrack_buckets", "524288"),
    ("proc/sys/net/ipv4/ip_local_port_range", "32768\t60999"),
    ("proc/sys/net/ipv4/tcp_congestion_control", "cubic"),
    ("proc/sys/net/core/default_qdisc", "fq_codel"),
    ("proc/sys/net/ipv4/tcp_slow_start_after_idle", "0"),
    ("proc/self/cgroup", "0::/system.slice/spillgate.service"),
    (
        "proc/self/limits",
        "Max open files            1024                 1048576              files     \nMax locked memory         8388608              8388608              bytes     \n",
    ),
    (
        "proc/self/status",
        "Name:\tspillgate\nGid:\t0\t0\t0\t0\nGroups:\t4 24\nSeccomp:\t0\nCpus_allowed_list:\t0-3\nTHP_enabled:\t1\n",
    ),
    ("proc/meminfo", "MemTotal:       32000000 kB\nMemAvailable:   30000000 kB\n"),
    ("proc/net/sockstat", "sockets: used 16\nTCP: inuse 1 orphan 0 tw 4 alloc 1 mem 406\n"),
    ("proc/net/softnet_stat", "0000ffff 00000000 00000000\n0000ffff 00000000 00000001\n"),
    ("proc/irq/40/effective_affinity_list", "0"),
    ("proc/irq/41/effective_affinity_list", "1"),
    ("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never"),
    ("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "performance"),
    ("sys/devices/system/cpu/cpu1/cpufreq/scaling_governor", "performance"),
    ("sys/class/net/eth0/device/msi_irqs/40", "msix"),
    ("sys/class/net/eth0/device/msi_irqs/41", "msix"),
    ("sys/class/net/eth0/queues/rx-0/rps_cpus", "0"),
    ("sys/class/net/eth0/queues/rx-1/rps_cpus", "0"),
    ("sys/class/net/lo/queues/rx-0/rps_cpus", "0"),
    ("sys/fs/cgroup/cgroup.procs", "1"),
    ("sys/fs/cgroup/system.slice/spillgate.service/memory.max", "max"),
    ("sys/fs/cgroup/system.slice/spillgate.service/memory.high", "max"),
    ("sys/fs/cgroup/system.slice/spillgate.service/cpu.max", "max 100000"),
];

/// A made-up host, and the gateway that is planned for it.
pub struct Fake {
    root: TempDir,
    pub plan: Plan,
    /// Lines of the configuration, by key.
    settings: BTreeMap<String, String>,
    pub ring: RingProbe,
    pub redis: Option<RedisSeen>,
}

impl Fake {
    /// One that is short of nothing for a million sockets of clients that connect themselves.
    pub fn fine() -> Self {
        let limit = PubsubLimit { hard: 32 << 20, soft: 8 << 20, soft_seconds: 60 };
        let mut fake = Self {
            root: TempDir::new().unwrap(),
            plan: Plan { proxies: Some(0), ..super::plan(1_000_000) },
            settings: BTreeMap::new(),
            ring: RingProbe::Made(Vec::new()),
            redis: Some(answering(Ok(limit))),
        };
        for (path, text) in FINE {
            fake.write(path, text);
        }
        fake.set("listen = [\"0.0.0.0:8080\"]");
        fake
    }

    pub fn write(&self, path: &str, text: &str) {
        let path = self.root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{text}\n")).unwrap();
    }

    pub fn remove(&self, path: &str) {
        fs::remove_file(self.root.path().join(path)).unwrap();
    }

    /// Hides a directory: it is empty, or not there at all.
    pub fn hide(&self, path: &str, is_there: bool) {
        let path = self.root.path().join(path);
        fs::remove_dir_all(&path).unwrap();
        if is_there {
            fs::create_dir(path).unwrap();
        }
    }

    /// Has systemd run it, with this unit.
    pub fn systemd(&self, unit: &str) {
        self.write("run/systemd/system/.keep", "");
        self.write("etc/systemd/system/spillgate.service", unit);
    }

    /// Replaces a part of a file.
    pub fn edit(&self, path: &str, from: &str, to: &str) {
        let file = self.root.path().join(path);
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains(from), "{from:?} is in {path}: {text}");
        fs::write(file, text.replace(from, to)).unwrap();
    }

    /// Adds a line to the configuration, as it stands in a file.
    pub fn set(&mut self, line: &str) {
        let (key, value) = line.split_once(" = ").unwrap();
        self.settings.insert(key.into(), value.into());
        let text: String = self.settings.iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
        self.plan.config = read_config(&text);
    }

    pub fn host(&self) -> Host {
        Host::read(self.root.path(), self.ring.clone(), self.redis.clone())
    }

    /// Does what a line of a mend says, by its text and its place alone.
    pub fn apply(&mut self, mend: &Mend) {
        let line = mend.to_string();
        match mend.place() {
            "in the configuration file, above its first [section]" => self.set(&line),
            "in the configuration file, below [limits]" => self.set(&format!("limits.{line}")),
            place if place.starts_with("in the unit, below [Service]") => {
                self.write("etc/systemd/system/spillgate.service.d/override.conf", &format!("[Service]\n{line}"));
            }
            place if place.starts_with("in the shell that starts it") => self.limit(&line),
            place if place.starts_with("by root with CAP_SYS_RESOURCE") => self.limit(&line),
            place if place.starts_with("as root, then boot") => {
                let (_, buckets) = line.split_once("thash_entries=").unwrap();
                let buckets = buckets.split('"').next().unwrap();
                self.write("proc/sys/net/ipv4/tcp_ehash_entries", buckets);
            }
            "at Redis; its redis.conf keeps it" => self.tell_redis(&line),
            _ => self.run(&line),
        }
    }

    /// `sysctl -w NAME=VALUE`, or `echo VALUE | tee PATH`.
    fn run(&self, line: &str) {
        if let Some(setting) = line.strip_prefix("sysctl -w ") {
            let (name, value) = setting.split_once('=').unwrap();
            let value = value.trim_matches('\'').replace(' ', "\t");
            // The table of a namespace that is made after this, in which the gateway would then run.
            let name = name.replace("tcp_child_ehash_entries", "tcp_ehash_entries");
            self.write(&format!("proc/sys/{}", name.replace('.', "/")), &value);
            return;
        }
        let (value, path) = line.strip_prefix("echo ").unwrap().split_once(" | tee /").unwrap();
        let files = self.matching(path);
        assert!(!files.is_empty(), "{path} is there");
        for file in files {
            // What the kernel answers to `madvise` is the whole list.
            let text = if path.ends_with("transparent_hugepage/enabled") {
                format!("always [{value}] never")
            } else {
                value.to_owned()
            };
            fs::write(file, text).unwrap();
        }
    }

    /// Files of a path in which one directory may be named with a `*`.
    fn matching(&self, path: &str) -> Vec<PathBuf> {
        let Some((before, after)) = path.split_once('*') else {
            return vec![self.root.path().join(path)].into_iter().filter(|path| path.exists()).collect();
        };
        let (directory, start) = before.rsplit_once('/').unwrap();
        let (_, rest) = after.split_once('/').unwrap();
        let names = fs::read_dir(self.root.path().join(directory)).unwrap().map(|entry| entry.unwrap());
        names
            .filter(|entry| entry.file_name().to_str().unwrap().starts_with(start))
            .map(|entry| entry.path().join(rest))
            .filter(|path| path.exists())
            .collect()
    }

    /// `ulimit -n N` or `ulimit -l KIB`, as the process would see it.
    fn limit(&self, line: &str) {
        let (name, value) = line.rsplit_once(' ').unwrap();
        let value: u64 = value.parse().unwrap();
        let (name, value) = match name {
            "ulimit -n" => ("Max open files", value),
            "ulimit -l" => ("Max locked memory", value << 10),
            other => panic!("{other} is no limit that a doctor names"),
        };
        let file = self.root.path().join("proc/self/limits");
        let lines = fs::read_to_string(&file).unwrap();
        let lines = lines.lines().map(|line| match line.starts_with(name) {
            true => format!("{name}            {value}                 {value}              units\n"),
            false => format!("{line}\n"),
        });
        fs::write(&file, lines.collect::<String>()).unwrap();
    }

    fn tell_redis(&mut self, line: &str) {
        let (_, line) = line.split_once(" CONFIG SET ").unwrap();
        let words: Vec<u64> = line.split([' ', '\'']).filter_map(|word| word.parse().ok()).collect();
        let [hard, soft, soft_seconds] = words[..] else { panic!("three numbers in {line}") };
        self.redis = Some(answering(Ok(PubsubLimit { hard, soft, soft_seconds })));
    }
}

/// A Redis that answers, with a limit for its subscribers or with why it does not tell.
pub fn answering(limit: Result<PubsubLimit, String>) -> RedisSeen {
    RedisSeen::Here { version: "7.0.15".into(), limit, client: "redis-cli -h 127.0.0.1 -p 6379".into() }
}

/// The configuration that a file with these lines gives.
pub fn read_config(text: &str) -> Config {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(&file, text).unwrap();
    config::load(&Overrides::default(), std::iter::empty(), Some(Path::new(file.path()))).unwrap()
}
