//! Needs of memory: the host's, the control group's, TCP's.

use super::figures;
use super::host::Host;
use super::mend::Mend;
use super::needs::{Need, UNDO_SYSCTL, Verdict, as_mends, at_least, no_sysctls, not_shown, not_told};
use super::plan::Plan;
use super::text::{bytes, thousands};

pub(super) const AVAILABLE: Need = Need {
    id: "memory",
    what: "free memory (MemAvailable)",
    needed: "N x (227 + 4,085) bytes, 4,096 more for each socket that reads (a page of TCP's), 15,770 for each that does not (14,438 of them TCP's), 1.25 MiB a ring, 64 MiB",
    why: "the kernel ends the gateway, or another process, when memory is out",
    source: "measured: see the table of figures; a gateway that runs here already has taken its part",
    undo: "nothing to undo",
    sysctls: no_sysctls,
    judge: |plan, host| {
        let Some(seen) = host.memory_available else { return not_told(host, "proc/meminfo") };
        let needed = plan.memory(host);
        let said = format!("{}; needed: {}", bytes(seen), bytes(needed));
        if seen >= needed {
            return Verdict::Fine(said);
        }
        let mend = Mend::Advice(format!("a host with {} more, or fewer sockets on this one", bytes(needed - seen)));
        Verdict::Short(said, vec![mend])
    },
};

pub(super) const CGROUP: Need = Need {
    id: "cgroup_memory",
    what: "the control group's memory limit",
    needed: "the same as of free memory, in memory.max and memory.high of the gateway's group and of each above it: sockets of the kernel are charged to them too",
    why: "at memory.max the kernel ends the gateway, above memory.high it holds it up, however much memory the host has",
    source: "kernel: admin-guide/cgroup-v2",
    undo: "the earlier limit (MemoryMax=, MemoryHigh= of the unit, or the container's)",
    sysctls: no_sysctls,
    judge: judge_groups,
};

fn judge_groups(plan: &Plan, host: &Host) -> Verdict {
    let needed = plan.memory(host);
    let value = needed.next_multiple_of(1 << 20);
    let groups = host.cgroups.memory.iter().flat_map(|group| &group.limits);
    let groups = groups.map(|(file, limit)| (*limit, file.clone(), Mend::Write(file.clone(), value.to_string())));
    let unit = host.unit.iter().flat_map(|unit| unit.memory.iter().map(move |(name, limit)| (unit, name, *limit)));
    let unit = unit.map(|(unit, name, limit)| (limit, unit.said(name), Mend::Unit(format!("{name}={}M", value >> 20))));
    let limits: Vec<_> = unit.chain(groups).collect();
    let said = |limits: &[&(u64, String, Mend)]| {
        let each: Vec<_> = limits.iter().map(|(limit, place, _)| format!("{} ({place})", bytes(*limit))).collect();
        format!("{}; needed: {}", each.join(", "), bytes(needed))
    };
    let odd = host.unit.as_ref().and_then(|unit| unit.odd(&["MemoryMax", "MemoryHigh"]));
    let tight: Vec<_> = limits.iter().filter(|(limit, ..)| *limit < needed).collect();
    match (limits.iter().min_by_key(|(limit, ..)| *limit), &host.cgroups.memory_unread) {
        _ if !tight.is_empty() => Verdict::Short(said(&tight), tight.iter().map(|(.., mend)| mend.clone()).collect()),
        _ if odd.is_some() => Verdict::Unknown(odd.unwrap_or_default()),
        (_, Some(why)) => Verdict::Unknown(why.clone()),
        (Some(least), None) => Verdict::Fine(said(&[least])),
        (None, None) => Verdict::Fine("no limit".into()),
    }
}

