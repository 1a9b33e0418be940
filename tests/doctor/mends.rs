//! Every need, made short on a host that is fine but for that, named alone, and mended by the very lines that it says.

use super::fake::Fake;
use spillgate::doctor::{NEEDS, PubsubLimit, RedisSeen, Report, RingProbe, Verdict, examine};
use std::collections::BTreeSet;

type Spoil = fn(&mut Fake);

/// How each need is made short. Some have several ways, and a few take another with them.
const SHORT: &[(&str, &[&str], Spoil)] = &[
    ("io_uring_disabled", &[], |fake| fake.write("proc/sys/kernel/io_uring_disabled", "2")),
    ("io_uring_disabled", &[], |fake| fake.write("proc/sys/kernel/io_uring_disabled", "1")),
    ("memlock", &[], |fake| fake.edit("proc/self/limits", "8388608", "65536")),
    ("memlock", &[], |fake| {
        // 64 shards lock 4 MiB.
        fake.edit("proc/self/status", "0-3", "0-63");
        fake.edit("proc/self/limits", "8388608", "1048576");
    }),
    ("nofile", &[], |fake| fake.edit("proc/self/limits", "1048576", "20000")),
    ("nofile", &[], |fake| {
        fake.set("limits.rings_per_shard = 4");
        fake.edit("proc/self/limits", "1048576", "32768");
    }),
    ("capacity", &[], |fake| fake.set("limits.connections_per_shard_max = 100000")),
    ("file_max", &[], |fake| fake.write("proc/sys/fs/file-max", "1000000")),
    ("cgroup_memory", &[], |fake| {
        fake.write("sys/fs/cgroup/system.slice/spillgate.service/memory.max", "4294967296");
    }),
    ("cgroup_memory", &[], |fake| fake.write("sys/fs/cgroup/system.slice/memory.max", "4294967296")),
    ("cgroup_memory", &[], |fake| {
        fake.write("proc/self/cgroup", "4:memory:/docker/a\n0::/");
        fake.write("sys/fs/cgroup/memory/docker/a/memory.limit_in_bytes", "4294967296");
    }),
    ("tcp_mem", &[], |fake| fake.write("proc/sys/net/ipv4/tcp_mem", "287898\t383867\t575796")),
    // Enough for a million that read, but not with 200,000 that do not.
    ("tcp_mem", &[], |fake| fake.write("proc/sys/net/ipv4/tcp_mem", "900000\t1200000\t1800000")),
    ("tcp_rmem", &[], |fake| fake.write("proc/sys/net/ipv4/tcp_rmem", "4096\t16777216\t16777216")),
    ("tcp_rmem", &[], |fake| fake.write("proc/sys/net/ipv4/tcp_rmem", "4096\t4096\t6291456")),
    ("tcp_wmem", &[], |fake| fake.write("proc/sys/net/ipv4/tcp_wmem", "4096\t16384\t16384")),
    ("max_orphans", &[], |fake| fake.edit("proc/net/sockstat", "orphan 0", "orphan 100000")),
    ("thp", &[], |fake| fake.write("sys/kernel/mm/transparent_hugepage/enabled", "[always] madvise never")),
    ("somaxconn", &[], |fake| fake.write("proc/sys/net/core/somaxconn", "4096")),
    ("syn_backlog", &[], |fake| fake.write("proc/sys/net/ipv4/tcp_syncookies", "0")),
    ("netdev_backlog", &[], |fake| fake.edit("proc/net/softnet_stat", "0000ffff 00000000", "0000ffff 00000009")),
    ("netdev_budget", &[], |fake| fake.edit("proc/net/softnet_stat", "00000001", "00001000")),
    ("netdev_budget", &[], |fake| {
        fake.edit("proc/net/softnet_stat", "00000001", "00001000");
        fake.write("proc/sys/net/core/netdev_budget_usecs", "2000");
    }),
    ("ehash", &[], |fake| fake.write("proc/sys/net/ipv4/tcp_ehash_entries", "262144")),
    ("ehash", &[], |fake| fake.write("proc/sys/net/ipv4/tcp_ehash_entries", "-262144")),
    ("conntrack", &[], |fake| fake.write("proc/sys/net/netfilter/nf_conntrack_count", "17")),
    ("conntrack_buckets", &[], |fake| {
        fake.write("proc/sys/net/netfilter/nf_conntrack_count", "17");
        fake.write("proc/sys/net/netfilter/nf_conntrack_max", "2000000");
        fake.write("proc/sys/net/netfilter/nf_conntrack_buckets", "65536");
    }),
    ("listen", &[], |fake| fake.plan.proxies = Some(4)),
    ("port_range", &["listen"], |fake| {
        fake.plan.proxies = None;
        fake.set("listen = [\"127.0.0.1:8080\"]");
    }),
    ("congestion_control", &[], |fake| fake.write("proc/sys/net/ipv4/tcp_congestion_control", "reno")),
    ("slow_start_after_idle", &[], |fake| fake.write("proc/sys/net/ipv4/tcp_slow_start_after_idle", "1")),
    ("shards", &[], |fake| fake.set("shards = 5")),
    ("cgroup_cpu", &[], |fake| {
        fake.write("sys/fs/cgroup/system.slice/spillgate.service/cpu.max", "200000 100000");
    }),
    ("cgroup_cpu", &[], |fake| {
        fake.write("proc/self/cgroup", "3:cpu,cpuacct:/docker/a\n0::/");
        fake.write("sys/fs/cgroup/cpu,cpuacct/docker/a/cpu.cfs_quota_us", "150000");
        fake.write("sys/fs/cgroup/cpu,cpuacct/docker/a/cpu.cfs_period_us", "100000");
    }),
    ("governor", &[], |fake| fake.write("sys/devices/system/cpu/cpu1/cpufreq/scaling_governor", "powersave")),
    // Interrupts of all queues on a core that a shard has.
    ("packet_cores", &[], |fake| fake.write("proc/irq/41/effective_affinity_list", "0")),
    ("packet_cores", &[], |fake| fake.write("sys/class/net/eth0/queues/rx-0/rps_cpus", "4")),
    ("redis_output_buffer", &[], |fake| {
        let limit = PubsubLimit { hard: 1 << 20, soft: 1 << 20, soft_seconds: 10 };
        fake.redis = Some(RedisSeen::Here { version: "6.0.16".into(), limit: Ok(limit) });
    }),
    ("redis_output_buffer", &[], |fake| fake.set("limits.update_bytes_max = 2097152")),
];

