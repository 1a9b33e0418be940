//! What a run leaves behind: a table, a file, pictures.

mod pictures;
mod table;

pub use pictures::{Curve, latencies, memory, memory_of};
pub use table::{print, print_columns};

use crate::run::Measured;
use crate::scenario::Unmet;
use anyhow::Context;
use serde::Serialize;
use std::path::{Path, PathBuf};

#[derive(Serialize)]
struct Whole<'a> {
    unmet: &'a [Unmet],
    host: HostFacts,
    run: &'a Measured,
    floor: Option<&'a Measured>,
}

/// Where it was run.
#[derive(Serialize)]
struct HostFacts {
    kernel: String,
    processor: String,
    cores: usize,
    memory_bytes: u64,
    nofile: u32,
}

impl HostFacts {
    fn read() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = read("/proc/cpuinfo");
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        Self {
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            processor: model.map_or(String::new(), |(_, name)| name.trim().to_owned()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: crate::measure::Host::total(),
            nofile: crate::sys::nofile_raised(),
        }
    }
}

/// Writes the report and its pictures; answers the files.
///
/// # Errors
/// The directory cannot be written.
pub fn write(
    run: &Measured,
    floor: Option<&Measured>,
    unmet: &[Unmet],
    directory: &Path,
) -> anyhow::Result<Vec<PathBuf>> {
    let file = directory.join("report.json");
    write_json(&file, &Whole { unmet, host: HostFacts::read(), run, floor })?;
    let mut files = vec![file];
    files.extend(latencies(run, directory)?);
    files.extend(memory(run, directory)?);
    Ok(files)
}

/// Writes anything as JSON.
///
/// # Errors
/// The file cannot be written.
pub fn write_json(file: &Path, what: &impl Serialize) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(what)?;
    std::fs::write(file, text + "\n").with_context(|| format!("cannot write {}", file.display()))
}
