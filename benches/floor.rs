//! What a delivery costs the gateway, over what a send costs at the least: both processes serve their clients on the
//! same core in the same run, and take turns. Ends with exit code 1 where the ratio of the medians is over the bound.
//!
//! `cargo bench --bench floor`; `SPILLGATE_FLOOR_ROUNDS` sets the rounds, each two windows of eight seconds.

#[allow(dead_code)] // made for the scale tests
#[path = "../tests/crowd/mod.rs"]
mod crowd;
#[allow(dead_code)]
#[path = "../tests/gateway/mod.rs"]
mod gateway;

#[allow(dead_code)]
mod bare;

use bare::Floor;
use crowd::payload::numbered;
use crowd::{Crowd, Job};
use gateway::{Gateway, Settings};
use std::fs;
use std::ops::Range;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

const SOCKETS: u64 = 10_000;
const PER_SECOND: u32 = 8;
const BYTES: usize = 512;
/// Updates before each measurement: a client that was idle for long acknowledges the first sixteen each at once, which
/// the sender's core pays for on loopback (TCP_MAX_QUICKACKS).
const WARM_UPDATES: u64 = 24;
const WINDOW_UPDATES: u64 = 5 * PER_SECOND as u64;
const ROUNDS: usize = 7;
const RATIO_MAX: f64 = 1.25;
const CHANNEL: &str = "floor";
/// The core of both servers, and that of everyone else.
const SERVER_CORE: usize = 0;
const CLIENT_CORE: usize = 1;

fn main() -> ExitCode {
    if let Some(code) = crowd::join_if_asked().or_else(bare::serve_if_asked) {
        return code;
    }
    if !std::env::args().any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS; // `cargo test --benches` only looks whether it starts
    }
    match compare() {
        Ok(ratio) if ratio <= RATIO_MAX => ExitCode::SUCCESS,
        Ok(ratio) => {
            eprintln!("a delivery costs {ratio:.2} times the floor, over {RATIO_MAX}");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The gateway's cost over the floor's.
fn compare() -> anyhow::Result<f64> {
    let rounds = std::env::var("SPILLGATE_FLOOR_ROUNDS").map_or(Ok(ROUNDS), |rounds| rounds.parse())?;
    core_affinity::set_for_current(core_affinity::CoreId { id: CLIENT_CORE });
    let mut floor = Floor::start(SOCKETS, SERVER_CORE)?;
    let settings = Settings { shards: 1, core: Some(SERVER_CORE), ..Settings::default() };
    let mut gateway = Gateway::start(&settings);
    let path = format!("/raw/{CHANNEL}");
    let gather = |server| Crowd::gather(Job { core: Some(CLIENT_CORE), ..Job::new(server, &path, SOCKETS) });
    let mut crowds = [gather(floor.address), gather(gateway.address)];
    println!("{SOCKETS} sockets each, {PER_SECOND} updates of {BYTES} bytes a second; process CPU for each delivery");

    let mut costs = [Vec::new(), Vec::new()];
    for round in 0..rounds as u64 {
        for turn in 0..2 {
            let which = ((round + turn) % 2) as usize; // A B, B A, …
            let pid = [floor.pid(), gateway.pid()][which];
            let publish = |n: u64| -> anyhow::Result<()> {
                match which {
                    0 => floor.publish(n, BYTES)?,
                    _ => drop(gateway.publish(CHANNEL, &numbered(n, BYTES))),
                }
                Ok(())
            };
            let cost_us = window(round, pid, &mut crowds[which], publish)?;
            costs[which].push(cost_us);
        }
        let [floor_us, gateway_us] = [costs[0][round as usize], costs[1][round as usize]];
        println!(
            "round {round}: floor {floor_us:.2} us, gateway {gateway_us:.2} us, ratio {:.3}",
            gateway_us / floor_us
        );
    }
    let [floor_us, gateway_us] = costs.map(median);
    let ratio = gateway_us / floor_us;
    println!("medians: floor {floor_us:.2} us, gateway {gateway_us:.2} us, ratio {ratio:.3} (at most {RATIO_MAX})");
    Ok(ratio)
}

/// Publishes for a while, and answers the server's CPU time for each delivery, in microseconds.
fn window(
    round: u64,
    pid: u32,
    crowd: &mut Crowd,
    mut publish: impl FnMut(u64) -> anyhow::Result<()>,
) -> anyhow::Result<f64> {
    let mut pace = |updates: Range<u64>| -> anyhow::Result<u64> {
        let (first, began) = (updates.start, Instant::now());
        for n in updates {
            sleep((Duration::from_secs(n - first) / PER_SECOND).saturating_sub(began.elapsed()));
            publish(n)?;
            // Everyone has it before the next is due: the gateway would send two that wait as one.
            let (report, each) = (crowd.updates((n + 1) * SOCKETS), n + 1);
            anyhow::ensure!(report.updates_each == (each, each) && report.tally.torn == 0, "not whole: {report:?}");
        }
        cpu_ns(pid)
    };
    let first = round * (WARM_UPDATES + WINDOW_UPDATES);
    let before_ns = pace(first..first + WARM_UPDATES)?;
    let spent_ns = pace(first + WARM_UPDATES..first + WARM_UPDATES + WINDOW_UPDATES)? - before_ns;
    Ok(spent_ns as f64 / 1000.0 / (WINDOW_UPDATES * SOCKETS) as f64)
}

/// CPU time of all threads of a process (`/proc/…/schedstat`, in nanoseconds).
fn cpu_ns(pid: u32) -> anyhow::Result<u64> {
    let mut sum = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(thread?.path().join("schedstat"))?;
        sum += text.split(' ').next().unwrap_or_default().parse::<u64>()?;
    }
    Ok(sum)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
