//! The program on this very host: exit codes, output, and mends that are applied for real, as root, in a network
//! namespace of their own (or to limits of the process), so that nothing of the host changes.

use redis as redis_client;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Output};
use std::sync::{Mutex, PoisonError};
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_spillgate");

/// Held by tests of which one would see what the other changes.
static HOST: Mutex<()> = Mutex::new(());

/// Runs the program without settings from outside.
fn doctor(arguments: &[&str]) -> Output {
    let mut command = Command::new(PROGRAM);
    command.arg("doctor").args(arguments).env_clear();
    command.output().unwrap()
}

fn report(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// What was found, by id.
fn findings(report: &Value) -> BTreeMap<String, Value> {
    let all = report["findings"].as_array().unwrap().iter();
    all.map(|finding| (finding["id"].as_str().unwrap().to_owned(), finding.clone())).collect()
}

fn state<'f>(findings: &'f BTreeMap<String, Value>, id: &str) -> &'f str {
    findings[id]["state"].as_str().unwrap()
}

fn mends(finding: &Value) -> Vec<String> {
    finding["mends"].as_array().unwrap().iter().map(|mend| mend["line"].as_str().unwrap().to_owned()).collect()
}

fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

fn skipped(why: &str) {
    use std::io::Write;
    // Past the test's capture, so that it is seen.
    let _ = writeln!(std::io::stderr().lock(), "SKIPPED: {why}");
}

#[test]
fn it_exits_with_0_1_or_2() {
    let config = tempfile::NamedTempFile::new().unwrap();
    fs::write(&config, "shards = 1\nlimits.connections_per_shard_max = 5\n").unwrap();
    let path = config.path().to_str().unwrap();
    let short = doctor(&["--sockets", "6", "--config", path, "--json"]);
    assert_eq!(short.status.code(), Some(1), "{short:?}");
    assert_eq!(state(&findings(&report(&short)), "capacity"), "short");
    let fine = doctor(&["--sockets", "5", "--config", path, "--json"]);
    let found = report(&fine);
    assert_eq!(state(&findings(&found), "capacity"), "ok");
    assert_eq!(fine.status.code(), Some(i32::from(found["short"].as_u64() != Some(0))), "{found:#}");
    for wrong in [
        &["--sockets", "0"][..],
        &["--sockets", "many"],
        &[],
        &["--sockets", "5", "--stalled", "2"],
        &["--sockets", "5", "--config", "/nowhere/at/all.toml"],
    ] {
        let output = doctor(wrong);
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
        assert!(!output.stderr.is_empty() && output.stdout.is_empty(), "{wrong:?}");
    }
}

#[test]
fn text_and_json_say_the_same() {
    let _host = HOST.lock().unwrap_or_else(PoisonError::into_inner);
    let json = report(&doctor(&["--sockets", "1000000", "--json"]));
    let text = String::from_utf8(doctor(&["--sockets", "1000000"]).stdout).unwrap();
    for (id, finding) in findings(&json) {
        let mark = match finding["state"].as_str().unwrap() {
            "ok" => "ok    ",
            "short" => "SHORT ",
            _ => "?     ",
        };
        let head = format!("{mark}{}:", finding["what"].as_str().unwrap());
        let is_typed =
            |line: &str| [" mend ", " or ", " and "].iter().any(|word| line.starts_with(&format!("     {word}")));
        assert!(text.lines().all(|line| is_typed(line) || line.chars().count() <= 80), "{text}");
        // The text is broken into lines, so that it fits a terminal.
        let whole = text.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
        let head = head.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
        assert!(whole.contains(&head), "{id}: {head:?} in\n{text}");
        assert!(mends(&finding).iter().all(|mend| text.contains(mend)), "{id}");
    }
    assert!(!text.contains('\x1b'), "no colors but on a terminal");
    assert_eq!((json["sockets"].as_u64(), json["stalled_share"].as_f64()), (Some(1_000_000), Some(0.2)));
}

