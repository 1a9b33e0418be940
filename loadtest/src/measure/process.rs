//! A process and all that it has started: CPU time and memory.

use serde::Serialize;
use std::fs;

/// Sums over a process and its descendants, at one moment.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Process {
    /// CPU time, in seconds, by the scheduler's own clock.
    pub cpu_s: f64,
    /// Part of it in the program, in seconds.
    pub user_s: f64,
    /// Part of it in the kernel, in seconds.
    pub system_s: f64,
    /// Resident memory, in bytes.
    pub rss: u64,
    /// The same, shared pages divided by those who share them; 0 where it was not asked for.
    pub pss: u64,
    /// Threads.
    pub threads: u64,
    /// Descriptors.
    pub descriptors: u64,
}

impl Process {
    /// Reads it; a process that has ended counts for nothing. The proportional share takes the kernel a walk through all
    /// pages, so it is read only if `with_pss`.
    pub fn read(pid: u32, with_pss: bool) -> Self {
        let mut sum = Self::default();
        let mut to_read = vec![pid];
        while let Some(pid) = to_read.pop() {
            sum.add(pid, with_pss);
            for task in entries(&format!("/proc/{pid}/task")) {
                let children = fs::read_to_string(format!("/proc/{pid}/task/{task}/children")).unwrap_or_default();
                to_read.extend(children.split_ascii_whitespace().filter_map(|child| child.parse::<u32>().ok()));
            }
        }
        sum
    }

    fn add(&mut self, pid: u32, with_pss: bool) {
        let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
        let tasks = entries(&format!("/proc/{pid}/task"));
        let ns: u64 = tasks
            .iter()
            .filter_map(|task| read(&format!("task/{task}/schedstat")).split(' ').next()?.parse::<u64>().ok())
            .sum();
        self.cpu_s += ns as f64 / 1e9;
        // The name in parentheses may hold blanks; utime and stime are fields 14 and 15 of proc(5), in hundredths.
        let stat = read("stat");
        let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_ascii_whitespace().collect();
        let hundredths = |field: usize| fields.get(field - 3).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
        self.user_s += hundredths(14) / 100.0;
        self.system_s += hundredths(15) / 100.0;
        self.rss += read("statm").split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096;
        if with_pss {
            let rollup = read("smaps_rollup");
            let line = rollup.lines().find(|line| line.starts_with("Pss:")).unwrap_or_default();
            let kib = line.split_ascii_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok());
            self.pss += kib.unwrap_or(0) * 1024;
        }
        self.threads += tasks.len() as u64;
        self.descriptors += entries(&format!("/proc/{pid}/fd")).len() as u64;
    }
}

fn entries(directory: &str) -> Vec<String> {
    let names = fs::read_dir(directory).into_iter().flatten().flatten();
    names.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}
