//! `tuning/install.sh` below a directory of its own: what it writes and sets, that a second time changes nothing, and
//! that it takes everything back.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

const SYSCTLS: &[(&str, &str)] = &[
    ("fs/file-max", "9223372036854775807"),
    ("net/ipv4/tcp_mem", "287898\t383867\t575796"),
    ("net/core/somaxconn", "131072"),
    ("net/core/netdev_max_backlog", "1000"),
    ("net/ipv4/ip_local_port_range", "32768\t60999"),
    ("net/ipv4/tcp_slow_start_after_idle", "1"),
];

/// A host below a directory.
struct Prefix(TempDir);

impl Prefix {
    fn new() -> Self {
        let prefix = Self(TempDir::new().unwrap());
        for (name, value) in SYSCTLS {
            prefix.write(&format!("proc/sys/{name}"), &format!("{value}\n"));
        }
        prefix
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn write(&self, path: &str, text: &str) {
        fs::create_dir_all(self.path(path).parent().unwrap()).unwrap();
        fs::write(self.path(path), text).unwrap();
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap()
    }

    fn sysctl(&self, name: &str) -> String {
        self.read(&format!("proc/sys/{name}")).trim().replace('\t', " ")
    }

    /// Runs the script in `directory` on this host; answers what it said.
    fn run_in(&self, directory: &Path, flags: &[&str]) -> String {
        let output = Command::new(directory.join("install.sh"))
            .args(flags)
            .arg("--prefix")
            .arg(self.0.path())
            .env("PATH", "/usr/bin:/bin") // no `spillgate` of the host's
            .output()
            .unwrap();
        assert!(output.status.success(), "{flags:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn run(&self, flags: &[&str]) -> String {
        self.run_in(&tuning(), flags)
    }

    /// Every file with what is in it.
    fn files(&self) -> BTreeMap<PathBuf, String> {
        let (mut files, mut directories) = (BTreeMap::new(), vec![self.0.path().to_owned()]);
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    directories.push(path);
                } else {
                    files.insert(path.strip_prefix(self.0.path()).unwrap().into(), fs::read_to_string(&path).unwrap());
                }
            }
        }
        files
    }
}

fn tuning() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tuning")
}

/// The settings, numbers parted by spaces, whoever wrote them.
fn settings(prefix: &Prefix) -> Vec<String> {
    SYSCTLS.iter().map(|(name, _)| prefix.sysctl(name)).collect()
}

#[test]
fn it_raises_what_is_too_low_and_nothing_else() {
    let prefix = Prefix::new();
    let said = prefix.run(&[]);
    assert_eq!(prefix.sysctl("net/ipv4/ip_local_port_range"), "10240 65535");
    assert_eq!(prefix.sysctl("net/ipv4/tcp_slow_start_after_idle"), "0");
    assert!(prefix.sysctl("net/ipv4/tcp_mem").split(' ').nth(1).unwrap().parse::<u64>().unwrap() > 1_500_000);
    assert_eq!(prefix.sysctl("net/core/somaxconn"), "131072", "what is more stays more");
    assert_eq!(prefix.sysctl("fs/file-max"), "9223372036854775807");
    let installed = prefix.read("etc/sysctl.d/99-spillgate.conf");
    assert!(installed.contains("\nnet.core.somaxconn = 131072\n"), "{installed}");
    assert!(installed.contains("\nnet.ipv4.ip_local_port_range = 10240 65535\n"), "{installed}");
    assert_eq!(
        prefix.read("etc/security/limits.d/99-spillgate.conf"),
        fs::read_to_string(tuning().join("limits.conf")).unwrap()
    );
    for part in ["set net.ipv4.tcp_mem", "it is 287898 383867 575796", "write ", "etc/sysctl.d/99-spillgate.conf"] {
        assert!(said.contains(part), "{part} in {said}");
    }
}

#[test]
fn a_second_time_changes_nothing() {
    let prefix = Prefix::new();
    prefix.run(&[]);
    let files = prefix.files();
    let said = prefix.run(&[]);
    assert_eq!(prefix.files(), files);
    assert!(!said.contains("set ") && !said.contains("write "), "{said}");
}

#[test]
fn undo_takes_everything_back() {
    let prefix = Prefix::new();
    let before = settings(&prefix);
    prefix.run(&[]);
    assert_ne!(settings(&prefix), before);
    prefix.run(&[]);
    prefix.run(&["--undo"]);
    assert_eq!(settings(&prefix), before);
    let left: Vec<_> = prefix.files().into_keys().filter(|path| !path.starts_with("proc")).collect();
    assert_eq!(left, Vec::<PathBuf>::new());
    assert_eq!(prefix.run(&["--undo"]), "", "there is nothing left to undo");
}

#[test]
fn a_dry_run_says_what_it_would_do_and_does_nothing() {
    let prefix = Prefix::new();
    let files = prefix.files();
    let said = prefix.run(&["--dry-run"]);
    assert_eq!(prefix.files(), files);
    assert!(said.contains("would set net.ipv4.tcp_mem") && said.contains("would write "), "{said}");
    prefix.run(&[]);
    let files = prefix.files();
    assert!(prefix.run(&["--undo", "--dry-run"]).contains("would remove "));
    assert_eq!(prefix.files(), files);
}

#[test]
fn what_lies_beside_it_is_installed_and_a_configuration_is_never_overwritten() {
    let (prefix, beside) = (Prefix::new(), TempDir::new().unwrap());
    for (name, text) in [("spillgate.service", "[Service]\n"), ("spillgate.toml", "shards = 1\n")] {
        fs::write(beside.path().join(name), text).unwrap();
    }
    fs::copy(tuning().join("install.sh"), beside.path().join("install.sh")).unwrap();
    prefix.run_in(beside.path(), &[]);
    assert_eq!(prefix.read("etc/systemd/system/spillgate.service"), "[Service]\n");
    assert_eq!(prefix.read("etc/spillgate/spillgate.toml"), "shards = 1\n");
    assert!(!prefix.path("etc/sysctl.d/99-spillgate.conf").exists(), "it did not lie beside it");
    prefix.write("etc/spillgate/spillgate.toml", "shards = 2\n");
    prefix.run_in(beside.path(), &[]);
    prefix.run_in(beside.path(), &["--undo"]);
    assert_eq!(prefix.read("etc/spillgate/spillgate.toml"), "shards = 2\n");
    assert!(!prefix.path("etc/systemd/system/spillgate.service").exists());
}

#[test]
fn a_setting_that_this_kernel_has_not_is_left_out() {
    let prefix = Prefix::new();
    fs::remove_file(prefix.path("proc/sys/net/core/netdev_max_backlog")).unwrap();
    prefix.run(&[]);
    let installed = prefix.read("etc/sysctl.d/99-spillgate.conf");
    assert!(
        installed.contains("\n# net.core.netdev_max_backlog = 16384   # this host has no such setting\n"),
        "{installed}"
    );
    assert!(!prefix.path("proc/sys/net/core/netdev_max_backlog").exists());
    fs::remove_dir_all(prefix.path("proc")).unwrap();
    assert!(prefix.run(&[]).contains("at the next boot"), "as in a package's tree");
}

#[test]
fn a_wrong_flag_is_refused_by_name() {
    let output = Command::new(tuning().join("install.sh")).arg("--udno").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--udno"));
}

#[test]
fn shellcheck_finds_nothing_in_it() {
    let output = Command::new("shellcheck").arg(tuning().join("install.sh")).output().expect("`make test` installs it");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
