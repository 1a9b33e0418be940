//! The command line: what can be asked for, and the answers of `spillgate config`.
//!
//! Invariant: a flag's help is the setting's own sentence, variable and default; nothing is written twice.

use crate::config::{self, Config, ConfigError, Overrides, schema};
use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use std::ffi::OsString;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Version, and the commit that was built; `build.rs` finds it out.
pub const VERSION: &str = env!("VERSION_AND_COMMIT");

const EXAMPLES: &str = "\
Examples:
  spillgate demo
      Start with a page and live updates to look at; nothing else is needed.
  spillgate serve --redis redis://127.0.0.1:6379
      Serve what is published to that Redis, at ws://127.0.0.1:8080/raw/CHANNEL.
  spillgate config print > spillgate.toml
      Write all settings down, each with its meaning and its default.
  spillgate doctor --sockets 1000000
      Say what this host is short of for a million sockets, and the lines that mend it.";

const LOG_FORMATS: [&str; 4] = ["auto", "text", "journald", "json"];

const SERVE_EXAMPLE: &str = "\
A flag goes before an environment variable, that before the file, that before the default.

Example:
  spillgate serve --config spillgate.toml --listen 0.0.0.0:8080 --listen 0.0.0.0:8081";

const DEMO_EXAMPLE: &str = "\
Example:
  spillgate demo --listen 127.0.0.1:3000";

const HEALTHCHECK_EXAMPLE: &str = "\
Examples:
  spillgate healthcheck --admin 127.0.0.1:9090
  HEALTHCHECK CMD [\"spillgate\", \"healthcheck\"]
      In a Dockerfile: the gateway's own settings say where to ask.";

const CONFIG_EXAMPLE: &str = "\
Example:
  spillgate config print > spillgate.toml && spillgate config check spillgate.toml";

const DOCTOR_EXAMPLE: &str = "\
Exit code: 0 nothing is short, 1 something is short, 2 it could not be judged (wrong arguments or settings).

Examples:
  spillgate doctor --sockets 1000000 --config /etc/spillgate/spillgate.toml
  spillgate doctor --sockets 200000 --stalled 0.1 --proxies 4 --json | jq '.findings[] | select(.state == \"short\")'

Limits are those of spillgate.service where systemd runs this host and it is installed, else of whoever asks.
Without --config and the variable, settings are those of the file that its ExecStart= names with --config.
Its EnvironmentFile= and Environment= are not read: set what they set, when you ask.";

/// A WebSocket fan-out gateway: Redis Pub/Sub in, a million browsers out.
#[derive(Clone, Debug, Parser)]
#[command(name = "spillgate", version = VERSION, about, after_help = EXAMPLES, disable_help_subcommand = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the program can do.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Run the gateway until SIGTERM.
    #[command(after_help = SERVE_EXAMPLE)]
    Serve(ServeArgs),
    /// Run the gateway with a page and live updates to look at.
    #[command(after_help = DEMO_EXAMPLE)]
    Demo(DemoArgs),
    /// Say what this host is short of for a number of sockets, why it matters, and the line that mends it.
    #[command(after_help = DOCTOR_EXAMPLE)]
    Doctor(DoctorArgs),
    /// Check a configuration file, or print the settings in effect.
    #[command(subcommand, after_help = CONFIG_EXAMPLE)]
    Config(ConfigCommand),
    /// Ask a running gateway on this host whether it works (exit code 0) or not (1), for health checks of containers.
    #[command(after_help = HEALTHCHECK_EXAMPLE)]
    Healthcheck(HealthcheckArgs),
    /// Print completions for a shell.
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Write the manual pages, one for each command.
    #[command(hide = true)]
    Man {
        /// The directory that they are written to.
        directory: PathBuf,
    },
}

/// Flags of `spillgate serve`.
#[derive(Clone, Debug, Default, Args)]
pub struct ServeArgs {
    /// Those that `demo` has too.
    #[command(flatten)]
    pub common: DemoArgs,
    /// For `redis.url`.
    #[arg(long, value_name = "URL", help = setting_help("redis.url", " With a password, rather set the variable: others can read flags."))]
    pub redis: Option<String>,
    /// The configuration file.
    #[arg(long, value_name = "FILE", help = format!("Configuration file in TOML. [env: {}]", config::FILE_VARIABLE))]
    pub config: Option<PathBuf>,
}

