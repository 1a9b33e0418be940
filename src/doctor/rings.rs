//! Needs of the rings: kernel, io_uring, descriptors.

use super::figures;
use super::host::{Host, RingProbe};
use super::mend::Mend;
use super::needs::{Need, UNDO_SYSCTL, Verdict, as_mends, no_sysctls, not_shown};
use super::plan::Plan;
use super::text::{bytes, count, limit, thousands};
use crate::sys;

/// Rings that one shard may own (`limits.rings_per_shard`).
const RINGS_MAX: u64 = 256;
/// What systemd sets `fs.file-max` to: as good as no limit. A smaller value would lower what most hosts have.
const FILES_UNLIMITED: u64 = i64::MAX as u64;

pub(super) const KERNEL: Need = Need {
    id: "kernel",
    what: "Linux",
    needed: "6.1 or newer",
    why: "the shards' rings need IORING_SETUP_DEFER_TASKRUN, which came with 6.1",
    source: "io_uring_setup(2)",
    undo: "boot the earlier kernel",
    sysctls: no_sysctls,
    judge: |_, host| {
        let Some(release) = host.sysctl("kernel.osrelease") else {
            return Verdict::Unknown("the kernel's release is not shown".into());
        };
        let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
        let version: (u32, u32) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        if version >= sys::KERNEL_MIN {
            return Verdict::Fine(release.to_owned());
        }
        let mend = Mend::Advice(
            "install a kernel of 6.1 or newer (Debian 12, Ubuntu 24.04, RHEL 10 have one), and boot it".into(),
        );
        Verdict::Short(release.to_owned(), vec![mend])
    },
};

pub(super) const DISABLED: Need = Need {
    id: "io_uring_disabled",
    what: "io_uring switched on (kernel.io_uring_disabled)",
    needed: "0, or 1 and the gateway's group in kernel.io_uring_group",
    why: "with 2 nobody gets a ring, with 1 only that group and CAP_SYS_ADMIN, which the unit gives up; the gateway does not start",
    source: "kernel: admin-guide/sysctl/kernel",
    undo: UNDO_SYSCTL,
    sysctls: no_sysctls,
    judge: |_, host| {
        let Some(disabled) = host.number("kernel.io_uring_disabled") else {
            return Verdict::Fine("this kernel has no such switch".into());
        };
        let group = host.number("kernel.io_uring_group");
        match disabled {
            0 => Verdict::Fine("0".into()),
            1 if group.is_some_and(|group| host.groups.contains(&group)) => {
                Verdict::Fine("1, and this process is in the group that may".into())
            }
            other => Verdict::Short(other.to_string(), vec![Mend::Sysctl("kernel.io_uring_disabled", "0".into())]),
        }
    },
};

pub(super) const SECCOMP: Need = Need {
    id: "seccomp",
    what: "no system-call filter that refuses io_uring",
    needed: "io_uring_setup, io_uring_enter and io_uring_register let through",
    why: "the default profile of container engines refuses io_uring; the gateway does not start",
    source: "moby/moby pull request 46762 (Docker 25), containerd/containerd issue 9048",
    undo: "run with the engine's default profile again",
    sysctls: no_sysctls,
    judge: |_, host| match (host.seccomp, &host.ring) {
        (Some(0), _) => Verdict::Fine("no filter".into()),
        (Some(_), RingProbe::Made(_)) => Verdict::Fine("a filter, which lets io_uring through".into()),
        (Some(_), RingProbe::Refused(error)) if host.number("kernel.io_uring_disabled").unwrap_or(0) == 0 => {
            let mend = "docker run --security-opt seccomp=tuning/seccomp.json (under systemd: SystemCallFilter=io_uring_setup io_uring_enter io_uring_register)";
            Verdict::Short(
                format!("a filter is there, and io_uring is refused: {error}"),
                vec![Mend::Advice(mend.into())],
            )
        }
        (Some(_), _) => Verdict::Unknown("a filter is there; whether it lets io_uring through is not known".into()),
        (None, _) => Verdict::Unknown("/proc/self/status does not tell".into()),
    },
};

