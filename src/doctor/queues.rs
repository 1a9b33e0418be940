//! Needs of what arrives: backlogs, packet queues, and the kernel's tables of connections.

use super::figures;
use super::host::Host;
use super::mend::Mend;
use super::needs::{Need, UNDO_SYSCTL, Verdict, as_mends, no_sysctls, not_shown, not_told};
use super::plan::Plan;
use super::text::thousands;

/// What the gateway asks for (src/sys/listener.rs); the kernel counts in 16 bits where it is old.
const BACKLOG_MAX: u64 = 65_535;
/// The kernel's cap of it.
const SOMAXCONN_NAME: &str = "net.core.somaxconn";
/// The largest table of connections of a network namespace (`Documentation/networking/ip-sysctl`).
const BUCKETS_MAX: u64 = 16 << 20;

/// What each core took in, dropped and left over.
const SOFTNET: &str = "proc/net/softnet_stat";

/// Fewer dropped packets than one in so many are no reason to change anything.
const DROPPED_ONE_IN: u64 = 100_000;

/// Connections that may have to wait at one listener: all of them come back within a second, and it takes what it can.
fn backlog(plan: &Plan, host: &Host) -> u64 {
    let listeners = plan.shards(host) * plan.addresses().max(1);
    plan.sockets.div_ceil(listeners).min(figures::ACCEPTS_PER_S.value).min(BACKLOG_MAX)
}

pub(super) const SOMAXCONN: Need = Need {
    id: "somaxconn",
    what: "connections that wait to be accepted (net.core.somaxconn)",
    needed: "N / (shards x listen addresses), but no more than a shard accepts in a second (50,000)",
    why: "when all come back at once, a full queue drops them, and each tries again after 1, 3, 7 s",
    source: "kernel: networking/ip-sysctl; RFC 6298 (a first retry after 1 s); measured: 20 us an accept",
    undo: UNDO_SYSCTL,
    sysctls: |_, _| vec![(SOMAXCONN_NAME, BACKLOG_MAX.to_string())],
    judge: |plan, host| {
        let Some(seen) = host.number(SOMAXCONN_NAME) else { return not_shown(host, SOMAXCONN_NAME) };
        let needed = backlog(plan, host);
        if seen >= needed {
            return Verdict::Fine(thousands(seen));
        }
        let said = format!("{}; {} may wait at each listener", thousands(seen), thousands(needed));
        Verdict::Short(said, as_mends(host, (SOMAXCONN.sysctls)(plan, host)))
    },
};

pub(super) const SYN_BACKLOG: Need = Need {
    id: "syn_backlog",
    what: "half-open connections (net.ipv4.tcp_max_syn_backlog)",
    needed: "anything while net.ipv4.tcp_syncookies is on, as the kernel has it; else as much as wait to be accepted, and a third more",
    why: "without SYN cookies connections beyond three quarters of it are dropped",
    source: "kernel: net/ipv4/tcp_input.c, tcp_conn_request",
    undo: UNDO_SYSCTL,
    sysctls: no_sysctls,
    judge: |plan, host| {
        let name = "net.ipv4.tcp_max_syn_backlog";
        let switch = "net.ipv4.tcp_syncookies";
        let Some(seen) = host.number(name) else { return not_shown(host, name) };
        let Some(cookies) = host.number(switch) else { return not_shown(host, switch) };
        if cookies > 0 {
            return Verdict::Fine(format!("{}, and SYN cookies are on: it bounds nothing", thousands(seen)));
        }
        let needed = backlog(plan, host) / 3 * 4;
        if seen >= needed {
            return Verdict::Fine(thousands(seen));
        }
        let said = format!("{}; needed where SYN cookies are off: {}", thousands(seen), thousands(needed));
        Verdict::ShortEither(said, vec![Mend::Sysctl(switch, "1".into()), Mend::Sysctl(name, needed.to_string())])
    },
};

