//! A client's life: how it connects, pauses, ends and comes back.

use super::client::{Phase, flag};
use super::frame::{request, text};
use super::job::Kind;
use super::swarm::Swarm;
use super::timers::Action;
use crate::sys::Opening;
use std::net::{Ipv4Addr, SocketAddrV4};

/// How long a client waits for an answer to its request.
const ANSWER_MS: u64 = 30_000;
/// How long a client waits for the server's end after a close frame.
const CLOSE_MS: u64 = 2000;
/// How long a client waits before it connects again, where it was not told: this, and up to as much again.
const RETRY_MS: u32 = 500;
/// How often a trickling client reads.
const SIP_EVERY_MS: u64 = 250;
/// Ports that are used of each source address, from `PORT_FIRST` on.
const PORTS: u64 = 28_000;
const PORT_FIRST: u16 = 16_000;
/// Source addresses of each process, from 127.16.0.1 on.
const ADDRESSES: u64 = 1 << 16;
const FIRST_SOURCE: u32 = 0x7f10_0000;

impl Swarm {
    /// Begins as many connections as may be under way.
    pub(super) fn connect_more(&mut self) {
        while self.opening < self.job.at_once
            && (self.job.connects_per_s == 0 || self.connects_allowed >= 1.0)
            && let Some(at) = self.outside.pop_front()
        {
            self.connects_allowed -= 1.0;
            self.opening += 1;
            let since_ms = self.now_ms() as u32;
            let source = self.job.loopback_sources.then(|| self.source());
            let client = &mut self.clients[at as usize];
            client.begin(since_ms);
            client.armed += 1;
            let (generation, narrow) = (client.generation, client.kind.is_narrow());
            let path = path(&self.job, client.channel);
            let opening = Opening {
                source,
                target: self.job.target,
                receive_buffer: narrow.then_some(self.job.narrow_receive_bytes),
                request: request(self.job.target, &path),
            };
            self.rings.open(at, opening);
            self.timers.at(self.now_ms() + ANSWER_MS, at, generation, Action::GiveUp);
        }
    }

    /// An address and port that no connection of this process had for a long time. Chosen here, for the kernel takes
    /// ever longer to find a free one.
    fn source(&mut self) -> SocketAddrV4 {
        self.next_source += 1;
        let address = (self.next_source / PORTS) % (ADDRESSES - 2) + 1;
        let ip = FIRST_SOURCE + (self.job.engine << 16) + address as u32;
        SocketAddrV4::new(Ipv4Addr::from(ip), PORT_FIRST + (self.next_source % PORTS) as u16)
    }

    pub(super) fn opened(&mut self, at: u32, result: i32) {
        let client = &mut self.clients[at as usize];
        client.armed -= 1;
        if client.phase == Phase::Closing {
            return self.gone_if_disarmed(at);
        }
        if result < 0 {
            let reason = std::io::Error::from_raw_os_error(-result).to_string();
            return self.failed(at, reason, (result == -libc::EADDRINUSE).then_some(0));
        }
        client.phase = Phase::Upgrading;
        client.armed += 1;
        self.rings.watch(at);
    }

    pub(super) fn upgraded(&mut self, at: u32) {
        self.opening -= 1;
        let now_ms = self.now_ms();
        let client = &mut self.clients[at as usize];
        self.tally.kinds[client.kind as usize].open += 1;
        self.tally.handshake_us.record(now_ms.saturating_sub(client.since_ms.into()) * 1000);
        client.set(flag::LATE, self.begun);
        let (generation, channel) = (client.generation, client.channel);
        let name = format!("{}{channel}", self.job.channel_prefix);
        if let Some(hello) = self.job.hello.as_ref().and_then(|hello| text(&hello.replace("{channel}", &name))) {
            self.send(at, &hello);
        }
        match self.clients[at as usize].kind {
            // Each at a moment of its own within its first period.
            Kind::Phone => {
                let awake = u64::from(fastrand::u32(0..=self.job.phone_awake_ms));
                self.timers.at(now_ms + awake, at, generation, Action::Sleep);
            }
            Kind::Trickle => self.timers.at(now_ms + fastrand::u64(0..SIP_EVERY_MS), at, generation, Action::Sip),
            _ => {}
        }
    }

