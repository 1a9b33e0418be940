//! What is measured: the gateway, a peer, or the floor, as processes that end with the run.

mod floor;
mod gateway;
mod peer;
mod redis;

pub use floor::{Floor, start_floor};
pub use gateway::{Where, start as start_gateway};
pub use peer::{NotHere, Peer, peers};
pub use redis::RedisServer;

use crate::face::FaceName;
use crate::publish::Via;
use crate::sys;
use anyhow::{Context, bail};
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a process has to end after SIGTERM.
const LEAVE: Duration = Duration::from_secs(5);

/// A server under test.
pub struct Target {
    /// Its name in tables.
    pub name: String,
    /// Where clients connect.
    pub address: SocketAddrV4,
    /// Its admin interface, where it has ours.
    pub admin: Option<SocketAddr>,
    /// Path in place of the face's own, with `{channel}`.
    pub path: Option<String>,
    /// A text message that every client sends first, with `{channel}`.
    pub hello: Option<String>,
    /// How its messages are read, where that is not the scenario's face.
    pub face: Option<FaceName>,
    /// How it is fed.
    pub feed: Feed,
    /// The process that is measured, where it is on this host and known.
    pub pid: Option<u32>,
    /// What was started for it.
    pub running: Vec<Running>,
}

/// How a server is fed.
pub enum Feed {
    /// Something is published.
    Publish(Via),
    /// It makes the updates itself.
    Itself(Floor),
}

/// A process that ends when it is dropped.
pub struct Running {
    /// The process.
    pub child: Child,
    /// What it wrote.
    pub log: PathBuf,
    /// Whether SIGTERM comes first.
    pub gently: bool,
}

impl Running {
    /// Starts a program on some cores; stdout and stderr go to a file. Call it from the main thread.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(command: &mut Command, cores: &[usize], log: &Path) -> anyhow::Result<Self> {
        let out = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        let child = sys::spawn(command, cores)
            .with_context(|| format!("cannot start {}", command.get_program().to_string_lossy()))?;
        Ok(Self { child, log: log.to_owned(), gently: true })
    }

    /// The end of what it wrote.
    pub fn last_words(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().rev().take(8).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// Waits until something can be made of what it wrote, or of the host.
    ///
    /// # Errors
    /// It has ended, or the time is over.
    pub fn until<T>(&mut self, within: Duration, mut look: impl FnMut(&str) -> Option<T>) -> anyhow::Result<T> {
        let began = Instant::now();
        loop {
            if let Some(found) = look(&std::fs::read_to_string(&self.log).unwrap_or_default()) {
                return Ok(found);
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("it has ended ({status}):\n{}", self.last_words());
            }
            if began.elapsed() > within {
                bail!("it is not ready after {within:?}:\n{}", self.last_words());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.gently {
            sys::terminate(self.child.id());
            let began = Instant::now();
            while began.elapsed() < LEAVE && matches!(self.child.try_wait(), Ok(None)) {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        if matches!(self.child.try_wait(), Ok(None)) {
            sys::kill(self.child.id());
        }
        let _ = self.child.wait();
    }
}

/// A port of 127.0.0.1 that nobody listens on now.
///
/// # Errors
/// None is free.
pub fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no port is free")?.local_addr()?.port())
}
