//! One scenario against one server: connect, publish, measure, judge.

use crate::apart::Apart;
use crate::engine::{Job, Kind, What};
use crate::fleet::Fleet;
use crate::http::Http;
use crate::measure::{Held, Host, Metrics, Process, scrape};
use crate::progress::Progress;
use crate::publish::{Published, Publisher};
use crate::scenario::{Deed, Happening, Outcome, Scenario};
use crate::tally::{Seen, Tally};
use crate::target::{Feed, Target};
use anyhow::{Context, bail};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Clients that make no progress for this long connect no more.
const CONNECT_PATIENCE: Duration = Duration::from_secs(60);
const TICK: Duration = Duration::from_millis(50);
/// The gateway has that long to let go of its clients when they are gone; those who vanish are found out by heartbeats.
const LET_GO: Duration = Duration::from_secs(60);
/// The proportional share of memory is read once in so many samples.
const PSS_EVERY: usize = 10;

/// The cores of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Cores {
    /// Those of the server.
    pub server: Vec<usize>,
    /// Those of clients, Redis and publisher.
    pub clients: Vec<usize>,
}

impl Cores {
    /// `shards` cores for the server (0: half of them), the others for everyone else; none are told apart where there
    /// is only one.
    pub fn divide(shards: usize) -> Self {
        let all = std::thread::available_parallelism().map_or(1, usize::from);
        if all == 1 {
            return Self { server: Vec::new(), clients: Vec::new() };
        }
        let shards = if shards == 0 { all / 2 } else { shards.min(all - 1) };
        Self { server: (0..shards).collect(), clients: (shards..all).collect() }
    }
}

/// What was seen in one second.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Sample {
    /// Seconds since the clients began to connect.
    pub at_s: f64,
    /// The server's process.
    pub server: Process,
    /// The clients' processes.
    pub clients: Process,
    /// The host.
    pub host: Host,
    /// What the clients say.
    pub seen: Seen,
    /// The gateway's metrics.
    pub metrics: Metrics,
}

impl Sample {
    /// Memory that the host spends on the run: the server's, the clients' and the kernel's, in bytes.
    pub fn spent(&self) -> f64 {
        (self.server.rss + self.clients.rss + self.host.kernel) as f64
    }
}

/// All that came of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    /// What was run.
    pub scenario: Scenario,
    /// Against what.
    pub target: String,
    /// Where.
    pub cores: Cores,
    /// Before the first client.
    pub empty: Sample,
    /// All connected, nothing published yet.
    pub connected: Sample,
    /// When ages began to count.
    pub began: Sample,
    /// After the last update, before the quiet time.
    pub ended: Sample,
    /// After the quiet time.
    pub last: Sample,
    /// One a second.
    pub samples: Vec<Sample>,
    /// Time that it took to connect everyone, in seconds.
    pub connect_s: f64,
    /// Updates published.
    pub published: u64,
    /// The longest that one was published after it was due, in microseconds.
    pub publisher_late_max_us: u64,
    /// What the clients counted.
    pub tally: Tally,
    /// From a herd's start until as many were connected as before, in seconds.
    pub recover_s: Option<f64>,
    /// What the gateway still holds when all clients are gone, beyond what it held before the first; none where it cannot
    /// be seen, or nothing is expected of it.
    pub left: Option<BTreeMap<String, u64>>,
    /// What the bounds are checked against.
    pub outcome: Outcome,
}

