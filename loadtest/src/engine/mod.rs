//! A process of clients: one thread, some rings, no buffer that belongs to a client.

mod client;
mod frame;
mod job;
mod life;
mod swarm;
mod timers;

pub use frame::ACCEPT;
pub use job::{Job, Kind, Mix, Order, What};

use crate::parent;
use anyhow::Context;
use std::io::Write;
use swarm::Swarm;

/// Does a job (JSON in the first line of stdin) until stdin ends; orders come and reports go a line each.
///
/// # Errors
/// The job is no job, or this host refuses io_uring.
pub fn run(namespace: bool) -> anyhow::Result<()> {
    crate::sys::ignore_interrupts();
    if namespace {
        crate::sys::new_network().context("a network namespace for far and vanishing clients (root only)")?;
        parent::say(&"ready")?;
    }
    let swarm = Swarm::new(parent::first("the job")?)?;
    let mut bell = swarm.bell()?;
    let ring = move || {
        let _ = bell.write_all(&1u64.to_ne_bytes());
    };
    swarm.live(&parent::orders(|line| serde_json::from_str(line).ok(), ring))
}
