//! The real `spillgate` as a process of its own, on free ports: started, asked, published to, and ended by SIGTERM when
//! it is dropped, with exit code 0 or the test fails.

use std::collections::HashMap;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a gateway may take to leave before it counts as hung.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a gateway may take over one request of the admin interface.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(20);

/// See the module.
pub struct Gateway {
    child: Child,
    /// Where clients connect.
    pub address: SocketAddr,
    /// Where the admin interface is.
    pub admin: SocketAddr,
    connection: Option<BufReader<TcpStream>>,
    log: Arc<Mutex<String>>,
}

/// What is set before the start.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Number of shards.
    pub shards: usize,
    /// The core that the whole process is pinned to.
    pub core: Option<usize>,
    /// RLIMIT_NOFILE, where it is not this process's own.
    pub nofile: Option<u64>,
    /// Freed memory goes back to the kernel at once, so that what is resident is what is held: else the allocator keeps
    /// some megabytes, now more, now less.
    pub purge_at_once: bool,
    /// Further variables, such as `SPILLGATE_REDIS_URL`.
    pub variables: Vec<(&'static str, String)>,
}

impl Gateway {
    /// A gateway that listens, with the embedded engine.
    pub fn start(settings: &Settings) -> Self {
        let program = env!("CARGO_BIN_EXE_spillgate");
        let flags = format!("serve --listen 127.0.0.1:0 --admin 127.0.0.1:0 --shards {}", settings.shards);
        let limit = settings.nofile.map(|nofile| format!("ulimit -n {nofile};")).unwrap_or_default();
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{limit} exec {program} {flags}")]);
        command.env_remove("RUST_LOG").stdin(Stdio::null()).stderr(Stdio::piped());
        // The tests' own variables are no settings, and settings of the surroundings are none of the tests.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"SPILLGATE_")) {
            command.env_remove(name);
        }
        if settings.purge_at_once {
            command.env("MIMALLOC_PURGE_DELAY", "0");
        }
        command.envs(settings.variables.iter().map(|(name, value)| (name, value)));
        let mut child = spawn_on(settings.core, &mut command).expect("the gateway starts");
        let mut stderr = BufReader::new(child.stderr.take().expect("it is piped"));
        let log = Arc::new(Mutex::new(String::new()));
        let address = address_after("listening on ", &mut stderr, &log);
        let admin = address_after("admin on ", &mut stderr, &log);
        let rest = Arc::clone(&log);
        std::thread::spawn(move || while next_line(&mut stderr, &rest).is_some() {});
        Self { child, address, admin, connection: None, log }
    }

    /// Publishes, and answers how many sockets it goes to.
    pub fn publish(&mut self, channel: &str, payload: &[u8]) -> u64 {
        let answer = self.ask("POST", &format!("/channels/{channel}/publish"), payload);
        let answer: serde_json::Value = serde_json::from_str(&answer).expect("the publish API answers JSON");
        answer["sockets"].as_u64().unwrap_or_else(|| panic!("the embedded engine counts sockets: {answer}"))
    }

    /// A metric, the sum over all its labels.
    pub fn metric(&mut self, name: &str) -> f64 {
        let [value] = self.metrics([name]);
        value
    }

    /// Several metrics of one scrape, each the sum over all its labels.
    pub fn metrics<const N: usize>(&mut self, names: [&str; N]) -> [f64; N] {
        let text = self.ask("GET", "/metrics", b"");
        names.map(|name| {
            let values = text.lines().filter_map(|line| {
                let (key, value) = line.rsplit_once(' ')?;
                (key == name || key.strip_prefix(name)?.starts_with('{')).then(|| value.parse::<f64>().ok())?
            });
            let values: Vec<f64> = values.collect();
            assert!(!values.is_empty(), "there is a metric {name} in {text}");
            values.iter().sum()
        })
    }

    /// Asks until a metric is at most `most`; its value then, or when the time is over.
    pub fn metric_at_most(&mut self, name: &str, most: f64, within: Duration) -> f64 {
        let began = Instant::now();
        loop {
            let value = self.metric(name);
            if value <= most || began.elapsed() > within {
                return value;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The process's id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Resident memory, in bytes.
    pub fn rss(&self) -> u64 {
        let statm = fs::read_to_string(format!("/proc/{}/statm", self.pid())).expect("it lives");
        let pages: u64 =
            statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("statm has a second field");
        pages * 4096
    }

    /// Descriptors in the process's own table.
    pub fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("it lives").count()
    }

    /// How many TCP sockets of the host have the gateway's port on their own side, by state, without the listeners.
    pub fn sockets_by_state(&self) -> HashMap<&'static str, usize> {
        // By address and port: somebody else's connection may leave from a port of that number.
        let SocketAddr::V4(address) = self.address else { panic!("tests listen on IPv4") };
        let place = format!("{:08X}:{:04X}", u32::from_ne_bytes(address.ip().octets()), address.port());
        let mut states = HashMap::new();
        for line in fs::read_to_string("/proc/net/tcp").expect("there is a /proc").lines().skip(1) {
            let mut fields = line.split_ascii_whitespace().skip(1);
            let (own, state) = (fields.next().unwrap_or_default(), fields.nth(1).unwrap_or_default());
            if own == place && state != "0A" {
                *states.entry(state_name(state)).or_default() += 1;
            }
        }
        states
    }

    /// One request over a connection that is kept.
    fn ask(&mut self, method: &str, path: &str, body: &[u8]) -> String {
        self.try_to_ask(method, path, body).unwrap_or_else(|error| panic!("{method} {path}: {error}\n{}", self.log()))
    }

    fn try_to_ask(&mut self, method: &str, path: &str, body: &[u8]) -> io::Result<String> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => {
                let stream = TcpStream::connect(self.admin)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(ADMIN_TIMEOUT))?;
                none.insert(BufReader::new(stream))
            }
        };
        let head = format!("{method} {path} HTTP/1.1\r\nHost: gateway\r\nContent-Length: {}\r\n\r\n", body.len());
        connection.get_mut().write_all(&[head.as_bytes(), body].concat())?;
        let (mut status, mut bytes, mut line) = (String::new(), 0, String::new());
        connection.read_line(&mut status)?;
        while connection.read_line(&mut line)? > 2 {
            let lower = line.to_ascii_lowercase();
            if let Some(len) = lower.strip_prefix("content-length:") {
                bytes = len.trim().parse().map_err(io::Error::other)?;
            }
            line.clear();
        }
        let mut answer = vec![0; bytes];
        connection.read_exact(&mut answer)?;
        let answer = String::from_utf8(answer).map_err(io::Error::other)?;
        if status.starts_with("HTTP/1.1 200") { Ok(answer) } else { Err(io::Error::other(status + &answer)) }
    }

    fn log(&self) -> String {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let terminated = Command::new("sh").args(["-c", &format!("kill -TERM {}", self.pid())]).status();
        let began = Instant::now();
        let end = loop {
            match self.child.try_wait() {
                Ok(None) if began.elapsed() < LEAVE_TIMEOUT => std::thread::sleep(Duration::from_millis(10)),
                end => break end,
            }
        };
        if !matches!(end, Ok(Some(_))) {
            let _ = self.child.kill();
        }
        let well = matches!(&end, Ok(Some(status)) if status.success());
        if !well {
            eprintln!("the gateway has not left in order ({terminated:?}, {end:?}):\n{}", self.log());
        }
        assert!(well || std::thread::panicking(), "SIGTERM ends a gateway with exit code 0");
    }
}

