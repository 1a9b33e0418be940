//! One scenario against Spillgate and others in turn: each with a Redis of its own, the same cores, the same clients.

use crate::engine::Kind;
use crate::judge::before_resume;
use crate::report::{Curve, memory_of, print_columns, write_json};
use crate::run::{Cores, Measured, run};
use crate::scenario::{Scenario, show};
use crate::target::{NotHere, Peer, RedisServer, Target, Where, peers, start_gateway};
use anyhow::{Context, bail};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What the kernel and the clients of one server leave behind settles before the next begins.
const PAUSE: Duration = Duration::from_secs(3);

/// Where things are.
pub struct Place<'a> {
    /// Directory of the peers.
    pub peers: &'a Path,
    /// The gateway's program.
    pub bin: Option<PathBuf>,
    /// For the report.
    pub out: &'a Path,
    /// For logs.
    pub work: &'a Path,
}

/// A server and what came of it.
#[derive(Serialize)]
struct Entry {
    name: String,
    title: String,
    note: String,
    /// Why there is no result.
    failed: Option<String>,
    /// It cannot be had here, which is no fault of this run.
    left_out: bool,
    figures: Option<Figures>,
    run: Option<Measured>,
}

/// What is compared.
#[derive(Clone, Copy, Debug, Serialize)]
struct Figures {
    connected: u64,
    cpu_us_per_delivery: Option<f64>,
    p50_ms: Option<f64>,
    p99_ms: Option<f64>,
    missed: u64,
    ended: u64,
    rss_per_socket: f64,
    rss_growth_per_stalled: Option<f64>,
    host_growth_per_stalled: Option<f64>,
    tcp_growth_per_stalled: Option<f64>,
    resume_p50_ms: Option<f64>,
    resumed: u64,
    stale_bytes_per_resumed: Option<f64>,
}

/// Runs all, prints the table and writes the report; false if a server that can be had here gave no result.
///
/// # Errors
/// There is no such peer, Spillgate itself cannot be measured, or Ctrl-C was pressed.
pub fn compare(
    scenario: &Scenario,
    names: &[String],
    place: &Place<'_>,
    cores: &Cores,
    interrupted: &AtomicBool,
) -> anyhow::Result<bool> {
    let all = peers(place.peers)?;
    if let Some(unknown) = names.iter().find(|name| all.iter().all(|peer| peer.name != **name)) {
        let known: Vec<_> = all.iter().map(|peer| peer.name.as_str()).collect();
        bail!("there is no peer `{unknown}` in {}; there are {}", place.peers.display(), known.join(", "));
    }
    let chosen: Vec<_> = all.into_iter().filter(|peer| names.is_empty() || names.contains(&peer.name)).collect();
    let mut entries = Vec::new();
    let ours = || {
        let redis = RedisServer::start(place.work, &cores.clients)?;
        let gateway = Where::Ours(place.bin.clone());
        let target = start_gateway(scenario, &gateway, Some(&redis.url), &cores.server, place.work)?;
        measure(scenario, target, cores, interrupted)
    };
    let measured = ours().context("Spillgate itself")?;
    entries.push(Entry::of("spillgate", "Spillgate", "", Ok(measured)));
    for peer in &chosen {
        if interrupted.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
        std::thread::sleep(PAUSE);
        let result = measure_peer(scenario, peer, place, cores, interrupted);
        if let Err(error) = &result {
            println!("{}: {error:#}", peer.name);
        }
        entries.push(Entry::of(&peer.name, &peer.title, &peer.note, result));
    }
    print(scenario, &entries);
    for file in write(scenario, &entries, place.out)? {
        println!("{}", file.display());
    }
    Ok(entries.iter().all(|entry| entry.failed.is_none() || entry.left_out))
}

fn measure_peer(
    scenario: &Scenario,
    peer: &Peer,
    place: &Place<'_>,
    cores: &Cores,
    interrupted: &AtomicBool,
) -> anyhow::Result<Measured> {
    peer.build(place.work).context("it was not built")?;
    let redis = RedisServer::start(place.work, &cores.clients)?;
    let target = peer.start(&redis.url, cores, place.work)?;
    measure(scenario, target, cores, interrupted)
}

fn measure(
    scenario: &Scenario,
    mut target: Target,
    cores: &Cores,
    interrupted: &AtomicBool,
) -> anyhow::Result<Measured> {
    // What a fresh process does on its own is over then.
    std::thread::sleep(Duration::from_secs(1));
    run(scenario, &mut target, cores, interrupted)
}

impl Entry {
    fn of(name: &str, title: &str, note: &str, result: anyhow::Result<Measured>) -> Self {
        let (run, failed, left_out) = match result {
            Ok(run) => (Some(run), None, false),
            Err(error) => (None, Some(format!("{error:#}")), error.is::<NotHere>()),
        };
        let figures = run.as_ref().map(Figures::of);
        Self { name: name.to_owned(), title: title.to_owned(), note: note.to_owned(), failed, left_out, figures, run }
    }
}

