//! Crowds of WebSocket clients, each in a process of its own: a process may open only so many sockets, and what the
//! clients cost must not be measured as the gateway's.
//!
//! Whoever starts crowds calls [`join_if_asked`] first in its `main`: a crowd is the same program, started again.

mod client;
pub mod payload;
mod report;
mod swarm;

#[allow(unused_imports)] // for the bare server of a bench
pub use client::ACCEPT;
pub use report::Report;

use serde::{Deserialize, Serialize};
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// The variable that makes a process a crowd.
const VARIABLE: &str = "SPILLGATE_TEST_CROWD";

/// What a crowd does.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Job {
    /// Where its sockets connect to, in turn.
    pub servers: Vec<SocketAddr>,
    /// What they ask for.
    pub path: String,
    /// How many there are.
    pub sockets: u64,
    /// Every so many-th socket reads nothing once it is open; 0: all read.
    pub stalls_every: u64,
    /// Every so many-th socket reads slowly once it is open: [`Job::slow_bytes`] twenty times a second; 0: none.
    pub slow_every: u64,
    /// See `slow_every`.
    pub slow_bytes: usize,
    /// Sockets that may wait for their answer at a time, where more than the usual number.
    pub at_once: u64,
    /// The core that it is pinned to.
    pub core: Option<usize>,
    /// How long it waits, in seconds, for what it is told to wait for.
    pub patience_s: u64,
}

/// What a crowd is told; each is answered by one report.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum Order {
    Report,
    /// Wait until so many sockets are answered.
    Answered(u64),
    /// Wait until so many updates have come, over all sockets.
    Updates(u64),
    /// Wait until every open socket that reads has had the update with this number, or a later one.
    Newest(u64),
    /// Wait until at most so many sockets are open.
    Open(u64),
    Leave(Ending),
}

/// How a crowd's sockets end, all at once and without a close frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    /// In order; the kernel resets those that have not read everything.
    Fin,
    /// By a reset.
    Reset,
}

/// A crowd that was started; it ends when it is dropped.
pub struct Crowd {
    child: Child,
    orders: Option<ChildStdin>,
    reports: BufReader<ChildStdout>,
    sockets: u64,
}

/// Becomes a crowd, if this process was started as one, and says so when it is done.
pub fn join_if_asked() -> Option<ExitCode> {
    let job = std::env::var(VARIABLE).ok()?;
    let (job, source) = serde_json::from_str(&job).expect("the job of a crowd is JSON");
    Some(match swarm::run(job, source) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("a crowd failed: {error}");
            ExitCode::FAILURE
        }
    })
}

impl Job {
    /// `sockets` clients that ask `server` for `path`.
    pub fn new(server: SocketAddr, path: &str, sockets: u64) -> Self {
        Self { servers: vec![server], path: path.to_owned(), sockets, patience_s: 30, ..Self::default() }
    }
}

impl Crowd {
    /// Starts a crowd, and waits until each of its sockets has an answer.
    pub fn gather(job: Job) -> Self {
        let mut crowd = Self::start(job);
        let report = crowd.answered();
        assert_eq!(report.tally.open, crowd.sockets, "everyone is let in: {report:?}");
        crowd
    }

    /// Starts a crowd.
    pub fn start(job: Job) -> Self {
        static CROWDS: AtomicU32 = AtomicU32::new(0);
        let nofile = spillgate::sys::raise_nofile();
        assert!(
            nofile > job.sockets + 64,
            "RLIMIT_NOFILE is {nofile}, too low for {} clients in a process",
            job.sockets
        );
        // Ports rest for a minute after their socket: no crowd takes the address of one shortly before.
        let source = (std::process::id() % 4096) * 64 + CROWDS.fetch_add(1, Ordering::Relaxed) % 64;
        let program = std::env::current_exe().expect("a program knows where it is");
        let job_text = serde_json::to_string(&(&job, source)).expect("a job has a JSON form");
        let mut child = Command::new(program)
            .env(VARIABLE, job_text)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a crowd starts");
        let orders = child.stdin.take();
        let reports = BufReader::new(child.stdout.take().expect("it is piped"));
        Self { child, orders, reports, sockets: job.sockets }
    }

    /// What it has seen by now.
    pub fn report(&mut self) -> Report {
        self.tell(Order::Report);
        self.hear()
    }

    /// What it has seen when every socket has an answer, or its patience is over.
    pub fn answered(&mut self) -> Report {
        self.tell(Order::Answered(self.sockets));
        self.hear()
    }

    /// What it has seen when `updates` have come, over all sockets, or its patience is over.
    pub fn updates(&mut self, updates: u64) -> Report {
        self.await_updates(updates);
        self.hear()
    }

    /// What it has seen when every open socket that reads has had update `n` or a later one, or its patience is over.
    pub fn newest(&mut self, n: u64) -> Report {
        self.tell(Order::Newest(n));
        self.hear()
    }

    /// What it has seen when at most `sockets` are open, or its patience is over.
    pub fn open_at_most(&mut self, sockets: u64) -> Report {
        self.tell(Order::Open(sockets));
        self.hear()
    }

    /// Asks for a report (see [`Crowd::hear`]) at the moment at which `updates` have come over all sockets.
    pub fn await_updates(&mut self, updates: u64) {
        self.tell(Order::Updates(updates));
    }

    /// The report that was asked for.
    pub fn hear(&mut self) -> Report {
        let mut line = String::new();
        self.reports.read_line(&mut line).expect("a crowd can be heard");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("not a report: {line:?}: {error}"))
    }

    /// Its sockets are dropped; what it has seen by then.
    pub fn vanish(mut self, ending: Ending) -> Report {
        self.tell(Order::Leave(ending));
        let report = self.hear();
        assert!(self.child.wait().expect("a crowd ends").success());
        report
    }

    fn tell(&mut self, order: Order) {
        let line = serde_json::to_string(&order).expect("an order has a JSON form") + "\n";
        let orders = self.orders.as_mut().expect("it was not dropped");
        orders.write_all(line.as_bytes()).expect("a crowd can be told");
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.orders = None;
        let _ = self.child.wait();
    }
}