/// Runs a scenario. Call it from the main thread.
///
/// # Errors
/// The server or a process of clients has ended, publishing failed, or Ctrl-C was pressed.
pub fn run(
    scenario: &Scenario,
    target: &mut Target,
    cores: &Cores,
    interrupted: &AtomicBool,
) -> anyhow::Result<Measured> {
    let began = Instant::now();
    let progress = Progress::new(&target.name);
    let mut watch = Watch { pid: target.pid, admin: target.admin.map(Http::new), began, samples: Vec::new() };
    let empty = watch.sample(None, true);
    let held = watch.held();
    let jobs = jobs(scenario, target, cores);
    let mut fleet = Fleet::start(&jobs)?;
    let (job, _) = jobs.first().context("there is a process of clients")?;
    let mut apart = Apart::start(scenario, job, cores, &mut fleet)?;
    let mut stage = Stage { fleet: &mut fleet, watch: &mut watch, target, progress: &progress, interrupted };
    stage.connect(scenario.sockets)?;
    let connect_s = began.elapsed().as_secs_f64();
    stage.rest(Duration::from_secs(1))?;
    stage.fleet.order(&What::Begin)?;
    let connected = stage.watch.sample(Some(stage.fleet), true);

    let mut publisher = match &mut stage.target.feed {
        Feed::Publish(via) => Some(Publisher::start(scenario, via)?),
        Feed::Itself(floor) => {
            floor.begin()?;
            None
        }
    };
    let warmup = Duration::from_secs(scenario.warmup_seconds.into());
    stage.publish(warmup, "warm-up", publisher.as_ref(), &mut |_, _| Ok(()))?;
    stage.fleet.order(&What::Measure)?;
    let measured_from = stage.watch.sample(Some(stage.fleet), false);
    let mut events: Vec<Happening> = scenario.events.clone();
    events.sort_by_key(|event| event.at);
    let mut herd: Option<(Instant, u64)> = None;
    let mut recover_s = None;
    let mut happen = |stage: &mut Stage<'_>, at: Duration| {
        while let Some(event) = events.first().filter(|event| Duration::from_secs(event.at.into()) <= at) {
            match event.what {
                Deed::Herd => {
                    herd = Some((Instant::now(), stage.fleet.seen().open));
                    recover_s = None;
                    stage.fleet.order(&What::Herd(event.fraction))?;
                }
                Deed::Resume => stage.fleet.order(&What::Resume)?,
                Deed::Vanish => apart.vanish()?,
            }
            events.remove(0);
        }
        if let Some((since, open)) = herd
            && since.elapsed() > Duration::from_secs(1)
            && stage.fleet.seen().open >= open
        {
            recover_s = Some(since.elapsed().as_secs_f64());
            herd = None;
        }
        Ok(())
    };
    stage.publish(Duration::from_secs(scenario.seconds.into()), "measuring", publisher.as_ref(), &mut happen)?;
    let Published { updates, last, late_max_us } = match (publisher.take(), &mut stage.target.feed) {
        (Some(publisher), _) => publisher.stop()?,
        (None, Feed::Itself(floor)) => floor.stop()?,
        (None, Feed::Publish(_)) => Published::default(),
    };

    let ended = stage.watch.sample(Some(stage.fleet), true);
    stage.rest(Duration::from_secs(scenario.drain_seconds.into()))?;
    stage.fleet.order(&What::Finish(last))?;
    let last = stage.watch.sample(Some(stage.fleet), true);
    let tally = fleet.tally();
    drop((apart, fleet));
    let asked = scenario.expect.left_max.is_some();
    let left = held.filter(|_| asked).and_then(|before| watch.left(&before));
    progress.done();

    let mut measured = Measured {
        scenario: scenario.clone(),
        target: target.name.clone(),
        cores: cores.clone(),
        empty,
        connected,
        began: measured_from,
        ended,
        last,
        samples: watch.samples,
        connect_s,
        published: updates,
        publisher_late_max_us: late_max_us,
        tally,
        recover_s,
        left,
        outcome: Outcome::default(),
    };
    measured.outcome = crate::judge::outcome(&measured);
    Ok(measured)
}

/// The jobs of the clients' processes, one for each of their cores.
fn jobs(scenario: &Scenario, target: &Target, cores: &Cores) -> Vec<(Job, Vec<usize>)> {
    let places: Vec<Vec<usize>> = if cores.clients.is_empty() {
        vec![Vec::new()]
    } else {
        cores.clients.iter().map(|core| vec![*core]).collect()
    };
    let sockets = scenario.sockets - Kind::ALL.map(|kind| scenario.remote(kind)).iter().sum::<u64>();
    let processes = (places.len() as u64).min(sockets).max(1);
    let behaviour = &scenario.behaviour;
    let ms = |seconds: f64| (seconds * 1000.0).clamp(1.0, 1e9) as u32;
    let job = |engine: u64| {
        let (first, end) = (sockets * engine / processes, sockets * (engine + 1) / processes);
        Job {
            engine: engine as u32,
            first,
            sockets: (end - first) as u32,
            target: target.address,
            loopback_sources: target.address.ip().is_loopback(),
            path: target.path.clone(),
            face: target.face.unwrap_or(scenario.face),
            hello: target.hello.clone(),
            channel_prefix: scenario.channel_prefix.clone(),
            channels: scenario.channels,
            channels_per_socket: scenario.channels_per_socket,
            keys: scenario.publish.keys,
            goals: scenario.publish.goal_every > 0,
            mix: scenario.mix(),
            at_once: scenario.connect_at_once.div_ceil(processes as u32),
            connects_per_s: scenario.connects_per_second.div_ceil(processes as u32),
            trickle_bytes_per_s: behaviour.trickle_bytes_per_second,
            phone_awake_ms: ms(behaviour.phone_awake_seconds),
            phone_asleep_ms: ms(behaviour.phone_asleep_seconds),
            narrow_receive_bytes: behaviour.narrow_receive_bytes,
            churn_per_s: scenario.churn_per_second,
            reconnect: scenario.reconnect,
        }
    };
    (0..processes).zip(places).map(|(engine, cores)| (job(engine), cores)).collect()
}

