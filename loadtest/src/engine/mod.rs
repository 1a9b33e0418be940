//! A process of clients: one thread, some rings, no buffer that belongs to a client.

mod client;
mod frame;
mod job;
mod life;
mod swarm;
mod timers;

pub use frame::ACCEPT;
pub use job::{Job, Kind, Mix, Order, What};

use anyhow::Context;
use std::io::{self, BufRead, Write};
use std::sync::mpsc::{Receiver, channel};
use swarm::Swarm;

/// Does a job (JSON in the first line of stdin) until stdin ends; orders come and reports go a line each.
///
/// # Errors
/// The job is no job, or this host refuses io_uring.
pub fn run(namespace: bool) -> anyhow::Result<()> {
    crate::sys::ignore_interrupts();
    if namespace {
        crate::sys::new_network().context("a network namespace for far and vanishing clients (root only)")?;
        say(&"ready")?;
    }
    let mut first = String::new();
    io::stdin().lock().read_line(&mut first)?;
    let job: Job = serde_json::from_str(&first).context("the first line on stdin is the job")?;
    let swarm = Swarm::new(job)?;
    let orders = listen(swarm.bell()?);
    swarm.live(&orders)
}

/// Orders as they come; the channel's end is the end of stdin.
fn listen(mut bell: std::fs::File) -> Receiver<Order> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines() {
            let Some(order) = line.ok().and_then(|line| serde_json::from_str(&line).ok()) else { break };
            if sender.send(order).is_err() {
                break;
            }
            let _ = bell.write_all(&1u64.to_ne_bytes());
        }
        drop(sender);
        let _ = bell.write_all(&1u64.to_ne_bytes());
    });
    receiver
}

/// A line of JSON to the parent.
fn say(what: &impl serde::Serialize) -> io::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, what)?;
    out.write_all(b"\n")?;
    out.flush()
}