#[test]
fn the_rings_of_the_configuration_turn_the_descriptors_green() {
    let config = tempfile::NamedTempFile::new().unwrap();
    let path = config.path().to_str().unwrap().to_owned();
    fs::write(&config, "shards = 2\n").unwrap();
    // A limit that any user may lower, below which two shards with one ring each carry 2 x 4,000.
    let limited = |sockets: &str| {
        let mut command = Command::new("prlimit");
        command.args(["--nofile=4096:4096", PROGRAM, "doctor", "--json", "--sockets", sockets, "--config", &path]);
        findings(&report(&command.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).output().unwrap()))
    };
    assert_eq!(state(&limited("7000"), "nofile"), "ok");
    let short = limited("100000");
    assert_eq!(state(&short, "nofile"), "short");
    let lines = mends(&short["nofile"]);
    let rings = lines.iter().find(|line| line.starts_with("rings_per_shard = ")).unwrap();
    fs::write(&config, format!("shards = 2\n[limits]\n{rings}\n")).unwrap();
    assert_eq!(state(&limited("100000"), "nofile"), "ok");

    // And the shell's limit, as far as this process may go: the table of one ring for 5,000 sockets.
    fs::write(&config, "shards = 1\n").unwrap();
    let lines = mends(&limited("5000")["nofile"]);
    let wanted = lines.iter().find_map(|line| line.strip_prefix("ulimit -n ").or(line.strip_prefix("LimitNOFILE=")));
    let wanted: u64 = wanted.expect("a line that raises the limit").parse().unwrap();
    let most = hard_nofile();
    let limit = wanted.min(most);
    let raised = Command::new("prlimit")
        .args([
            &format!("--nofile={limit}:{limit}"),
            PROGRAM,
            "doctor",
            "--json",
            "--sockets",
            "5000",
            "--config",
            &path,
        ])
        .output()
        .unwrap();
    assert_eq!(state(&findings(&report(&raised)), "nofile"), "ok", "a limit of {limit}, {wanted} were said");
}

/// The hard limit of descriptors here, beyond which not even root goes in some machines.
fn hard_nofile() -> u64 {
    let limits = fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    line.split_ascii_whitespace().nth(4).unwrap().parse().unwrap_or(u64::MAX)
}

/// What of a network namespace is short, and the settings that make it so.
const NAMESPACE: &[(&str, &str)] = &[
    ("somaxconn", "net.core.somaxconn=128"),
    ("port_range", "net.ipv4.ip_local_port_range='40000 40999'"),
    ("syn_backlog", "net.ipv4.tcp_syncookies=0"),
    ("tcp_rmem", "net.ipv4.tcp_rmem='4096 33554432 33554432'"),
    ("tcp_wmem", "net.ipv4.tcp_wmem='4096 16384 16384'"),
    ("slow_start_after_idle", "net.ipv4.tcp_slow_start_after_idle=1"),
    ("congestion_control", "net.ipv4.tcp_congestion_control=reno"),
];

/// Runs a script in a network namespace of its own, which is gone at its end.
fn in_namespace(script: &str) -> Output {
    Command::new("unshare").args(["--net", "bash", "-ec", script]).env_remove("SPILLGATE_CONFIG").output().unwrap()
}

#[test]
fn every_line_that_mends_a_network_namespace_turns_it_green_there() {
    if !is_root() {
        return skipped("network namespaces take root: the mends of net.* were not applied for real");
    }
    let spoil: String = NAMESPACE.iter().map(|(_, line)| format!("sysctl -qw {line}\n")).collect();
    let ask = format!("{PROGRAM} doctor --sockets 1000000 --json || [[ $? == 1 ]]");
    let before = in_namespace(&format!("{spoil}{ask}"));
    assert!(before.status.success(), "{before:?}");
    let before = findings(&report(&before));
    let mut lines = String::new();
    for (id, line) in NAMESPACE {
        assert_eq!(state(&before, id), "short", "{line}");
        // Of several that each mend it, the first.
        let all = mends(&before[*id]);
        let needed = if before[*id]["any_one_mends"] == true { 1 } else { all.len() };
        all.iter().take(needed).for_each(|mend| lines += &format!("{mend}\n"));
    }
    let after = in_namespace(&format!("{spoil}({lines}) >&2\n{ask}"));
    assert!(after.status.success(), "{after:?}");
    let after = findings(&report(&after));
    for (id, _) in NAMESPACE {
        assert_eq!(state(&after, id), "ok", "{id} after\n{lines}");
    }
}

