//! What the host must allow for very many sockets: set where it is too low, put back when the run is over.

use crate::measure::Host;
use crate::sys;
use anyhow::{Context, bail};
use std::fs::{self, File};
use std::path::PathBuf;

const PAGE_BYTES: u64 = 4096;

/// Settings that were changed; they are put back when this is dropped.
#[derive(Debug, Default)]
pub struct Sysctls {
    before: Vec<(PathBuf, String)>,
    _lock: Option<File>,
}

impl Sysctls {
    /// Raises what is too low for `sockets` pairs of sockets on this host, and says each change. Without root it says
    /// what a root would set.
    ///
    /// # Errors
    /// Another run has raised them already: what it puts back at its end would be missing here.
    pub fn raise(sockets: u64) -> anyhow::Result<Self> {
        let mut all = Self::default();
        if sockets < 50_000 {
            return Ok(all);
        }
        if sys::is_root() {
            let path = std::env::temp_dir().join("spillgate-load-sysctl.lock");
            let lock = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
            if lock.try_lock().is_err() {
                bail!("another large run is going on here: it puts sysctls back at its end; wait for that");
            }
            all._lock = Some(lock);
        }
        let pages = Host::total() / PAGE_BYTES;
        let tcp = [pages / 4, pages / 2, pages / 4 * 3];
        for (name, wanted) in [
            ("fs.file-max", vec![2 * sockets + sockets / 4 + 200_000]),
            ("net.core.somaxconn", vec![65_535]),
            ("net.ipv4.tcp_max_syn_backlog", vec![65_535]),
            ("net.ipv4.tcp_max_orphans", vec![sockets.max(65_536)]),
            ("net.ipv4.tcp_mem", tcp.to_vec()),
        ] {
            all.set(name, &wanted);
        }
        Ok(all)
    }

    fn set(&mut self, name: &str, wanted: &[u64]) {
        let path = PathBuf::from(format!("/proc/sys/{}", name.replace('.', "/")));
        let Ok(before) = fs::read_to_string(&path) else { return };
        let has: Vec<u64> = before.split_ascii_whitespace().filter_map(|number| number.parse().ok()).collect();
        if has.iter().zip(wanted).all(|(has, wanted)| has >= wanted) {
            return;
        }
        let value = wanted.iter().map(u64::to_string).collect::<Vec<_>>().join(" ");
        let shown = before.trim().replace('\t', " ");
        if !sys::is_root() {
            println!("sysctl {name} is {shown}; so many sockets may need {name} = {value} (as root this sets it)");
            return;
        }
        match fs::write(&path, &value) {
            Ok(()) => {
                println!("sysctl {name} = {value} (was {shown})");
                self.before.push((path, before));
            }
            Err(error) => println!("sysctl {name} stays {shown}: {error}"),
        }
    }
}

impl Drop for Sysctls {
    fn drop(&mut self) {
        for (path, before) in self.before.drain(..).rev() {
            if let Err(error) = fs::write(&path, before.trim()) {
                eprintln!("{} could not be put back to {}: {error}", path.display(), before.trim());
            }
        }
    }
}
