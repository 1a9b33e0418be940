//! Needs of the rings: kernel, io_uring, descriptors.

use super::figures;
use super::host::{Host, Limit, RingProbe};
use super::mend::Mend;
use super::needs::{Need, UNDO_SYSCTL, Verdict, as_mends, no_sysctls, not_shown, not_told};
use super::plan::Plan;
use super::text::{bytes, count, limit, thousands};
use crate::shard::REFUSAL_SLOTS;
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
        let release = host.sysctl("kernel.osrelease").unwrap_or_default();
        let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().ok());
        let (Some(Some(major)), Some(Some(minor))) = (numbers.next(), numbers.next()) else {
            return not_shown(host, "kernel.osrelease");
        };
        let version: (u32, u32) = (major, minor);
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
        let name = "kernel.io_uring_disabled";
        let is_hidden = host.unread(&format!("proc/sys/{}", name.replace('.', "/"))).is_some();
        let Some(disabled) = host.number(name) else {
            return match host.sysctl(name) {
                None if !is_hidden => Verdict::Fine("this kernel has no such switch".into()),
                _ => not_shown(host, name),
            };
        };
        let group = host.number("kernel.io_uring_group");
        match disabled {
            0 => Verdict::Fine("0".into()),
            1 if group.is_some_and(|group| is_member(host, group)) => Verdict::Fine(match &host.unit {
                Some(unit) => format!("1, and {} is in the group that may", unit.file),
                None => "1, and this process is in the group that may".into(),
            }),
            other => {
                let whose = host.unit.as_ref().filter(|_| other == 1);
                let said = whose.map_or_else(String::new, |unit| {
                    let group = group.map_or_else(|| "none".to_owned(), |group| group.to_string());
                    format!("; the group that may is {group}, in which {} has no part", unit.file)
                });
                // Root's group is more than a gateway should be in.
                let group = group.filter(|group| *group > 0 && whose.is_some());
                let narrow = group.map(|group| Mend::Unit(format!("SupplementaryGroups={group}")));
                let open = Mend::Sysctl(name, "0".into());
                Verdict::ShortEither(format!("{other}{said}"), narrow.into_iter().chain([open]).collect())
            }
        }
    },
};

/// Whether the gateway is in a group: the unit's, where one is installed, else that of whoever asks.
fn is_member(host: &Host, group: u64) -> bool {
    match &host.unit {
        Some(unit) => unit.groups.contains(&group),
        None => host.groups.contains(&group),
    }
}

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
        (None, _) => not_told(host, "proc/self/status"),
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
    needed: "260 KiB a shard and 196 KiB a ring, 512 KiB at least (with CAP_IPC_LOCK no more than that); 1.2 MiB a ring is better",
    why: "below it the shards do not start; with little of it their completion queues are small",
    source: "glommio 0.9 (its sys/uring.rs); measured on Linux 6.18, which charges rings (io_uring/memmap.c)",
    undo: "the earlier LimitMEMLOCK= of the unit",
    sysctls: no_sysctls,
    judge: |plan, host| {
        let unit = host.unit.as_ref().and_then(|unit| unit.memlock);
        let Some(seen) = unit.or(host.memlock) else { return not_told(host, "proc/self/limits") };
        let whose = whose(host, "LimitMEMLOCK", unit, host.memlock.map(|own| bytes(own.soft)));
        let shards = plan.shards(host);
        let a_shard = figures::MEMLOCK_SHARD_BYTES.value + plan.rings() * figures::MEMLOCK_RING_BYTES.value;
        // Rings are not charged to whoever may lock what it likes (CAP_IPC_LOCK), which the unit may not.
        let charged = if host.may_lock && host.unit.is_none() { 0 } else { shards * a_shard };
        let needed = figures::MEMLOCK_BYTES.value.max(charged);
        if seen.soft >= needed {
            return Verdict::Fine(format!("{} ({whose})", bytes(seen.soft)));
        }
        let said = format!("{} ({whose}); needed: {} for {}", bytes(seen.soft), bytes(needed), count(shards, "shard"));
        // Four times as much lets the completion queues be long; and nothing is lowered.
        let wanted = needed.saturating_mul(4).max(MEMLOCK_OF_THE_UNIT).next_multiple_of(1 << 10).max(seen.hard);
        Verdict::ShortEither(said, limit_mends(host, "LimitMEMLOCK", 'l', (needed, wanted), seen.hard))
    },
};

/// LimitMEMLOCK= of the unit that is shipped.
pub(super) const MEMLOCK_OF_THE_UNIT: u64 = 64 << 20;

/// Whose limit was judged, and what whoever asks has where that is another.
fn whose(host: &Host, key: &str, unit: Option<Limit>, own: Option<String>) -> String {
    match (&host.unit, unit, own) {
        (Some(unit), Some(_), Some(own)) => format!("{}; this shell has {own}", unit.said(key)),
        (Some(unit), Some(_), None) => unit.said(key),
        (Some(unit), None, _) => format!("this shell's: {} sets none", unit.file),
        (None, ..) => "this shell's".to_owned(),
    }
}

