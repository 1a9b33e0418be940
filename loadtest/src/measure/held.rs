//! What a gateway holds: for nobody, it should hold what it held before the first client.

use super::{Metrics, Process};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs;

/// Gauges of the gateway that are 0 where it has no client.
const GAUGES: [&str; 5] =
    ["ws_connections_active", "ws_websockets_active", "ws_outbox_messages", "ws_outbox_bytes", "ws_partial_bytes"];

/// Counts by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Held(pub BTreeMap<String, u64>);

impl Held {
    /// What a process and its gateway say.
    pub fn of(pid: u32, metrics: &Metrics) -> Self {
        let gauges = GAUGES.iter().map(|name| ((*name).to_owned(), metrics.of(name) as u64));
        let mut all: BTreeMap<_, _> = gauges.collect();
        all.insert("descriptors of the process".to_owned(), Process::read(pid, false).descriptors);
        all.insert("files of its rings".to_owned(), ring_files(pid));
        Self(all)
    }

    /// What is held beyond an earlier moment, by name; what is not is left out.
    pub fn beyond(&self, before: &Held) -> BTreeMap<String, u64> {
        let more = |(name, count): (&String, &u64)| {
            let more = count.saturating_sub(before.0.get(name).copied().unwrap_or(0));
            (more > 0).then(|| (name.clone(), more))
        };
        self.0.iter().filter_map(more).collect()
    }
}

/// Direct descriptors in the tables of all rings of a process, as the kernel lists them in `fdinfo` (io_uring/fdinfo.c).
fn ring_files(pid: u32) -> u64 {
    let infos = fs::read_dir(format!("/proc/{pid}/fdinfo")).into_iter().flatten().flatten();
    infos.filter_map(|info| fs::read_to_string(info.path()).ok()).map(|text| listed_files(&text)).sum()
}

fn listed_files(fdinfo: &str) -> u64 {
    let lines = fdinfo.lines().skip_while(|line| !line.starts_with("UserFiles:")).skip(1);
    let is_file = |line: &&str| line.split_once(':').is_some_and(|(slot, _)| slot.trim().parse::<u32>().is_ok());
    lines.take_while(is_file).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_a_ring_are_counted_as_the_kernel_lists_them() {
        let info = "pos:\t0\nSqMask:\t0x7ff\nSQEs:\t0\nUserFiles:\t8\n    0: socket:[123]\n    7: socket:[124]\nUserBufs:\t2\n    0: 0x1/4096\n";
        assert_eq!(listed_files(info), 2);
        assert_eq!(listed_files("pos:\t0\nflags:\t02\n"), 0);
    }

    #[test]
    fn what_is_beyond_is_what_is_more() {
        let held = |connections, files| {
            Held(BTreeMap::from([("connections".to_owned(), connections), ("files".to_owned(), files)]))
        };
        assert_eq!(held(0, 5).beyond(&held(1, 3)), BTreeMap::from([("files".to_owned(), 2)]));
        assert!(held(1, 3).beyond(&held(1, 3)).is_empty());
    }
}
