//! The whole gateway put together: command line, start, drain, demo.

pub mod cli;
mod demo;
pub mod demo_match;
mod demo_pitch;
mod demo_places;
mod doctor;
mod gateway;
mod healthcheck;
mod log;
mod log_format;
mod notices;
mod supervisor;

pub use gateway::Gateway;

use crate::config::{self, Config, LogFormat};
use crate::sys;
use log::Log;
use log_format::{Form, JournaldLines};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use tracing::Level;
use tracing_subscriber::EnvFilter;

/// Does what the command line says.
pub fn main(cli: cli::Cli) -> ExitCode {
    // Where that is refused, `doctor` says so: it asks whether they are on for itself.
    sys::avoid_huge_pages();
    let outcome = match &cli.command {
        cli::Command::Config(command) => return cli::run_config(command),
        cli::Command::Completions { shell } => return cli::print_completions(*shell),
        cli::Command::Man { directory } => return cli::write_man(directory),
        cli::Command::Healthcheck(arguments) => {
            return match arguments.admin() {
                Ok(admin) => healthcheck::run(admin),
                Err(error) => refuse(&error.to_string()),
            };
        }
        cli::Command::Doctor(arguments) => return doctor::run(arguments),
        cli::Command::Serve(arguments) => arguments.load().map(|config| (config, false)),
        cli::Command::Demo(arguments) => arguments.load().map(|config| (config, true)),
    };
    let (config, demo) = match outcome {
        Ok(loaded) => loaded,
        Err(error) => return refuse(&error.to_string()),
    };
    let form = form(config.log.format);
    end_with_any_panic(form);
    let log = match Log::to_stderr(form) {
        Ok(log) => log,
        Err(error) => return refuse(&format!("the log cannot be started: {error}")),
    };
    log_to(log.clone(), form);
    let code = match serve(config, demo) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    };
    log.finish();
    code
}

/// Says on stderr why nothing starts; journald files it under errors.
fn refuse(text: &str) -> ExitCode {
    let text = match form(LogFormat::Auto) {
        Form::Journald => text.lines().map(|line| Form::Journald.line(Level::ERROR, line)).collect(),
        Form::Text | Form::Json => format!("{text}\n"),
    };
    let _ = write!(std::io::stderr(), "{text}");
    ExitCode::FAILURE
}

fn form(asked: LogFormat) -> Form {
    Form::new(asked, std::io::stderr(), std::env::var_os("JOURNAL_STREAM").as_deref())
}

fn serve(config: Config, demo: bool) -> anyhow::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?; // they wait until somebody looks
    tracing::info!("spillgate {}: {}", cli::VERSION, config::summary(&config));
    let links = config::service_links(std::env::vars_os());
    if !links.is_empty() {
        tracing::info!("variables that announce a Service of Kubernetes are no settings: {}", links.join(", "));
    }
    for network in config.proxy_protocol.trusted.iter().filter(|network| network.is_wide()) {
        tracing::warn!(
            "proxy_protocol.trusted = \"{network}\" holds more than your proxies: whoever connects from there can claim any \
             address; list the proxies' own networks"
        );
    }
    let planned = (!demo).then(|| doctor::plan_of(&config)).flatten();
    let gateway = Gateway::start(config, demo.then_some(demo::PAGE))?;
    if let Some(short) = planned.and_then(|plan| doctor::shortage(&plan)) {
        tracing::warn!("{short}");
    }
    for address in &gateway.listening {
        tracing::info!("listening on {address}");
    }
    tracing::info!("admin on {}", gateway.admin);
    if demo {
        demo::play(gateway.source.clone())?;
        tracing::info!("the demo is at http://{}/", gateway.listening[0]);
    }
    gateway.run(&mut signals)
}

/// A thread that panics leaves its clients without service: the process ends, so that its supervisor starts it anew.
fn end_with_any_panic(form: Form) {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        // With a backtrace, where RUST_BACKTRACE asks for one; a reader of JSON gets nothing else.
        if form != Form::Json {
            print(panic);
        }
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("without a name");
        let last = format!("thread {name} has {panic}; so the process ends: this is a bug, please report it");
        let _ = std::io::stderr().write_all(form.line(Level::ERROR, &last).as_bytes());
        std::process::abort();
    }));
}

fn log_to(log: Log, form: Form) {
    let asked = std::env::var("RUST_LOG").ok().filter(|levels| !levels.trim().is_empty());
    let filter = asked.and_then(|levels| EnvFilter::try_new(levels).ok()).unwrap_or_else(|| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(form == Form::Text && std::io::stderr().is_terminal())
        .with_writer(move || log.clone())
        // The crate would complain with `eprintln!`, which panics where stderr is a full disk or a pipe without a reader.
        .log_internal_errors(false);
    match form {
        Form::Text => lines.init(),
        Form::Journald => lines.event_format(JournaldLines::new()).init(),
        Form::Json => lines.json().flatten_event(true).with_current_span(false).with_span_list(false).init(),
    }
}
