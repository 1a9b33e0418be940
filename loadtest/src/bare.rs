//! The floor: what delivering costs at the least on this host. A loop over the gateway's own ring and socket options
//! that accepts, answers each client with a constant, and sends what is due; it has no source, no outbox, no limits. A
//! client that does not keep up misses updates, and one that takes half a frame gets nothing any more.

use crate::engine::ACCEPT;
use crate::parent;
use crate::publish::{Published, Schedule};
use crate::scenario::Scenario;
use crate::sys::now_ns;
use anyhow::Context;
use spillgate::fanout::{Chunk, Run};
use spillgate::ids::{ConnId, ListenerId, Slot};
use spillgate::sys::{self, Completion, Doorbell, Mode, Op, Ring, UringSet};
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Duration;

/// Accepts that are kept armed, as the gateway does.
const ARMED: u32 = 16;
/// Bytes of a request at most.
const REQUEST_MAX: usize = 4096;

/// Serves a scenario (JSON in the first line of stdin) until stdin ends: `begin` and `stop` come a line each.
///
/// # Errors
/// No socket or no ring can be had.
pub fn serve() -> anyhow::Result<()> {
    crate::sys::ignore_interrupts();
    let scenario: Scenario = parent::first("the scenario")?;
    let mut bare = Bare::listen(scenario)?;
    parent::say(&bare.address)?;
    let bell = Arc::clone(&bare.bell);
    bare.live(&parent::orders(|line| Some(line.to_string()), move || bell.ring_anyway()))
}

struct Bare {
    scenario: Scenario,
    address: SocketAddr,
    ring: UringSet,
    bell: Arc<Doorbell>,
    /// Clients by channel.
    channels: Vec<Vec<ConnId>>,
    /// Slots given to accepts so far.
    slots: u32,
    slots_max: u32,
    armed: u32,
    /// Those that have something to read.
    to_read: Vec<ConnId>,
    /// Those that took half a frame.
    stuck: Vec<ConnId>,
    answer: Rc<Run>,
    schedule: Option<Schedule>,
    late_max_us: u64,
    ticking: bool,
}

