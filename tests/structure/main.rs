//! The structure of `src/`, held by a test: who may import whom, where `unsafe` may stand, that every counter moves.
//!
//! Each check takes sources and answers faults, so that it is proved on made-up sources beside it.

mod code;
mod counters;
mod imports;
mod words;

use code::Source;
use std::path::Path;

/// Faults as `path:line: what is wrong`.
type Check = fn(&[Source]) -> Vec<String>;

fn holds(check: Check) {
    let sources = code::read_all(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    assert!(sources.len() > 50, "only {} files in src: is this the right place?", sources.len());
    let faults = check(&sources);
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

#[test]
fn every_room_imports_only_from_those_before_it() {
    holds(imports::faults);
}

#[test]
fn unsafe_stands_in_sys_alone_and_argues_why_it_holds() {
    holds(words::unsafe_faults);
}

#[test]
fn nothing_is_left_to_do_and_nothing_but_the_command_line_prints() {
    holds(words::macro_faults);
}

#[test]
fn every_file_can_be_read_in_one_sitting() {
    holds(words::length_faults);
}

#[test]
fn every_counter_and_reason_moves_and_is_shown() {
    holds(counters::faults);
}