pub(super) const TCP_MEM: Need = Need {
    id: "tcp_mem",
    what: "memory for TCP (net.ipv4.tcp_mem, pages)",
    needed: "pressure (the second number): one page a socket that reads, 3.5 for each that does not",
    why: "above pressure the kernel shrinks every socket's buffers, above the maximum it drops packets and refuses sends, for the healthy too",
    source: "kernel: networking/ip-sysctl; measured: 11.5 to 14.1 KiB a stalled socket (docs/measurements-slow.md)",
    undo: UNDO_SYSCTL,
    sysctls: |plan, _| {
        let (stalled, idle) = plan.tcp_pages();
        let pages = stalled.max(idle);
        // The kernel's own ratio between the three (net/ipv4/tcp.c, tcp_init_mem).
        vec![("net.ipv4.tcp_mem", format!("{} {pages} {}", pages / 4 * 3, pages / 4 * 6))]
    },
    judge: |plan, host| {
        let Some(&[_, pressure, _]) = host.numbers("net.ipv4.tcp_mem").as_deref() else {
            return not_shown(host, "net.ipv4.tcp_mem");
        };
        let pressure = pressure.max(0) as u64;
        let (stalled, idle) = plan.tcp_pages();
        let said = format!(
            "pressure at {} pages; needed: {} with nobody stalled, {} with {} stalled",
            thousands(pressure),
            thousands(idle),
            thousands(stalled),
            thousands(plan.stalled()),
        );
        if pressure >= stalled.max(idle) {
            return Verdict::Fine(said);
        }
        Verdict::Short(said, as_mends(host, (TCP_MEM.sysctls)(plan, host)))
    },
};

pub(super) const TCP_RMEM: Need = Need {
    id: "tcp_rmem",
    what: "receive buffers (net.ipv4.tcp_rmem, bytes)",
    needed: "default (the second number) from 16,384 to 1,048,576",
    why: "too large a default lets clients that are not read leave as much with us, each; too small a one cuts messages into many packets",
    source: "kernel: networking/ip-sysctl; src/sys/uring.rs reads 16 KiB at a time",
    undo: UNDO_SYSCTL,
    sysctls: no_sysctls,
    judge: |_, host| {
        let Some(&[least, default, most]) = host.numbers("net.ipv4.tcp_rmem").as_deref() else {
            return not_shown(host, "net.ipv4.tcp_rmem");
        };
        let fine = figures::RECEIVE_DEFAULT_MIN.value as i64..=figures::RECEIVE_DEFAULT_MAX.value as i64;
        if fine.contains(&default) {
            return Verdict::Fine(format!("default {}", bytes(default as u64)));
        }
        // The default alone is changed: a smallest or largest size beside it stays, where it can.
        let least = least.clamp(1, RECEIVE_DEFAULT);
        let value = format!("{least} {RECEIVE_DEFAULT} {}", most.max(RECEIVE_DEFAULT));
        let lowered = if default > RECEIVE_DEFAULT { "; the line lowers it, and nothing else" } else { "" };
        let said = format!("default {}{lowered}", bytes(default.max(0) as u64));
        Verdict::Short(said, vec![Mend::Sysctl("net.ipv4.tcp_rmem", value)])
    },
};

/// The kernel's own (net/ipv4/tcp.c, tcp_init).
const RECEIVE_DEFAULT: i64 = 131_072;

/// Windows of critical updates that may be on their way to a client that reads (docs/ARCHITECTURE.md).
const WINDOWS: u64 = 4;

/// The send buffer that lets all of them go out: the kernel counts its own bookkeeping too, up to as much again.
fn send_buffer(plan: &Plan) -> u64 {
    u64::from(plan.config.limits.window_bytes) * WINDOWS * 2
}