pub(super) const FEATURES: Need = Need {
    id: "io_uring",
    what: "io_uring with all that is used of it",
    needed: "tried: a ring with DEFER_TASKRUN, the nine requests, a connection accepted into a table and closed there",
    why: "without it the gateway does not start",
    source: "tried here (src/sys/probe.rs)",
    undo: "nothing to undo",
    sysctls: no_sysctls,
    judge: |_, host| match &host.ring {
        RingProbe::Made(missing) if missing.is_empty() => Verdict::Fine("tried, all there".into()),
        RingProbe::Made(missing) => {
            let mend = Mend::Advice("a newer kernel, or a system-call filter that lets all of io_uring through".into());
            Verdict::Short(format!("missing: {}", missing.join(", ")), vec![mend])
        }
        RingProbe::Refused(error) => {
            let mend = "see io_uring_disabled and seccomp; with both right, the kernel was built without io_uring";
            Verdict::Short(format!("no ring can be made: {error}"), vec![Mend::Advice(mend.into())])
        }
        RingProbe::Untried => Verdict::Unknown("not tried".into()),
    },
};

pub(super) const MEMLOCK: Need = Need {
    id: "memlock",
    what: "locked memory (RLIMIT_MEMLOCK)",
    needed: "260 KiB a shard and 196 KiB a ring, 512 KiB at least; 1.2 MiB a ring is better",
    why: "below it the shards do not start; with little of it their completion queues are small",
    source: "glommio 0.9 (src/sys/uring.rs); measured on Linux 6.18, which charges rings (io_uring/memmap.c)",
    undo: "take LimitMEMLOCK= out of the unit",
    sysctls: no_sysctls,
    judge: |plan, host| {
        let Some(seen) = host.memlock else { return Verdict::Unknown("/proc/self/limits does not tell".into()) };
        let shards = plan.shards(host);
        let a_shard = figures::MEMLOCK_SHARD_BYTES.value + plan.rings() * figures::MEMLOCK_RING_BYTES.value;
        let needed = figures::MEMLOCK_BYTES.value.max(shards * a_shard);
        if seen.soft >= needed {
            return Verdict::Fine(bytes(seen.soft));
        }
        let said = format!("{}, {} are needed for {}", bytes(seen.soft), bytes(needed), count(shards, "shard"));
        Verdict::Short(said, vec![Mend::Unit(format!("LimitMEMLOCK={}", needed.saturating_mul(4).max(64 << 20)))])
    },
};

pub(super) const NOFILE: Need = Need {
    id: "nofile",
    what: "open descriptors (RLIMIT_NOFILE)",
    needed: "N / (shards x rings_per_shard) + 64, and what shards differ by: it bounds each ring's table",
    why: "each ring's table of sockets is bounded by it, so that connections beyond it are refused with 503",
    source: "io_uring_register(2); measured: 39,808 sockets on 2 rings with 20,000 (docs/measurements.md)",
    undo: "take LimitNOFILE= out of the unit, or the rings out of the configuration",
    sysctls: no_sysctls,
    judge: judge_nofile,
};

