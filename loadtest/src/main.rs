//! The load tester: one command shows on this host, with slow clients among the fast ones, what a gateway does.
//!
//! A run is a scenario (TOML). The main process starts the server, Redis and processes of clients, publishes on a fixed
//! schedule, looks at everyone once a second, and judges. Clients are connections in io_uring with direct descriptors.

#![deny(unsafe_code)]

mod apart;
mod bare;
mod cli;
mod command;
mod compare;
mod engine;
mod face;
mod fleet;
mod http;
mod judge;
mod line;
mod measure;
mod parent;
mod payload;
mod progress;
mod publish;
mod report;
mod run;
mod scenario;
#[allow(unsafe_code)]
mod sys;
mod sysctl;
mod tally;
mod target;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    match command::obey(cli::Cli::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("spillgate-load: {error:#}");
            ExitCode::from(2)
        }
    }
}
