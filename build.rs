//! Which commit this is, for `spillgate --version`: SOURCE_COMMIT in the environment, else git's, else what
//! `cargo package` wrote down, else nothing. The same sources give the same answer: no date, no host.
//!
//! Builds for tests (the profile `dev`) do not ask: they would be built anew after each commit.

use std::fs;
use std::path::Path;
use std::process::Command;

/// Digits of a commit that are shown.
const DIGITS: usize = 12;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=SOURCE_COMMIT");
    let version = std::env::var("CARGO_PKG_VERSION").unwrap_or_default();
    let is_debug = std::env::var("PROFILE").is_ok_and(|profile| profile == "debug");
    let given = std::env::var("SOURCE_COMMIT").ok().filter(|commit| !commit.is_empty());
    let commit = match given {
        Some(commit) if commit.bytes().all(|digit| digit.is_ascii_hexdigit()) => {
            Some(commit.chars().take(DIGITS).collect())
        }
        Some(name) => Some(name),
        None if is_debug => Some("debug build".to_owned()),
        None => of_git().or_else(of_package),
    };
    let shown = commit.map(|commit| format!("{version} ({commit})")).unwrap_or(version);
    // Not SPILLGATE_…: cargo sets it for `cargo run` and `cargo test` too, and such variables are settings.
    println!("cargo::rustc-env=VERSION_AND_COMMIT={shown}");
}

/// The commit of the work tree that this is, `-modified` if what is built is not what was committed.
fn of_git() -> Option<String> {
    // A tree without `.git` may lie in somebody else's repository: that one's commit says nothing.
    if !Path::new(".git").exists() {
        return None;
    }
    let commit = git(&["rev-parse", "HEAD"])?;
    let sources = ["src", "build.rs", "Cargo.toml", "Cargo.lock"];
    let log = git(&["rev-parse", "--git-path", "logs/HEAD"])?;
    for path in sources.iter().copied().chain([log.as_str()]) {
        println!("cargo::rerun-if-changed={path}");
    }
    let changes = git(&[&["status", "--porcelain", "--"], &sources[..]].concat())?;
    Some(format!("{}{}", commit.get(..DIGITS)?, if changes.is_empty() { "" } else { "-modified" }))
}

/// What `cargo package` leaves in the sources that it packs.
fn of_package() -> Option<String> {
    println!("cargo::rerun-if-changed=.cargo_vcs_info.json");
    let info = fs::read_to_string(".cargo_vcs_info.json").ok()?;
    let (_, sha) = info.split_once("\"sha1\": \"")?;
    sha.get(..DIGITS).map(str::to_owned)
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}
