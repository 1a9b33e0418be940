//! Needs of the network: addresses and ports, congestion control.

use super::figures;
use super::host::Host;
use super::mend::Mend;
use super::needs::{Need, UNDO_SYSCTL, Verdict, as_mends, at_least, no_sysctls, not_shown};
use super::plan::Plan;
use super::text::{count, thousands};
use crate::config::ADDRESSES_MAX;
use std::net::SocketAddr;

pub(super) const LISTEN: Need = Need {
    id: "listen",
    what: "listen addresses, where proxies connect",
    needed: "N / (proxy addresses x 55,000); with proxies on this host each reaches one as often as net.ipv4.ip_local_port_range has ports, 64,000 times at most",
    why: "one proxy address reaches one address and port of ours no more often than it has ports: what comes beyond it fails at the proxy",
    source: "RFC 9293: a connection is its two addresses and ports; tuning/haproxy.cfg, tuning/nlb.md",
    undo: "the earlier lines of the configuration",
    sysctls: no_sysctls,
    judge: |plan, host| {
        let addresses = plan.addresses();
        let a_pair = a_pair(plan, host);
        let most = addresses * a_pair;
        match plan.proxy_addresses() {
            Some(0) => Verdict::Fine("clients connect themselves".into()),
            Some(proxies) if proxies * most >= plan.sockets => {
                Verdict::Fine(format!("{} from {}", count(addresses, "address"), count(proxies, "proxy address")))
            }
            None if most >= plan.sockets => Verdict::Fine(count(addresses, "address")),
            None => Verdict::Unknown(format!(
                "{}: enough where clients connect themselves (say --proxies 0); through proxies it takes {} pairs of a \
                 proxy's address and one of ours (say --proxies with the number of their addresses)",
                count(addresses, "address"),
                plan.sockets.div_ceil(a_pair),
            )),
            Some(proxies) => {
                let said = format!(
                    "{} from {}: {} connections at most",
                    count(addresses, "address"),
                    count(proxies, "proxy address"),
                    thousands(proxies * most),
                );
                let wanted = plan.sockets.div_ceil(a_pair * proxies);
                let mend = match more(plan, wanted) {
                    Some(addresses) => Mend::Setting(format!("listen = [{addresses}]")),
                    None => Mend::Advice(format!(
                        "proxies of {}, or more gateways: {} listen addresses would be needed, and {} is all that \
                         there may be",
                        count(plan.sockets.div_ceil(a_pair * ADDRESSES_MAX as u64), "address"),
                        thousands(wanted),
                        thousands(ADDRESSES_MAX as u64),
                    )),
                };
                Verdict::Short(said, vec![mend])
            }
        }
    },
};

/// How often one proxy address reaches one of ours; on this host with the ports that the mend of `port_range` gives.
fn a_pair(plan: &Plan, host: &Host) -> u64 {
    if !plan.listens_here_alone() {
        return figures::PORTS_PER_PROXY.value;
    }
    let mended = at_least(host, PORT_RANGE_NAME, PORTS);
    let numbers: Vec<_> = mended.split(' ').filter_map(|number| number.parse().ok()).collect();
    match numbers[..] {
        [first, last] => ports(first, last).clamp(1, figures::PORTS_PER_PROXY_HERE.value),
        _ => figures::PORTS_WANTED.value, // `at_least` gives two
    }
}

/// Ports of a range with both its ends.
fn ports(first: i64, last: i64) -> u64 {
    u64::try_from(last - first + 1).unwrap_or(0)
}

/// As many listen addresses as wanted: those there are, and more ports of the first, upwards and then downwards; none where
/// there may not be so many.
fn more(plan: &Plan, wanted: u64) -> Option<String> {
    let mut addresses = plan.config.listen.clone();
    let first = *addresses.first()?;
    // Port 0 is any: those beside the default are as good.
    let from = if first.port() == 0 { PORT_DEFAULT } else { first.port() }.max(UNPRIVILEGED);
    let mut next = (from..=u16::MAX).skip(1).chain((UNPRIVILEGED..from).rev());
    while (addresses.len() as u64) < wanted {
        let port = next.next()?;
        if addresses.len() == ADDRESSES_MAX {
            return None;
        }
        if port != plan.config.admin.port() && addresses.iter().all(|address| address.port() != port) {
            addresses.push(SocketAddr::new(first.ip(), port));
        }
    }
    Some(addresses.iter().map(|address| format!("\"{address}\"")).collect::<Vec<_>>().join(", "))
}

/// The port that a gateway listens on by default.
const PORT_DEFAULT: u16 = 8080;
/// The first port that takes no privilege (net.ipv4.ip_unprivileged_port_start, the kernel's default).
const UNPRIVILEGED: u16 = 1024;

const PORT_RANGE_NAME: &str = "net.ipv4.ip_local_port_range";

