//! The unit that is installed: what it is understood to say, what systemd ignores of it, and what nobody can tell.

use super::fake::Fake;
use super::mends::judged;
use spillgate::doctor::{Mend, Verdict, examine, unit_config};

const UNIT: &str = "[Service]\nLimitNOFILE=1048576\nLimitMEMLOCK=64M\nDynamicUser=yes\n\
                    ExecStart=/usr/bin/spillgate serve --config /etc/spillgate/spillgate.toml\n";

/// A host with the unit and one more line of a drop-in.
fn with(line: &str) -> Fake {
    let fake = Fake::fine();
    fake.systemd(UNIT);
    fake.write("etc/systemd/system/spillgate.service.d/50.conf", &format!("[Service]\n{line}"));
    fake
}

fn verdict(fake: &Fake, id: &str) -> Verdict {
    judged(&examine(&fake.plan, &fake.host()), id).clone()
}

#[test]
fn sizes_are_read_by_systemds_rules_and_what_is_odd_cannot_be_told() {
    for (line, seen) in [
        ("MemoryMax=1.5G", "1.6 GB"),
        ("MemoryMax=1073741824B", "1.1 GB"),
        ("MemoryHigh=0.5G", "512 MiB"),
        ("MemoryHigh=1G 512M", "1.6 GB"),
        ("MemoryMax=10%", "3.3 GB"),
    ] {
        let verdict = verdict(&with(line), "cgroup_memory");
        assert!(verdict.is_short() && verdict.seen().starts_with(seen), "{line}: {verdict:?}");
    }
    for (line, id) in [
        ("MemoryMax=lots", "cgroup_memory"),
        ("MemoryHigh=1 elephant", "cgroup_memory"),
        ("CPUQuota=2", "cgroup_cpu"),
        ("CPUAffinity=numa", "shards"),
        ("CPUAffinity=numa", "nofile"),
        ("CPUAffinity=numa", "packet_cores"),
    ] {
        let verdict = verdict(&with(line), id);
        let (key, value) = line.split_once('=').unwrap();
        let said = format!("{key}= of /etc/systemd/system/spillgate.service.d/50.conf is {value:?}");
        assert!(matches!(&verdict, Verdict::Unknown(why) if why.contains(&said)), "{line}: {id}: {verdict:?}");
    }
    for line in
        ["MemoryMax=infinity", "MemoryMax=lots\nMemoryMax=", "CPUQuota=2\nCPUQuota=", "CPUAffinity=numa\nCPUAffinity="]
    {
        let fake = with(line);
        for id in ["cgroup_memory", "cgroup_cpu", "shards"] {
            assert!(matches!(verdict(&fake, id), Verdict::Fine(_)), "{line}: {id}");
        }
    }
}

#[test]
fn a_limit_that_systemd_ignores_leaves_the_one_before() {
    for line in ["LimitNOFILE=64K", "LimitNOFILE=", "LimitNOFILE=9:8"] {
        let fine = verdict(&with(line), "nofile");
        assert!(fine.seen().contains("LimitNOFILE= of /etc/systemd/system/spillgate.service;"), "{line}: {fine:?}");
        assert!(matches!(fine, Verdict::Fine(_)), "{line}: {fine:?}");
    }
    assert!(verdict(&with("LimitNOFILE=64000"), "nofile").is_short());
    assert!(verdict(&with("LimitMEMLOCK=64K"), "memlock").is_short());
}

#[test]
fn the_group_of_io_uring_is_asked_of_the_unit_and_not_of_whoever_asks() {
    let asked = |group: &str, line: &str| {
        let fake = with(line);
        fake.write("proc/sys/kernel/io_uring_disabled", "1");
        fake.write("proc/sys/kernel/io_uring_group", group);
        fake.write("etc/group", "root:x:0:\nrings:x:991:\n");
        fake
    };
    // Whoever asks is in groups 0, 4 and 24.
    for group in ["0", "24", "-1"] {
        assert!(verdict(&asked(group, ""), "io_uring_disabled").is_short(), "{group}");
    }
    for line in ["SupplementaryGroups=991", "SupplementaryGroups=adm rings", "Group=rings"] {
        assert!(!verdict(&asked("991", line), "io_uring_disabled").is_short(), "{line}");
    }
    assert!(verdict(&asked("991", "SupplementaryGroups=991\nSupplementaryGroups="), "io_uring_disabled").is_short());
    let mut fake = asked("991", "");
    let short = verdict(&fake, "io_uring_disabled");
    let lines: Vec<_> = short.mends().iter().map(ToString::to_string).collect();
    assert_eq!(lines, ["SupplementaryGroups=991", "sysctl -w kernel.io_uring_disabled=0"]);
    fake.apply(&short.mends()[0]);
    assert!(!verdict(&fake, "io_uring_disabled").is_short());
    // Nobody is told to give the gateway root's group.
    let short = verdict(&asked("0", ""), "io_uring_disabled");
    assert!(matches!(short.mends(), [Mend::Sysctl(..)]), "{short:?}");
}

#[test]
fn the_units_configuration_is_found_where_systemd_runs_the_host() {
    let directory = tempfile::TempDir::new().unwrap();
    let write = |path: &str, text: &str| {
        let path = directory.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    let config = || unit_config(directory.path()).map(|path| path.display().to_string());
    write("usr/lib/systemd/system/spillgate.service", UNIT);
    assert_eq!(config(), None, "systemd does not run here");
    write("run/systemd/system/.keep", "");
    assert_eq!(config().as_deref(), Some("/etc/spillgate/spillgate.toml"));
    let drop_in = "[Service]\nExecStart=\nExecStart=/opt/spillgate serve --config=/srv/own.toml\n";
    write("etc/systemd/system/spillgate.service.d/own.conf", drop_in);
    assert_eq!(config().as_deref(), Some("/srv/own.toml"));
    write("etc/systemd/system/spillgate.service.d/own.conf", "[Service]\nExecStart=\nExecStart=/opt/spillgate serve\n");
    assert_eq!(config(), None);
}
