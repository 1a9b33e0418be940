//! Needs of cores: one a shard, at full speed, and not one alone for all packets.

use super::figures;
use super::host::{Host, Network};
use super::mend::Mend;
use super::needs::{Need, Verdict, no_sysctls};
use super::plan::Plan;
use super::text::{cores, count};
use std::collections::BTreeSet;

pub(super) const SHARDS: Need = Need {
    id: "shards",
    what: "a core for each shard",
    needed: "no more shards than cores that the gateway may run on",
    why: "two shards on one core wait for each other, and each is one more inbox for every hot update",
    source: "docs/ARCHITECTURE.md; /proc/self/status, Cpus_allowed_list",
    undo: "the earlier line of the configuration",
    sysctls: no_sysctls,
    judge: |plan, host| {
        if host.allowed.is_empty() {
            return Verdict::Unknown(unknown(host));
        }
        let (shards, allowed) = (plan.shards(host), host.allowed.len() as u64);
        let said = format!("{} on {}", count(shards, "shard"), count(allowed, "core"));
        if shards <= allowed {
            return Verdict::Fine(said);
        }
        Verdict::Short(said, vec![Mend::Setting("shards = 0".into())])
    },
};

/// Why nobody knows on which cores the gateway may run.
pub(super) fn unknown(host: &Host) -> String {
    let odd = host.unit.as_ref().and_then(|unit| unit.odd(&["CPUAffinity"]));
    odd.or_else(|| host.unread("proc/self/status"))
        .unwrap_or_else(|| "/proc/self/status does not tell the cores".into())
}

pub(super) const QUOTA: Need = Need {
    id: "cgroup_cpu",
    what: "the control group's CPU limit",
    needed: "none, or a core for each shard, of the gateway's group and of each above it",
    why: "once it is used up every shard stands still until the next period: up to 0.1 s, again and again",
    source: "kernel: scheduler/sched-bwc",
    undo: "the earlier limit (CPUQuota= of the unit, or the container's)",
    sysctls: no_sysctls,
    judge: judge_quota,
};

fn judge_quota(plan: &Plan, host: &Host) -> Verdict {
    let shards = plan.shards(host);
    let groups = host.cgroups.cpu.iter();
    let groups = groups
        .map(|limit| (limit.cores, limit.file.clone(), Mend::Write(limit.file.clone(), limit.lifted_by.to_owned())));
    let unit = host.unit.as_ref().and_then(|unit| Some((unit.cpu?, unit.said("CPUQuota"))));
    let unit = unit.map(|(cores, said)| (cores, said, Mend::Unit("CPUQuota=".into())));
    let limits: Vec<_> = unit.into_iter().chain(groups).collect();
    let said = |limits: &[&(f64, String, Mend)]| {
        let each: Vec<_> = limits.iter().map(|(cores, place, _)| format!("{cores:.1} cores ({place})")).collect();
        format!("{}; needed: {}", each.join(", "), count(shards, "core"))
    };
    let odd = host.unit.as_ref().and_then(|unit| unit.odd(&["CPUQuota"]));
    let tight: Vec<_> = limits.iter().filter(|(cores, ..)| *cores < shards as f64).collect();
    match (limits.iter().min_by(|one, other| one.0.total_cmp(&other.0)), &host.cgroups.cpu_unread) {
        _ if !tight.is_empty() => Verdict::Short(said(&tight), tight.iter().map(|(.., mend)| mend.clone()).collect()),
        _ if odd.is_some() => Verdict::Unknown(odd.unwrap_or_default()),
        (_, Some(why)) => Verdict::Unknown(why.clone()),
        (Some(least), None) => Verdict::Fine(said(&[least])),
        (None, None) => Verdict::Fine("no limit".into()),
    }
}

pub(super) const GOVERNOR: Need = Need {
    id: "governor",
    what: "the cores' frequency governor",
    needed: "performance",
    why: "the others lower the frequency between updates, and the first turn after silence is slow",
    source: "kernel: admin-guide/pm/cpufreq; not measured: our machine has no governor",
    undo: "`echo schedutil | tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor`, or the earlier one",
    sysctls: no_sysctls,
    judge: |_, host| {
        let slow: Vec<_> = host.cores.iter().filter(|core| core.governor != "performance").collect();
        let unread = host.unread("sys/devices/system/cpu");
        match (host.cores.is_empty(), slow.first()) {
            (_, None) if unread.is_some() => Verdict::Unknown(unread.unwrap_or_default()),
            (true, _) => Verdict::Fine("the frequency is not ours to govern here".into()),
            (false, None) => Verdict::Fine("performance".into()),
            (false, Some(first)) => {
                let said = format!("{} on cores {}", first.governor, cores(slow.iter().map(|core| core.number)));
                let files = "/sys/devices/system/cpu/cpu*/cpufreq/scaling_governor";
                Verdict::Short(said, vec![Mend::Write(files.into(), "performance".into())])
            }
        }
    },
};