/// Flags of `spillgate demo`.
#[derive(Clone, Debug, Default, Args)]
pub struct DemoArgs {
    /// For `listen`.
    #[arg(long, value_name = "ADDR", value_parser = address, help = setting_help("listen", " May be given several times."))]
    pub listen: Vec<SocketAddr>,
    /// For `admin`.
    #[arg(long, value_name = "ADDR", value_parser = address, help = setting_help("admin", ""))]
    pub admin: Option<SocketAddr>,
    /// For `shards`.
    #[arg(long, value_name = "N", help = setting_help("shards", ""))]
    pub shards: Option<usize>,
    /// For `log.format`.
    #[arg(long, value_name = "FORMAT", value_parser = LOG_FORMATS, hide_possible_values = true, help = setting_help("log.format", ""))]
    pub log_format: Option<String>,
}

/// Flags of `spillgate healthcheck`.
#[derive(Clone, Debug, Args)]
pub struct HealthcheckArgs {
    /// For `admin`.
    #[arg(long, value_name = "ADDR", value_parser = address, help = setting_help("admin", ""))]
    pub admin: Option<SocketAddr>,
    /// The configuration file.
    #[arg(long, value_name = "FILE", help = format!("Configuration file in TOML. [env: {}]", config::FILE_VARIABLE))]
    pub config: Option<PathBuf>,
}

/// Flags of `spillgate doctor`.
#[derive(Clone, Debug, Args)]
pub struct DoctorArgs {
    /// Sockets of clients that this gateway is to carry, all shards together.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    pub sockets: u64,
    /// Share of them that does not read, from 0 to 1.
    #[arg(long, value_name = "SHARE", default_value = "0.2", value_parser = share)]
    pub stalled: f64,
    /// Addresses from which proxies connect; 0: clients connect themselves [default: 1 where it listens on the loopback alone, else unknown].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(0..=1_000_000))]
    pub proxies: Option<u64>,
    /// Print one JSON object instead of text.
    #[arg(long)]
    pub json: bool,
    /// The configuration file.
    #[arg(long, value_name = "FILE", help = format!("Configuration file in TOML: listen, shards, limits, redis.url. [env: {}]", config::FILE_VARIABLE))]
    pub config: Option<PathBuf>,
    /// Print a file of `tuning/` for this number instead of judging.
    #[arg(long, value_name = "FILE", hide = true)]
    pub guide: Option<Guide>,
}

/// The generated files of `tuning/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Guide {
    /// `99-spillgate.conf` for this host: no value of it is lower than what the host has.
    Sysctl,
    /// The same for any host, as it is shipped.
    AnySysctl,
    /// `limits.conf`.
    Limits,
    /// The tables of `README.md`.
    Readme,
}

/// What can be asked about settings.
#[derive(Clone, Debug, Subcommand)]
pub enum ConfigCommand {
    /// Say whether a configuration file is right, and if not, where it is wrong (exit code 1).
    Check {
        /// The file, in TOML.
        file: PathBuf,
    },
    /// Print all settings in effect as TOML, each with its meaning, default and environment variable; passwords are hidden.
    Print {
        /// The configuration file.
        #[arg(long, value_name = "FILE", help = format!("Configuration file in TOML. [env: {}]", config::FILE_VARIABLE))]
        config: Option<PathBuf>,
    },
}

/// Reads the command line; prints help, version or what is wrong with it, and exits, where that is the answer.
pub fn parse() -> Cli {
    Cli::parse()
}

impl ServeArgs {
    /// The settings that the flags give.
    pub fn overrides(&self) -> Overrides {
        Overrides { redis: self.redis.clone(), ..self.common.overrides() }
    }

    /// The settings in effect: these flags over the environment over the file.
    ///
    /// # Errors
    /// As [`config::load`].
    pub fn load(&self) -> Result<Config, ConfigError> {
        config::load(&self.overrides(), std::env::vars_os(), self.config.as_deref())
    }
}

impl DemoArgs {
    /// The settings that the flags give.
    pub fn overrides(&self) -> Overrides {
        let (listen, log_format) = (self.listen.clone(), self.log_format.clone());
        Overrides { listen, admin: self.admin, redis: None, shards: self.shards, log_format }
    }