pub(super) const TCP_WMEM: Need = Need {
    id: "tcp_wmem",
    what: "send buffers (net.ipv4.tcp_wmem, bytes)",
    needed: "maximum (the third number): eight windows (limits.window_bytes), 524,288 by default",
    why: "a send buffer that cannot grow throttles healthy clients that are far away",
    source: "measured: capped at 16,384 the median age at 150 ms was 146 to 182 ms, without a cap 77 (docs/measurements-slow.md)",
    undo: UNDO_SYSCTL,
    sysctls: no_sysctls,
    judge: |plan, host| {
        let Some(&[least, default, most]) = host.numbers("net.ipv4.tcp_wmem").as_deref() else {
            return not_shown(host, "net.ipv4.tcp_wmem");
        };
        let needed = send_buffer(plan);
        if most.max(0) as u64 >= needed {
            return Verdict::Fine(format!("up to {}", bytes(most as u64)));
        }
        let said = format!("up to {}; needed: {}", bytes(most.max(0) as u64), bytes(needed));
        let value = at_least(host, "net.ipv4.tcp_wmem", &format!("{least} {default} {}", needed.max(4 << 20)));
        Verdict::Short(said, vec![Mend::Sysctl("net.ipv4.tcp_wmem", value)])
    },
};

pub(super) const NOTSENT_LOWAT: Need = Need {
    id: "notsent_lowat",
    what: "unsent bytes in the kernel (tcp_notsent_lowat)",
    needed: "anything: Spillgate sets TCP_NOTSENT_LOWAT=1 on its sockets (src/sys/listener.rs)",
    why: "with the kernel's default a stalled client keeps megabytes there",
    source: "measured: TCP's memory of a stalled socket 377 to 391 KB at servers that do not set it, 11 KB with 1 (docs/benchmarks.md)",
    undo: "nothing to undo",
    sysctls: no_sysctls,
    judge: |_, _| Verdict::Fine("set by Spillgate for each socket, whatever the host says".into()),
};

pub(super) const ORPHANS: Need = Need {
    id: "max_orphans",
    what: "sockets without a process (net.ipv4.tcp_max_orphans)",
    needed: "twice those that are there: Spillgate's own closes leave none (SO_LINGER 0)",
    why: "past it the kernel resets closed connections before their last bytes are out, those of a proxy on this host too",
    source: "kernel: networking/ip-sysctl; measured: none left after 80 stalled ones were closed (docs/measurements-slow.md)",
    undo: UNDO_SYSCTL,
    sysctls: no_sysctls,
    judge: |_, host| {
        let name = "net.ipv4.tcp_max_orphans";
        let Some(most) = host.number(name) else { return not_shown(host, name) };
        let Some(seen) = host.orphans else { return not_told(host, "proc/net/sockstat") };
        let said = format!("{}; {} are there now", thousands(most), thousands(seen));
        if seen.saturating_mul(2) <= most {
            return Verdict::Fine(said);
        }
        let value = at_least(host, name, &(seen * 4).next_power_of_two().to_string());
        Verdict::Short(said, vec![Mend::Sysctl(name, value)])
    },
};

pub(super) const THP: Need = Need {
    id: "thp",
    what: "transparent huge pages",
    needed: "off for the process (the gateway switches them off for itself), madvise (its allocator asks for none) or never",
    why: "with them memory grows in steps of 2 MiB and does not come back",
    source: "measured: 20 to 25 MB more after storms (docs/measurements.md)",
    undo: "`echo always | tee /sys/kernel/mm/transparent_hugepage/enabled`",
    sysctls: no_sysctls,
    judge: |_, host| match (host.thp_here, host.thp.as_deref()) {
        (Some(false), _) => Verdict::Fine("off for this process, whatever the host says".into()),
        (None, Some("always")) => not_told(host, "proc/self/status"),
        (_, Some("always")) => {
            let file = "/sys/kernel/mm/transparent_hugepage/enabled";
            Verdict::Short("always".into(), vec![Mend::Write(file.into(), "madvise".into())])
        }
        (_, Some(other @ ("madvise" | "never"))) => Verdict::Fine(other.to_owned()),
        (_, Some(other)) => Verdict::Unknown(format!(
            "/sys/kernel/mm/transparent_hugepage/enabled says {other:?}, which is not understood"
        )),
        (_, None) => match host.unread("sys/kernel/mm") {
            Some(why) => Verdict::Unknown(why),
            None => Verdict::Fine("this kernel has none".into()),
        },
    },
};
