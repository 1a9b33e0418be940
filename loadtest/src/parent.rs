//! The lines between a process that we start and its parent: JSON on stdin and stdout.

use anyhow::Context;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{self, BufRead, Write};
use std::sync::mpsc::{Receiver, channel};

/// The first line: what to do.
///
/// # Errors
/// It is not a `what`.
pub fn first<T: DeserializeOwned>(what: &str) -> anyhow::Result<T> {
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    serde_json::from_str(&line).with_context(|| format!("the first line on stdin is {what}"))
}

/// All other lines as they come, up to the first that is none of them; `ring` wakes whoever waits for them. The channel's
/// end is the end of stdin.
pub fn orders<T: Send + 'static>(
    parse: impl Fn(&str) -> Option<T> + Send + 'static,
    mut ring: impl FnMut() + Send + 'static,
) -> Receiver<T> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines() {
            let Some(order) = line.ok().and_then(|line| parse(&line)) else { break };
            if sender.send(order).is_err() {
                break;
            }
            ring();
        }
        drop(sender);
        ring();
    });
    receiver
}

/// A line to the parent.
///
/// # Errors
/// Nobody reads it.
pub fn say(what: &impl Serialize) -> io::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, what)?;
    out.write_all(b"\n")?;
    out.flush()
}