    /// The checked settings of the demo: no file, and always the embedded engine.
    pub fn load(&self) -> Result<Config, ConfigError> {
        let mut config = config::load(&self.overrides(), std::env::vars_os(), None)?;
        config.redis.url = None;
        Ok(config)
    }
}

impl HealthcheckArgs {
    /// Where the gateway's admin interface is: these flags over the environment over the file.
    ///
    /// # Errors
    /// As [`config::load`].
    pub fn admin(&self) -> Result<SocketAddr, ConfigError> {
        let flags = Overrides { admin: self.admin, ..Overrides::default() };
        config::load(&flags, std::env::vars_os(), self.config.as_deref()).map(|config| config.admin)
    }
}

/// Prints what a shell needs to complete our command line.
pub fn print_completions(shell: Shell) -> ExitCode {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "spillgate", &mut text);
    let mut out = io::stdout().lock();
    match out.write_all(&text).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    }
}

/// Writes the manual pages into a directory that there is.
pub fn write_man(directory: &Path) -> ExitCode {
    match clap_mangen::generate_to(Cli::command(), directory) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "{}: {error}", directory.display());
            ExitCode::FAILURE
        }
    }
}

/// Answers `spillgate config …` on stdout and stderr.
pub fn run_config(command: &ConfigCommand) -> ExitCode {
    let answered = answer(command, std::env::vars_os(), &mut io::stdout().lock(), &mut io::stderr().lock());
    match answered {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS, // `… | head`
        Err(_) => ExitCode::FAILURE,
    }
}

/// Whether all is well with the settings asked about.
fn answer(
    command: &ConfigCommand,
    variables: impl Iterator<Item = (OsString, OsString)>,
    out: &mut impl Write,
    err: &mut impl Write,
) -> io::Result<bool> {
    let flags = Overrides::default();
    let result = match command {
        ConfigCommand::Check { file } => check(file),
        ConfigCommand::Print { config } => {
            config::load(&flags, variables, config.as_deref()).map(|config| config::print(&config))
        }
    };
    match result {
        Ok(text) => write!(out, "{text}").and_then(|()| out.flush()).map(|()| true),
        Err(error) => writeln!(err, "{error}").map(|()| false),
    }
}

/// Looks at the file alone: not at the environment of whoever checks it.
fn check(file: &Path) -> Result<String, ConfigError> {
    let config = config::load(&Overrides::default(), std::iter::empty(), Some(file))?;
    Ok(format!("{}: ok\n{}\n", file.display(), config::summary(&config)))
}

fn share(text: &str) -> Result<f64, &'static str> {
    match text.parse() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("a share from 0 to 1 is expected, such as 0.2"),
    }
}

fn address(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse().map_err(|_| config::ADDRESS_EXPECTED)
}

