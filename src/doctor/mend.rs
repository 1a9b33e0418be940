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
    /// A line of the gateway's configuration file, with the whole key.
    Setting(String),
    /// What Redis is told.
    Redis(String),
    /// What no line mends.
    Advice(String),
}

impl Mend {
    /// Where the line belongs.
    pub fn place(&self) -> &'static str {
        match self {
            Mend::Sysctl(..) => "as root; /etc/sysctl.d keeps it",
            Mend::Write(..) => "as root; until the next boot",
            Mend::Boot(_) => "on the kernel's command line, then boot",
            Mend::Unit(_) => "in the unit, below [Service]",
            Mend::Setting(line) if line.starts_with("limits.") => "in the configuration file, below [limits]",
            Mend::Setting(_) => "in the configuration file, above its first [section]",
            Mend::Redis(_) => "at Redis; its redis.conf keeps it",
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
            Mend::Redis(command) => write!(f, "redis-cli {command}"),
            Mend::Setting(line) => f.write_str(line.strip_prefix("limits.").unwrap_or(line)),
            Mend::Boot(line) | Mend::Unit(line) | Mend::Advice(line) => f.write_str(line),
        }
    }
}
