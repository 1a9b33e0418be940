//! Needs of memory: the host's, the control group's, TCP's.

use super::figures;
use super::mend::Mend;
use super::needs::{Need, UNDO_SYSCTL, Verdict, as_mends, no_sysctls, not_shown};
use super::plan::Plan;
use super::text::{bytes, thousands};

pub(super) const AVAILABLE: Need = Need {
    id: "memory",
    what: "free memory (MemAvailable)",
    needed: "N x (226 + 4,085) bytes, and 16,503 more for each socket that does not read, 1.25 MiB a ring, 64 MiB",
    why: "the kernel ends the gateway, or another process, when memory is out",
    source: "measured: see the table of figures; a gateway that runs here already has taken its part",
    undo: "nothing to undo",
    sysctls: no_sysctls,
    judge: |plan, host| {
        let Some(seen) = host.memory_available else { return Verdict::Unknown("/proc/meminfo does not tell".into()) };
        let needed = plan.memory(host);
        let said = format!("{}, {} are needed", bytes(seen), bytes(needed));
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
    needed: "the same as of free memory: sockets of the kernel are charged to the group too",
    why: "the kernel ends the gateway at it, however much memory the host has",
    source: "kernel: admin-guide/cgroup-v2, memory.max",
    undo: "the earlier limit (MemoryMax= of the unit, or the container's)",
    sysctls: no_sysctls,
    judge: |plan, host| {
        let Some((file, seen)) = &host.cgroup.memory else { return Verdict::Fine("no limit".into()) };
        let needed = plan.memory(host);
        let said = format!("{}, {} are needed", bytes(*seen), bytes(needed));
        if *seen >= needed {
            return Verdict::Fine(said);
        }
        Verdict::Short(said, vec![Mend::Write(file.clone(), needed.next_multiple_of(1 << 20).to_string())])
    },
};

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
            return not_shown("net.ipv4.tcp_mem");
        };
        let pressure = pressure.max(0) as u64;
        let (stalled, idle) = plan.tcp_pages();
        let said = format!(
            "pressure at {}; {} are needed with nobody stalled, {} with {} stalled",
            thousands(pressure),
            thousands(idle),
            thousands(stalled),
            thousands(plan.stalled()),
        );
        if pressure >= stalled.max(idle) {
            return Verdict::Fine(said);
        }
        Verdict::Short(said, as_mends((TCP_MEM.sysctls)(plan, host)))
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
            return not_shown("net.ipv4.tcp_rmem");
        };
        let fine = figures::RECEIVE_DEFAULT_MIN.value as i64..=figures::RECEIVE_DEFAULT_MAX.value as i64;
        if fine.contains(&default) {
            return Verdict::Fine(format!("default {}", bytes(default as u64)));
        }
        let value = format!("{} 131072 {}", least.clamp(1, 4096), most.max(131_072));
        Verdict::Short(
            format!("default {}", thousands(default.max(0) as u64)),
            vec![Mend::Sysctl("net.ipv4.tcp_rmem", value)],
        )
    },
};

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
            return not_shown("net.ipv4.tcp_wmem");
        };
        let needed = send_buffer(plan);
        if most.max(0) as u64 >= needed {
            return Verdict::Fine(format!("up to {}", bytes(most as u64)));
        }
        let said = format!("up to {}, {} are needed", bytes(most.max(0) as u64), bytes(needed));
        let value = format!("{least} {default} {}", needed.max(4 << 20));
        Verdict::Short(said, vec![Mend::Sysctl("net.ipv4.tcp_wmem", value)])
    },
};

pub(super) const NOTSENT_LOWAT: Need = Need {
    id: "notsent_lowat",
    what: "unsent bytes in the kernel (tcp_notsent_lowat)",
    needed: "anything: Spillgate sets TCP_NOTSENT_LOWAT=1 on its sockets",
    why: "with the kernel's default a stalled client keeps megabytes there",
    source: "measured: 2.8 to 3.9 MB with the defaults, 6 KB with 1 (src/sys/listener.rs sets it)",
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
        let Some(most) = host.number("net.ipv4.tcp_max_orphans") else { return not_shown("net.ipv4.tcp_max_orphans") };
        let Some(seen) = host.orphans else { return Verdict::Unknown("/proc/net/sockstat does not tell".into()) };
        let said = format!("{}, {} are there", thousands(most), thousands(seen));
        if seen.saturating_mul(2) <= most {
            return Verdict::Fine(said);
        }
        Verdict::Short(said, vec![Mend::Sysctl("net.ipv4.tcp_max_orphans", (seen * 4).next_power_of_two().to_string())])
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
        (_, Some("always")) => {
            let file = "/sys/kernel/mm/transparent_hugepage/enabled";
            Verdict::Short("always".into(), vec![Mend::Write(file.into(), "madvise".into())])
        }
        (_, Some(other)) => Verdict::Fine(other.to_owned()),
        (_, None) => Verdict::Fine("this kernel has none".into()),
    },
};
