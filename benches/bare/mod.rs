//! The floor: what delivering costs at the least. A loop over the gateway's own ring and socket options that accepts,
//! answers each client with a constant, and sends the same bytes to everyone; it does nothing else.

use spillgate::fanout::{Chunk, Run};
use spillgate::ids::{ConnId, ListenerId, Slot};
use spillgate::sys::{self, Completion, Doorbell, Mode, Op, Ring, UringSet};
use std::io::{self, BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::rc::Rc;

use super::crowd::{ACCEPT, payload::numbered};
use super::gateway::spawn_on;

/// Accepts that are kept armed, as the gateway does.
const ARMED: u32 = 16;
/// The variable that makes a process a floor.
const VARIABLE: &str = "SPILLGATE_BENCH_FLOOR";

/// See the module.
pub struct Bare {
    /// Where clients connect.
    pub address: SocketAddr,
    ring: UringSet,
    bell: Doorbell,
    accepted: Vec<ConnId>,
    armed: u32,
}

impl Bare {
    /// Listens, for at most `sockets` clients.
    pub fn listen(sockets: u32) -> anyhow::Result<Self> {
        sys::raise_nofile();
        let listeners = sys::listen(&[SocketAddr::from(([127, 0, 0, 1], 0))], 1)?.remove(0);
        let address = listeners[0].local_addr()?;
        let bell = Doorbell::new(Mode::Blocking)?;
        let ring = UringSet::new(1, sockets, listeners, bell.as_raw_fd())?;
        Ok(Self { address, ring, bell, accepted: Vec::new(), armed: 0 })
    }

    /// Takes clients in until there are `sockets` of them.
    pub fn accept(&mut self, sockets: u32) -> io::Result<()> {
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
        );
        let answer = Rc::new(Run::own(answer.into_bytes()));
        let mut answered = self.accepted.len() as u32;
        while answered < sockets {
            while self.armed < ARMED && self.accepted.len() as u32 + self.armed < sockets {
                let slot = Slot(self.accepted.len() as u32 + self.armed);
                self.ring.push(Op::Accept { listener: ListenerId(0), conn: ConnId { slot, generation: 0 } });
                self.armed += 1;
            }
            match self.next()? {
                Completion::Accepted { conn, result: 0.., .. } => {
                    self.armed -= 1;
                    self.accepted.push(conn);
                    self.ring.push(Op::Send(conn, Chunk::whole(Rc::clone(&answer))));
                }
                Completion::Sent { result: 0.., .. } => answered += 1,
                other => return Err(io::Error::other(format!("{other:?}"))),
            }
        }
        Ok(())
    }

    /// Sends to everyone; done when every SEND has completed.
    pub fn send(&mut self, bytes: Vec<u8>) -> io::Result<()> {
        let run = Rc::new(Run::own(bytes));
        for &conn in &self.accepted {
            self.ring.push(Op::Send(conn, Chunk::whole(Rc::clone(&run))));
        }
        for _ in 0..self.accepted.len() {
            match self.next()? {
                Completion::Sent { result, chunk, .. } if result as usize == chunk.bytes().len() => {}
                other => return Err(io::Error::other(format!("not sent whole: {other:?}"))),
            }
        }
        Ok(())
    }

    /// The next completion, however long it takes.
    fn next(&mut self) -> io::Result<Completion> {
        loop {
            if let Some(completion) = self.ring.next() {
                return Ok(completion);
            }
            self.ring.submit()?;
            if let Some(completion) = self.ring.next() {
                return Ok(completion);
            }
            if self.ring.may_sleep() {
                self.bell.take()?;
            }
            self.ring.awake();
        }
    }
}

/// A floor in a process of its own; it ends when it is dropped.
pub struct Floor {
    child: Child,
    orders: Option<ChildStdin>,
    /// Where clients connect.
    pub address: SocketAddr,
}

/// Becomes a floor, if this process was started as one, and says so when it is done.
pub fn serve_if_asked() -> Option<ExitCode> {
    let sockets = std::env::var(VARIABLE).ok()?.parse().expect("a number of sockets");
    serve(sockets).expect("the floor works");
    Some(ExitCode::SUCCESS)
}

/// Serves until stdin ends: a line each is the number of an update and the bytes of its payload.
fn serve(sockets: u32) -> anyhow::Result<()> {
    let mut bare = Bare::listen(sockets)?;
    println!("{}", bare.address);
    bare.accept(sockets)?;
    for line in io::stdin().lock().lines() {
        let line = line?;
        let (n, bytes) = line.split_once(' ').ok_or_else(|| anyhow::anyhow!("two numbers a line: {line}"))?;
        bare.send(spillgate::wire::envelope::raw_update(&numbered(n.parse()?, bytes.parse()?)))?;
    }
    Ok(())
}

impl Floor {
    /// Starts a floor for exactly `sockets` clients on a core.
    pub fn start(sockets: u64, core: usize) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.env(VARIABLE, sockets.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = spawn_on(Some(core), &mut command)?;
        let mut line = String::new();
        let stdout: Option<ChildStdout> = child.stdout.take();
        BufReader::new(stdout.expect("it is piped")).read_line(&mut line)?;
        Ok(Self { orders: child.stdin.take(), address: line.trim().parse()?, child })
    }

    /// Sends an update to everyone.
    pub fn publish(&mut self, n: u64, bytes: usize) -> io::Result<()> {
        let orders = self.orders.as_mut().expect("it was not dropped");
        orders.write_all(format!("{n} {bytes}\n").as_bytes())
    }

    /// The process's id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        self.orders = None;
        let _ = self.child.wait();
    }
}
