//! Lines that mend must do so for whoever is told them: no line that cannot work, and none that is not enough.

use super::fake::Fake;
use super::mends::{judged, short};
use spillgate::doctor::{Mend, Verdict, examine};
use std::collections::BTreeSet;

const RANGE: &str = "proc/sys/net/ipv4/ip_local_port_range";

/// Addresses of a line that sets them.
fn addresses(verdict: &Verdict) -> BTreeSet<String> {
    let Some(Mend::Setting(line)) = verdict.mends().first() else { panic!("{verdict:?}") };
    let (_, list) = line.split_once('[').unwrap();
    let all: Vec<_> = list.trim_end_matches(']').split(", ").map(str::to_owned).collect();
    let different: BTreeSet<_> = all.iter().cloned().collect();
    assert_eq!(all.len(), different.len(), "{line}");
    different
}

#[test]
fn a_proxy_on_this_host_has_no_more_connections_than_ports() {
    let mut fake = Fake::fine();
    fake.plan.proxies = None;
    fake.set("listen = [\"127.0.0.1:8080\"]");
    let listen = |fake: &Fake| judged(&examine(&fake.plan, &fake.host()), "listen").clone();
    for (range, most) in [("10240\t65535", 55_296), ("1024\t65535", 64_000), ("32768\t60999", 55_296)] {
        fake.write(RANGE, range);
        fake.plan.sockets = most;
        assert!(!listen(&fake).is_short(), "{most} with {range}");
        fake.plan.sockets = most + 1;
        assert_eq!(addresses(&listen(&fake)).len(), 2, "{range}");
    }
    // Both mends together are enough: 19 addresses for a million, with 55,296 ports.
    fake.plan.sockets = 1_000_000;
    let report = examine(&fake.plan, &fake.host());
    assert_eq!(short(&report), BTreeSet::from(["listen", "port_range"]));
    assert_eq!(addresses(judged(&report, "listen")).len(), 19);
    for id in ["listen", "port_range"] {
        judged(&report, id).mends().to_vec().iter().for_each(|mend| fake.apply(mend));
    }
    assert_eq!(short(&examine(&fake.plan, &fake.host())), BTreeSet::new());
    // A range that is nearly as wide is short of what those addresses need.
    fake.write(RANGE, "15536\t65535");
    assert_eq!(short(&examine(&fake.plan, &fake.host())), BTreeSet::from(["port_range"]));
    // Elsewhere nobody knows its ports.
    fake.set("listen = [\"0.0.0.0:8080\"]");
    fake.plan.proxies = Some(4);
    assert_eq!(addresses(&listen(&fake)).len(), 5, "55,000 a pair");
}

#[test]
fn a_list_of_addresses_is_enough_or_there_is_none() {
    for (there, wanted) in [
        ("\"0.0.0.0:65530\"", 19),
        ("\"0.0.0.0:65535\"", 19),
        ("\"0.0.0.0:443\"", 19),
        ("\"0.0.0.0:0\"", 19),
        ("\"0.0.0.0:9089\", \"127.0.0.1:9092\"", 19),
    ] {
        let mut fake = Fake::fine();
        fake.plan.proxies = Some(1);
        fake.set(&format!("listen = [{there}]"));
        let report = examine(&fake.plan, &fake.host());
        let verdict = judged(&report, "listen");
        let list = addresses(verdict);
        assert_eq!(list.len(), wanted, "{there}: {list:?}");
        assert!(!list.contains("0.0.0.0:9090") && !list.contains("0.0.0.0:9092"), "taken already: {list:?}");
        verdict.mends().to_vec().iter().for_each(|mend| fake.apply(mend)); // the configuration takes it
        assert!(!judged(&examine(&fake.plan, &fake.host()), "listen").is_short(), "{there}");
    }
    let mut fake = Fake::fine();
    fake.plan.proxies = Some(1);
    fake.plan.sockets = 100_000_000;
    let report = examine(&fake.plan, &fake.host());
    let [Mend::Advice(line)] = judged(&report, "listen").mends() else { panic!("{}", report.text(false)) };
    assert!(line.starts_with("proxies of 8 addresses, or more gateways"), "{line}");
}

/// The lines for a shell with this limit, and where they belong.
fn shell_lines(id: &str, from: &str, to: &str, capabilities: &str) -> Vec<(String, String)> {
    let fake = Fake::fine();
    fake.edit("proc/self/limits", from, to);
    fake.edit("proc/self/status", "Seccomp", &format!("CapEff:\t{capabilities}\nSeccomp"));
    let report = examine(&fake.plan, &fake.host());
    let mends = judged(&report, id).mends().iter();
    let lines = mends.map(|mend| (mend.to_string(), mend.place().to_owned()));
    lines.filter(|(line, _)| line.starts_with("ulimit")).collect()
}

#[test]
fn a_limit_that_is_not_ours_to_raise_is_said_with_who_may() {
    let (none, resource) = ("0000000000000000", "0000000001000000");
    let nofile = shell_lines("nofile", "1048576", "20000", none);
    assert_eq!(nofile[0].0, "ulimit -n 1048576");
    assert!(nofile[0].1.starts_with("by root with CAP_SYS_RESOURCE"), "{nofile:?}");
    let nofile = shell_lines("nofile", "1048576", "20000", resource);
    assert!(nofile[0].1.starts_with("in the shell that starts it"), "{nofile:?}");
    // Below its hard limit anybody may raise the soft one, up to it.
    let soft = "65536              8388608  ";
    let memlock = shell_lines("memlock", "8388608              8388608", soft, none);
    assert_eq!(memlock[0].0, "ulimit -l 8192");
    assert!(memlock[0].1.starts_with("in the shell that starts it"), "{memlock:?}");
    let memlock = shell_lines("memlock", "8388608              8388608", "65536              unlimited  ", none);
    assert_eq!(memlock[0].0, "ulimit -l unlimited");
    let memlock = shell_lines("memlock", "8388608", "65536", none);
    assert!(memlock[0].1.starts_with("by root with CAP_SYS_RESOURCE"), "{memlock:?}");
}

#[test]
fn the_table_of_a_namespace_is_set_before_it_is_made() {
    let fake = Fake::fine();
    fake.write("proc/sys/net/ipv4/tcp_ehash_entries", "262144");
    let report = examine(&fake.plan, &fake.host());
    let [_, line] = judged(&report, "ehash").mends() else { panic!("{}", report.text(false)) };
    assert_eq!(line.to_string(), "sysctl -w net.ipv4.tcp_child_ehash_entries=1048576");
    assert_eq!(line.place(), "as root, before the network namespace is made that the gateway runs in");
}

#[test]
fn descriptors_are_enough_for_what_the_configuration_has_the_gateway_start_with() {
    // The gateway does not start with fewer than 130,000 + 64 slots, and 64 other descriptors.
    let mut fake = Fake::fine();
    fake.plan.sockets = 400_000;
    fake.set("limits.connections_per_shard_max = 130000");
    for (limit, is_short) in [(130_127, true), (130_128, false)] {
        fake.write("proc/self/limits", &format!("Max open files   {limit}   {limit}   files"));
        let report = examine(&fake.plan, &fake.host());
        let verdict = judged(&report, "nofile");
        assert_eq!(verdict.is_short(), is_short, "{limit}: {verdict:?}");
        let said = "; needed: 130,128, with limits.connections_per_shard_max = 130000";
        assert!(!is_short || verdict.seen().ends_with(said), "{verdict:?}");
    }
}
