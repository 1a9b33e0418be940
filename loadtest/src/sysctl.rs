//! What the host must allow for very many sockets: set where it is too low, put back when the run is over.
//!
//! The kernel sizes its table of established connections at boot (`thash_entries`; 262,144 buckets on 24 GiB). With both ends
//! of a million connections on one host some nine share a bucket, each a miss of the cache: a quarter of the server's CPU. A
//! network namespace may have a larger table of its own (`net.ipv4.tcp_child_ehash_entries`, Linux 6.1), so such a run, with
//! its Redis, gateway and clients, moves into one. There what arrives is taken in on the clients' cores (receive packet
//! steering, `Documentation/networking/scaling`): otherwise the server's core would do for every client what the client's
//! own host does, a third of a delivery here. What waits there to be taken in is bounded (`net.core.netdev_max_backlog`, 1,000
//! packets a core): a fan-out to many sockets at once fills that, and each packet that is dropped costs a retransmission and
//! hundreds of milliseconds.

use crate::measure::Host;
use crate::sys;
use anyhow::{Context, bail};
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;

const PAGE_BYTES: u64 = 4096;
/// The largest table that a network namespace may have (`Documentation/networking/ip-sysctl`).
const BUCKETS_MAX: u64 = 16 << 20;

/// Settings that were changed; they are put back when this is dropped.
#[derive(Debug, Default)]
pub struct Sysctls {
    before: Vec<(PathBuf, String)>,
    /// The network namespace that this thread came from, where it has moved.
    home: Option<File>,
    _lock: Option<File>,
}

impl Sysctls {
    /// Raises what is too low for `sockets` pairs of sockets on this host, and says each change. Without root it says
    /// what a root would set. Where everything is started `here`, the calling thread may move into a network namespace
    /// with a larger table of connections, whose packets are taken in on `cores`, until this is dropped.
    ///
    /// # Errors
    /// Another run has raised them already: what it puts back at its end would be missing here.
    pub fn raise(sockets: u64, here: bool, cores: &[usize]) -> anyhow::Result<Self> {
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
        all.set("fs.file-max", &[2 * sockets + sockets / 4 + 200_000]);
        all.set("net.ipv4.tcp_max_orphans", &[sockets.max(65_536)]);
        all.set("net.ipv4.tcp_mem", &tcp);
        all.set("net.core.netdev_max_backlog", &[sockets]); // of the host: not to be seen from a namespace
        if here && sys::is_root() && 2 * sockets > number("net.ipv4.tcp_ehash_entries").unwrap_or(u64::MAX) {
            all.move_away(sockets, cores)?;
        }
        let shared = all.before.len();
        all.set("net.core.somaxconn", &[65_535]);
        all.set("net.ipv4.tcp_max_syn_backlog", &[65_535]);
        if all.home.is_some() {
            all.before.truncate(shared); // these are the namespace's own, and go with it
        }
        Ok(all)
    }

    /// Into a network namespace with a bucket for each end of a connection.
    fn move_away(&mut self, sockets: u64, cores: &[usize]) -> anyhow::Result<()> {
        let buckets = (2 * sockets).next_power_of_two().min(BUCKETS_MAX);
        self.set("net.ipv4.tcp_child_ehash_entries", &[buckets]);
        if number("net.ipv4.tcp_child_ehash_entries") != Some(buckets) {
            return Ok(()); // said: it stays as it is
        }
        let home = sys::current_network().context("this thread's network namespace")?;
        sys::new_network().context("a network namespace of its own")?;
        self.home = Some(home);
        crate::line::ip(&["link", "set", "lo", "up"])?;
        println!("in a network namespace of its own, for a table of {buckets} connections");
        match steer(cores) {
            Ok(()) => println!("packets are taken in on the clients' cores {cores:?} (rps_cpus)"),
            Err(error) => println!("packets are taken in on the server's cores too: {error:#}"),
        }
        Ok(())
    }

    fn set(&mut self, name: &str, wanted: &[u64]) {
        let path = path(name);
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

/// Has the loopback device of this network namespace take in packets on these cores. The namespace's devices are in a
/// sysfs that was mounted in it.
fn steer(cores: &[usize]) -> anyhow::Result<()> {
    let place = std::env::temp_dir().join(format!("spillgate-load-sys-{}", std::process::id()));
    fs::create_dir(&place).with_context(|| format!("cannot make {}", place.display()))?;
    let run = |command: &mut Command| {
        let done = command.output().with_context(|| format!("{command:?}"))?;
        anyhow::ensure!(done.status.success(), "{command:?}: {}", String::from_utf8_lossy(&done.stderr).trim());
        Ok(())
    };
    let mounted = run(Command::new("mount").args(["-t", "sysfs", "sysfs"]).arg(&place));
    let steered = mounted.and_then(|()| {
        let file = place.join("class/net/lo/queues/rx-0/rps_cpus");
        let written = fs::write(&file, mask(cores)).with_context(|| format!("cannot write {}", file.display()));
        run(Command::new("umount").arg(&place)).and(written)
    });
    fs::remove_dir(&place).with_context(|| format!("cannot remove {}", place.display()))?;
    steered
}

/// Cores as the kernel reads them: hexadecimal words of 32 bits, the highest first.
fn mask(cores: &[usize]) -> String {
    let mut words = vec![0u32; cores.iter().max().map_or(0, |most| most / 32) + 1];
    for core in cores {
        words[core / 32] |= 1 << (core % 32);
    }
    words.iter().rev().map(|word| format!("{word:x}")).collect::<Vec<_>>().join(",")
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/sys/{}", name.replace('.', "/")))
}

/// The value of a setting that is one number, in the calling thread's network namespace.
fn number(name: &str) -> Option<u64> {
    fs::read_to_string(path(name)).ok()?.trim().parse().ok()
}

impl Drop for Sysctls {
    fn drop(&mut self) {
        if let Some(home) = self.home.take()
            && let Err(error) = sys::enter_network(&home)
        {
            eprintln!("cannot go back to the network namespace that this came from: {error}");
        }
        for (path, before) in self.before.drain(..).rev() {
            if let Err(error) = fs::write(&path, before.trim()) {
                eprintln!("{} could not be put back to {}: {error}", path.display(), before.trim());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_words_of_32_bits() {
        assert_eq!(mask(&[]), "0");
        assert_eq!(mask(&[1]), "2");
        assert_eq!(mask(&[0, 5, 31]), "80000021");
        assert_eq!(mask(&[1, 32, 67]), "8,1,2");
    }
}