/// The range of ports that `tuning/haproxy.cfg` and this file agree on: above those on which gateway, admin interface and
/// Redis listen by default, or a connection to elsewhere may have theirs when they start.
const PORTS: &str = "10240 65535";

pub(super) const PORT_RANGE: Need = Need {
    id: "port_range",
    what: "ports for connections from this host (net.ipv4.ip_local_port_range)",
    needed: "N / (proxy addresses x listen addresses), or 55,296, where proxies on this host connect to the loopback; the gateway itself needs a few for Redis",
    why: "a proxy here runs out of ports, and answers its clients with 503",
    source: "kernel: networking/ip-sysctl",
    undo: UNDO_SYSCTL,
    sysctls: |_, _| vec![(PORT_RANGE_NAME, PORTS.into())],
    judge: |plan, host| {
        let Some(&[first, last]) = host.numbers(PORT_RANGE_NAME).as_deref() else {
            return not_shown(host, PORT_RANGE_NAME);
        };
        let ports = ports(first, last).min(figures::PORTS_PER_PROXY_HERE.value);
        let said = format!("{first} to {last}, {} ports", thousands(ports));
        if !plan.listens_here_alone() {
            return Verdict::Fine(format!("{said}: clients and proxies come from elsewhere"));
        }
        let proxies = plan.proxy_addresses().unwrap_or(1);
        // As many pairs as there are once `listen` is mended.
        let pairs = (plan.addresses() * proxies).max(plan.sockets.div_ceil(a_pair(plan, host)));
        if proxies == 0 || ports * pairs >= plan.sockets || ports >= a_pair(plan, host) {
            return Verdict::Fine(said);
        }
        let said = format!("{said}; whoever connects to {} is on this host", plan.config.listen[0]);
        Verdict::Short(said, as_mends(host, (PORT_RANGE.sysctls)(plan, host)))
    },
};

pub(super) const CONGESTION: Need = Need {
    id: "congestion_control",
    what: "congestion control (net.ipv4.tcp_congestion_control)",
    needed: "bbr or cubic",
    why: "the bounds on what slow clients see were measured with these two",
    source: "measured: on 32 kbit/s with a deep queue the median age is 0.16 s with either (docs/measurements-slow.md); bbr paces itself, whatever the qdisc (net/ipv4/tcp_output.c, since 4.20)",
    undo: UNDO_SYSCTL,
    sysctls: no_sysctls,
    judge: |_, host| {
        let name = "net.ipv4.tcp_congestion_control";
        let qdisc = host.sysctl("net.core.default_qdisc").map(|qdisc| format!(", qdisc {qdisc}")).unwrap_or_default();
        match host.sysctl(name) {
            Some(known @ ("bbr" | "cubic")) => Verdict::Fine(format!("{known}{qdisc}")),
            Some(other) => {
                // Another network namespace than the first may only have one that all are allowed.
                let allowed = host.sysctl("net.ipv4.tcp_allowed_congestion_control").unwrap_or_default();
                let bbr = allowed.split(' ').any(|name| name == "bbr");
                let mend = Mend::Sysctl("net.ipv4.tcp_congestion_control", if bbr { "bbr" } else { "cubic" }.into());
                Verdict::Short(format!("{other}{qdisc}: not measured"), vec![mend])
            }
            None => not_shown(host, name),
        }
    },
};

pub(super) const SLOW_START: Need = Need {
    id: "slow_start_after_idle",
    what: "slow start after silence (net.ipv4.tcp_slow_start_after_idle)",
    needed: "0, where an update of more than ten segments may follow silence and congestion control is not bbr",
    why: "after silence no more than ten segments go out in the first round trip: a large update takes two or three more of them",
    source: "RFC 5681, 4.1; kernel: include/net/tcp.h, tcp_slow_start_after_idle_check (bbr is exempt)",
    undo: UNDO_SYSCTL,
    sysctls: |_, _| vec![("net.ipv4.tcp_slow_start_after_idle", "0".into())],
    judge: |plan, host| {
        let name = "net.ipv4.tcp_slow_start_after_idle";
        let Some(seen) = host.number(name) else { return not_shown(host, name) };
        let largest = plan.config.limits.update_bytes_max.min(plan.config.limits.window_bytes as usize) as u64;
        match () {
            () if seen == 0 => Verdict::Fine("off".into()),
            () if host.sysctl("net.ipv4.tcp_congestion_control") == Some("bbr") => {
                Verdict::Fine("on, but bbr has none".into())
            }
            () if largest <= figures::FIRST_FLIGHT_BYTES.value => {
                Verdict::Fine(format!("on; updates of {} bytes fit its first round trip", thousands(largest)))
            }
            () if host.sysctl("net.ipv4.tcp_congestion_control").is_none() => {
                not_shown(host, "net.ipv4.tcp_congestion_control")
            }
            () => Verdict::Short("on".into(), as_mends(host, (SLOW_START.sysctls)(plan, host))),
        }
    },
};