/// Needs that no line mends: what is short is told, with advice.
const BY_HAND: &[(&str, &[&str], Spoil)] = &[
    ("kernel", &[], |fake| fake.write("proc/sys/kernel/osrelease", "5.15.0-91-generic")),
    ("seccomp", &["io_uring"], |fake| {
        fake.edit("proc/self/status", "Seccomp:\t0", "Seccomp:\t2");
        fake.ring = RingProbe::Refused("Operation not permitted (os error 1)".into());
    }),
    ("io_uring", &[], |fake| fake.ring = RingProbe::Made(vec!["direct descriptors"])),
    ("memory", &[], |fake| fake.edit("proc/meminfo", "30000000", "4000000")),
    // Four shards with 256 rings each, and the kernel's largest tables, hold half of that.
    ("nofile", &["file_max"], |fake| {
        fake.plan.sockets = 2_000_000_000;
        fake.plan.stalled_share = 0.0;
        fake.write("proc/sys/fs/file-max", "100000");
        fake.edit("proc/meminfo", "30000000", "30000000000000");
        fake.write("proc/sys/net/ipv4/tcp_mem", "1500000\t2000000000\t3000000000");
        fake.write("proc/sys/net/ipv4/tcp_ehash_entries", "1000000000");
    }),
];

/// Needs that cannot be short: the gateway sees to them itself, or a Redis that is away is no fault of the host's.
const NEVER: &[&str] = &["notsent_lowat", "redis"];

fn short(report: &Report) -> BTreeSet<&'static str> {
    report.short().map(|finding| finding.need.id).collect()
}

fn judged<'r>(report: &'r Report, id: &str) -> &'r Verdict {
    &report.findings.iter().find(|finding| finding.need.id == id).unwrap().verdict
}