/// Lines that raise a limit: of the unit, where systemd runs the host, and of the shell, where no unit is installed. No less
/// than `needed`; `hard` is as far as anybody may go.
fn limit_mends(host: &Host, key: &str, letter: char, (needed, wanted): (u64, u64), hard: u64) -> Vec<Mend> {
    let value = if wanted == u64::MAX { "infinity".to_owned() } else { wanted.to_string() };
    let in_units = |limit: u64| if letter == 'l' { limit >> 10 } else { limit };
    let unit = host.has_systemd.then(|| Mend::Unit(format!("{key}={value}")));
    let shell = (host.unit.is_none()).then(|| match () {
        () if host.may_raise => Mend::Limit(letter, in_units(wanted)),
        () if hard >= needed => Mend::Limit(letter, in_units(hard)),
        () => Mend::RootLimit(letter, in_units(wanted)),
    });
    unit.into_iter().chain(shell).collect()
}

pub(super) const NOFILE: Need = Need {
    id: "nofile",
    what: "open descriptors (RLIMIT_NOFILE)",
    needed: "N / (shards x rings_per_shard) + 64, and what shards differ by: it bounds each ring's table; or (limits.connections_per_shard_max + 64) / rings_per_shard + 64, if that is more",
    why: "each ring's table of sockets is bounded by it, so that connections beyond it are refused with 503",
    source: "io_uring_register(2); measured: 39,808 sockets on 2 rings with 20,000 (docs/measurements.md)",
    undo: "the earlier LimitNOFILE= of the unit, or the rings out of the configuration",
    sysctls: no_sysctls,
    judge: judge_nofile,
};

fn judge_nofile(plan: &Plan, host: &Host) -> Verdict {
    let unit = host.unit.as_ref().and_then(|unit| unit.nofile);
    let Some(seen) = unit.or(host.nofile) else { return not_told(host, "proc/self/limits") };
    let whose = whose(host, "LimitNOFILE", unit, host.nofile.map(|own| limit(own.hard)));
    // The gateway raises the soft limit to the hard one, and no limit goes beyond the ceiling.
    let ceiling = host.number("fs.nr_open");
    let seen = seen.hard.min(ceiling.filter(|_| unit.is_some()).unwrap_or(u64::MAX));
    let table = seen.saturating_sub(sys::DESCRIPTORS_LEFT).min(sys::TABLE_MAX);
    let (shards, rings, slots) = (plan.shards(host), plan.rings(), plan.slots(host));
    let places = format!("{} with {}", count(shards, "shard"), count(rings, "ring"));
    let fit = (rings * table).saturating_sub(u64::from(REFUSAL_SLOTS)) * shards;
    let holds = if rings * shards == 1 { "holds" } else { "hold" };
    let said = format!("{} ({whose}): {places} each {holds} {} sockets", limit(seen), thousands(fit));
    if rings * table >= slots {
        return Verdict::Fine(said);
    }
    let mut mends = Vec::new();
    let mut said = said;
    if rings * sys::TABLE_MAX >= slots {
        let needed = thousands(slots.div_ceil(rings) + sys::DESCRIPTORS_LEFT);
        said += &match plan.config.limits.connections_per_shard_max {
            0 => format!("; needed: {needed}"),
            most => format!("; needed: {needed}, with limits.connections_per_shard_max = {most}"),
        };
        // As much as the unit that is shipped has, where the ceiling allows it: nothing is lowered.
        let wanted = plan.nofile(host).max(sys::TABLE_MAX.min(ceiling.unwrap_or(0))).max(seen);
        mends.extend(limit_mends(host, "LimitNOFILE", 'n', (plan.nofile(host), wanted), seen));
    }
    let rings_wanted = slots.div_ceil(table.max(1));
    if rings_wanted <= RINGS_MAX {
        // First where the limit is not ours to raise.
        let at = if host.has_systemd || host.may_raise { mends.len() } else { 0 };
        mends.insert(at, Mend::Setting(format!("limits.rings_per_shard = {rings_wanted}")));
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
        let Some(seen) = host.number("fs.nr_open") else { return not_shown(host, "fs.nr_open") };
        let needed = plan.nofile(host);
        // What the process has already, however it came by it, is enough where the tables hold the plan.
        match judge_nofile(plan, host) {
            Verdict::Unknown(why) if seen < needed => return Verdict::Unknown(why),
            nofile if seen >= needed || !nofile.is_short() => return Verdict::Fine(thousands(seen)),
            // More rings are what helps there, not a higher limit.
            _ if plan.rings() * sys::TABLE_MAX < plan.slots(host) => return Verdict::Fine(thousands(seen)),
            _ => {}
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
        let Some(seen) = host.number("fs.file-max") else { return not_shown(host, "fs.file-max") };
        let needed = plan.sockets + figures::FILES_BESIDE.value;
        if seen >= needed {
            return Verdict::Fine(if seen == FILES_UNLIMITED { "unlimited".into() } else { thousands(seen) });
        }
        let said = format!("{}; needed: {}", thousands(seen), thousands(needed));
        Verdict::Short(said, as_mends(host, (FILE_MAX.sysctls)(plan, host)))
    },
};