fn setting_help(key: &str, more: &str) -> String {
    let Some(setting) = schema().setting(key) else { return String::new() };
    let default = setting.default.as_ref().map(|default| match default {
        toml::Value::Array(items) => items.iter().filter_map(toml::Value::as_str).collect::<Vec<_>>().join(","),
        toml::Value::String(text) => text.clone(),
        other => other.to_string(),
    });
    let default = default.map(|default| format!(" [default: {default}]")).unwrap_or_default();
    format!("{}{more} [env: {}]{default}", setting.doc, setting.variable())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn parse(line: &str) -> Result<Command, clap::Error> {
        Cli::try_parse_from(line.split(' ')).map(|cli| cli.command)
    }

    /// Whether all was well, what was printed, and what was complained about.
    fn ask(line: &str, variables: &[(&str, &str)]) -> (bool, String, String) {
        let Command::Config(command) = parse(line).unwrap() else { panic!("not a config command: {line}") };
        let variables = variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let well = answer(&command, variables, &mut out, &mut err).unwrap();
        (well, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_becomes_an_override() {
        let line = "spillgate serve --listen [::1]:1 --listen 0.0.0.0:2 --admin 127.0.0.1:3 --redis redis://h --shards 4 --config f --log-format json";
        let Command::Serve(serve) = parse(line).unwrap() else { panic!("not serve") };
        assert_eq!(serve.config.as_deref(), Some(Path::new("f")));
        let listen = vec!["[::1]:1".parse().unwrap(), "0.0.0.0:2".parse().unwrap()];
        let admin = Some("127.0.0.1:3".parse().unwrap());
        let (redis, log_format) = (Some("redis://h".to_owned()), Some("json".to_owned()));
        let expected = Overrides { listen, admin, redis, shards: Some(4), log_format };
        assert_eq!(serve.overrides(), expected);

        let Command::Demo(demo) = parse("spillgate demo --shards 4 --admin 127.0.0.1:3 --log-format json").unwrap()
        else {
            panic!("not demo")
        };
        assert_eq!(demo.overrides(), Overrides { listen: vec![], redis: None, ..expected });
        assert!(parse("spillgate demo --redis redis://h").is_err());
        let refusal = parse("spillgate serve --listen :8080").unwrap_err().to_string();
        assert!(refusal.contains("not an IP address with a port"), "{refusal}");
    }

    #[test]
    fn the_doctor_takes_a_number_of_sockets_and_shares_that_are_shares() {
        let line = "spillgate doctor --sockets 1000 --stalled 0.5 --proxies 0 --json";
        let Command::Doctor(doctor) = parse(line).unwrap() else { panic!("not doctor") };
        assert_eq!((doctor.sockets, doctor.stalled, doctor.proxies, doctor.json), (1000, 0.5, Some(0), true));
        let Command::Doctor(doctor) = parse("spillgate doctor --sockets 1").unwrap() else { panic!("not doctor") };
        assert_eq!((doctor.stalled, doctor.proxies, doctor.json), (0.2, None, false));
        for wrong in ["", " --sockets 0", " --sockets 1 --stalled 1.1", " --sockets 1 --stalled nan"] {
            assert!(parse(&format!("spillgate doctor{wrong}")).is_err(), "{wrong}");
        }
        let help = parse("spillgate doctor --help").unwrap_err().to_string();
        assert!(help.contains("Exit code: 0") && !help.contains("--guide"), "{help}");
    }

    #[test]
    fn help_tells_the_default_and_the_variable_of_each_flag() {
        let help = parse("spillgate serve --help").unwrap_err().to_string();
        for part in ["[default: 127.0.0.1:8080]", "SPILLGATE_REDIS_URL", "SPILLGATE_CONFIG", "Example:", "0 means one"]
        {
            assert!(help.contains(part), "{part} in {help}");
        }
    }

    #[test]
    fn check_says_ok_and_what_it_means_without_the_environment() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(&file, "listen = ['[::]:1', '[::]:2']\nredis.url = 'redis://:secret@h'\n[[channel]]\nmatch = '*'")
            .unwrap();
        let line = format!("spillgate config check {}", file.path().display());
        let (well, out, err) = ask(&line, &[("SPILLGATE_NONSENSE", "1")]);
        let means = "2 listen addresses, admin at 127.0.0.1:9090, updates from redis://:***@h, 1 channel rule";
        assert_eq!((well, err.as_str()), (true, ""));
        assert_eq!(out, format!("{}: ok\n{means}\n", file.path().display()));
    }

    #[test]
    fn check_lists_every_mistake_in_the_order_of_the_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(&file, "shards = 2000\nlisten = []\n[limits]\nupdate_byte_max = 1\n").unwrap();
        let (well, out, err) = ask(&format!("spillgate config check {}", file.path().display()), &[]);
        let lines: Vec<_> = err.lines().map(|line| line.rsplit_once(".tmp").map_or(line, |(_, line)| line)).collect();
        assert_eq!((well, out.as_str(), lines.len()), (false, "", 3), "{err}");
        for (line, part) in lines.iter().zip([":1:10: shards:", ":2:10: listen:", ":4:1: limits.update_byte_max:"]) {
            assert!(line.contains(part), "{part} in {line}");
        }
    }

    #[test]
    fn print_shows_what_is_in_effect_and_no_password() {
        let (well, out, _) = ask("spillgate config print", &[("SPILLGATE_REDIS_URL", "redis://:secret@h")]);
        assert!(well && out.contains("redis://:***@h") && !out.contains("secret"), "{out}");
        let (well, _, err) = ask("spillgate config print", &[("SPILLGATE_LISTN", "1")]);
        assert_eq!(
            (well, err.as_str()),
            (false, "SPILLGATE_LISTN: unknown variable; did you mean `SPILLGATE_LISTEN`?\n")
        );
    }
}