    pub(super) fn act(&mut self, at: u32, action: Action) {
        let now_ms = self.now_ms();
        let client = &mut self.clients[at as usize];
        let generation = client.generation;
        match action {
            Action::Retry if client.phase == Phase::Out => self.outside.push_back(at),
            Action::Sleep if client.phase == Phase::Open => {
                client.set(flag::ASLEEP, true);
                self.timers.at(now_ms + u64::from(self.job.phone_asleep_ms), at, generation, Action::Wake);
            }
            Action::Wake if client.phase == Phase::Open => {
                client.set(flag::ASLEEP, false);
                client.set(flag::STALE, true);
                client.since_ms = now_ms as u32;
                self.timers.at(now_ms + u64::from(self.job.phone_awake_ms), at, generation, Action::Sleep);
                self.list_if_readable(at);
            }
            Action::Sip if client.phase == Phase::Open => {
                let sip = u64::from(self.job.trickle_bytes_per_s) * SIP_EVERY_MS / 1000;
                if client.is(flag::READABLE) && !client.is(flag::RECEIVING | flag::HUNG_UP) {
                    let _ = self.receive(at, sip.max(1) as usize); // no buffer is free: at the next sip
                }
                self.timers.at(now_ms + SIP_EVERY_MS, at, generation, Action::Sip);
            }
            Action::GiveUp => match client.phase {
                Phase::Opening | Phase::Upgrading => self.failed(at, "no answer in time".to_owned(), None),
                Phase::Leaving => {
                    self.tally.close_unanswered += 1;
                    self.shut(at);
                }
                _ => {}
            },
            _ => {}
        }
    }

    /// Stalled clients read from now on.
    pub(super) fn resume(&mut self) {
        self.resumed = true;
        let now_ms = self.now_ms() as u32;
        for at in 0..self.clients.len() as u32 {
            let client = &mut self.clients[at as usize];
            if client.kind == Kind::Stalled && client.phase == Phase::Open {
                client.since_ms = now_ms;
                client.set(flag::STALE, true);
                self.list_if_readable(at);
            }
        }
    }

    fn list_if_readable(&mut self, at: u32) {
        if self.clients[at as usize].is(flag::READABLE) {
            self.list(at);
        }
    }

    /// Some of the fast clients are cut off, and connect again at once.
    pub(super) fn herd(&mut self, fraction: f64) {
        for at in 0..self.clients.len() as u32 {
            let client = &self.clients[at as usize];
            let reads = matches!(client.kind, Kind::Fast | Kind::Storming);
            if reads && client.phase == Phase::Open && fastrand::f64() < fraction {
                self.tally.kinds[client.kind as usize].open -= 1;
                self.clients[at as usize].wait_ms = 0;
                self.shut(at);
            }
        }
    }

    /// Replaces sockets, and lets connections begin, as many as the time since the last call allows.
    pub(super) fn pace(&mut self) {
        let now_ms = self.now_ms();
        let seconds = (now_ms - self.paced_ms) as f64 / 1000.0;
        self.paced_ms = now_ms;
        let rate = f64::from(self.job.connects_per_s);
        self.connects_allowed = (self.connects_allowed + rate * seconds).min((rate / 20.0).max(1.0));
        if !self.begun || self.finished {
            return;
        }
        self.churn_owed += self.job.churn_per_s * self.clients.len() as f64 * seconds;
        while self.churn_owed >= 1.0 {
            self.churn_owed -= 1.0;
            let at = fastrand::u32(0..self.clients.len() as u32);
            let client = &mut self.clients[at as usize];
            if client.phase != Phase::Open {
                continue;
            }
            client.wait_ms = 0;
            let (kind, generation) = (client.kind, client.generation);
            self.tally.kinds[kind as usize].open -= 1;
            if fastrand::bool() || kind.is_narrow() || client.is(flag::ASLEEP) {
                self.shut(at); // whoever does not read closes no other way
            } else {
                self.leave(at);
                self.timers.at(now_ms + CLOSE_MS, at, generation, Action::GiveUp);
            }
        }
    }

    pub(super) fn refused(&mut self, at: u32, status: u16, retry_ms: Option<u32>) {
        *self.tally.refused.entry(status).or_default() += 1;
        self.tell_retry(retry_ms);
        self.opening -= 1;
        self.clients[at as usize].wait_ms = retry_ms.unwrap_or_else(own_retry_ms);
        self.shut(at);
    }

