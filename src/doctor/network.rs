//! Needs of the network: addresses and ports, congestion control.

use super::figures;
use super::mend::Mend;
use super::needs::{Need, UNDO_SYSCTL, Verdict, as_mends, no_sysctls, not_shown};
use super::plan::Plan;
use super::text::{count, thousands};

pub(super) const LISTEN: Need = Need {
    id: "listen",
    what: "listen addresses, where proxies connect",
    needed: "N / (proxy addresses x 64,000)",
    why: "one proxy address reaches one address and port of ours some 64,000 times: what comes beyond it fails at the proxy",
    source: "RFC 9293: a connection is its two addresses and ports",
    undo: "the earlier lines of the configuration",
    sysctls: no_sysctls,
    judge: |plan, _| {
        let addresses = plan.addresses();
        let most = addresses * figures::PORTS_PER_PROXY.value;
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
                plan.sockets.div_ceil(figures::PORTS_PER_PROXY.value),
            )),
            Some(proxies) => {
                let wanted = plan.sockets.div_ceil(figures::PORTS_PER_PROXY.value * proxies);
                let said = format!(
                    "{} from {}: {} connections at most",
                    count(addresses, "address"),
                    count(proxies, "proxy address"),
                    thousands(proxies * most),
                );
                Verdict::Short(said, vec![Mend::Setting(format!("listen = [{}]", more(plan, wanted)))])
            }
        }
    },
};

/// As many listen addresses as wanted: those there are, and the next ports of the first.
fn more(plan: &Plan, wanted: u64) -> String {
    let mut addresses = plan.config.listen.clone();
    let Some(&first) = addresses.first() else { return String::new() };
    let mut port = first.port();
    while (addresses.len() as u64) < wanted && port < u16::MAX {
        port += 1;
        let next = std::net::SocketAddr::new(first.ip(), port);
        if next != plan.config.admin && !addresses.contains(&next) {
            addresses.push(next);
        }
    }
    addresses.iter().map(|address| format!("\"{address}\"")).collect::<Vec<_>>().join(", ")
}

/// The range of ports that `tuning/haproxy.cfg` and this file agree on: above those on which gateway, admin interface and
/// Redis listen by default, or a connection to elsewhere may have theirs when they start.
const PORTS: &str = "10240 65535";

pub(super) const PORT_RANGE: Need = Need {
    id: "port_range",
    what: "ports for connections from this host (net.ipv4.ip_local_port_range)",
    needed: "55,000, where a proxy on this host opens more connections to one address than there are; the gateway itself needs a few for Redis",
    why: "a proxy here runs out of ports, and answers its clients with 503",
    source: "kernel: networking/ip-sysctl",
    undo: UNDO_SYSCTL,
    sysctls: |_, _| vec![("net.ipv4.ip_local_port_range", PORTS.into())],
    judge: |plan, host| {
        let name = "net.ipv4.ip_local_port_range";
        let Some(&[first, last]) = host.numbers(name).as_deref() else { return not_shown(host, name) };
        let ports = (last - first + 1).max(0) as u64;
        let said = format!("{first} to {last}, {} ports", thousands(ports));
        if !plan.listens_here_alone() {
            return Verdict::Fine(format!("{said}: clients and proxies come from elsewhere"));
        }
        let pairs = plan.addresses() * plan.proxy_addresses().unwrap_or(1);
        if pairs == 0 || ports * pairs >= plan.sockets || ports >= figures::PORTS_WANTED.value {
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
