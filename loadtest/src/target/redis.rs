//! A Redis of the run's own: no persistence, and the bounds of a production one, so that a held-up reader shows.

use super::{Running, free_port};
use anyhow::Context;
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// See the module.
pub struct RedisServer {
    /// Its address.
    pub url: String,
    _running: Running,
}

impl RedisServer {
    /// Starts `redis-server` on a free port.
    ///
    /// # Errors
    /// It is not installed, or does not start.
    pub fn start(directory: &Path, cores: &[usize]) -> anyhow::Result<Self> {
        let port = free_port()?;
        let mut command = Command::new("redis-server");
        command.current_dir(directory).args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""]);
        command.args(["--appendonly", "no", "--client-output-buffer-limit", "pubsub 32mb 8mb 60"]);
        let mut running = Running::start(&mut command, cores, &directory.join("redis.log")).context(
            "redis-server is needed: install it (apt-get install redis-server), name one with --redis URL, or publish \
             by the gateway's API with --publish admin",
        )?;
        running
            .until(Duration::from_secs(10), |_| TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok())
            .context("redis-server does not start")?;
        Ok(Self { url: format!("redis://127.0.0.1:{port}"), _running: running })
    }
}
