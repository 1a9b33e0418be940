//! The floor as a process of its own, and what it is told.

use super::{Feed, Target};
use crate::publish::Published;
use crate::scenario::Scenario;
use crate::sys;
use anyhow::Context;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// The floor's process; it ends when this is dropped.
pub struct Floor {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

/// Starts the floor for a scenario. Call it from the main thread.
///
/// # Errors
/// It does not start.
pub fn start_floor(scenario: &Scenario, cores: &[usize]) -> anyhow::Result<Target> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("bare").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = sys::spawn(&mut command, cores).context("cannot start the floor")?;
    let orders = child.stdin.take().context("stdin is piped")?;
    let answers = BufReader::new(child.stdout.take().context("stdout is piped")?);
    let pid = Some(child.id());
    let mut floor = Floor { child, orders, answers };
    floor.say(&serde_json::to_string(scenario)?)?;
    let address = serde_json::from_str(&floor.hear()?)?;
    let (name, running) = ("floor".to_owned(), Vec::new());
    let feed = Feed::Itself(floor);
    Ok(Target { name, address, admin: None, path: None, hello: None, face: None, feed, pid, running })
}

impl Floor {
    /// Updates are due from now on.
    ///
    /// # Errors
    /// It has ended.
    pub fn begin(&mut self) -> anyhow::Result<()> {
        self.say("begin")
    }

    /// No more updates; what was sent.
    ///
    /// # Errors
    /// It has ended.
    pub fn stop(&mut self) -> anyhow::Result<Published> {
        self.say("stop")?;
        Ok(serde_json::from_str(&self.hear()?)?)
    }

    fn say(&mut self, line: &str) -> anyhow::Result<()> {
        self.orders.write_all(format!("{line}\n").as_bytes()).context("the floor has ended")
    }

    fn hear(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        anyhow::ensure!(!line.is_empty(), "the floor has ended");
        Ok(line)
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        sys::kill(self.child.id());
        let _ = self.child.wait();
    }
}
