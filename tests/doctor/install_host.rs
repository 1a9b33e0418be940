//! What `tuning/install.sh` asks before it writes: what it is told to install and where, and what the host has already.

use super::install::{
    CONFIG, LIMITS, PROGRAM, PROGRAM_FILE, Prefix, SYSCTL_FILE, UNIT, left, said, tuning, unpacked, write_program,
};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const TCP_MEM: &str = "net/ipv4/tcp_mem";
const TCP_MEM_BEFORE: &str = "287898 383867 575796";

/// A program in `directory` that runs the one of this build.
fn real_program(directory: &TempDir) -> String {
    let program = directory.path().join("spillgate");
    write_program(&program, &format!("#!/bin/sh\nexec {} \"$@\"\n", env!("CARGO_BIN_EXE_spillgate")));
    program.to_str().unwrap().to_owned()
}

/// What a run said on stderr, which ended with `code`.
fn complaint(prefix: &Prefix, directory: &Path, flags: &[&str], code: i32) -> String {
    let output = prefix.command("dash", directory, flags).output().unwrap();
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn tcp_mem_stays_where_the_host_has_no_memory_for_it() {
    for meminfo in ["MemTotal:        4000000 kB\n", "MemTotal:       12000000 kB\n", ""] {
        let prefix = Prefix::new();
        prefix.write("proc/meminfo", meminfo);
        let told = prefix.run(&[]);
        assert!(told.contains("left out: net.ipv4.tcp_mem = ") && told.contains("memory"), "{told}");
        assert_eq!(prefix.sysctl(TCP_MEM), TCP_MEM_BEFORE);
        assert_eq!(prefix.sysctl("net/ipv4/ip_local_port_range"), "10240 65535", "the others are set");
        let installed = prefix.read(SYSCTL_FILE);
        assert!(installed.contains("\n# net.ipv4.tcp_mem = "), "{installed}");
        assert!(!installed.contains("\nnet.ipv4.tcp_mem"), "{installed}");
        let files = prefix.files();
        prefix.run(&[]);
        assert_eq!(prefix.files(), files);
        prefix.run(&["--undo"]);
        assert_eq!(left(&prefix), Vec::<PathBuf>::new());
    }
}

#[test]
fn a_number_of_sockets_gets_what_the_program_says_of_it() {
    let directory = TempDir::new().unwrap();
    let program = real_program(&directory);
    let install = |sockets: &str, meminfo: &str| {
        let prefix = Prefix::new();
        prefix.write("proc/meminfo", meminfo);
        let output = prefix.command("dash", &tuning(), &["--sockets", sockets, "--binary", &program]).output().unwrap();
        (said(&output), String::from_utf8(output.stderr).unwrap(), prefix)
    };
    let (told, warned, few) = install("1000", "MemTotal:        4000000 kB\n");
    assert!(told.contains("kernel settings: for 1000 sockets, by ") && warned.is_empty(), "{told}{warned}");
    assert_eq!(few.sysctl(TCP_MEM), TCP_MEM_BEFORE, "it has enough");
    assert!(few.read(SYSCTL_FILE).contains("for 1,000 sockets"), "{}", few.read(SYSCTL_FILE));

    let (_, warned, many) = install("2000000", "MemTotal:        4000000 kB\n");
    assert_eq!(many.sysctl(TCP_MEM), "2257470 3009961 4514940", "who names the number gets it");
    assert!(warned.contains("warning: tcp_mem for 2000000 sockets: pressure is more than half"), "{warned}");
    let (_, warned, _) = install("2000000", "MemTotal:       24576000 kB\n");
    assert_eq!(warned, "");
}

#[test]
fn the_number_of_sockets_takes_a_program_that_answers() {
    let prefix = Prefix::new();
    let files = prefix.files();
    let said = complaint(&prefix, &tuning(), &["--sockets", "1000"], 2);
    assert!(said.contains("there is none: give it by --binary PATH"), "{said}");
    assert_eq!(prefix.files(), files);
    let beside = unpacked(); // its program says the same whatever it is asked
    let said = complaint(&prefix, beside.path(), &["--sockets", "1000"], 1);
    assert!(said.contains("does not say what 1000 sockets need; nothing was changed"), "{said}");
    assert!(!prefix.path(SYSCTL_FILE).exists() && !prefix.path(PROGRAM_FILE).exists());
    assert_eq!(prefix.sysctl(TCP_MEM), TCP_MEM_BEFORE);
}

#[test]
fn a_program_that_is_none_of_ours_is_refused_before_anything_is_written() {
    let (prefix, directory) = (Prefix::new(), TempDir::new().unwrap());
    let files = prefix.files();
    let broken = directory.path().join("spillgate");
    write_program(&broken, "\x7fELF of another machine");
    for program in ["/bin/false", "/bin/cat", broken.to_str().unwrap()] {
        let said = complaint(&prefix, &tuning(), &["--binary", program], 2);
        assert!(said.contains(&format!("{program} does not answer `--version`")), "{said}");
        assert_eq!(prefix.files(), files);
    }
    let beside = unpacked();
    write_program(&beside.path().join("spillgate"), "#!/bin/sh\nexit 1\n");
    complaint(&prefix, beside.path(), &[], 2);
    assert_eq!(prefix.files(), files);
}

#[test]
fn settings_that_the_program_does_not_print_are_no_configuration() {
    let (prefix, beside) = (Prefix::new(), unpacked());
    write_program(&beside.path().join("spillgate"), "#!/bin/sh\n[ \"$1\" = --version ] && echo spillgate 0\n");
    let said = complaint(&prefix, beside.path(), &[], 1);
    assert!(said.contains("does not print its settings"), "{said}");
    assert!(!prefix.path(CONFIG).exists() && prefix.path(UNIT).exists());
}

#[test]
fn called_by_a_link_it_installs_what_lies_beside_the_file() {
    let (prefix, links, beside) = (Prefix::new(), TempDir::new().unwrap(), unpacked());
    symlink(beside.path().join("install.sh"), links.path().join("first")).unwrap();
    symlink("first", links.path().join("install.sh")).unwrap();
    prefix.run_in(links.path(), &[]);
    assert_eq!(prefix.read(PROGRAM_FILE), PROGRAM);
    assert!(prefix.path(UNIT).exists() && prefix.path(SYSCTL_FILE).exists());
}

#[test]
fn alone_it_says_what_is_missing() {
    let (prefix, beside) = (Prefix::new(), TempDir::new().unwrap());
    fs::copy(tuning().join("install.sh"), beside.path().join("install.sh")).unwrap();
    let files = prefix.files();
    let said = complaint(&prefix, beside.path(), &[], 2);
    assert!(said.contains("does not lie beside it, in ") && said.contains("99-spillgate.conf"), "{said}");
    assert_eq!(prefix.files(), files);

    let beside = unpacked();
    fs::remove_file(beside.path().join("limits.conf")).unwrap();
    let said = prefix.run_in(beside.path(), &[]);
    assert!(said.contains("limits.conf: no limits"), "{said}");
}

#[test]
fn limits_are_raised_and_never_lowered() {
    let active = |prefix: &Prefix| -> Vec<String> {
        let text = prefix.read(LIMITS);
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    };
    let all = ["* hard nofile 1048576", "* - memlock 65536", "root hard nofile 1048576", "root - memlock 65536"]
        .map(String::from);
    let prefix = Prefix::new();
    // Less, or another's, or a soft limit alone: nothing that ours lowers.
    prefix.write(
        "etc/security/limits.conf",
        "* hard nofile 65536\n* soft nofile 2000000\n@web - memlock unlimited\n# * hard nofile 9999999\n",
    );
    prefix.run(&[]);
    assert_eq!(active(&prefix), all);

    prefix.write(
        "etc/security/limits.d/10-more.conf",
        "# more\n*\t-\tnofile 2000000 # each\nroot soft memlock unlimited\n",
    );
    let told = prefix.run(&[]);
    assert_eq!(active(&prefix), [all[1].clone(), all[2].clone()]);
    for (line, file) in [
        ("*     hard  nofile   1048576", "10-more.conf:2 allows 2000000"),
        ("root  -     memlock  65536", "10-more.conf:3 allows unlimited"),
    ] {
        assert!(told.contains(&format!("left out: {line} (")) && told.contains(file), "{told}");
    }
    let files = prefix.files();
    prefix.run(&[]);
    assert_eq!(prefix.files(), files);

    let prefix = Prefix::new();
    prefix.write(
        "proc/self/limits",
        "Limit                     Soft Limit           Hard Limit           Units     \n\
         Max locked memory         8388608              8388608              bytes     \n\
         Max open files            1024                 1073741816           files     \n",
    );
    let told = prefix.run(&[]);
    assert_eq!(active(&prefix), [all[1].clone(), all[3].clone()]);
    assert!(told.contains("this shell has more already: 1073741816"), "{told}");
}

#[test]
fn what_undoes_a_setting_at_the_next_boot_is_named() {
    let prefix = Prefix::new();
    let warned = || complaint(&prefix, &tuning(), &[], 0);
    prefix.write("etc/sysctl.d/10-before.conf", "net.core.netdev_max_backlog = 1000\n"); // ours comes after it
    prefix.write("usr/lib/sysctl.d/99-zz.conf", "net.core.netdev_max_backlog = 1\n"); // and this one does not count:
    prefix.write(
        "etc/sysctl.d/99-zz.conf",
        "# net.core.somaxconn = 1\n; net.core.somaxconn = 1\nnet.core.somaxconn=262144\nvm.swappiness = 1\n",
    );
    assert_eq!(warned(), "");
    prefix.write(
        "etc/sysctl.conf",
        "\n-net/ipv4/tcp_slow_start_after_idle = 1\nnet.ipv4.ip_local_port_range =  32768\t 60999",
    );
    symlink("../sysctl.conf", prefix.path("etc/sysctl.d/99-sysctl.conf")).unwrap();
    prefix.write("usr/lib/sysctl.d/99-vendor.conf", "net.core.netdev_max_backlog = 2000\n");
    let told = warned();
    for part in [
        "etc/sysctl.conf:2 sets net.ipv4.tcp_slow_start_after_idle = 1 at boot, after ours (0): take that line out",
        "etc/sysctl.conf:3 sets net.ipv4.ip_local_port_range = 32768 60999 at boot, after ours (10240 65535)",
        "usr/lib/sysctl.d/99-vendor.conf:1 sets net.core.netdev_max_backlog = 2000 at boot, after ours (16384)",
    ] {
        assert!(told.contains(part), "{part} in {told}");
    }
    assert_eq!(told.lines().count(), 3, "{told}");
}
