//! The program in namespaces of its own (as root): with the unit installed, and in another network than the host's.

use serde_json::Value;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Output};

const PROGRAM: &str = env!("CARGO_BIN_EXE_spillgate");

/// Runs a script in namespaces that are gone at its end; none without root.
fn within(kind: &str, script: &str) -> Option<Output> {
    if std::fs::metadata("/proc/self").unwrap().uid() != 0 {
        use std::io::Write;
        let _ = writeln!(std::io::stderr().lock(), "SKIPPED: namespaces take root: the doctor was not asked in one");
        return None;
    }
    let mut command = Command::new("unshare");
    command.args([kind, "bash", "-c", script]).env_clear().env("PATH", std::env::var_os("PATH").unwrap());
    Some(command.output().unwrap())
}

#[test]
fn the_units_settings_are_judged_and_named_in_the_first_line() {
    let script = format!(
        "set -e
        mount -t tmpfs none /run; mkdir -p /run/systemd/system /run/sg
        mount -t tmpfs none /mnt
        printf '[Service]\\nExecStart=/usr/bin/spillgate serve --config /run/sg/own.toml\\n' >/run/systemd/system/spillgate.service
        mkdir -p /etc/systemd/system; mount -t tmpfs none /etc/systemd/system
        ask() {{ {PROGRAM} doctor --sockets 6 \"$@\" || [[ $? == 1 ]]; }}
        ask | head -1
        printf 'shards = 1\\n[limits]\\nconnections_per_shard_max = 5\\n' >/run/sg/own.toml
        ask | head -1
        ask | grep -c 'SHORT connections that the configuration allows'
        printf 'shards = 1\\n' >/run/sg/other.toml
        ask --config /run/sg/other.toml | head -1
        : >/run/systemd/system/spillgate.service
        ask | head -1"
    );
    let Some(output) = within("--mount", &script) else { return };
    let text = String::from_utf8_lossy(&output.stdout);
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 5, "{output:?}");
    let head = "6 sockets, 20 % of them stalled; settings:";
    assert_eq!(lines[0], format!("{head} defaults (the unit's /run/sg/own.toml"), "one that cannot be read: {text}");
    assert_eq!(lines[1], format!("{head} /run/sg/own.toml (the unit's)"), "{text}");
    assert_eq!(lines[2], "1", "its limit is judged");
    assert_eq!(lines[3], format!("{head} /run/sg/other.toml"), "{text}");
    assert_eq!(lines[4], format!("{head} defaults"), "{text}");
}

#[test]
fn conntrack_cannot_be_told_from_another_network_namespace() {
    let Some(output) = within("--net", &format!("{PROGRAM} doctor --sockets 1000 --json")) else { return };
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        report["settings"].as_str().map(|said| said.starts_with("defaults") || said.ends_with("(the unit's)")),
        Some(true)
    );
    for id in ["conntrack", "conntrack_buckets"] {
        let finding = report["findings"].as_array().unwrap().iter().find(|finding| finding["id"] == id).unwrap();
        assert_eq!(finding["state"], "unknown", "{finding}");
        assert!(finding["seen"].as_str().unwrap().contains("ask on the host itself"), "{finding}");
    }
}