pub(super) const NETDEV_BACKLOG: Need = Need {
    id: "netdev_backlog",
    what: "packets that wait for a core (net.core.netdev_max_backlog)",
    needed: "16,384 where N is more than it holds, and one packet in 100,000 was dropped from it since boot; else what is there is enough",
    why: "the loopback and steered packets pass through it: what is dropped is sent again, 0.2 s later",
    source: "kernel: networking/scaling; /proc/net/softnet_stat tells what was dropped since boot; RFC 6298 and TCP_RTO_MIN",
    undo: UNDO_SYSCTL,
    sysctls: |_, _| vec![("net.core.netdev_max_backlog", figures::BACKLOG_PACKETS.value.to_string())],
    judge: |plan, host| {
        let name = "net.core.netdev_max_backlog";
        let Some(seen) = host.number(name) else { return not_shown(host, name) };
        let Some(packets) = host.softnet else { return not_told(host, SOFTNET) };
        let said = format!(
            "{}; dropped since boot: {} of {} packets",
            thousands(seen),
            thousands(packets.dropped),
            thousands(packets.processed),
        );
        let rare = packets.dropped.saturating_mul(DROPPED_ONE_IN) <= packets.processed;
        // What was dropped since boot is history: a packet to each of so few sockets finds room.
        if rare || seen >= figures::BACKLOG_PACKETS.value || plan.sockets <= seen {
            return Verdict::Fine(said);
        }
        Verdict::Short(said, as_mends(host, (NETDEV_BACKLOG.sysctls)(plan, host)))
    },
};

pub(super) const NETDEV_BUDGET: Need = Need {
    id: "netdev_budget",
    what: "packets that a core takes in at a time (net.core.netdev_budget)",
    needed: "600, and 8,000 us, where N is more than it, and a tenth of the packets since boot came in rounds that were cut short; else what is there is enough",
    why: "what is left over waits for the next round, behind everybody else's",
    source: "kernel: admin-guide/sysctl/net; /proc/net/softnet_stat tells how many rounds were cut short since boot",
    undo: UNDO_SYSCTL,
    sysctls: no_sysctls,
    judge: |plan, host| {
        let (name, time) = ("net.core.netdev_budget", "net.core.netdev_budget_usecs");
        let Some(seen) = host.number(name) else { return not_shown(host, name) };
        let Some(time_us) = host.number(time) else { return not_shown(host, time) };
        let Some(packets) = host.softnet else { return not_told(host, SOFTNET) };
        let said = format!("{}; cut short since boot: {} rounds", thousands(seen), thousands(packets.squeezed));
        let is_set = seen >= figures::BUDGET_PACKETS.value && time_us >= figures::BUDGET_US.value;
        let enough = is_set || plan.sockets <= seen;
        if enough || packets.squeezed.saturating_mul(seen) <= packets.processed / 10 {
            return Verdict::Fine(said);
        }
        let packets = figures::BUDGET_PACKETS.value.max(seen).to_string();
        let time_us = figures::BUDGET_US.value.max(time_us).to_string();
        Verdict::Short(said, vec![Mend::Sysctl(name, packets), Mend::Sysctl(time, time_us)])
    },
};

pub(super) const EHASH: Need = Need {
    id: "ehash",
    what: "the kernel's table of connections (thash_entries)",
    needed: "N / 2 buckets",
    why: "connections in one bucket are searched one by one, each a miss of the cache, for every packet",
    source: "measured: nine in a bucket made p99 4.7 s, and took a quarter of the CPU (docs/benchmarks.md); kernel: networking/ip-sysctl, tcp_ehash_entries",
    undo: "take it off the kernel's command line",
    sysctls: no_sysctls,
    judge: |plan, host| {
        let Some(&[seen]) = host.numbers("net.ipv4.tcp_ehash_entries").as_deref() else {
            return not_shown(host, "net.ipv4.tcp_ehash_entries");
        };
        // Negative: this network namespace shares the table of the first one.
        let seen = seen.unsigned_abs();
        let needed = plan.sockets.div_ceil(figures::PER_BUCKET_MAX.value);
        let said =
            format!("{} buckets, {:.1} sockets in each", thousands(seen), plan.sockets as f64 / seen.max(1) as f64);
        if seen >= needed {
            return Verdict::Fine(said);
        }
        let wanted = plan.sockets.next_power_of_two().min(BUCKETS_MAX);
        let boot = Mend::Boot(format!("thash_entries={wanted}"));
        let namespace = Mend::Sysctl("net.ipv4.tcp_child_ehash_entries", wanted.to_string());
        Verdict::ShortEither(
            format!("{said}; the sysctl is for a network namespace made after it"),
            vec![boot, namespace],
        )
    },
};

