//! What a host does not show: it cannot be told, and is neither short nor fine.

use super::fake::{Fake, answering};
use super::mends::{judged, short};
use spillgate::doctor::{NEEDS, RedisSeen, RingProbe, Verdict, examine};
use std::collections::BTreeSet;

#[test]
fn what_is_not_shown_is_neither_short_nor_fine() {
    let mut fake = Fake::fine();
    fake.plan.proxies = None;
    fake.ring = RingProbe::Untried;
    fake.redis = Some(answering(Err("NOPERM".into())));
    for path in ["net/ipv4/tcp_mem", "net/core/netdev_max_backlog", "net/ipv4/tcp_ehash_entries"] {
        fake.remove(&format!("proc/sys/{path}"));
    }
    fake.remove("proc/self/limits");
    let report = examine(&fake.plan, &fake.host());
    assert_eq!(short(&report), BTreeSet::new());
    let unknown: BTreeSet<_> = report.unknown().map(|finding| finding.need.id).collect();
    let expected =
        ["io_uring", "listen", "memlock", "nofile", "tcp_mem", "netdev_backlog", "ehash", "redis_output_buffer"];
    // Without `tcp_mem` it is a network namespace of its own, from which the host's conntrack is not seen.
    let expected = expected.into_iter().chain(["conntrack", "conntrack_buckets"]);
    assert_eq!(unknown, expected.collect());
    fake.redis = Some(RedisSeen::Away("refused".into()));
    assert!(matches!(judged(&examine(&fake.plan, &fake.host()), "redis"), Verdict::Unknown(_)));
}

#[test]
fn a_host_that_shows_nothing_at_all_is_judged_without_a_fault() {
    let nothing = tempfile::TempDir::new().unwrap();
    let host = spillgate::doctor::Host::read(nothing.path(), RingProbe::Untried, None);
    let report = examine(&super::plan(1_000_000), &host);
    // What is a matter of the plan and the configuration alone, or of a Redis that is not configured.
    let fine = ["notsent_lowat", "listen", "redis", "redis_output_buffer"];
    let unknown: BTreeSet<_> = report.unknown().map(|finding| finding.need.id).collect();
    let told: Vec<_> = NEEDS.iter().map(|need| need.id).filter(|id| !unknown.contains(id)).collect();
    assert_eq!((short(&report), told), (BTreeSet::from(["listen"]), Vec::from(fine)), "{}", report.text(false));
    assert_eq!(report.json()["findings"].as_array().unwrap().len(), NEEDS.len());
}

/// Files of which each need is a matter, and what hides them. Where they cannot be read, it cannot be told.
const HIDDEN: &[(&str, &[&str])] = &[
    ("proc/sys/kernel/osrelease", &["kernel"]),
    ("proc/sys/kernel/io_uring_disabled", &["io_uring_disabled"]),
    ("proc/self/status", &["seccomp", "shards", "memlock", "nofile", "memory", "somaxconn", "cgroup_cpu"]),
    ("proc/self/limits", &["memlock", "nofile"]),
    ("proc/sys/fs/nr_open", &["nr_open"]),
    ("proc/sys/fs/file-max", &["file_max"]),
    ("proc/meminfo", &["memory"]),
    ("proc/self/cgroup", &["cgroup_memory", "cgroup_cpu"]),
    ("sys/fs/cgroup/system.slice/spillgate.service/memory.max", &["cgroup_memory"]),
    ("sys/fs/cgroup/system.slice/spillgate.service/cpu.max", &["cgroup_cpu"]),
    ("proc/sys/net/ipv4/tcp_mem", &["tcp_mem"]),
    ("proc/sys/net/ipv4/tcp_rmem", &["tcp_rmem"]),
    ("proc/sys/net/ipv4/tcp_wmem", &["tcp_wmem"]),
    ("proc/sys/net/ipv4/tcp_max_orphans", &["max_orphans"]),
    ("proc/net/sockstat", &["max_orphans"]),
    ("sys/kernel/mm/transparent_hugepage/enabled", &["thp"]),
    ("proc/sys/net/core/somaxconn", &["somaxconn"]),
    ("proc/sys/net/ipv4/tcp_max_syn_backlog", &["syn_backlog"]),
    ("proc/sys/net/ipv4/tcp_syncookies", &["syn_backlog"]),
    ("proc/net/softnet_stat", &["netdev_backlog", "netdev_budget"]),
    ("proc/sys/net/core/netdev_max_backlog", &["netdev_backlog"]),
    ("proc/sys/net/core/netdev_budget", &["netdev_budget"]),
    ("proc/sys/net/core/netdev_budget_usecs", &["netdev_budget"]),
    ("proc/sys/net/ipv4/tcp_ehash_entries", &["ehash"]),
    ("proc/sys/net/netfilter/nf_conntrack_max", &["conntrack", "conntrack_buckets"]),
    ("proc/sys/net/netfilter/nf_conntrack_count", &["conntrack", "conntrack_buckets"]),
    ("proc/sys/net/ipv4/ip_local_port_range", &["port_range"]),
    ("proc/sys/net/ipv4/tcp_congestion_control", &["congestion_control"]),
    ("proc/sys/net/ipv4/tcp_slow_start_after_idle", &["slow_start_after_idle"]),
    ("sys/devices/system/cpu/cpu1/cpufreq/scaling_governor", &["governor"]),
];

#[test]
fn a_file_that_is_masked_or_odd_makes_its_needs_unknown_and_says_which_file() {
    for (path, needs) in HIDDEN {
        // As a container masks it, and as no kernel that is known prints it.
        for text in ["", "what is this?"] {
            let fake = Fake::fine();
            fake.write(path, text);
            let report = examine(&fake.plan, &fake.host());
            let is_text = text.is_empty() || !["governor", "congestion_control"].contains(&needs[0]);
            for need in needs.iter().filter(|_| is_text) {
                let verdict = judged(&report, need);
                assert!(matches!(verdict, Verdict::Unknown(_)), "{need} without {path} ({text:?}): {verdict:?}");
                let said = verdict.seen();
                let name = path.rsplit('/').next().unwrap();
                assert!(said.contains(name), "{need} without {path}: {said}");
            }
            assert_eq!(short(&report).len(), usize::from(!is_text), "{path} ({text:?}): {}", report.text(false));
        }
    }
}

#[test]
fn directories_that_are_masked_are_not_taken_for_what_a_kernel_does_not_have() {
    let hidden: &[(&str, &[&str])] = &[
        ("proc/sys", &["kernel", "io_uring_disabled", "conntrack", "tcp_mem", "file_max", "port_range"]),
        ("proc/irq", &["packet_cores"]),
        ("sys/class/net", &["packet_cores"]),
        ("sys/devices/system/cpu", &["governor"]),
        ("sys/kernel/mm", &["thp"]),
        ("sys/fs/cgroup", &["cgroup_memory", "cgroup_cpu"]),
    ];
    for (path, needs) in hidden {
        for is_there in [true, false] {
            let fake = Fake::fine();
            fake.hide(path, is_there);
            let report = examine(&fake.plan, &fake.host());
            for need in *needs {
                let verdict = judged(&report, need);
                assert!(matches!(verdict, Verdict::Unknown(_)), "{need} without {path}: {verdict:?}");
            }
            assert_eq!(short(&report), BTreeSet::new(), "{path}: {}", report.text(false));
        }
    }
}