impl Figures {
    fn of(run: &Measured) -> Self {
        let outcome = &run.outcome;
        let stalled = run.scenario.kinds.get(&Kind::Stalled).map_or(0.0, |part| part * run.scenario.sockets as f64);
        let grown = before_resume(run).server.rss as f64 - run.connected.server.rss as f64;
        let stale = run.tally.kinds.get(Kind::Stalled as usize).cloned().unwrap_or_default();
        let resumed = stale.resume_us.len();
        Self {
            connected: run.connected.seen.open,
            cpu_us_per_delivery: outcome.cpu_us_per_delivery,
            p50_ms: outcome.p50_ms,
            p99_ms: outcome.p99_ms,
            missed: outcome.lost.unwrap_or(0.0) as u64,
            ended: run.tally.kinds.iter().map(|kind| kind.ended).sum(),
            rss_per_socket: outcome.rss_per_socket.unwrap_or(0.0),
            rss_growth_per_stalled: (stalled >= 1.0).then(|| grown / stalled),
            host_growth_per_stalled: outcome.host_growth_per_stalled,
            tcp_growth_per_stalled: outcome.tcp_growth_per_stalled,
            resume_p50_ms: (resumed > 0).then(|| stale.resume_us.at(0.5) as f64 / 1000.0),
            resumed,
            stale_bytes_per_resumed: (resumed > 0).then(|| stale.stale_bytes as f64 / resumed as f64),
        }
    }
}

fn print(scenario: &Scenario, entries: &[Entry]) {
    println!("\n{}: {} ({} clients)", scenario.name, scenario.about, show(scenario.sockets as f64));
    println!("in parentheses: times Spillgate's\n");
    let ours = entries.first().and_then(|entry| entry.figures);
    let ratio = |value: Option<f64>, of: fn(&Figures) -> Option<f64>| match (value, ours.as_ref().and_then(of)) {
        (Some(value), Some(ours)) if ours > 0.0 => format!("{} ({:.2})", show(value), value / ours),
        (Some(value), _) => show(value),
        (None, _) => "-".to_owned(),
    };
    let head = [
        "server",
        "connected",
        "CPU us/delivery",
        "p50 ms",
        "p99 ms",
        "missed",
        "ended",
        "RSS B/socket",
        "RSS B/stalled",
        "host B/stalled",
        "TCP B/stalled",
        "resume p50 ms",
        "resumed",
        "stale B read",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for entry in entries {
        let Some(figures) = entry.figures else { continue };
        rows.push(vec![
            entry.title.clone(),
            show(figures.connected as f64),
            ratio(figures.cpu_us_per_delivery, |f| f.cpu_us_per_delivery),
            ratio(figures.p50_ms, |f| f.p50_ms),
            ratio(figures.p99_ms, |f| f.p99_ms),
            show(figures.missed as f64),
            show(figures.ended as f64),
            ratio(Some(figures.rss_per_socket), |f| Some(f.rss_per_socket)),
            ratio(figures.rss_growth_per_stalled, |f| f.rss_growth_per_stalled),
            ratio(figures.host_growth_per_stalled, |f| f.host_growth_per_stalled),
            ratio(figures.tcp_growth_per_stalled, |f| f.tcp_growth_per_stalled),
            ratio(figures.resume_p50_ms, |f| f.resume_p50_ms),
            show(figures.resumed as f64),
            ratio(figures.stale_bytes_per_resumed, |f| f.stale_bytes_per_resumed),
        ]);
    }
    print_columns(&rows);
    for entry in entries {
        if let Some(failed) = &entry.failed {
            println!("{}: no result: {failed}", entry.title);
        }
    }
}

fn write(scenario: &Scenario, entries: &[Entry], out: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let report = out.join("compare.json");
    write_json(&report, &entries)?;
    let mut files = vec![report];
    let curves = |value: &dyn Fn(&Measured, &crate::run::Sample) -> f64| -> Vec<Curve> {
        let curve = |entry: &Entry| {
            let run = entry.run.as_ref()?;
            let points = run.samples.iter().map(|sample| (sample.at_s, value(run, sample) / 1e6)).collect();
            Some(Curve { name: entry.title.clone(), points })
        };
        entries.iter().filter_map(curve).collect()
    };
    let resident = curves(&|_, sample| sample.server.rss as f64);
    let host = curves(&|run, sample| sample.spent() - run.empty.spent());
    for (name, what, curves) in [
        ("memory-server.png", "resident memory of the server", resident),
        ("memory-host.png", "server, clients and kernel since the start", host),
    ] {
        let file = out.join(name);
        memory_of(&curves, &format!("{}: {what}", scenario.name), &file)?;
        files.push(file);
    }
    Ok(files)
}