fn judge_nofile(plan: &Plan, host: &Host) -> Verdict {
    let Some(seen) = host.nofile else { return Verdict::Unknown("/proc/self/limits does not tell".into()) };
    // The gateway raises the soft limit to the hard one.
    let table = seen.hard.saturating_sub(sys::DESCRIPTORS_LEFT).min(sys::TABLE_MAX);
    let (shards, rings, slots) = (plan.shards(host), plan.rings(), plan.slots(host));
    let places = format!("{} with {}", count(shards, "shard"), count(rings, "ring"));
    let fit = (rings * table).saturating_sub(slots - plan.per_shard(host)) * shards;
    let said = format!("{}: {places} each hold {} sockets", limit(seen.hard), thousands(fit));
    if rings * table >= slots {
        return Verdict::Fine(said);
    }
    let mut mends = Vec::new();
    if rings * sys::TABLE_MAX >= slots {
        mends.push(Mend::Unit(format!("LimitNOFILE={}", plan.nofile(host))));
    }
    let rings_wanted = slots.div_ceil(table.max(1));
    if rings_wanted <= RINGS_MAX {
        mends.push(Mend::Setting(format!("limits.rings_per_shard = {rings_wanted}")));
    }
    if mends.is_empty() {
        mends.push(Mend::Advice(format!(
            "more shards, on more cores: {} is all that one can hold",
            thousands(RINGS_MAX * table)
        )));
    }
    Verdict::ShortEither(said, mends)
}

pub(super) const CAPACITY: Need = Need {
    id: "capacity",
    what: "connections that the configuration allows",
    needed: "N / shards, and what shards differ by; or 0, as many as the tables hold",
    why: "whoever comes beyond it is refused with 503",
    source: "limits.connections_per_shard_max",
    undo: "the earlier line of the configuration",
    sysctls: no_sysctls,
    judge: |plan, host| {
        let (most, needed) = (plan.config.limits.connections_per_shard_max as u64, plan.per_shard(host));
        let shards = plan.shards(host);
        match most {
            0 => Verdict::Fine("as many as the rings' tables hold".into()),
            most if most >= needed => Verdict::Fine(format!("{} a shard", thousands(most))),
            most => Verdict::Short(
                format!("{} a shard; one of {} may get {}", thousands(most), count(shards, "shard"), thousands(needed)),
                vec![Mend::Setting(format!("limits.connections_per_shard_max = {needed}"))],
            ),
        }
    },
};

pub(super) const NR_OPEN: Need = Need {
    id: "nr_open",
    what: "the ceiling of RLIMIT_NOFILE (fs.nr_open)",
    needed: "as much as RLIMIT_NOFILE must be",
    why: "above it systemd and root cannot raise RLIMIT_NOFILE",
    source: "kernel: admin-guide/sysctl/fs",
    undo: UNDO_SYSCTL,
    sysctls: no_sysctls,
    judge: |plan, host| {
        let Some(seen) = host.number("fs.nr_open") else { return not_shown("fs.nr_open") };
        let needed = plan.nofile(host);
        // What the process has already, however it came by it, is enough where the tables hold the plan.
        if seen >= needed || !judge_nofile(plan, host).is_short() {
            return Verdict::Fine(thousands(seen));
        }
        let mend = Mend::Sysctl("fs.nr_open", needed.to_string());
        Verdict::Short(format!("{}; RLIMIT_NOFILE must be {}", thousands(seen), thousands(needed)), vec![mend])
    },
};

pub(super) const FILE_MAX: Need = Need {
    id: "file_max",
    what: "open files of the whole host (fs.file-max)",
    needed: "N + 65,536",
    why: "every socket is a file: beyond it accepts fail with ENFILE",
    source: "kernel: admin-guide/sysctl/fs; systemd sets it to 2^63 - 1, and so does the file: a smaller value would lower it there",
    undo: UNDO_SYSCTL,
    sysctls: |_, _| vec![("fs.file-max", FILES_UNLIMITED.to_string())],
    judge: |plan, host| {
        let Some(seen) = host.number("fs.file-max") else { return not_shown("fs.file-max") };
        let needed = plan.sockets + figures::FILES_BESIDE.value;
        if seen >= needed {
            return Verdict::Fine(if seen == FILES_UNLIMITED { "unlimited".into() } else { thousands(seen) });
        }
        let said = format!("{}, {} are needed", thousands(seen), thousands(needed));
        Verdict::Short(said, as_mends((FILE_MAX.sysctls)(plan, host)))
    },
};
