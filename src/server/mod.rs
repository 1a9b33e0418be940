//! The whole gateway put together: command line, start, drain, demo.

pub mod cli;
mod demo;
pub mod demo_match;
mod demo_pitch;
mod demo_places;
mod gateway;
mod log;

pub use gateway::Gateway;

use crate::config::{self, Config};
use crossbeam_channel::{Receiver, bounded};
use log::Log;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

/// Does what the command line says.
pub fn main(cli: cli::Cli) -> ExitCode {
    let outcome = match &cli.command {
        cli::Command::Config(command) => return cli::run_config(command),
        cli::Command::Serve(arguments) => arguments.load().map(|config| (config, false)),
        cli::Command::Demo(arguments) => arguments.load().map(|config| (config, true)),
    };
    let (config, demo) = match outcome {
        Ok(loaded) => loaded,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "{error}");
            return ExitCode::FAILURE;
        }
    };
    end_with_any_panic();
    let log = match Log::to_stderr() {
        Ok(log) => log,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "the log cannot be started: {error}");
            return ExitCode::FAILURE;
        }
    };
    log_to(log.clone());
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

fn serve(config: Config, demo: bool) -> anyhow::Result<()> {
    let signals = signals()?;
    tracing::info!("spillgate {}: {}", env!("CARGO_PKG_VERSION"), config::summary(&config));
    let gateway = Gateway::start(config, demo.then_some(demo::PAGE))?;
    for address in &gateway.listening {
        tracing::info!("listening on {address}");
    }
    tracing::info!("admin on {}", gateway.admin);
    if demo {
        demo::play(gateway.source.clone())?;
        tracing::info!("the demo is at http://{}/", gateway.listening[0]);
    }
    gateway.run(&signals)
}

/// SIGTERM and Ctrl-C, as they come.
fn signals() -> anyhow::Result<Receiver<i32>> {
    let (sender, receiver) = bounded(2);
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        // A third signal while two wait changes nothing.
        for signal in signals.forever() {
            let _ = sender.try_send(signal);
        }
    })?;
    Ok(receiver)
}

/// A thread that panics leaves its clients without service: the process ends, so that its supervisor starts it anew.
fn end_with_any_panic() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        print(panic);
        let last = "spillgate: a thread has panicked, and so the process ends; this is a bug, please report it";
        let _ = writeln!(std::io::stderr(), "{last}");
        std::process::abort();
    }));
}

fn log_to(log: Log) {
    let filter = EnvFilter::try_from_env("RUST_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(move || log.clone())
        // The crate would complain with `eprintln!`, which panics where stderr is a full disk or a pipe without a reader.
        .log_internal_errors(false)
        .init();
}