pub(super) const PACKETS: Need = Need {
    id: "packet_cores",
    what: "cores that take packets in (interrupts and rps_cpus)",
    needed: "more than one, or one that no shard has, from 100,000 sockets on",
    why: "one shard's core does every client's part of TCP, and its clients get their updates late",
    source: "kernel: networking/scaling; measured at 1,200,000 sockets: 21.7 us a delivery, with the packets elsewhere 13.1 (docs/benchmarks.md)",
    undo: "`echo 0 | tee /sys/class/net/DEVICE/queues/rx-*/rps_cpus`",
    sysctls: no_sysctls,
    judge: judge_packets,
};

fn judge_packets(plan: &Plan, host: &Host) -> Verdict {
    if plan.listens_here_alone() {
        return Verdict::Fine("the loopback's are taken in where they are sent".into());
    }
    if host.allowed.is_empty() {
        return Verdict::Unknown(unknown(host));
    }
    if host.allowed.len() < 2 || plan.sockets < figures::STEER_FROM.value {
        return Verdict::Fine("any will do for this number of sockets and cores".into());
    }
    if host.networks.is_empty() {
        let why = "no network device of hardware is seen from here; ask on the host itself";
        return Verdict::Unknown(host.unread("sys/class/net").unwrap_or_else(|| why.into()));
    }
    if let Some(dark) =
        host.networks.iter().find(|network| network.steered.is_empty() && network.interrupted.is_empty())
    {
        let why = format!("which cores take the interrupts of {} is not shown", dark.name);
        return Verdict::Unknown(host.unread("proc/irq").unwrap_or(why));
    }
    let shards: BTreeSet<usize> = host.allowed.iter().copied().take(plan.shards(host) as usize).collect();
    let spare: BTreeSet<usize> = host.allowed.difference(&shards).copied().collect();
    let crowded: Vec<&Network> = host.networks.iter().filter(|network| is_crowded(network, &shards)).collect();
    if crowded.is_empty() {
        let names: Vec<_> = host.networks.iter().map(|network| network.name.as_str()).collect();
        return Verdict::Fine(names.join(", "));
    }
    let mask = mask(if spare.is_empty() { &host.allowed } else { &spare });
    let mend =
        |network: &&Network| Mend::Write(format!("/sys/class/net/{}/queues/rx-*/rps_cpus", network.name), mask.clone());
    let said = |network: &&Network| {
        let queues = count(network.queues as u64, "queue");
        format!("{} ({queues}) has its packets taken in on one core, which a shard has too", network.name)
    };
    let said: Vec<_> = crowded.iter().map(said).collect();
    Verdict::Short(said.join("; "), crowded.iter().map(mend).collect())
}

/// Whether one core, which a shard has, takes in all that the device receives.
fn is_crowded(network: &Network, shards: &BTreeSet<usize>) -> bool {
    if !network.steered.is_empty() {
        return network.steered.len() < 2 && !network.steered.is_disjoint(shards);
    }
    let cores = network.interrupted.len().min(network.queues);
    cores < 2 && !network.interrupted.is_disjoint(shards)
}

/// Cores as the kernel reads them: hexadecimal words of 32 bits, the highest first.
fn mask(cores: &BTreeSet<usize>) -> String {
    let mut words = vec![0u32; cores.last().map_or(0, |most| most / 32) + 1];
    for core in cores {
        words[core / 32] |= 1 << (core % 32);
    }
    let (last, rest) = words.split_last().map_or((0, &[][..]), |(last, rest)| (*last, rest));
    rest.iter().rev().fold(format!("{last:x}"), |text, word| format!("{text},{word:08x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_is_words_of_32_bits() {
        assert_eq!(mask(&BTreeSet::from([0, 1])), "3");
        assert_eq!(mask(&BTreeSet::from([1, 32, 67])), "8,00000001,00000002");
    }
}