/// Starts a process on a core: it inherits what holds for the thread that starts it.
pub fn spawn_on(core: Option<usize>, command: &mut Command) -> io::Result<Child> {
    std::thread::scope(|scope| {
        let spawn = || {
            if let Some(id) = core {
                assert!(core_affinity::set_for_current(core_affinity::CoreId { id }), "there is a core {id}");
            }
            command.spawn()
        };
        scope.spawn(spawn).join().expect("nothing in it panics but for a core that there is not")
    })
}

fn address_after(words: &str, stderr: &mut BufReader<ChildStderr>, log: &Mutex<String>) -> SocketAddr {
    while let Some(line) = next_line(stderr, log) {
        if let Some((_, address)) = line.split_once(words) {
            return address.trim().parse().expect("an address follows");
        }
    }
    panic!("the gateway has not said where it is {words:?}:\n{}", log.lock().unwrap_or_else(PoisonError::into_inner));
}

fn next_line(stderr: &mut BufReader<ChildStderr>, log: &Mutex<String>) -> Option<String> {
    let mut line = String::new();
    match stderr.read_line(&mut line) {
        Ok(1..) => {
            log.lock().unwrap_or_else(PoisonError::into_inner).push_str(&line);
            Some(line)
        }
        _ => None,
    }
}

/// The state's name by its number in /proc/net/tcp (include/net/tcp_states.h).
fn state_name(number: &str) -> &'static str {
    match number {
        "01" => "ESTABLISHED",
        "03" => "SYN-RECV",
        "04" => "FIN-WAIT-1",
        "05" => "FIN-WAIT-2",
        "06" => "TIME-WAIT",
        "07" => "CLOSE",
        "08" => "CLOSE-WAIT",
        "09" => "LAST-ACK",
        "0B" => "CLOSING",
        _ => "another",
    }
}
