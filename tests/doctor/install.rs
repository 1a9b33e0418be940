//! `tuning/install.sh` below a directory of its own: what it writes and sets, that a second time changes nothing, that
//! nobody's edits are lost, and that it takes back what is still as it left it, wherever it was interrupted. In dash and bash.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

const SYSCTLS: &[(&str, &str)] = &[
    ("fs/file-max", "9223372036854775807"),
    ("net/ipv4/tcp_mem", "287898\t383867\t575796"),
    ("net/core/somaxconn", "131072"),
    ("net/core/netdev_max_backlog", "1000"),
    ("net/ipv4/ip_local_port_range", "32768\t60999"),
    ("net/ipv4/tcp_slow_start_after_idle", "1"),
];

/// In place of the program: it knows its settings.
pub const PROGRAM: &str = "#!/bin/sh\n[ \"$1\" != --version ] || echo spillgate 0\necho 'shards = 0'\n";
pub const LIMITS: &str = "etc/security/limits.d/99-spillgate.conf";
pub const SYSCTL_FILE: &str = "etc/sysctl.d/99-spillgate.conf";
pub const UNIT: &str = "etc/systemd/system/spillgate.service";
pub const PROGRAM_FILE: &str = "usr/local/bin/spillgate";
pub const CONFIG: &str = "etc/spillgate/spillgate.toml";

/// A host below a directory.
pub struct Prefix(pub TempDir);

impl Prefix {
    pub fn new() -> Self {
        let prefix = Self(TempDir::new().unwrap());
        for (name, value) in SYSCTLS {
            prefix.write(&format!("proc/sys/{name}"), &format!("{value}\n"));
        }
        prefix.write("proc/meminfo", "MemTotal:       24576000 kB\n");
        prefix
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    pub fn write(&self, path: &str, text: &str) {
        fs::create_dir_all(self.path(path).parent().unwrap()).unwrap();
        fs::write(self.path(path), text).unwrap();
    }

    pub fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap()
    }

    pub fn sysctl(&self, name: &str) -> String {
        self.read(&format!("proc/sys/{name}")).trim().replace('\t', " ")
    }

    pub fn command(&self, shell: &str, directory: &Path, flags: &[&str]) -> Command {
        let mut command = Command::new(shell);
        command.arg(directory.join("install.sh")).args(flags).arg("--prefix").arg(self.0.path());
        command.env("PATH", "/usr/bin:/bin"); // no `spillgate` of the host's
        command
    }

    /// Runs the script in `directory` on this host; answers what it said.
    pub fn run_in(&self, directory: &Path, flags: &[&str]) -> String {
        said(&self.command("dash", directory, flags).output().unwrap())
    }

    pub fn run(&self, flags: &[&str]) -> String {
        self.run_in(&tuning(), flags)
    }

