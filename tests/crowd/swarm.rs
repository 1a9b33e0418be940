//! The crowd's own process: one thread, one epoll, one read buffer; a read a message and no allocation.

use super::client::{Client, Phase, request};
use super::report::{Report, Tally};
use super::{Ending, Job, Order};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token, Waker};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::io::{self, BufRead, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// Receive buffer of a socket that stalls: the smallest that the kernel gives.
const STALLED_RECEIVE_BYTES: usize = 2048;
/// Sockets that wait for their answer at a time: fewer than a listener's backlog holds.
const AT_ONCE: u64 = 512;
/// The first source address of the first crowd, how many each crowd has, and for how many sockets each serves: the
/// kernel takes ever longer to find a port the more of an address's 28,000 are taken.
const FIRST_SOURCE: Ipv4Addr = Ipv4Addr::new(127, 1, 0, 1);
const SOURCES: u32 = 8;
const PER_SOURCE: usize = 4000;
/// How often those that read slowly read.
const SLOW_PAUSE: Duration = Duration::from_millis(50);
const WAKE: Token = Token(usize::MAX);

struct Swarm {
    job: Job,
    /// The first of its source addresses: each crowd has ranges of ports of its own.
    source: Ipv4Addr,
    poll: Poll,
    /// Held, for a waker that is dropped takes its last call with it.
    _waker: Arc<Waker>,
    members: Vec<Member>,
    tally: Tally,
    buffer: Box<[u8]>,
    replies: Vec<u8>,
}

struct Member {
    stream: Option<TcpStream>,
    client: Client,
    asked: bool,
    stalls: bool,
    slow: bool,
}

/// Does `job` until it is told to leave, or whoever started it ends.
pub fn run(job: Job, source: u32) -> io::Result<()> {
    if let Some(id) = job.core {
        core_affinity::set_for_current(core_affinity::CoreId { id });
    }
    spillgate::sys::raise_nofile();
    let poll = Poll::new()?;
    let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
    let orders = listen_for_orders(Arc::clone(&waker));
    let members = Vec::with_capacity(job.sockets as usize);
    let buffer = vec![0; 64 << 10].into();
    let source = Ipv4Addr::from(u32::from(FIRST_SOURCE) + source * SOURCES);
    let (tally, replies) = (Tally::default(), Vec::new());
    Swarm { job, source, poll, _waker: waker, members, tally, buffer, replies }.live(&orders)
}

/// Orders come a line each; the end of stdin is the order to leave.
fn listen_for_orders(waker: Arc<Waker>) -> Receiver<Order> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines() {
            let Some(order) = line.ok().and_then(|line| serde_json::from_str(&line).ok()) else { break };
            let _ = sender.send(order);
            let _ = waker.wake();
        }
        let _ = sender.send(Order::Leave(Ending::Fin));
        let _ = waker.wake();
    });
    receiver
}

impl Swarm {
    fn live(mut self, orders: &Receiver<Order>) -> io::Result<()> {
        let mut events = Events::with_capacity(8192);
        let mut awaited: Option<(Order, Instant)> = None;
        let mut slow_read = Instant::now();
        loop {
            self.connect_more();
            let pause = match awaited {
                _ if self.job.slow_every > 0 => Some(SLOW_PAUSE),
                Some(_) => Some(Duration::from_millis(100)),
                None => None,
            };
            match self.poll.poll(&mut events, pause) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            for event in &events {
                if event.token() != WAKE {
                    self.hear(event.token().0, event.is_read_closed() || event.is_error());
                }
            }
            if self.job.slow_every > 0 && slow_read.elapsed() >= SLOW_PAUSE {
                slow_read = Instant::now();
                (0..self.members.len())
                    .filter(|at| self.members[*at].slow)
                    .collect::<Vec<_>>()
                    .into_iter()
                    .for_each(|at| self.hear_slowly(at));
            }
            while awaited.is_none() {
                match orders.try_recv() {
                    Ok(Order::Leave(ending)) => {
                        say(&self.report())?;
                        return self.leave(ending);
                    }
                    Ok(order) => awaited = Some((order, Instant::now())),
                    Err(_) => break,
                }
                self.answer(&mut awaited)?;
            }
            self.answer(&mut awaited)?;
        }
    }

    /// Reports, once what is waited for has come true or its time is over.
    fn answer(&self, awaited: &mut Option<(Order, Instant)>) -> io::Result<()> {
        let Some((order, since)) = awaited else { return Ok(()) };
        let come = match *order {
            Order::Answered(sockets) => self.tally.answered >= sockets,
            Order::Updates(updates) => self.tally.updates >= updates,
            Order::Newest(n) => self.newest_at_least() >= Some(n),
            Order::Open(sockets) => self.tally.open <= sockets,
            Order::Report | Order::Leave(_) => true,
        };
        if come || since.elapsed() > Duration::from_secs(self.job.patience_s) {
            *awaited = None;
            say(&self.report())?;
        }
        Ok(())
    }