/// Looks at server, clients and host.
struct Watch {
    pid: Option<u32>,
    admin: Option<Http>,
    began: Instant,
    samples: Vec<Sample>,
}

impl Watch {
    fn sample(&mut self, fleet: Option<&Fleet>, with_pss: bool) -> Sample {
        Sample {
            at_s: self.began.elapsed().as_secs_f64(),
            server: self.pid.map(|pid| Process::read(pid, with_pss)).unwrap_or_default(),
            clients: fleet.map(Fleet::process).unwrap_or_default(),
            host: Host::read(),
            seen: fleet.map(Fleet::seen).unwrap_or_default(),
            // A gateway that is too busy for its admin interface is no reason to end the run: the sample has none.
            metrics: self.admin.as_mut().and_then(|admin| scrape(admin).ok()).unwrap_or_default(),
        }
    }

    fn held(&mut self) -> Option<Held> {
        let metrics = scrape(self.admin.as_mut()?).ok()?;
        Some(Held::of(self.pid?, &metrics))
    }

    /// What is held beyond `before`, when nothing is or patience ends.
    fn left(&mut self, before: &Held) -> Option<BTreeMap<String, u64>> {
        let began = Instant::now();
        loop {
            let left = self.held()?.beyond(before);
            if left.is_empty() || began.elapsed() > LET_GO {
                return Some(left);
            }
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    /// One a second.
    fn tick(&mut self, fleet: &Fleet) {
        let last_s = self.samples.last().map_or(-1.0, |sample| sample.at_s);
        if self.began.elapsed().as_secs_f64() >= last_s.floor() + 1.0 {
            let sample = self.sample(Some(fleet), self.samples.len().is_multiple_of(PSS_EVERY));
            self.samples.push(sample);
        }
    }
}

/// What is on while a scenario plays.
struct Stage<'a> {
    fleet: &'a mut Fleet,
    watch: &'a mut Watch,
    target: &'a mut Target,
    progress: &'a Progress,
    interrupted: &'a AtomicBool,
}

impl Stage<'_> {
    /// Looks after everyone, once a tick.
    fn tick(&mut self) -> anyhow::Result<()> {
        std::thread::sleep(TICK);
        if self.interrupted.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
        self.fleet.check()?;
        for running in &mut self.target.running {
            if let Some(status) = running.child.try_wait()? {
                bail!("{} has ended ({status}):\n{}", self.target.name, running.last_words());
            }
        }
        self.watch.tick(self.fleet);
        Ok(())
    }

    /// Until everyone is connected, or nobody has been for a while.
    fn connect(&mut self, sockets: u64) -> anyhow::Result<()> {
        let (mut most, mut since) = (0, Instant::now());
        loop {
            self.tick()?;
            let open = self.fleet.seen().open;
            self.progress.show(
                "connecting",
                open,
                sockets,
                &format!("{} refused or failed", self.fleet.seen().unlucky),
            );
            if open > most {
                (most, since) = (open, Instant::now());
            }
            if open >= sockets || since.elapsed() > CONNECT_PATIENCE {
                return Ok(());
            }
        }
    }

    fn rest(&mut self, time: Duration) -> anyhow::Result<()> {
        let began = Instant::now();
        while began.elapsed() < time {
            self.tick()?;
        }
        Ok(())
    }

    fn publish(
        &mut self,
        time: Duration,
        what: &str,
        publisher: Option<&Publisher>,
        happen: &mut dyn FnMut(&mut Self, Duration) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let began = Instant::now();
        while began.elapsed() < time {
            self.tick()?;
            happen(self, began.elapsed())?;
            if publisher.is_some_and(Publisher::has_ended) {
                return Err(anyhow::anyhow!("the publisher has ended before its time")).context("publishing failed");
            }
            let seen = self.fleet.seen();
            let text = format!(
                "{} open, {} published, {} received, p50 {:.1} ms, p99 {:.1} ms",
                seen.open,
                publisher.map_or(0, Publisher::updates),
                seen.received,
                seen.p50_us as f64 / 1000.0,
                seen.p99_us as f64 / 1000.0
            );
            self.progress.show(what, began.elapsed().as_secs(), time.as_secs(), &text);
        }
        Ok(())
    }
}

/// How many clients of each kind there are.
pub fn population(scenario: &Scenario) -> BTreeMap<&'static str, u64> {
    let mix = scenario.mix();
    let remote = Kind::ALL.map(|kind| scenario.remote(kind));
    let mut all: BTreeMap<_, _> = Kind::ALL.iter().zip(remote).map(|(kind, count)| (kind.name(), count)).collect();
    for i in 0..scenario.sockets - remote.iter().sum::<u64>() {
        *all.entry(mix.kind(i).name()).or_default() += 1;
    }
    all.retain(|name, count| *count > 0 || *name == Kind::Fast.name());
    all
}
