//! What each command does.

use crate::cli::{Command, Common, CompareArgs, PublishBy, RunArgs};
use crate::compare;
use crate::report;
use crate::run::{Cores, Measured, run};
use crate::scenario::{self, Scenario, show};
use crate::sysctl::Sysctls;
use crate::target::{RedisServer, Where, start_floor, start_gateway};
use crate::{bare, engine, line, sys};
use anyhow::{Context, bail};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Whether all that was expected holds.
///
/// # Errors
/// The command could not be carried out.
pub fn obey(command: Command) -> anyhow::Result<bool> {
    match command {
        Command::List => list(),
        Command::Run(arguments) => run_against_spillgate(&arguments),
        Command::Engine { namespace } => engine::run(namespace).map(|()| true),
        Command::Floor(common) => run_floor(&common),
        Command::Line => line::serve().map(|()| true),
        Command::Bare => bare::serve().map(|()| true),
        Command::Compare(arguments) => compare(&arguments),
    }
}

fn list() -> anyhow::Result<bool> {
    let rows = scenario::builtin()?.into_iter().map(|scenario| {
        let sockets = show(scenario.sockets as f64);
        vec![scenario.name, sockets, format!("{} s", scenario.seconds), scenario.about]
    });
    report::print_columns(&rows.collect::<Vec<_>>());
    Ok(true)
}

fn run_against_spillgate(arguments: &RunArgs) -> anyhow::Result<bool> {
    let scenario = chosen(&arguments.common)?;
    let out = out_directory(&arguments.common, &scenario)?;
    let interrupted = interrupts()?;
    let cores = Cores::divide(scenario.shards);
    let work = WorkDirectory::new(arguments.keep, &out)?;
    let here = arguments.gateway.is_none() && arguments.redis.is_none();
    let _sysctls = Sysctls::raise(scenario.sockets, here, &cores.clients)?;
    let server = match (&arguments.redis, arguments.publish) {
        (None, PublishBy::Redis) if arguments.gateway.is_none() || arguments.admin.is_none() => {
            Some(RedisServer::start(&work.path, &cores.clients)?)
        }
        _ => None,
    };
    let redis = arguments.redis.clone().or_else(|| server.as_ref().map(|server| server.url.clone()));
    let place = match arguments.gateway {
        Some(address) => Where::Theirs(address, arguments.admin),
        None => Where::Ours(arguments.bin.clone()),
    };
    let mut target = start_gateway(&scenario, &place, redis.as_deref(), &cores.server, &work.path)?;
    let mut measured = run(&scenario, &mut target, &cores, &interrupted)?;
    // So many sockets are taken down soonest all at once.
    target.running.iter_mut().for_each(|running| running.gently = scenario.sockets < 50_000);
    drop(target);
    let floor = if arguments.with_floor || scenario.expect.wants_floor() {
        Some(measure_floor(&scenario, &cores, &interrupted)?)
    } else {
        None
    };
    measured.outcome.floor_ratio = floor
        .as_ref()
        .and_then(|floor| Some(measured.outcome.cpu_us_per_delivery? / floor.outcome.cpu_us_per_delivery?));
    let unmet = scenario.expect.check(&measured.outcome);
    report::print(&measured, floor.as_ref(), &unmet);
    for file in report::write(&measured, floor.as_ref(), &unmet, &out)? {
        println!("{}", file.display());
    }
    Ok(unmet.is_empty())
}

fn run_floor(common: &Common) -> anyhow::Result<bool> {
    let scenario = chosen(common)?;
    let out = out_directory(common, &scenario)?;
    let interrupted = interrupts()?;
    let cores = Cores::divide(1);
    let _sysctls = Sysctls::raise(scenario.sockets, true, &cores.clients)?;
    let measured = measure_floor(&scenario, &cores, &interrupted)?;
    report::print(&measured, None, &[]);
    for file in report::write(&measured, None, &[], &out)? {
        println!("{}", file.display());
    }
    Ok(true)
}

/// The same bytes to as many sockets by a bare loop, on one core.
fn measure_floor(scenario: &Scenario, cores: &Cores, interrupted: &AtomicBool) -> anyhow::Result<Measured> {
    let fast = Scenario { kinds: Default::default(), events: Vec::new(), churn_per_second: 0.0, ..scenario.clone() };
    if fast.channels_per_socket > 1 || fast.face != Default::default() {
        bail!("the floor has the raw face only: {} cannot be run against it", scenario.name);
    }
    let mut target = start_floor(&fast, &cores.server[..cores.server.len().min(1)])?;
    run(&fast, &mut target, cores, interrupted)
}

fn compare(arguments: &CompareArgs) -> anyhow::Result<bool> {
    let scenario = chosen(&arguments.common)?;
    let out = match &arguments.common.out {
        Some(_) => out_directory(&arguments.common, &scenario)?,
        None => {
            let out = Some(PathBuf::from(format!("spillgate-load-compare-{}", scenario.name)));
            out_directory(&Common { out, ..arguments.common.clone() }, &scenario)?
        }
    };
    let interrupted = interrupts()?;
    let cores = Cores::divide(scenario.shards);
    let _sysctls = Sysctls::raise(scenario.sockets, true, &cores.clients)?;
    let work = WorkDirectory::new(true, &out)?;
    let place = compare::Place { peers: &arguments.peers, bin: arguments.bin.clone(), out: &out, work: &work.path };
    compare::compare(&scenario, &arguments.peer, &place, &cores, &interrupted)
}

/// The scenario with its overrides.
fn chosen(common: &Common) -> anyhow::Result<Scenario> {
    let mut scenario = scenario::load(&common.scenario)?;
    let seconds = scenario.seconds;
    scenario.sockets = common.sockets.unwrap_or(scenario.sockets);
    scenario.seconds = common.seconds.unwrap_or(seconds);
    scenario.shards = common.shards.unwrap_or(scenario.shards);
    scenario.publish.rate = common.rate.unwrap_or(scenario.publish.rate);
    // What happens during the run keeps its place in it.
    let scale = |at: &mut u32| *at = (u64::from(*at) * u64::from(scenario.seconds) / u64::from(seconds.max(1))) as u32;
    scenario.events.iter_mut().for_each(|event| scale(&mut event.at));
    scenario.publish.phases.iter_mut().for_each(|phase| scale(&mut phase.at));
    match scenario.mistake() {
        Some(mistake) => bail!("{}: {mistake}", scenario.name),
        None => Ok(scenario),
    }
}

fn out_directory(common: &Common, scenario: &Scenario) -> anyhow::Result<PathBuf> {
    let out = common.out.clone().unwrap_or_else(|| PathBuf::from(format!("spillgate-load-{}", scenario.name)));
    std::fs::create_dir_all(&out).with_context(|| format!("cannot make the directory {}", out.display()))?;
    Ok(out)
}

/// Set when the user wants an end; what was started ends with the run then.
fn interrupts() -> anyhow::Result<Arc<AtomicBool>> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted))?;
    }
    sys::nofile_raised();
    Ok(interrupted)
}

/// Where the gateway's configuration and the logs are: beside the report if they are to be kept, else for the run only.
struct WorkDirectory {
    path: PathBuf,
    _temporary: Option<tempfile::TempDir>,
}

impl WorkDirectory {
    fn new(keep: bool, out: &Path) -> anyhow::Result<Self> {
        if keep {
            let path = out.join("work");
            std::fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
            return Ok(Self { path: path.canonicalize()?, _temporary: None });
        }
        let temporary = tempfile::tempdir()?;
        Ok(Self { path: temporary.path().to_owned(), _temporary: Some(temporary) })
    }
}