/// Entries that conntrack would hold: one for each connection, and the closed ones that it still knows.
fn tracked(plan: &Plan) -> u64 {
    plan.sockets + plan.sockets * figures::CLOSED_TRACKED_PERCENT.value / 100
}

/// What is said where a container asks, or whoever is in a network namespace of its own.
const ELSEWHERE: &str = "this is a network namespace of its own: whether the host's tracks the connections on their way here is not seen; ask on the host itself";

/// How many connections are tracked here; none where conntrack is not there.
fn tracks(host: &Host) -> Result<Option<u64>, Verdict> {
    let (most, count) = ("net.netfilter.nf_conntrack_max", "net.netfilter.nf_conntrack_count");
    if host.number(most).is_some() {
        return host.number(count).map(Some).ok_or_else(|| not_shown(host, count));
    }
    match host.unread("proc/sys/net/netfilter") {
        Some(why) => Err(Verdict::Unknown(why)),
        None if host.sysctl(most).is_some() => Err(not_shown(host, most)),
        None => Ok(None),
    }
}

pub(super) const CONNTRACK: Need = Need {
    id: "conntrack",
    what: "tracked connections (net.netfilter.nf_conntrack_max)",
    needed: "N + 25 %, where a rule of the firewall has connections tracked; else it is not in the way (rules that have the gateway's left out: tuning/README.md). Asked in another network namespace than the host's it cannot be told",
    why: "past it the kernel drops the packets of new connections",
    source: "kernel: networking/nf_conntrack-sysctl; an entry stays 120 s after the end",
    undo: UNDO_SYSCTL,
    sysctls: no_sysctls,
    judge: |plan, host| match tracks(host) {
        Err(unknown) => unknown,
        Ok(None | Some(0)) if host.is_network_of_its_own() => Verdict::Unknown(ELSEWHERE.into()),
        Ok(None) => Verdict::Fine("connections are not tracked".into()),
        Ok(Some(0)) => Verdict::Fine("there, but no rule has anything tracked".into()),
        Ok(Some(count)) => {
            let (seen, needed) = (host.number("net.netfilter.nf_conntrack_max").unwrap_or(0), tracked(plan));
            let said =
                format!("{}, of which {} are in use; needed: {}", thousands(seen), thousands(count), thousands(needed));
            if seen >= needed {
                return if host.is_network_of_its_own() {
                    Verdict::Unknown(format!("{said} here; {ELSEWHERE}"))
                } else {
                    Verdict::Fine(said)
                };
            }
            Verdict::Short(said, vec![Mend::Sysctl("net.netfilter.nf_conntrack_max", needed.to_string())])
        }
    },
};

/// Connections a bucket of conntrack; each stands in it twice, once for each direction.
const TRACKED_PER_BUCKET: u64 = 4;

pub(super) const CONNTRACK_BUCKETS: Need = Need {
    id: "conntrack_buckets",
    what: "the table of tracked connections (nf_conntrack_buckets)",
    needed: "a quarter of those that are tracked: eight entries in a bucket",
    why: "entries in one bucket are searched one by one, for every packet",
    source: "kernel: networking/nf_conntrack-sysctl; the measurement is that of thash_entries",
    undo: UNDO_SYSCTL,
    sysctls: no_sysctls,
    judge: |plan, host| {
        let name = "net.netfilter.nf_conntrack_buckets";
        match tracks(host) {
            Err(unknown) => return unknown,
            Ok(None | Some(0)) if host.is_network_of_its_own() => return Verdict::Unknown(ELSEWHERE.into()),
            Ok(None | Some(0)) => return Verdict::Fine("not in use".into()),
            Ok(Some(_)) => {}
        }
        let Some(seen) = host.number(name) else { return not_shown(host, name) };
        let needed = tracked(plan).div_ceil(TRACKED_PER_BUCKET);
        if seen >= needed {
            return Verdict::Fine(thousands(seen));
        }
        let said = format!("{}; needed: {}", thousands(seen), thousands(needed));
        Verdict::Short(said, vec![Mend::Sysctl(name, needed.next_power_of_two().to_string())])
    },
};
