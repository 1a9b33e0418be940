//! Lines that mend.

use std::fmt;

/// One line that mends what is short, and where it belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mend {
    /// A kernel setting, by name and value.
    Sysctl(&'static str, String),
    /// What is written to a file of the kernel's; a `*` in its path stands for any name.
    Write(String, String),
    /// A parameter of the kernel's command line.
    Boot(String),
    /// A line of the `[Service]` section of the unit.
    Unit(String),
    /// A limit of whoever starts the gateway: `n` or `l` of the shell's `ulimit`, and the number.
    Limit(char, u64),
    /// The same where whoever asks may not raise it.
    RootLimit(char, u64),
    /// A line of the gateway's configuration file, with the whole key.
    Setting(String),
    /// How Redis is reached from a shell, and what it is told.
    Redis(String, String),
    /// What no line mends.
    Advice(String),
}

impl Mend {
    /// Where the line belongs.
    pub fn place(&self) -> &'static str {
        match self {
            Mend::Sysctl("net.ipv4.tcp_child_ehash_entries", _) => {
                "as root, before the network namespace is made that the gateway runs in"
            }
            Mend::Sysctl(..) => "as root; /etc/sysctl.d keeps it",
            Mend::Write(..) => "as root; until the next boot",
            Mend::Boot(_) => "as root, then boot; Fedora and RHEL: `grubby --update-kernel=ALL --args=...`",
            Mend::Unit(_) => "in the unit, below [Service]: `systemctl edit spillgate`",
            Mend::Limit('n', _) => "in the shell that starts it; a container: --ulimit nofile=",
            Mend::Limit(..) => "in the shell that starts it; a container: --ulimit memlock= (bytes)",
            Mend::RootLimit('n', _) => "by root with CAP_SYS_RESOURCE, before it starts; a container: --ulimit nofile=",
            Mend::RootLimit(..) => {
                "by root with CAP_SYS_RESOURCE, before it starts; a container: --ulimit memlock= (bytes)"
            }
            Mend::Setting(line) if line.starts_with("limits.") => "in the configuration file, below [limits]",
            Mend::Setting(_) => "in the configuration file, above its first [section]",
            Mend::Redis(..) => "at Redis; its redis.conf keeps it",
            Mend::Advice(_) => "by hand",
        }
    }
}

impl fmt::Display for Mend {
    /// The line itself, as it is typed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mend::Sysctl(name, value) if value.contains(' ') => write!(f, "sysctl -w {name}='{value}'"),
            Mend::Sysctl(name, value) => write!(f, "sysctl -w {name}={value}"),
            Mend::Write(path, value) => write!(f, "echo {value} | tee {path}"),
            Mend::Redis(client, command) => write!(f, "{client} {command}"),
            Mend::Limit(of, number) | Mend::RootLimit(of, number) if *number >= u64::MAX >> 10 => {
                write!(f, "ulimit -{of} unlimited")
            }
            Mend::Limit(of, number) | Mend::RootLimit(of, number) => write!(f, "ulimit -{of} {number}"),
            Mend::Boot(parameter) => write!(
                f,
                "mkdir -p /etc/default/grub.d && echo 'GRUB_CMDLINE_LINUX=\"$GRUB_CMDLINE_LINUX {parameter}\"' >/etc/default/grub.d/spillgate.cfg && update-grub"
            ),
            Mend::Setting(line) => f.write_str(line.strip_prefix("limits.").unwrap_or(line)),
            Mend::Unit(line) | Mend::Advice(line) => f.write_str(line),
        }
    }
}