    fn failed(&mut self, at: u32, reason: String, retry_ms: Option<u32>) {
        *self.tally.failed.entry(reason).or_default() += 1;
        self.opening -= 1;
        self.clients[at as usize].wait_ms = retry_ms.unwrap_or_else(own_retry_ms);
        self.shut(at);
    }

    /// A close frame came; the answer is on its way, the server ends the connection.
    pub(super) fn closed(&mut self, at: u32, code: u16, retry_ms: Option<u32>) {
        let client = &mut self.clients[at as usize];
        if client.phase == Phase::Leaving {
            return; // it answers ours; its FIN follows
        }
        self.tell_retry(retry_ms);
        self.count_end(at, &code.to_string());
        let client = &mut self.clients[at as usize];
        client.wait_ms = if client.kind == Kind::Storming { 0 } else { retry_ms.unwrap_or_else(own_retry_ms) };
        client.phase = Phase::Leaving;
        let generation = client.generation;
        let ended = client.is(flag::HUNG_UP);
        self.timers.at(self.now_ms() + CLOSE_MS, at, generation, Action::GiveUp);
        if ended {
            self.shut(at);
        }
    }

    /// The server's side is over, in order or not.
    pub(super) fn ended(&mut self, at: u32, cause: &str, retry_ms: Option<u32>) {
        let client = &mut self.clients[at as usize];
        match client.phase {
            Phase::Upgrading => return self.failed(at, format!("{cause} before the answer"), retry_ms),
            Phase::Open => {
                client.wait_ms = if client.kind == Kind::Storming { 0 } else { retry_ms.unwrap_or_else(own_retry_ms) };
                self.count_end(at, cause);
            }
            _ => {}
        }
        self.shut(at);
    }

    fn count_end(&mut self, at: u32, cause: &str) {
        let client = &self.clients[at as usize];
        let kind = &mut self.tally.kinds[client.kind as usize];
        kind.open -= 1;
        kind.ended += 1;
        kind.cut_in_frame += u64::from(client.is_in_frame());
        *self.tally.closes.entry(format!("{} {cause}", client.kind.name())).or_default() += 1;
    }

    fn tell_retry(&mut self, retry_ms: Option<u32>) {
        if let Some(ms) = retry_ms {
            self.tally.retry_ms.record(ms.into());
        }
    }

    /// Closes a socket, whatever is armed on it.
    fn shut(&mut self, at: u32) {
        let client = &mut self.clients[at as usize];
        let others = client.armed > 1 || client.phase == Phase::Opening;
        client.phase = Phase::Closing;
        client.armed += 2;
        self.rings.close(at, others);
    }

    /// When nothing of a closing socket is at the ring any more, its client may come back.
    pub(super) fn gone_if_disarmed(&mut self, at: u32) {
        let now_ms = self.now_ms();
        let client = &mut self.clients[at as usize];
        if client.phase != Phase::Closing || client.armed > 0 {
            return;
        }
        client.phase = Phase::Out;
        if self.finished || (self.begun && !self.job.reconnect) {
            return;
        }
        self.tally.kinds[client.kind as usize].reopened += 1;
        if client.wait_ms == 0 {
            self.outside.push_back(at);
        } else {
            self.timers.at(now_ms + u64::from(client.wait_ms), at, client.generation, Action::Retry);
        }
    }

    /// Nobody connects any more; counts what has not come.
    pub(super) fn finish(&mut self, last: &[u32]) {
        self.finished = true;
        self.outside.clear();
        for client in &mut self.clients {
            if client.phase == Phase::Open {
                let (updates, goals) = client.missing(&self.job, last);
                let kind = &mut self.tally.kinds[client.kind as usize];
                kind.missing_at_end += updates;
                kind.goals_missing_at_end += goals;
            }
        }
    }
}

fn own_retry_ms() -> u32 {
    RETRY_MS + fastrand::u32(0..RETRY_MS)
}

fn path(job: &super::Job, first: u32) -> String {
    let name = |at: u32| format!("{}{}", job.channel_prefix, (first + at) % job.channels);
    match &job.path {
        Some(template) => template.replace("{channel}", &name(0)),
        None => job.face.face().path(&(0..job.channels_per_socket).map(name).collect::<Vec<_>>()),
    }
}
