//! The processes of clients, as one.

use crate::engine::{Job, Order, What};
use crate::measure::Process;
use crate::sys;
use crate::tally::{Report, Seen, Tally};
use anyhow::{Context, bail};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// See the module. Its processes end when it is dropped.
pub struct Fleet {
    engines: Vec<Engine>,
    orders: u64,
}

struct Engine {
    child: Child,
    stdin: Option<ChildStdin>,
    heard: Arc<Mutex<Heard>>,
}

#[derive(Default)]
struct Heard {
    latest: Seen,
    answered: u64,
    tally: Option<Tally>,
    ended: bool,
}

impl Fleet {
    /// Starts a process on each of `jobs`' cores. Call it from the main thread.
    ///
    /// # Errors
    /// A process cannot be started.
    pub fn start(jobs: &[(Job, Vec<usize>)]) -> anyhow::Result<Self> {
        let program = std::env::current_exe()?;
        let mut fleet = Self { engines: Vec::new(), orders: 0 };
        for (job, cores) in jobs {
            let mut command = Command::new(&program);
            command.arg("engine").stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut child = sys::spawn(&mut command, cores).context("cannot start a process of clients")?;
            let stdout = BufReader::new(child.stdout.take().context("stdout is piped")?);
            fleet.take(child, stdout, job)?;
        }
        Ok(fleet)
    }

    /// Takes in a process that waits for its job, and its stdout.
    ///
    /// # Errors
    /// It has ended.
    pub fn take(&mut self, mut child: Child, stdout: BufReader<ChildStdout>, job: &Job) -> anyhow::Result<()> {
        let mut stdin = child.stdin.take().context("stdin is piped")?;
        stdin.write_all((serde_json::to_string(job)? + "\n").as_bytes()).context("a process of clients has ended")?;
        let heard = Arc::new(Mutex::new(Heard::default()));
        let hears = Arc::clone(&heard);
        std::thread::spawn(move || hear(stdout, &hears));
        self.engines.push(Engine { child, stdin: Some(stdin), heard });
        Ok(())
    }

    /// Tells all to do something, and waits until all have.
    ///
    /// # Errors
    /// A process has ended, or does not answer within a minute.
    pub fn order(&mut self, what: &What) -> anyhow::Result<()> {
        self.orders += 1;
        let line = serde_json::to_string(&Order { number: self.orders, what: what.clone() })? + "\n";
        for engine in &mut self.engines {
            let stdin = engine.stdin.as_mut().context("stdin is piped")?;
            stdin.write_all(line.as_bytes()).context("a process of clients has ended")?;
        }
        let until = Instant::now() + Duration::from_secs(60);
        while self.engines.iter().any(|engine| engine.heard().answered < self.orders) {
            self.check()?;
            if Instant::now() > until {
                bail!("a process of clients has not answered for a minute");
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Whether all are alive.
    ///
    /// # Errors
    /// One is not.
    pub fn check(&mut self) -> anyhow::Result<()> {
        for engine in &mut self.engines {
            if engine.heard().ended {
                bail!("a process of clients has ended: {}", engine.child.wait()?);
            }
        }
        Ok(())
    }

    /// What all have said last.
    pub fn seen(&self) -> Seen {
        self.engines.iter().fold(Seen::default(), |sum, engine| sum.and(&engine.heard().latest))
    }

    /// What all have counted, after [`What::Finish`].
    pub fn tally(&self) -> Tally {
        let mut sum = Tally::default();
        for engine in &self.engines {
            if let Some(tally) = &engine.heard().tally {
                sum.add(tally);
            }
        }
        sum
    }

    /// CPU and memory of all.
    pub fn process(&self) -> Process {
        self.engines.iter().fold(Process::default(), |sum, engine| {
            let one = Process::read(engine.child.id(), false);
            Process {
                cpu_s: sum.cpu_s + one.cpu_s,
                user_s: sum.user_s + one.user_s,
                system_s: sum.system_s + one.system_s,
                rss: sum.rss + one.rss,
                pss: 0,
                threads: sum.threads + one.threads,
                descriptors: sum.descriptors + one.descriptors,
            }
        })
    }
}

impl Engine {
    fn heard(&self) -> std::sync::MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for engine in &mut self.engines {
            sys::kill(engine.child.id());
        }
        for engine in &mut self.engines {
            let _ = engine.child.wait();
        }
    }
}

fn hear(lines: impl BufRead, heard: &Mutex<Heard>) {
    for line in lines.lines() {
        let Some(mut report) = line.ok().and_then(|line| serde_json::from_str::<Report>(&line).ok()) else { break };
        let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.answered = heard.answered.max(report.answers);
        if let Some(tally) = report.tally.take() {
            heard.tally = Some(tally);
        }
        heard.latest = report.seen;
    }
    heard.lock().unwrap_or_else(PoisonError::into_inner).ended = true;
}