    /// Every file with what is in it.
    pub fn files(&self) -> BTreeMap<PathBuf, String> {
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

/// What a run said that went well.
pub fn said(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub fn write_program(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// A directory with the script, a unit and a program, as after the unpacking of an archive.
pub fn unpacked() -> TempDir {
    let directory = TempDir::new().unwrap();
    for name in ["install.sh", "host.sh", "99-spillgate.conf", "limits.conf", "spillgate.service"] {
        fs::copy(tuning().join(name), directory.path().join(name)).unwrap();
    }
    write_program(&directory.path().join("spillgate"), PROGRAM);
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    directory
}

pub fn tuning() -> PathBuf {
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
    assert_eq!(left(&prefix), Vec::<PathBuf>::new());
    assert_eq!(prefix.run(&["--undo"]), "", "there is nothing left to undo");
}

/// The files but those of the kernel.
pub fn left(prefix: &Prefix) -> Vec<PathBuf> {
    prefix.files().into_keys().filter(|path| !path.starts_with("proc")).collect()
}

#[test]
fn undo_leaves_alone_what_was_changed_since_and_says_so() {
    let prefix = Prefix::new();
    prefix.run(&[]);
    prefix.write("proc/sys/net/ipv4/ip_local_port_range", "20000\t60000\n");
    prefix.write(LIMITS, "# ours now\n");
    let said = prefix.run(&["--undo"]);
    assert_eq!(prefix.sysctl("net/ipv4/ip_local_port_range"), "20000 60000");
    assert_eq!(prefix.sysctl("net/ipv4/tcp_mem"), "287898 383867 575796", "this one is as it was left");
    assert_eq!(prefix.read(LIMITS), "# ours now\n");
    assert_eq!(left(&prefix), [PathBuf::from(LIMITS)]);
    for part in ["ip_local_port_range = 20000 60000 was changed since", "99-spillgate.conf was changed since"] {
        assert!(said.contains(part), "{part} in {said}");
    }
}

#[test]
fn undo_removes_nothing_that_it_did_not_write() {
    let prefix = Prefix::new();
    for file in [SYSCTL_FILE, LIMITS, UNIT, PROGRAM_FILE, CONFIG] {
        prefix.write(file, "somebody's\n");
    }
    let files = prefix.files();
    let said = prefix.run(&["--undo"]);
    assert_eq!(prefix.files(), files);
    assert_eq!(said.matches("is not from here, and stays").count(), 4, "{said}");
}

#[test]
fn edits_stay_and_the_new_file_is_written_beside_them() {
    let (prefix, beside) = (Prefix::new(), unpacked());
    prefix.run_in(beside.path(), &[]);
    let unit = prefix.read(UNIT);
    fs::write(beside.path().join("spillgate.service"), "[Service]\nExecStart=/usr/bin/spillgate serve\n").unwrap();
    prefix.run_in(beside.path(), &[]);
    let newer = prefix.read(UNIT);
    assert_ne!(newer, unit, "nobody has edited it: it is brought up to date");

    let edited = newer.clone() + "Nice=-5\n";
    prefix.write(UNIT, &edited);
    let said = prefix.run_in(beside.path(), &[]);
    assert_eq!(prefix.read(UNIT), edited);
    assert_eq!(prefix.read(&format!("{UNIT}.spillgate-new")), newer);
    assert!(said.contains("was changed since it was installed, and stays (--force replaces it)"), "{said}");
    prefix.run_in(beside.path(), &["--force"]);
    assert_eq!(prefix.read(UNIT), newer);
    assert_eq!(prefix.read(&format!("{UNIT}.before-spillgate")), edited);
    assert!(!prefix.path(&format!("{UNIT}.spillgate-new")).exists());
    let said = prefix.run_in(beside.path(), &["--undo"]);
    assert_eq!(prefix.read(UNIT), edited, "{said}");
    assert_eq!(left(&prefix), [CONFIG, UNIT].map(PathBuf::from));
}

#[test]
fn the_program_is_installed_and_the_unit_starts_it() {
    let (prefix, beside) = (Prefix::new(), unpacked());
    let said = prefix.run_in(beside.path(), &[]);
    assert!(!said.contains("missing"), "{said}");
    assert_eq!(prefix.read(PROGRAM_FILE), PROGRAM);
    assert_eq!(fs::metadata(prefix.path(PROGRAM_FILE)).unwrap().permissions().mode() & 0o777, 0o755);
    assert!(prefix.read(UNIT).contains("\nExecStart=/usr/local/bin/spillgate serve "));
    assert_eq!(prefix.read(CONFIG), "# shards = 0\n", "its defaults, commented out");

    let newer = beside.path().join("newer");
    write_program(&newer, &format!("{PROGRAM}# newer\n"));
    prefix.run_in(beside.path(), &["--binary", newer.to_str().unwrap()]);
    assert_eq!(prefix.read(PROGRAM_FILE), format!("{PROGRAM}# newer\n"));
    fs::remove_file(beside.path().join("spillgate")).unwrap();
    let files = prefix.files();
    prefix.run_in(beside.path(), &[]);
    assert_eq!(prefix.files(), files, "a run without a program leaves it, and the unit starts it still");
    prefix.run_in(beside.path(), &["--undo"]);
    assert_eq!(left(&prefix), [PathBuf::from(CONFIG)]);
}

#[test]
fn without_a_program_the_packages_is_started_or_it_says_what_is_missing() {
    let prefix = Prefix::new();
    let said = prefix.run(&[]);
    assert!(said.contains("missing: /usr/bin/spillgate") && said.contains("--binary PATH"), "{said}");
    assert!(said.contains("missing: ") && said.contains("spillgate config print >"), "{said}");
    prefix.write("usr/bin/spillgate", "the package's\n");
    let said = prefix.run(&[]);
    assert!(!said.contains("missing: /usr/bin/spillgate"), "{said}");
    assert!(prefix.read(UNIT).contains("\nExecStart=/usr/bin/spillgate serve "));
}

#[test]
fn wherever_it_is_interrupted_it_goes_on_from_there_or_back() {
    // In place of `mv`, by which everything that lasts is put in its place: the n-th call, or the moment after it, ends
    // the script as a power cut would.
    let shim = TempDir::new().unwrap();
    write_program(
        &shim.path().join("mv"),
        "#!/bin/sh\nn=$(cat \"$CALLS\" 2>/dev/null || echo 0); n=$((n + 1)); echo $n >\"$CALLS\"\n\
         [ $n != \"$AFTER\" ] || /bin/mv \"$@\"\n[ $n != \"$AT\" ] || kill -9 $PPID\n\
         [ $n = \"$AFTER\" ] || exec /bin/mv \"$@\"\n",
    );
    // One of each kind is enough.
    let (whole, beside) = (Prefix::new(), unpacked());
    fs::write(beside.path().join("99-spillgate.conf"), "net.core.netdev_max_backlog = 16384\n").unwrap();
    fs::remove_file(beside.path().join("spillgate.service")).unwrap();
    whole.run_in(beside.path(), &[]);
    let state = |prefix: &Prefix| {
        let mut files = prefix.files();
        files.retain(|path, _| !path.starts_with("var"));
        files
    };
    let (installed, fresh) = (state(&whole), state(&Prefix::new()));

    let mut interrupted = 0;
    for (at, is_after) in (1..).flat_map(|at| [(at, false), (at, true)]) {
        let cut = |prefix: &Prefix, flags: &[&str]| {
            let calls = prefix.path("calls");
            let output = prefix
                .command("dash", beside.path(), flags)
                .env("PATH", format!("{}:/usr/bin:/bin", shim.path().display()))
                .env("CALLS", &calls)
                .env("AT", at.to_string())
                .env("AFTER", if is_after { at.to_string() } else { String::new() })
                .output()
                .unwrap();
            fs::remove_file(calls).unwrap();
            output.status.success()
        };
        let (on, back) = (Prefix::new(), Prefix::new());
        if cut(&on, &[]) {
            break;
        }
        interrupted += 1;
        on.run_in(beside.path(), &[]);
        assert_eq!(state(&on), installed, "on from call {at}, {is_after}");
        cut(&back, &[]);
        cut(&back, &["--undo"]);
        back.run_in(beside.path(), &["--undo"]);
        let mut left = state(&back);
        left.remove(Path::new(CONFIG));
        assert_eq!(left, fresh, "back from call {at}, {is_after}");
    }
    assert!(interrupted >= 20, "{interrupted}");
}

#[test]
fn bash_does_what_dash_does() {
    let beside = unpacked();
    let [dash, bash] = ["dash", "bash"].map(|shell| {
        let prefix = Prefix::new();
        let mut lines = String::new();
        for flags in [&["--dry-run"][..], &[], &[], &["--undo"]] {
            lines += &said(&prefix.command(shell, beside.path(), flags).output().unwrap());
        }
        (lines.replace(prefix.0.path().to_str().unwrap(), ""), prefix.files())
    });
    assert_eq!(dash, bash);
}

#[test]
fn who_is_not_root_is_told() {
    let beside = unpacked();
    let mut command = Command::new("dash");
    command.arg(beside.path().join("install.sh"));
    // As a test of ours that runs as root: as nobody.
    let is_root = fs::metadata("/proc/self").unwrap();
    if std::os::unix::fs::MetadataExt::uid(&is_root) == 0 {
        command.uid(65534).gid(65534);
    }
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "install.sh: run it as root, or with --dry-run to see what it would do\n"
    );
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
    for name in ["install.sh", "host.sh"] {
        fs::copy(tuning().join(name), beside.path().join(name)).unwrap();
    }
    prefix.run_in(beside.path(), &[]);
    assert_eq!(prefix.read(UNIT), "[Service]\n");
    assert_eq!(prefix.read(CONFIG), "shards = 1\n");
    assert!(!prefix.path(SYSCTL_FILE).exists(), "it did not lie beside it");
    prefix.write(CONFIG, "shards = 2\n");
    prefix.run_in(beside.path(), &[]);
    prefix.run_in(beside.path(), &["--undo"]);
    assert_eq!(prefix.read(CONFIG), "shards = 2\n");
    assert!(!prefix.path(UNIT).exists());
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
    for (flags, named) in [
        (&["--udno"][..], "--udno"),
        (&["--binary"], "--binary"),
        (&["--prefix=/tmp", "--binary=/nothing"], "/nothing"),
        (&["--dry-run", "--prefix", ""], "--prefix is empty"),
        (&["--dry-run", "--prefix="], "--prefix is empty"),
        (&["--dry-run", "--binary", ""], "--binary is empty"),
        (&["--dry-run", "--prefix", "--undo"], "--prefix needs a value, and not --undo"),
        (&["--prefix=/tmp", "--sockets", "many"], "--sockets many is no number"),
        (&["--prefix=/tmp", "--sockets=0"], "--sockets 0 is no number"),
        (&["--prefix=/tmp", "--undo", "--sockets", "1"], "--undo"),
        (&["--prefix=/tmp", "--undo", "--force"], "--undo"),
    ] {
        let output = Command::new(tuning().join("install.sh")).args(flags).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&output.stderr).contains(named));
    }
}

#[test]
fn shellcheck_finds_nothing_in_it() {
    let scripts = ["install.sh", "host.sh"].map(|name| tuning().join(name));
    let output = Command::new("shellcheck").args(scripts).output().expect("`make test` installs it");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