fn with<'a>(id: &'a str, more: &[&'a str]) -> BTreeSet<&'a str> {
    more.iter().copied().chain([id]).collect()
}

#[test]
fn a_host_that_is_fine_is_told_nothing_else() {
    let fake = Fake::fine();
    let report = examine(&fake.plan, &fake.host());
    assert_eq!(short(&report), BTreeSet::new(), "{}", report.text(false));
    assert_eq!(report.unknown().count(), 0, "{}", report.text(false));
}

#[test]
fn what_is_short_is_named_alone_and_each_line_that_mends_it_turns_it_green() {
    for (id, more, spoil) in SHORT {
        let spoilt = || {
            let mut fake = Fake::fine();
            spoil(&mut fake);
            fake
        };
        let fake = spoilt();
        let report = examine(&fake.plan, &fake.host());
        assert_eq!(short(&report), with(id, more), "{}", report.text(false));
        match judged(&report, id) {
            Verdict::Short(_, mends) => {
                let mut fake = spoilt();
                assert!(!mends.is_empty(), "{id}");
                mends.iter().for_each(|mend| fake.apply(mend));
                let mended = examine(&fake.plan, &fake.host());
                assert!(!judged(&mended, id).is_short(), "{id}: {mends:?}\n{}", mended.text(false));
            }
            Verdict::ShortEither(_, mends) => {
                assert!(!mends.is_empty(), "{id}");
                for mend in mends {
                    let mut fake = spoilt();
                    fake.apply(mend);
                    let mended = examine(&fake.plan, &fake.host());
                    assert!(!judged(&mended, id).is_short(), "{id}: {mend}\n{}", mended.text(false));
                }
            }
            other => panic!("{id} is short: {other:?}"),
        }
    }
}

#[test]
fn what_no_line_mends_is_told_with_advice() {
    for (id, more, spoil) in BY_HAND {
        let mut fake = Fake::fine();
        spoil(&mut fake);
        let report = examine(&fake.plan, &fake.host());
        assert!(short(&report).is_superset(&with(id, more)), "{id}: {}", report.text(false));
        assert!(!judged(&report, id).mends().is_empty(), "{id}");
    }
}

#[test]
fn every_need_is_spoilt_by_one_of_these_tests() {
    let spoilt: BTreeSet<_> = SHORT.iter().chain(BY_HAND).map(|(id, ..)| *id).chain(NEVER.iter().copied()).collect();
    let known: BTreeSet<_> = NEEDS.iter().map(|need| need.id).chain(["nr_open"]).collect();
    assert_eq!(spoilt.union(&BTreeSet::from(["nr_open"])).copied().collect::<BTreeSet<_>>(), known);
    assert_eq!(known.len(), NEEDS.len(), "no two of one name");
}

#[test]
fn the_ceiling_of_descriptors_is_short_only_where_it_stops_their_mend() {
    let mut fake = Fake::fine();
    fake.write("proc/sys/fs/nr_open", "65536");
    assert!(short(&examine(&fake.plan, &fake.host())).is_empty(), "the process has enough already");
    fake.edit("proc/self/limits", "1048576", "65536");
    let report = examine(&fake.plan, &fake.host());
    assert_eq!(short(&report), BTreeSet::from(["nofile", "nr_open"]));
    let mends = judged(&report, "nr_open").mends().to_vec();
    mends.iter().for_each(|mend| fake.apply(mend));
    assert_eq!(short(&examine(&fake.plan, &fake.host())), BTreeSet::from(["nofile"]));
}

#[test]
fn what_has_no_consequence_is_not_called_short() {
    let fine: &[(&str, Spoil)] = &[
        ("bbr has no slow start after silence", |fake| {
            fake.write("proc/sys/net/ipv4/tcp_congestion_control", "bbr");
            fake.write("proc/sys/net/ipv4/tcp_slow_start_after_idle", "1");
        }),
        ("small updates fit the first round trip", |fake| {
            fake.write("proc/sys/net/ipv4/tcp_slow_start_after_idle", "1");
            fake.set("limits.update_bytes_max = 8192");
        }),
        ("with SYN cookies the SYN backlog bounds nothing", |fake| {
            fake.write("proc/sys/net/ipv4/tcp_max_syn_backlog", "128");
        }),
        ("a packet in a million that was dropped, long ago", |fake| {
            fake.write("proc/net/softnet_stat", "0fffffff 00000009 00000000");
        }),
        ("one queue matters little to a few sockets", |fake| {
            fake.plan.sockets = 50_000;
            fake.write("proc/irq/41/effective_affinity_list", "0");
        }),
        ("packets are taken in on a core that no shard has", |fake| {
            fake.set("shards = 3");
            fake.write("proc/irq/40/effective_affinity_list", "3");
            fake.write("proc/irq/41/effective_affinity_list", "3");
        }),
        ("huge pages are off for the process itself", |fake| {
            fake.write("sys/kernel/mm/transparent_hugepage/enabled", "[always] madvise never");
            fake.edit("proc/self/status", "THP_enabled:\t1", "THP_enabled:\t0");
        }),
        ("io_uring is for a group that the process is in", |fake| {
            fake.write("proc/sys/kernel/io_uring_disabled", "1");
            fake.write("proc/sys/kernel/io_uring_group", "24");
        }),
        ("a filter that lets io_uring through", |fake| fake.edit("proc/self/status", "Seccomp:\t0", "Seccomp:\t2")),
        ("no conntrack, no governor, no such switches", |fake| {
            for path in
                ["net/netfilter/nf_conntrack_max", "net/netfilter/nf_conntrack_count", "kernel/io_uring_disabled"]
            {
                fake.remove(&format!("proc/sys/{path}"));
            }
            fake.remove("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
            fake.remove("sys/devices/system/cpu/cpu1/cpufreq/scaling_governor");
        }),
        ("the ports of this host, where clients come from elsewhere", |fake| {
            fake.write("proc/sys/net/ipv4/ip_local_port_range", "50000\t50999");
        }),
        ("one address, where 16 proxies connect", |fake| fake.plan.proxies = Some(16)),
        ("Redis without a limit", |fake| {
            let limit = PubsubLimit { hard: 0, soft: 0, soft_seconds: 0 };
            fake.redis = Some(RedisSeen::Here { version: "7.0.15".into(), limit: Ok(limit) });
        }),
    ];
    for (what, change) in fine {
        let mut fake = Fake::fine();
        change(&mut fake);
        let report = examine(&fake.plan, &fake.host());
        assert_eq!(short(&report), BTreeSet::new(), "{what}\n{}", report.text(false));
    }
}

#[test]
fn what_is_not_shown_is_neither_short_nor_fine() {
    let mut fake = Fake::fine();
    fake.plan.proxies = None;
    fake.ring = RingProbe::Untried;
    fake.redis = Some(RedisSeen::Here { version: "7.0.15".into(), limit: Err("NOPERM".into()) });
    for path in ["net/ipv4/tcp_mem", "net/core/netdev_max_backlog", "net/ipv4/tcp_ehash_entries"] {
        fake.remove(&format!("proc/sys/{path}"));
    }
    fake.remove("proc/self/limits");
    let report = examine(&fake.plan, &fake.host());
    assert_eq!(short(&report), BTreeSet::new());
    let unknown: BTreeSet<_> = report.unknown().map(|finding| finding.need.id).collect();
    let expected =
        ["io_uring", "listen", "memlock", "nofile", "tcp_mem", "netdev_backlog", "ehash", "redis_output_buffer"];
    assert_eq!(unknown, BTreeSet::from(expected));
    fake.redis = Some(RedisSeen::Away("refused".into()));
    assert!(matches!(judged(&examine(&fake.plan, &fake.host()), "redis"), Verdict::Unknown(_)));
}

#[test]
fn a_host_that_shows_nothing_at_all_is_judged_without_a_fault() {
    let nothing = tempfile::TempDir::new().unwrap();
    let host = spillgate::doctor::Host::read(nothing.path(), RingProbe::Untried, None);
    let report = examine(&super::plan(1_000_000), &host);
    assert!(report.unknown().count() > 10, "{}", report.text(false));
    assert_eq!(report.json()["findings"].as_array().unwrap().len(), NEEDS.len());
}

#[test]
fn memory_and_pages_follow_from_the_figures() {
    let fake = Fake::fine();
    let mut plan = fake.plan.clone();
    let host = fake.host();
    plan.stalled_share = 0.0;
    assert_eq!(plan.tcp_pages(), (1_000_000, 1_000_000));
    let rings = 4 * 1_310_720;
    assert_eq!(plan.memory(&host), 1_000_000 * (226 + 4_085) + rings + (64 << 20));
    plan.stalled_share = 1.0;
    assert_eq!(plan.tcp_pages().0, 1_000_000 * 14_438 / 4096 + 1);
    assert_eq!(plan.memory(&host), 1_000_000 * (226 + 4_085 + 15_770 + 733) + rings + (64 << 20));
    // A quarter each, and five standard deviations (433) more.
    assert_eq!(plan.per_shard(&host), 252_166);
}
