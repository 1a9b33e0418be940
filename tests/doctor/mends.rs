//! Every need, made short on a host that is fine but for that, named alone, and mended by the very lines that it says.

use super::fake::{Fake, answering};
use spillgate::doctor::{NEEDS, PubsubLimit, RedisSeen, Report, RingProbe, Verdict, examine};
use std::collections::BTreeSet;

type Spoil = fn(&mut Fake);

/// What the unit that is shipped says of limits.
const SHIPPED: &str = "[Service]\nLimitNOFILE=1048576\nLimitMEMLOCK=64M\n";

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
    // That of the unit, whatever the shell has.
    ("nofile", &[], |fake| fake.systemd("[Service]\nLimitNOFILE=20000\nLimitMEMLOCK=64M\n")),
    ("memlock", &[], |fake| fake.systemd("[Service]\nLimitNOFILE=1048576\nLimitMEMLOCK=64K\n")),
    ("capacity", &[], |fake| fake.set("limits.connections_per_shard_max = 100000")),
    ("file_max", &[], |fake| fake.write("proc/sys/fs/file-max", "1000000")),
    ("cgroup_memory", &[], |fake| {
        fake.write("sys/fs/cgroup/system.slice/spillgate.service/memory.max", "4294967296");
    }),
    ("cgroup_memory", &[], |fake| fake.write("sys/fs/cgroup/system.slice/memory.max", "4294967296")),
    ("cgroup_memory", &[], |fake| {
        fake.write("proc/self/cgroup", "4:memory:/docker/a\n0::/");
        fake.write("sys/fs/cgroup/memory/cgroup.procs", "1");
        fake.write("sys/fs/cgroup/memory/docker/a/memory.limit_in_bytes", "4294967296");
    }),
    ("cgroup_memory", &[], |fake| {
        fake.write("sys/fs/cgroup/system.slice/spillgate.service/memory.high", "4294967296");
        fake.write("sys/fs/cgroup/system.slice/memory.max", "2147483648");
        fake.write("sys/fs/cgroup/system.slice/memory.high", "1073741824");
    }),
    ("cgroup_memory", &[], |fake| fake.systemd("[Service]\nMemoryMax=4G\n")),
    ("tcp_mem", &[], |fake| fake.write("proc/sys/net/ipv4/tcp_mem", "287898\t383867\t575796")),
    ("tcp_mem", &[], |fake| fake.write("proc/sys/net/ipv4/tcp_mem", "10\t20\t900000000")),
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
        fake.write("sys/fs/cgroup/cpu,cpuacct/cgroup.procs", "1");
        fake.write("sys/fs/cgroup/cpu,cpuacct/docker/a/cpu.cfs_quota_us", "150000");
        fake.write("sys/fs/cgroup/cpu,cpuacct/docker/a/cpu.cfs_period_us", "100000");
    }),
    ("cgroup_cpu", &[], |fake| fake.systemd("[Service]\nCPUQuota=150%\n")),
    ("shards", &[], |fake| {
        fake.systemd("[Service]\nCPUAffinity=0-1\nCPUAffinity=2\n");
        fake.set("shards = 4");
    }),
    ("governor", &[], |fake| fake.write("sys/devices/system/cpu/cpu1/cpufreq/scaling_governor", "powersave")),
    // Interrupts of all queues on a core that a shard has.
    ("packet_cores", &[], |fake| fake.write("proc/irq/41/effective_affinity_list", "0")),
    ("packet_cores", &[], |fake| fake.write("sys/class/net/eth0/queues/rx-0/rps_cpus", "4")),
    ("redis_output_buffer", &[], |fake| {
        let limit = PubsubLimit { hard: 1 << 20, soft: 1 << 20, soft_seconds: 10 };
        fake.redis = Some(answering(Ok(limit)));
    }),
    // Enough at once and for a moment, but a second later it is cut off.
    ("redis_output_buffer", &[], |fake| {
        let limit = PubsubLimit { hard: 64 << 20, soft: 16 << 20, soft_seconds: 1 };
        fake.redis = Some(answering(Ok(limit)));
    }),
    ("redis_output_buffer", &[], |fake| {
        let limit = PubsubLimit { hard: 0, soft: 1 << 20, soft_seconds: 600 };
        fake.redis = Some(answering(Ok(limit)));
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
    ("redis", &[], |fake| fake.redis = Some(RedisSeen::Refused("Connection refused".into(), "start it"))),
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

/// Needs that cannot be short: the gateway sees to them itself.
const NEVER: &[&str] = &["notsent_lowat"];

pub fn short(report: &Report) -> BTreeSet<&'static str> {
    report.short().map(|finding| finding.need.id).collect()
}

pub fn judged<'r>(report: &'r Report, id: &str) -> &'r Verdict {
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
    // Beyond the kernel's largest table rings are what helps, and no ceiling.
    fake.plan.sockets = 6_000_000;
    fake.write("proc/sys/fs/nr_open", "1048576");
    assert!(!judged(&examine(&fake.plan, &fake.host()), "nr_open").is_short());
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
        ("one address, where 19 proxies connect", |fake| fake.plan.proxies = Some(19)),
        ("Redis without a limit", |fake| {
            let limit = PubsubLimit { hard: 0, soft: 0, soft_seconds: 0 };
            fake.redis = Some(answering(Ok(limit)));
        }),
        ("locked memory for a gateway that may lock what it likes", |fake| {
            fake.edit("proc/self/limits", "8388608", "524288");
            fake.edit("proc/self/status", "Seccomp", "CapEff:\t000001ffffffffff\nSeccomp");
        }),
        ("Redis with a soft limit that is as good as a hard one", |fake| {
            let limit = PubsubLimit { hard: 64 << 20, soft: 32 << 20, soft_seconds: 0 };
            fake.redis = Some(answering(Ok(limit)));
        }),
        ("packets that were dropped long ago, where a queue holds one for each socket", |fake| {
            fake.plan.sockets = 1000;
            fake.write("proc/net/softnet_stat", "0000ffff 00000fff 00001000");
            fake.write("proc/sys/net/core/netdev_budget", "1000");
        }),
        ("limits of a control group that are wide enough, or somebody else's", |fake| {
            fake.write("sys/fs/cgroup/system.slice/spillgate.service/memory.max", "17179869184");
            fake.write("sys/fs/cgroup/system.slice/other.service/memory.max", "1048576");
        }),
        ("a shell with little, where a unit has enough", |fake| {
            fake.systemd(SHIPPED);
            fake.edit("proc/self/limits", "1048576", "1024");
            fake.edit("proc/self/limits", "8388608", "65536");
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
fn every_tight_control_group_is_named_by_its_file() {
    let fake = Fake::fine();
    let slice = "sys/fs/cgroup/system.slice";
    fake.write(&format!("{slice}/spillgate.service/memory.high"), "4294967296");
    fake.write(&format!("{slice}/spillgate.service/memory.max"), "34359738368");
    fake.write(&format!("{slice}/memory.max"), "2147483648");
    fake.write("proc/self/cgroup", "0::/system.slice/spillgate.service");
    let report = examine(&fake.plan, &fake.host());
    let verdict = judged(&report, "cgroup_memory");
    let files = ["spillgate.service/memory.high", "system.slice/memory.max"];
    assert!(files.iter().all(|file| verdict.seen().contains(file)), "{}", verdict.seen());
    assert!(!verdict.seen().contains("spillgate.service/memory.max"), "what is wide enough: {}", verdict.seen());
    assert_eq!(verdict.mends().len(), 2, "{verdict:?}");
}

#[test]
fn the_unit_is_judged_where_systemd_runs_it_and_else_the_shell() {
    let fake = Fake::fine();
    fake.edit("proc/self/limits", "1048576", "1024");
    fake.write("usr/lib/systemd/system/spillgate.service", SHIPPED);
    let nofile = |fake: &Fake| judged(&examine(&fake.plan, &fake.host()), "nofile").clone();
    let own = nofile(&fake);
    assert!(own.is_short() && own.seen().contains("this shell's"), "systemd does not run here: {own:?}");
    fake.systemd(SHIPPED);
    let unit = nofile(&fake);
    let said = "LimitNOFILE= of /etc/systemd/system/spillgate.service; this shell has 1,024";
    assert!(!unit.is_short() && unit.seen().contains(said), "{unit:?}");
    // A drop-in goes before the unit, and one in /etc before one of the same name in /usr.
    fake.write("usr/lib/systemd/system/spillgate.service.d/50-a.conf", "[Service]\nLimitNOFILE=1048576");
    fake.write("etc/systemd/system/spillgate.service.d/50-a.conf", "[Service]\nLimitNOFILE=2048:4096");
    let lowered = nofile(&fake);
    let said = "4,096 (LimitNOFILE= of /etc/systemd/system/spillgate.service.d/50-a.conf;";
    assert!(lowered.is_short() && lowered.seen().starts_with(said), "{lowered:?}");
    let lines: Vec<_> = lowered.mends().iter().map(ToString::to_string).collect();
    assert_eq!(lines[0], "LimitNOFILE=1048576", "no less than the unit that is shipped has");
    assert!(!lines.iter().any(|line| line.starts_with("ulimit")), "the shell's is not the gateway's: {lines:?}");
    // What the kernel does not allow is nobody's.
    fake.write("etc/systemd/system/spillgate.service.d/50-a.conf", "[Service]\nLimitNOFILE=infinity");
    fake.write("proc/sys/fs/nr_open", "100000");
    let report = examine(&fake.plan, &fake.host());
    assert_eq!(short(&report), BTreeSet::from(["nofile", "nr_open"]), "{}", report.text(false));
}

#[test]
fn no_line_lowers_what_a_host_has() {
    let present: &[(&str, &str, &str)] = &[
        ("net.ipv4.tcp_mem", "net/ipv4/tcp_mem", "900000 1000000 90000000"),
        ("net.ipv4.tcp_wmem", "net/ipv4/tcp_wmem", "8192 65536 131072"),
        ("net.ipv4.ip_local_port_range", "net/ipv4/ip_local_port_range", "1024 9999"),
    ];
    let mut fake = Fake::fine();
    fake.plan.proxies = None;
    fake.set("listen = [\"127.0.0.1:8080\"]");
    present.iter().for_each(|(_, path, value)| fake.write(&format!("proc/sys/{path}"), value));
    let report = examine(&fake.plan, &fake.host());
    let lines: Vec<_> = report.short().flat_map(|finding| finding.verdict.mends()).map(ToString::to_string).collect();
    for line in [
        "sysctl -w net.ipv4.tcp_mem='1128735 1504981 90000000'",
        "sysctl -w net.ipv4.tcp_wmem='8192 65536 4194304'",
        "sysctl -w net.ipv4.ip_local_port_range='1024 65535'",
    ] {
        assert!(lines.iter().any(|there| there == line), "{line} in {lines:#?}");
    }
}

#[test]
fn memory_and_pages_follow_from_the_figures() {
    let fake = Fake::fine();
    let mut plan = fake.plan.clone();
    let host = fake.host();
    plan.stalled_share = 0.0;
    assert_eq!(plan.tcp_pages(), (1_000_000, 1_000_000));
    let rings = 4 * 1_310_720;
    assert_eq!(plan.memory(&host), 1_000_000 * (227 + 4_085 + 4_096) + rings + (64 << 20));
    plan.stalled_share = 1.0;
    assert_eq!(plan.tcp_pages().0, 1_000_000 * 14_438 / 4096 + 1);
    // What a stalled one takes in all, with TCP's pages rounded up to whole ones.
    let (all, rounding) = (1_000_000 * (227 + 4_085 + 15_770), plan.tcp_pages().0 * 4_096 - 1_000_000 * 14_438);
    assert!(rounding < 4_096);
    assert_eq!(plan.memory(&host), all + rounding + rings + (64 << 20));
    // A quarter each, and five standard deviations (433) more.
    assert_eq!(plan.per_shard(&host), 252_166);
}