/// A connection to a port of the loopback, a byte each way; then how many are tracked.
const CONNECT: &str = "
import socket, sys
listening = socket.create_server(('127.0.0.1', int(sys.argv[1])))
client = socket.create_connection(listening.getsockname())
server, _ = listening.accept()
client.send(b'x'); server.recv(1); server.send(b'y'); client.recv(1)
print(open('/proc/sys/net/netfilter/nf_conntrack_count').read().strip())
";

/// A firewall that tracks.
const FIREWALL: &str = "nft 'add table inet firewall; add chain inet firewall in { type filter hook input priority 0; }; \
                        add rule inet firewall in ct state invalid drop'";

#[test]
fn the_lines_of_the_guide_keep_conntrack_off_the_gateways_connections() {
    if !is_root() {
        return skipped("network namespaces take root: the guide's nft lines were not applied for real");
    }
    let guide = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tuning/README.md")).unwrap();
    let (_, lines) = guide.split_once("  nft -f - <<'END'\n").expect("the guide has the lines");
    let (lines, _) = lines.split_once("  END\n").unwrap();
    let count = |port: u16, rules: &str| {
        let script =
            format!("ip link set lo up; {FIREWALL}; nft -f - <<'END'\n{rules}\nEND\npython3 -c \"{CONNECT}\" {port}");
        let output = in_namespace(&script);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    if in_namespace(FIREWALL).status.code() != Some(0) {
        return skipped("this kernel has no nftables, or nothing tracks: the guide's lines were not applied for real");
    }
    assert_eq!((count(8080, ""), count(8080, lines), count(9090, lines)), ("1".into(), "0".into(), "1".into()));
}

#[test]
fn a_namespace_with_a_table_of_its_own_turns_the_table_green() {
    if !is_root() {
        return skipped("network namespaces take root: net.ipv4.tcp_child_ehash_entries was not set for real");
    }
    let ask = format!("{PROGRAM} doctor --sockets 4000000 --json || [[ $? == 1 ]]");
    let before = findings(&report(&in_namespace(&ask)));
    if state(&before, "ehash") == "ok" {
        return skipped("this host's table of connections is large enough for 4,000,000 sockets");
    }
    let lines = mends(&before["ehash"]);
    let line = lines.iter().find(|line| line.starts_with("sysctl -w net.ipv4.tcp_child_ehash_entries=")).unwrap();
    // In a namespace's namespace, so that nothing of this one is set.
    let after = in_namespace(&format!("{line} >&2; unshare --net bash -ec '{ask}'"));
    assert!(after.status.success(), "{after:?}");
    assert_eq!(state(&findings(&report(&after)), "ehash"), "ok", "{line}");
}

/// Settings of the whole host: they are raised for a moment, for more sockets than it is set for, and put back.
#[test]
fn every_line_that_mends_the_whole_host_turns_it_green() {
    if !is_root() {
        return skipped("sysctls take root: fs.file-max and net.ipv4.tcp_mem were not set for real");
    }
    let _host = HOST.lock().unwrap_or_else(PoisonError::into_inner);
    let home = TempDir::new().unwrap();
    let ask = |sockets: u64| findings(&report(&doctor(&["--sockets", &sockets.to_string(), "--json"])));
    let kept = Kept::of(&["fs/file-max", "net/ipv4/tcp_mem"]);
    let Some(_locked) = kept.lock() else {
        return skipped("a large run of the load tester has raised the sysctls, and puts them back at its end");
    };
    let sockets = kept.pages() + 1_000_000;
    let before = ask(sockets);
    assert_eq!(state(&before, "tcp_mem"), "short", "{before:#?}");
    for id in ["tcp_mem", "file_max"].iter().filter(|id| state(&before, id) == "short") {
        for line in mends(&before[*id]) {
            let done = Command::new("bash").args(["-ec", &line]).current_dir(home.path()).output().unwrap();
            if !done.status.success() {
                return skipped(&format!("{line}: {}", String::from_utf8_lossy(&done.stderr)));
            }
        }
        assert_eq!(state(&ask(sockets), id), "ok");
    }
}

/// Values that are put back.
struct Kept(Vec<(String, String)>);

impl Kept {
    fn of(names: &[&str]) -> Self {
        let read = |name: &&str| {
            let path = format!("/proc/sys/{name}");
            let value = fs::read_to_string(&path).unwrap();
            (path, value)
        };
        Self(names.iter().map(read).collect())
    }

    /// What `net.ipv4.tcp_mem` calls pressure.
    fn pages(&self) -> u64 {
        self.0[1].1.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// The lock that the load tester holds while it has raised sysctls (loadtest/src/sysctl.rs).
    #[allow(clippy::incompatible_msrv)] // as the load tester, which is built with the stable Rust of today
    fn lock(&self) -> Option<fs::File> {
        let lock = fs::File::create(std::env::temp_dir().join("spillgate-load-sysctl.lock")).unwrap();
        lock.try_lock().ok().map(|()| lock)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        for (path, value) in &self.0 {
            if fs::read_to_string(path).unwrap() != *value {
                fs::write(path, value.trim()).unwrap();
            }
        }
    }
}

#[test]
fn redis_is_asked_and_mended_by_the_line() {
    let redis = super::redis::RedisServer::start();
    let ask = |url: &str| {
        let mut command = Command::new(PROGRAM);
        command.args(["doctor", "--sockets", "1000", "--json"]).env_clear().env("SPILLGATE_REDIS_URL", url);
        command.output().unwrap()
    };
    let url = redis.url("/");
    let found = |url: &str| findings(&report(&ask(url)));
    assert_eq!(state(&found(&url), "redis"), "ok");
    assert_eq!(state(&found(&url), "redis_output_buffer"), "ok", "Redis's own default");

    let mut connection = redis.connection();
    let set = |value: &str| {
        let mut command = redis_client::cmd("CONFIG");
        command.arg("SET").arg("client-output-buffer-limit").arg(value);
        command
    };
    set("pubsub 1048576 524288 10").exec(&mut connection).unwrap();
    let short = found(&url);
    assert_eq!(state(&short, "redis_output_buffer"), "short");
    let port = url.trim_end_matches('/').rsplit_once(':').unwrap().1.to_owned();
    for line in mends(&short["redis_output_buffer"]) {
        assert!(line.starts_with(&format!("redis-cli -h 127.0.0.1 -p {port} CONFIG SET ")), "{line}");
        let done = Command::new("bash").args(["-ec", &line]).output().unwrap();
        assert!(done.status.success(), "{line}: {done:?}");
    }
    assert_eq!(state(&found(&url), "redis_output_buffer"), "ok");

    redis_client::cmd("ACL")
        .arg(&["SETUSER", "guest", "on", ">secret", "+info", "+client"])
        .exec(&mut connection)
        .unwrap();
    let guest = found(&format!("redis://guest:secret@127.0.0.1:{port}/"));
    assert_eq!(
        (state(&guest, "redis"), state(&guest, "redis_output_buffer")),
        ("ok", "unknown"),
        "CONFIG is forbidden"
    );
    let refused = ask(&format!("redis://guest:wrong-word@127.0.0.1:{port}/"));
    assert_eq!(state(&findings(&report(&refused)), "redis"), "short");
    assert!(!String::from_utf8_lossy(&refused.stdout).contains("wrong-word"));
    // A password that nobody gives.
    redis_client::cmd("CONFIG").arg(&["SET", "requirepass", "secret"]).exec(&mut connection).unwrap();
    let refused = found(&url);
    assert_eq!((state(&refused, "redis"), state(&refused, "redis_output_buffer")), ("short", "unknown"));
    assert!(mends(&refused["redis"])[0].starts_with("set redis.url with the user and password"), "{refused:#?}");
    drop(redis);
    let away = found(&url);
    assert_eq!(state(&away, "redis"), "short", "nobody listens there");
    assert!(mends(&away["redis"])[0].starts_with("start Redis there"), "{away:#?}");
    // A Redis that keeps silent may be there.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = found(&format!("redis://{}/", silent.local_addr().unwrap()));
    assert_eq!(state(&silent, "redis"), "unknown", "{silent:#?}");
}