impl Bare {
    fn listen(scenario: Scenario) -> anyhow::Result<Self> {
        let table = u64::from(crate::sys::nofile_raised()).saturating_sub(64);
        let rings = scenario.sockets.div_ceil(table).max(1);
        let local = SocketAddr::from(([127, 0, 0, 1], 0));
        let listeners = sys::listen(&[local], 1, sys::Options::default())?.pop().context("there is one shard")?;
        let address = listeners.first().context("there is one address")?.local_addr()?;
        let bell = Arc::new(Doorbell::new(Mode::Blocking)?);
        let table = scenario.sockets.div_ceil(rings) as u32 + 1;
        let ring = UringSet::new(rings as usize, table, listeners, bell.as_raw_fd())?;
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
        );
        Ok(Self {
            address,
            slots_max: ring.slots(),
            ring,
            bell,
            channels: vec![Vec::new(); scenario.channels as usize],
            slots: 0,
            armed: 0,
            to_read: Vec::new(),
            stuck: Vec::new(),
            answer: Rc::new(Run::own(answer.into_bytes())),
            schedule: None,
            late_max_us: 0,
            ticking: false,
            scenario,
        })
    }

    fn live(&mut self, orders: &Receiver<String>) -> anyhow::Result<()> {
        loop {
            self.accept_more();
            self.turn()?;
            match orders.try_recv() {
                Ok(order) if order == "begin" => self.schedule = Some(Schedule::new(&self.scenario, now_ns())),
                Ok(_) => {
                    let schedule = self.schedule.take().context("it stops after it has begun")?;
                    let late_max_us = self.late_max_us;
                    parent::say(&Published {
                        updates: schedule.updates(),
                        last: schedule.last().to_vec(),
                        late_max_us,
                    })?;
                }
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => return Ok(()),
            }
            if !self.send_due()? && self.to_read.is_empty() && self.ring.may_sleep() {
                self.bell.take()?;
            }
            self.ring.awake();
        }
    }

    fn accept_more(&mut self) {
        while self.armed < ARMED && self.slots < self.slots_max {
            let conn = ConnId { slot: Slot(self.slots), generation: 0 };
            self.ring.push(Op::Accept { listener: ListenerId(0), conn });
            self.slots += 1;
            self.armed += 1;
        }
    }

    /// Submits, and takes all completions.
    fn turn(&mut self) -> anyhow::Result<()> {
        self.ring.submit()?;
        while let Some(completion) = self.ring.next() {
            match completion {
                Completion::Accepted { conn, result: 0.., .. } => {
                    self.armed -= 1;
                    self.ring.push(Op::Watch(conn));
                }
                Completion::Accepted { result, .. } => {
                    return Err(io::Error::from_raw_os_error(-result)).context("an accept failed");
                }
                Completion::Readable { conn, more, .. } => {
                    if !more {
                        self.ring.push(Op::Watch(conn));
                    }
                    self.to_read.push(conn);
                }
                Completion::Received { conn, result, buffer } => {
                    let len = usize::try_from(result).unwrap_or(0);
                    let channel = channel_of(self.ring.buffer(buffer, len), &self.scenario.channel_prefix);
                    self.ring.release(buffer);
                    // Only the request matters: whatever a client says later is read and forgotten.
                    if let Some(clients) = channel.and_then(|channel| self.channels.get_mut(channel)) {
                        clients.push(conn);
                        self.ring.push(Op::Send(conn, Chunk::whole(Rc::clone(&self.answer))));
                    }
                }
                Completion::Sent { conn, result, chunk }
                    if result as usize != chunk.bytes().len() && result != -libc::EAGAIN =>
                {
                    self.stuck.push(conn);
                }
                Completion::Tick => self.ticking = false,
                _ => {}
            }
        }
        while self.ring.buffers_free() > 0
            && let Some(conn) = self.to_read.pop()
        {
            self.ring.push(Op::Receive(conn));
        }
        for conn in std::mem::take(&mut self.stuck) {
            self.channels.iter_mut().for_each(|clients| clients.retain(|client| *client != conn));
        }
        Ok(())
    }

    /// Sends what is due. False: nothing is, and the ring's timer tells when something will be.
    fn send_due(&mut self) -> anyhow::Result<bool> {
        let Some(mut schedule) = self.schedule.take() else { return Ok(false) };
        let mut payload = Vec::new();
        let sent = loop {
            let (due, now) = (schedule.peek(), now_ns());
            if due.due_ns > now {
                if !self.ticking {
                    self.ticking = true;
                    self.ring.push(Op::Tick(Duration::from_nanos(due.due_ns - now)));
                    self.ring.submit()?;
                }
                break false;
            }
            schedule.take(&due);
            self.late_max_us = self.late_max_us.max((now - due.due_ns) / 1000);
            payload.clear();
            due.payload().write(due.bytes, &mut payload);
            let run = Rc::new(Run::own(spillgate::wire::raw_update(&payload)));
            for &conn in &self.channels[due.channel as usize] {
                self.ring.push(Op::Send(conn, Chunk::whole(Rc::clone(&run))));
            }
            self.turn()?; // two SENDs of one socket in flight would tear its stream
        };
        self.schedule = Some(schedule);
        Ok(sent)
    }
}

/// The channel that a request for `/raw/{prefix}{number}` asks for.
fn channel_of(request: &[u8], prefix: &str) -> Option<usize> {
    let request = std::str::from_utf8(&request[..request.len().min(REQUEST_MAX)]).ok()?;
    let name = request.strip_prefix("GET /raw/")?.split(' ').next()?;
    name.strip_prefix(prefix)?.parse().ok()
}
