//! A delay line: two TUN devices in two network namespaces, and packets that take their time between them, or are lost. A
//! process of its own, for the network must not wait for those who use it.

use crate::sys::{enter_network_of, open_tun, wait_readable};
use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, BufRead, Read, Write};
use std::process::Command;
use std::time::{Duration, Instant};

const PACKET_MAX: usize = 2048;

/// What a line is told in the first line of stdin. `blackhole` in a later one: nothing passes any more.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Line {
    /// Number of the line on this host, 1 to 250: addresses are 10.77.N.1 and .2.
    pub number: u8,
    /// Its far end is in the network namespace of this process.
    pub far_pid: u32,
    /// Time from one end to the other and back, in milliseconds.
    pub round_trip_ms: f64,
    /// Fraction of the packets that is lost, each way.
    pub loss: f64,
}

/// When it arrives, its number (packets keep their order), where, and its bytes.
type Packet = (Instant, u64, usize, Vec<u8>);

/// Builds the line, says `ready`, and moves packets until stdin ends.
///
/// # Errors
/// Not root, no /dev/net/tun, or the `ip` program is missing.
pub fn serve() -> anyhow::Result<()> {
    crate::sys::ignore_interrupts();
    let mut first = String::new();
    io::stdin().lock().read_line(&mut first)?;
    let line: Line = serde_json::from_str(&first).context("the first line on stdin is the line")?;
    let names = [format!("sgload{}n", line.number), format!("sgload{}f", line.number)];
    let ends = [format!("10.77.{}.1", line.number), format!("10.77.{}.2", line.number)];
    let near = open_tun(&names[0]).context("a TUN device (/dev/net/tun, as root)")?;
    ip(&["address", "add", &ends[0], "peer", &ends[1], "dev", &names[0]])?;
    ip(&["link", "set", &names[0], "up"])?;
    enter_network_of(line.far_pid).context("the network of the clients")?;
    let far = open_tun(&names[1])?;
    ip(&["link", "set", "lo", "up"])?;
    ip(&["address", "add", &ends[1], "peer", &ends[0], "dev", &names[1]])?;
    ip(&["link", "set", &names[1], "up"])?;
    println!("ready");
    carry(&line, [near, far])
}

fn carry(line: &Line, mut ends: [File; 2]) -> anyhow::Result<()> {
    let one_way = Duration::from_secs_f64(line.round_trip_ms.max(0.0) / 2000.0);
    let mut on_the_way: BinaryHeap<Reverse<Packet>> = BinaryHeap::new();
    let (mut count, mut blackhole, mut packet) = (0, false, [0; PACKET_MAX]);
    loop {
        let pause = on_the_way.peek().map(|Reverse((due, ..))| due.saturating_duration_since(Instant::now()));
        let stdin = io::stdin();
        let ready = wait_readable([&ends[0], &ends[1], &stdin], pause);
        if ready[2] {
            let mut order = String::new();
            if stdin.lock().read_line(&mut order)? == 0 {
                return Ok(());
            }
            blackhole = true;
        }
        for from in [0, 1] {
            while ready[from]
                && let Ok(len @ 1..) = ends[from].read(&mut packet)
            {
                if blackhole || fastrand::f64() < line.loss {
                    continue;
                }
                count += 1;
                on_the_way.push(Reverse((Instant::now() + one_way, count, 1 - from, packet[..len].to_vec())));
            }
        }
        while let Some(Reverse((due, ..))) = on_the_way.peek()
            && *due <= Instant::now()
            && let Some(Reverse((_, _, to, packet))) = on_the_way.pop()
        {
            let _ = ends[to].write(&packet); // its queue is full: a network drops
        }
    }
}

/// Runs `ip` in the calling thread's network namespace.
///
/// # Errors
/// There is no such program, or it refuses; its words.
pub fn ip(arguments: &[&str]) -> anyhow::Result<()> {
    let done = Command::new("ip").args(arguments).output().context("the program `ip` (apt-get install iproute2)")?;
    if !done.status.success() {
        bail!("ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&done.stderr).trim());
    }
    Ok(())
}