    fn connect_more(&mut self) {
        while self.members.len() < self.job.sockets as usize && self.unanswered() < AT_ONCE.max(self.job.at_once) {
            let at = self.members.len();
            let stalls = self.job.stalls_every > 0 && (at as u64).is_multiple_of(self.job.stalls_every);
            let slow = self.job.slow_every > 0 && (at as u64).is_multiple_of(self.job.slow_every);
            let stream = self.connect(at, stalls).ok();
            let connects = stream.is_some();
            self.members.push(Member { stream, client: Client::new(), asked: false, stalls, slow });
            if connects {
                self.hear(at, false);
            } else {
                self.end(at);
            }
        }
    }

    fn connect(&self, at: usize, stalls: bool) -> io::Result<TcpStream> {
        let server: SocketAddr = self.job.servers[at % self.job.servers.len()];
        let socket = Socket::new(Domain::for_address(server), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        if stalls {
            socket.set_recv_buffer_size(STALLED_RECEIVE_BYTES)?;
        }
        let own = Ipv4Addr::from(u32::from(self.source) + (at / PER_SOURCE) as u32);
        socket.bind(&SocketAddr::from((own, 0)).into())?;
        match socket.connect(&server.into()) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
            _ => {}
        }
        let mut stream = TcpStream::from_std(socket.into());
        self.poll.registry().register(&mut stream, Token(at), Interest::READABLE | Interest::WRITABLE)?;
        Ok(stream)
    }

    /// Something has happened to a socket. Edge-triggered: it is read until there is no more.
    fn hear(&mut self, at: usize, ended: bool) {
        let member = &mut self.members[at];
        let Some(stream) = &mut member.stream else { return };
        if !member.asked {
            match stream.write(request(&self.job.path).as_bytes()) {
                Ok(_) => member.asked = true, // a fresh socket takes it whole
                Err(error) if waits(&error) => return,
                Err(_) => return self.end(at),
            }
        }
        if (member.stalls || member.slow) && member.client.phase == Phase::Open {
            return;
        }
        loop {
            match stream.read(&mut self.buffer) {
                Ok(0) => return self.end(at),
                Ok(read) => {
                    member.client.take(&self.buffer[..read], &mut self.tally, &mut self.replies);
                    if !self.replies.is_empty() {
                        let _ = stream.write(&self.replies); // the server of a client that cannot say a pong hears none
                        self.replies.clear();
                    }
                    if read < self.buffer.len() && !ended {
                        break; // there is no more
                    }
                }
                Err(error) if waits(&error) => break,
                Err(_) => return self.end(at),
            }
        }
        if member.client.phase == Phase::Ended {
            self.end(at);
        }
    }

    /// A slow client reads a little.
    fn hear_slowly(&mut self, at: usize) {
        let member = &mut self.members[at];
        let Some(stream) = member.stream.as_mut().filter(|_| member.client.phase == Phase::Open) else { return };
        match stream.read(&mut self.buffer[..self.job.slow_bytes]) {
            Ok(read @ 1..) => {
                member.client.take(&self.buffer[..read], &mut self.tally, &mut self.replies);
                let _ = stream.write(&self.replies);
                self.replies.clear();
            }
            Err(error) if waits(&error) => return,
            _ => return self.end(at),
        }
        if member.client.phase == Phase::Ended {
            self.end(at);
        }
    }

    fn end(&mut self, at: usize) {
        let member = &mut self.members[at];
        member.client.end(&mut self.tally);
        member.stream = None;
    }

    /// Sockets that wait for their answer.
    fn unanswered(&self) -> u64 {
        self.members.len() as u64 - self.tally.answered
    }

    fn readers(&self) -> impl Iterator<Item = &Client> {
        let open = self.members.iter().filter(|member| member.client.phase == Phase::Open && !member.stalls);
        open.map(|member| &member.client)
    }

    fn newest_at_least(&self) -> Option<u64> {
        self.readers().map(|client| client.newest).min().flatten()
    }

    fn report(&self) -> Report {
        let updates = self.readers().map(|client| client.updates);
        let (fewest, most) = updates.fold((u64::MAX, 0), |(fewest, most), each| (fewest.min(each), most.max(each)));
        Report {
            tally: self.tally.clone(),
            updates_each: (fewest.min(most), most),
            newest_at_least: self.newest_at_least(),
            unanswered: self.unanswered(),
        }
    }

    /// All sockets are dropped at once, without a close frame.
    fn leave(self, ending: Ending) -> io::Result<()> {
        if ending == Ending::Reset {
            for stream in self.members.iter().filter_map(|member| member.stream.as_ref()) {
                SockRef::from(stream).set_linger(Some(Duration::ZERO))?;
            }
        }
        Ok(())
    }
}

fn waits(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected | io::ErrorKind::Interrupted)
}

fn say(report: &Report) -> io::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, report)?;
    writeln!(out)?;
    out.flush()
}
