//! Clients in a network of their own, behind a delay line: far ones, and those whose network disappears.

use crate::engine::{Job, Kind, Mix};
use crate::fleet::Fleet;
use crate::line::Line;
use crate::run::Cores;
use crate::scenario::{Scenario, is_remote};
use crate::sys;
use anyhow::{Context, bail};
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::process::{Child, ChildStdin, Command, Stdio};

/// Ports that the one address of such a network has.
pub const SOCKETS_MAX: u64 = 25_000;

/// The delay lines of a run; they end when this is dropped.
#[derive(Default)]
pub struct Apart {
    lines: Vec<Running>,
}

struct Running {
    kind: Kind,
    child: Child,
    stdin: ChildStdin,
}

impl Apart {
    /// Starts the processes of far and vanishing clients and their networks, and adds them to the fleet. `job` is that of
    /// a near process. Call it from the main thread.
    ///
    /// # Errors
    /// Not root, or the host has no TUN devices: what is missing and what to do.
    pub fn start(scenario: &Scenario, job: &Job, cores: &Cores, fleet: &mut Fleet) -> anyhow::Result<Self> {
        let mut apart = Self::default();
        for kind in Kind::ALL.into_iter().filter(|kind| is_remote(*kind) && scenario.remote(*kind) > 0) {
            if !sys::is_root() {
                bail!(
                    "{} clients live in a network namespace behind a TUN device, which takes root: run as root, or take \
                     `{}` out of [kinds]",
                    kind.name(),
                    kind.name()
                );
            }
            apart.add(scenario, kind, job, cores, fleet)?;
        }
        Ok(apart)
    }

    fn add(
        &mut self,
        scenario: &Scenario,
        kind: Kind,
        job: &Job,
        cores: &Cores,
        fleet: &mut Fleet,
    ) -> anyhow::Result<()> {
        let program = std::env::current_exe()?;
        let mut command = Command::new(&program);
        command.args(["engine", "--namespace"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut clients = sys::spawn(&mut command, &cores.clients).context("cannot start a process of clients")?;
        let mut heard = BufReader::new(clients.stdout.take().context("stdout is piped")?);
        expect_ready(&mut heard, "a network namespace")?;

        let far = kind == Kind::Far;
        // Different on each run: another may be going on.
        let number = (std::process::id() % 120) as u8 * 2 + 1 + u8::from(far);
        let line = Line {
            number,
            far_pid: clients.id(),
            round_trip_ms: if far { scenario.behaviour.far_round_trip_ms } else { 0.0 },
            loss: if far { scenario.behaviour.far_loss } else { 0.0 },
        };
        let mut command = Command::new(&program);
        command.arg("line").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = sys::spawn(&mut command, &cores.clients).context("cannot start a delay line")?;
        let mut stdin = child.stdin.take().context("stdin is piped")?;
        stdin.write_all((serde_json::to_string(&line)? + "\n").as_bytes())?;
        let mut ready = BufReader::new(child.stdout.take().context("stdout is piped")?);
        self.lines.push(Running { kind, child, stdin });
        expect_ready(&mut ready, "a delay line (TUN devices and the program `ip`, as root)")?;

        let sockets = scenario.remote(kind);
        let job = Job {
            engine: 200 + u32::from(far),
            first: scenario.sockets + u64::from(number) * SOCKETS_MAX,
            sockets: sockets as u32,
            target: SocketAddrV4::new(Ipv4Addr::new(10, 77, number, 1), job.target.port()),
            loopback_sources: false,
            mix: Mix { parts: vec![(kind, 2.0)] },
            ..job.clone()
        };
        fleet.take(clients, heard, &job)
    }

    /// The network of the vanishing clients carries nothing any more.
    ///
    /// # Errors
    /// There are none.
    pub fn vanish(&mut self) -> anyhow::Result<()> {
        let mut lines = self.lines.iter_mut().filter(|line| line.kind == Kind::Vanishing);
        let line = lines.next().context("nobody can vanish: [kinds] has no `vanishing`")?;
        line.stdin.write_all(b"blackhole\n").context("the delay line has ended")
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        for line in &mut self.lines {
            sys::kill(line.child.id());
            let _ = line.child.wait();
        }
    }
}

fn expect_ready(lines: &mut impl BufRead, what: &str) -> anyhow::Result<()> {
    let mut line = String::new();
    lines.read_line(&mut line)?;
    if line.trim().trim_matches('"') != "ready" {
        bail!("this host does not give {what}; what is wrong is told above");
    }
    Ok(())
}
