//! The command line.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::net::{SocketAddr, SocketAddrV4};
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  spillgate-load list
      What scenarios there are.
  spillgate-load run fanout
      One channel, 10,000 clients; starts Redis and the gateway itself.
  spillgate-load run stalled --sockets 20000 --out /tmp/stalled
      With overrides; the report and its pictures go to that directory.
  spillgate-load run million
      1,200,000 clients; as root, it raises the sysctls that this needs and puts them back.
  spillgate-load run fanout --gateway 10.0.0.5:8080 --redis redis://10.0.0.5:6379
      Against a gateway that already runs.";

/// The load tester of Spillgate: opens very many WebSockets, slow ones among them, and measures at both ends.
#[derive(Debug, Parser)]
#[command(name = "spillgate-load", version, about, after_help = EXAMPLES, disable_help_subcommand = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What can be done.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the scenarios that come with the program.
    List,
    /// Run a scenario against Spillgate; exit code 0 only if all its expectations hold.
    Run(RunArgs),
    /// Run a scenario against a bare ring loop: what its deliveries cost at the least on this host.
    Floor(Common),
    /// Run a scenario against Spillgate and other servers in turn, and compare.
    Compare(CompareArgs),
    /// A process of clients; its job comes on stdin.
    #[command(hide = true)]
    Engine {
        /// Lives in a network namespace of its own.
        #[arg(long)]
        namespace: bool,
    },
    /// A delay line between two network namespaces; what it is comes on stdin.
    #[command(hide = true)]
    Line,
    /// The floor's own process; its scenario comes on stdin.
    #[command(hide = true)]
    Bare,
}

/// What a scenario may be run with.
#[derive(Clone, Debug, Args)]
pub struct Common {
    /// Name of a scenario, or path of a .toml file.
    pub scenario: String,
    /// Number of clients, in place of the scenario's.
    #[arg(long, value_name = "N")]
    pub sockets: Option<u64>,
    /// Seconds that are measured, in place of the scenario's.
    #[arg(long, value_name = "S")]
    pub seconds: Option<u32>,
    /// Shards of the gateway, in place of the scenario's.
    #[arg(long, value_name = "N")]
    pub shards: Option<usize>,
    /// Updates a second, in place of the scenario's.
    #[arg(long, value_name = "R")]
    pub rate: Option<f64>,
    /// Directory for the report and its pictures; made if it is not there [default: spillgate-load-SCENARIO]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

/// Flags of `run`.
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// What all have.
    #[command(flatten)]
    pub common: Common,
    /// The gateway's program [default: `spillgate` beside this program]
    #[arg(long, value_name = "FILE", conflicts_with = "gateway")]
    pub bin: Option<PathBuf>,
    /// Address of a gateway that already runs (IPv4).
    #[arg(long, value_name = "ADDR")]
    pub gateway: Option<SocketAddrV4>,
    /// Address of its admin interface.
    #[arg(long, value_name = "ADDR", requires = "gateway")]
    pub admin: Option<SocketAddr>,
    /// A Redis that already runs.
    #[arg(long, value_name = "URL")]
    pub redis: Option<String>,
    /// How updates get to the gateway.
    #[arg(long, value_enum, default_value_t = PublishBy::Redis)]
    pub publish: PublishBy,
    /// Run the scenario against the floor too, and report the ratio.
    #[arg(long)]
    pub with_floor: bool,
    /// Keep the gateway's configuration, logs and working directory.
    #[arg(long)]
    pub keep: bool,
}

/// How updates get to the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PublishBy {
    /// Redis PUBLISH.
    Redis,
    /// The gateway's publish API, without any Redis.
    Admin,
}

/// Flags of `compare`.
#[derive(Clone, Debug, Args)]
pub struct CompareArgs {
    /// What all have.
    #[command(flatten)]
    pub common: Common,
    /// Name of a peer; several may be given [default: all]
    #[arg(long, value_name = "NAME")]
    pub peer: Vec<String>,
    /// Directory of the peers.
    #[arg(long, value_name = "DIR", default_value = "loadtest/peers")]
    pub peers: PathBuf,
    /// The gateway's program [default: `spillgate` beside this program]
    #[arg(long, value_name = "FILE")]
    pub bin: Option<PathBuf>,
}
