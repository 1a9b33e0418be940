//! Other servers, each described by a `peer.toml` in a directory of its own.

use super::{Feed, Running, Target, free_port};
use crate::face::FaceName;
use crate::publish::Via;
use crate::run::Cores;
use crate::scenario::read_toml;
use anyhow::{Context, bail};
use serde::Deserialize;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Exit code of a build that cannot succeed on this host (EX_UNAVAILABLE).
const UNAVAILABLE: i32 = 69;

/// A `peer.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// Its name.
    pub name: String,
    /// What a table calls it.
    pub title: String,
    /// Commands that build it, each a program and its arguments; run in its directory, in this order.
    #[serde(default)]
    build: Vec<Vec<String>>,
    /// Program and arguments that start it.
    start: Vec<String>,
    /// Path for clients, with `{channel}`.
    path: String,
    /// A text message that every client sends first, with `{channel}`.
    hello: Option<String>,
    /// Where in a message the payload is; left out: it is the message.
    unwrap: Option<Unwrap>,
    /// `redis`, or a URL to POST to, with `{port}` and `{channel}`.
    publish: String,
    /// A command on the generator's side, which passes on what is published in Redis.
    #[serde(default)]
    feed: Vec<String>,
    /// Whether it can be had at all.
    #[serde(default = "yes")]
    available: bool,
    /// Why not.
    #[serde(default)]
    why: String,
    /// What a reader of the table should know.
    #[serde(default)]
    pub note: String,
    /// Where its `peer.toml` is.
    #[serde(skip)]
    directory: PathBuf,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Unwrap {
    Pusher,
    Centrifugo,
}

/// A server that cannot be had on this host.
#[derive(Debug)]
pub struct NotHere(String);

impl fmt::Display for NotHere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not to be had here: {}", self.0)
    }
}

impl std::error::Error for NotHere {}

fn yes() -> bool {
    true
}

/// The peers in the directories below one, in the order of their names.
///
/// # Errors
/// There is no such directory, or a `peer.toml` makes no sense.
pub fn peers(below: &Path) -> anyhow::Result<Vec<Peer>> {
    let entries = std::fs::read_dir(below)
        .with_context(|| format!("there is no directory of peers {}; name it with --peers", below.display()))?;
    let mut peers = Vec::new();
    for entry in entries {
        let directory = entry?.path();
        let file = directory.join("peer.toml");
        let Ok(text) = std::fs::read_to_string(&file) else { continue };
        let peer: Peer = read_toml(&file.display().to_string(), &text)?;
        if peer.start.is_empty() {
            bail!("{}: start is empty; write the program and its arguments", file.display());
        }
        peers.push(Peer { directory: directory.canonicalize()?, ..peer });
    }
    peers.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(peers)
}

impl Peer {
    /// Builds it.
    ///
    /// # Errors
    /// [`NotHere`], or a command fails: with the end of what it wrote.
    pub fn build(&self, logs: &Path) -> anyhow::Result<()> {
        if !self.available {
            bail!(NotHere(self.why.clone()));
        }
        for (i, words) in self.build.iter().enumerate() {
            let (program, arguments) = words.split_first().context("build: a command is empty")?;
            let mut command = Command::new(self.program(program));
            command.args(arguments).current_dir(&self.directory);
            let log = logs.join(format!("{}-build-{i}.log", self.name));
            let mut running = Running::start(&mut command, &[], &log)?;
            let status = running.child.wait()?;
            if status.code() == Some(UNAVAILABLE) {
                bail!(NotHere(running.last_words()));
            }
            if !status.success() {
                bail!("`{}` failed ({status}): {}", words.join(" "), running.last_words());
            }
        }
        Ok(())
    }

    /// Starts it, and what feeds it. Call it from the main thread.
    ///
    /// # Errors
    /// It does not start, or does not listen within 30 s.
    pub fn start(&self, redis: &str, cores: &Cores, logs: &Path) -> anyhow::Result<Target> {
        let port = free_port()?;
        let redis_port = redis.rsplit(':').next().unwrap_or_default();
        let fill = |text: &String| {
            let text = text.replace("{port}", &port.to_string()).replace("{redis_port}", redis_port);
            text.replace("{redis}", redis)
        };
        let launch = |words: &[String], cores: &[usize], log: &str| {
            let words: Vec<_> = words.iter().map(fill).collect();
            let (program, arguments) = words.split_first().context("a command is empty")?;
            let mut command = Command::new(self.program(program));
            command.args(arguments).current_dir(&self.directory);
            command.env("LISTEN_PORT", port.to_string()).env("REDIS_URL", redis);
            Running::start(&mut command, cores, &logs.join(format!("{}{log}.log", self.name)))
        };
        let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
        let mut server = launch(&self.start, &cores.server, "")?;
        let listens = |_: &str| TcpStream::connect(address).ok();
        server.until(Duration::from_secs(30), listens).with_context(|| format!("{} does not start", self.name))?;
        let pid = Some(server.child.id());
        let mut running = vec![server];
        if !self.feed.is_empty() {
            running.push(launch(&self.feed, &cores.clients, "-feed")?);
            std::thread::sleep(Duration::from_secs(1)); // it subscribes
        }
        let via = match self.publish.as_str() {
            "redis" => Via::Redis(redis.to_owned()),
            url => Via::Http(fill(&url.to_owned())),
        };
        Ok(Target {
            name: self.name.clone(),
            address,
            admin: None,
            path: Some(self.path.clone()),
            hello: self.hello.clone(),
            face: Some(match self.unwrap {
                None => FaceName::Raw,
                Some(Unwrap::Pusher) => FaceName::Pusher,
                Some(Unwrap::Centrifugo) => FaceName::Centrifugo,
            }),
            feed: Feed::Publish(via),
            pid,
            running,
        })
    }

    /// A program that is in the peer's directory is meant before one of that name elsewhere.
    fn program(&self, name: &str) -> PathBuf {
        let own = self.directory.join(name);
        if own.is_file() { own } else { PathBuf::from(name) }
    }
}
