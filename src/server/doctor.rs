//! `spillgate doctor`, and the one line about it when a gateway starts.

use super::cli::{DoctorArgs, Guide};
use crate::config::{self, Config, Overrides};
use crate::doctor::{self, Host, Plan, RingProbe};
use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Something is short.
const SHORT: u8 = 1;
/// It could not be judged. clap's own code for wrong arguments.
const FAILED: u8 = 2;
/// The share of stalled sockets that a start reckons with; `spillgate doctor` has the same as its default.
const STALLED_SHARE: f64 = 0.2;

/// Needs that a start warns of: without them the configured connections fail. What the rings' tables hold was checked when
/// they were made, and what only makes a host slower is for whoever asks.
const PLAIN: [&str; 5] = ["file_max", "memory", "cgroup_memory", "tcp_mem", "conntrack"];

/// Answers on stdout.
pub fn run(arguments: &DoctorArgs) -> ExitCode {
    let Judged { file, settings } = judged_file(arguments);
    let loaded = config::load(&Overrides::default(), std::env::vars_os(), file.as_deref());
    let config = match loaded {
        Ok(config) => config,
        Err(error) => {
            let _ = writeln!(io::stderr(), "{error}");
            return ExitCode::from(FAILED);
        }
    };
    let (sockets, stalled_share, proxies) = (arguments.sockets, arguments.stalled, arguments.proxies);
    let plan = Plan { sockets, stalled_share, proxies, config, settings };
    let (text, code) = match arguments.guide {
        Some(guide) => (print_guide(guide, plan), ExitCode::SUCCESS),
        None => judge(arguments, &plan),
    };
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => code,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => code, // `… | head`
        Err(_) => ExitCode::from(FAILED),
    }
}

/// The configuration file that is judged, and how people are told.
struct Judged {
    file: Option<PathBuf>,
    settings: String,
}

/// The file that is named; else that of the unit that is installed, if it can be read.
fn judged_file(arguments: &DoctorArgs) -> Judged {
    let variable = std::env::var_os(config::FILE_VARIABLE).filter(|file| !file.is_empty()).map(PathBuf::from);
    if let Some(file) = arguments.config.clone().or(variable) {
        return Judged { settings: file.display().to_string(), file: Some(file) };
    }
    let is_for_any = !matches!(arguments.guide, None | Some(Guide::Sysctl));
    match doctor::unit_config(Path::new("/")).filter(|_| !is_for_any) {
        None => Judged { file: None, settings: "defaults".into() },
        Some(file) => match fs::read(&file) {
            Ok(_) => Judged { settings: format!("{} (the unit's)", file.display()), file: Some(file) },
            Err(error) => {
                let settings = format!("defaults (the unit's {} cannot be read: {error})", file.display());
                Judged { file: None, settings }
            }
        },
    }
}

fn judge(arguments: &DoctorArgs, plan: &Plan) -> (String, ExitCode) {
    let redis = plan.config.redis.url.as_deref().map(doctor::ask_redis);
    let host = Host::read(Path::new("/"), RingProbe::here(), redis);
    let report = doctor::examine(plan, &host);
    let code = if report.short().next().is_some() { ExitCode::from(SHORT) } else { ExitCode::SUCCESS };
    let color = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let text = if arguments.json { format!("{:#}\n", report.json()) } else { report.text(color) };
    (text, code)
}

fn print_guide(guide: Guide, plan: Plan) -> String {
    if guide == Guide::Sysctl {
        let here = Host::read(Path::new("/"), RingProbe::Untried, None);
        return doctor::sysctl_conf(&plan, Some(&here));
    }
    // The committed files are for any host, of eight cores, whatever this one has.
    let shards = if plan.config.shards == 0 { doctor::GUIDE_SHARDS } else { plan.config.shards };
    let plan = Plan { config: Config { shards, ..plan.config }, ..plan };
    match guide {
        Guide::Sysctl | Guide::AnySysctl => doctor::sysctl_conf(&plan, None),
        Guide::Limits => doctor::limits_conf(),
        Guide::Readme => doctor::readme_part(&plan),
    }
}

/// What a configuration plans for; none where it leaves the number to the host.
pub fn plan_of(config: &Config) -> Option<Plan> {
    let a_shard = config.limits.connections_per_shard_max as u64;
    if a_shard == 0 {
        return None;
    }
    let cores = core_affinity::get_core_ids().map_or(1, |cores| cores.len().max(1));
    let shards = if config.shards == 0 { cores } else { config.shards };
    let config = Config { shards, ..config.clone() };
    let sockets = a_shard * shards as u64;
    let settings = "those of this process".to_owned();
    Some(Plan { sockets, stalled_share: STALLED_SHARE, proxies: Some(0), config, settings })
}

/// One line about what this host is short of for the connections that are configured.
pub fn shortage(plan: &Plan) -> Option<String> {
    // The rings are made already, and Redis is the source's to complain about.
    let host = Host::read_for_this_process(Path::new("/"), RingProbe::Made(Vec::new()));
    let report = doctor::examine(plan, &host);
    let short: Vec<_> = report.short().map(|finding| finding.need.id).filter(|id| PLAIN.contains(id)).collect();
    if short.is_empty() {
        return None;
    }
    Some(format!(
        "this host is short of what {} connections need: {}; `spillgate doctor --sockets {}` says why, and what mends it",
        plan.sockets,
        short.join(", "),
        plan.sockets
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_reckons_with_what_is_configured_and_with_nothing_else() {
        let mut config = Config { shards: 4, ..Config::default() };
        assert!(plan_of(&config).is_none(), "as many as the host's limits allow is no plan");
        config.limits.connections_per_shard_max = 1000;
        let plan = plan_of(&config).unwrap();
        assert_eq!((plan.sockets, plan.config.shards), (4000, 4));
    }

    #[test]
    fn a_start_warns_of_needs_that_there_are() {
        let known: Vec<_> = doctor::NEEDS.iter().map(|need| need.id).collect();
        assert!(PLAIN.iter().all(|id| known.contains(id)));
    }

    #[test]
    fn a_start_names_what_is_short_in_one_line() {
        let mut config = Config { shards: 1, ..Config::default() };
        // More than any host has memory for, and TCP pages.
        config.limits.connections_per_shard_max = 100_000_000_000;
        let line = shortage(&plan_of(&config).unwrap()).unwrap();
        assert!(line.contains("memory") && line.contains("tcp_mem") && !line.contains('\n'), "{line}");
        assert!(line.contains("spillgate doctor --sockets 100000000000`"), "{line}");
    }
}
