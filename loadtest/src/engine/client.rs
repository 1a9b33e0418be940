//! One client without its socket: bytes of the server go in, what they meant is counted. Some 48 bytes each, for there
//! may be millions: whatever most clients do not need lives in a box that most do not have.

use super::frame::{self, Frame, Torn};
use super::job::{Job, Kind};
use crate::face::{Face, Message};
use crate::payload::Payload;
use crate::tally::{KindTally, Latencies};

/// Where a client is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It has no socket.
    Out,
    /// Its socket is being connected.
    Opening,
    /// The 101 has yet to come.
    Upgrading,
    /// A WebSocket.
    Open,
    /// A close frame was sent; the server's end is awaited.
    Leaving,
    /// Its requests are being cancelled, its socket closed.
    Closing,
}

/// Bits of [`Client::flags`].
pub mod flag {
    /// There may be something to read that was not asked for yet.
    pub const READABLE: u8 = 1;
    /// A read is at the ring.
    pub const RECEIVING: u8 = 1 << 1;
    /// A write is at the ring.
    pub const SENDING: u8 = 1 << 2;
    /// It does not read now.
    pub const ASLEEP: u8 = 1 << 3;
    /// The server's side has ended: read to the end.
    pub const HUNG_UP: u8 = 1 << 4;
    /// It came when updates flowed already: the first number it sees is its base.
    pub const LATE: u8 = 1 << 5;
    /// It reads again after a pause, and has not seen the newest state yet.
    pub const STALE: u8 = 1 << 6;
    /// It is on the list of those to be read.
    pub const LISTED: u8 = 1 << 7;
}

/// See the module.
#[derive(Debug)]
pub struct Client {
    /// First channel.
    pub channel: u32,
    /// Newest number of its first stream, and of its second; used where it has no more than two.
    newest: [u32; 2],
    /// When it began to connect, or to read again, in milliseconds of the engine's clock.
    pub since_ms: u32,
    /// How long it waits before it connects again, in milliseconds.
    pub wait_ms: u32,
    /// Connections it has had: what was timed for an older one means nothing.
    pub generation: u16,
    /// How it behaves.
    pub kind: Kind,
    /// Where it is in its life.
    pub phase: Phase,
    /// See [`flag`].
    pub flags: u8,
    /// Requests at the ring.
    pub armed: u8,
    extra: Option<Box<Extra>>,
}

const _: () = assert!(size_of::<Client>() <= 48);

#[derive(Debug, Default)]
struct Extra {
    /// The start of a frame or head whose rest has yet to come.
    partial: Vec<u8>,
    /// Newest number of each stream, where there are more than two.
    newest: Vec<u32>,
    /// What is to be sent when the write at the ring is done.
    replies: Vec<u8>,
}

/// Why the server's side is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Another status than 101.
    Refused { status: u16, retry_ms: Option<u32> },
    /// A close frame.
    Closed { code: u16, retry_ms: Option<u32> },
    /// A breach of RFC 6455.
    Torn,
}

/// What bytes are read with.
pub struct Reading<'a> {
    /// The engine's job.
    pub job: &'a Job,
    /// How messages are read.
    pub face: &'static dyn Face,
    /// Time of the read, in nanoseconds.
    pub now_ns: u64,
    /// When the engine's clock began, in nanoseconds.
    pub epoch_ns: u64,
    /// Whether ages count.
    pub measure: bool,
    /// The counts of the client's kind.
    pub tally: &'a mut KindTally,
    /// Ages since the last report.
    pub interval: &'a mut Latencies,
    /// Where answers go.
    pub replies: &'a mut Vec<u8>,
}

impl Client {
    /// A client without a socket.
    pub fn new(channel: u32, kind: Kind) -> Self {
        Self {
            channel,
            newest: [0; 2],
            since_ms: 0,
            wait_ms: 0,
            generation: 0,
            kind,
            phase: Phase::Out,
            flags: 0,
            armed: 0,
            extra: None,
        }
    }

    /// Whether a flag is set.
    #[inline]
    pub fn is(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Sets or clears a flag.
    #[inline]
    pub fn set(&mut self, flag: u8, value: bool) {
        if value { self.flags |= flag } else { self.flags &= !flag }
    }

    /// A new connection begins: nothing of the one before is left.
    pub fn begin(&mut self, since_ms: u32) {
        self.generation = self.generation.wrapping_add(1);
        (self.newest, self.since_ms, self.flags, self.extra) = ([0; 2], since_ms, 0, None);
        self.phase = Phase::Opening;
    }

    /// Whether a frame or head has begun whose rest has yet to come.
    pub fn is_in_frame(&self) -> bool {
        self.extra.as_ref().is_some_and(|extra| !extra.partial.is_empty())
    }

    /// Keeps replies until the write at the ring is done.
    pub fn keep_replies(&mut self, replies: &[u8]) {
        self.extra.get_or_insert_default().replies.extend_from_slice(replies);
    }

    /// The replies that were kept.
    pub fn take_replies(&mut self) -> Vec<u8> {
        self.extra.as_mut().map(|extra| std::mem::take(&mut extra.replies)).unwrap_or_default()
    }

    /// Takes bytes in.
    pub fn take(&mut self, bytes: &[u8], reading: &mut Reading<'_>) -> Option<Ending> {
        reading.tally.bytes += bytes.len() as u64;
        if self.is(flag::STALE) {
            reading.tally.stale_bytes += bytes.len() as u64;
        }
        let mut joined = self.extra.as_mut().map(|extra| std::mem::take(&mut extra.partial)).unwrap_or_default();
        let mut rest = if joined.is_empty() {
            bytes
        } else {
            joined.extend_from_slice(bytes);
            &joined
        };
        let mut ending = None;
        while !rest.is_empty() && ending.is_none() {
            let taken = match self.phase {
                Phase::Upgrading => self.take_head(rest, &mut ending),
                Phase::Open | Phase::Leaving => self.take_frame(rest, reading, &mut ending),
                _ => return None,
            };
            match taken {
                Ok(Some(taken)) => rest = &rest[taken..],
                Ok(None) => {
                    self.extra.get_or_insert_default().partial = rest.to_vec();
                    return None;
                }
                Err(Torn) => {
                    reading.tally.torn += 1;
                    ending = Some(Ending::Torn);
                }
            }
        }
        if self.extra.as_ref().is_some_and(|extra| extra.newest.is_empty() && extra.replies.is_empty()) {
            self.extra = None;
        }
        ending
    }

    /// Updates and goals that have not come, of those published by the end: the last number of each stream of each
    /// channel.
    pub fn missing(&mut self, job: &Job, last: &[u32]) -> (u64, u64) {
        let (mut updates, mut goals) = (0, 0);
        for at in 0..job.channels_per_socket {
            let channel = (self.channel + at) % job.channels;
            for stream in 0..job.streams() {
                let published = last.get((channel * job.streams() + stream) as usize).copied().unwrap_or(0);
                let late = self.is(flag::LATE);
                let newest = *self.newest(job, at * job.streams() + stream);
                let missing = if late && newest == 0 { 0 } else { published.saturating_sub(newest) };
                updates += u64::from(missing);
                goals += if stream == job.keys { u64::from(missing) } else { 0 };
            }
        }
        (updates, goals)
    }

    fn take_head(&mut self, bytes: &[u8], ending: &mut Option<Ending>) -> Result<Option<usize>, Torn> {
        let Some(head) = frame::head(bytes)? else { return Ok(None) };
        if head.status == 101 {
            self.phase = Phase::Open;
        } else {
            let retry_ms = head.retry_after_s.map(|s| s.saturating_mul(1000));
            *ending = Some(Ending::Refused { status: head.status, retry_ms });
        }
        Ok(Some(head.len))
    }

    #[inline]
    fn take_frame(
        &mut self,
        bytes: &[u8],
        reading: &mut Reading<'_>,
        ending: &mut Option<Ending>,
    ) -> Result<Option<usize>, Torn> {
        let Some((frame, taken)) = frame::frame(bytes)? else { return Ok(None) };
        match frame {
            Frame::Message(message) => match reading.face.read(message) {
                Message::Update(payload) => self.take_update(Payload::read(&payload).ok_or(Torn)?, reading)?,
                Message::Notice => {}
                Message::Wrong => reading.tally.wrong += 1,
            },
            Frame::Ping(payload) => {
                reading.tally.pings += 1;
                frame::control(0xa, payload, reading.replies);
            }
            Frame::Pong => {}
            Frame::Close(payload) => {
                if self.phase == Phase::Open {
                    frame::control(0x8, &payload[..payload.len().min(2)], reading.replies);
                }
                let (code, retry_ms) = frame::close_reason(payload);
                *ending = Some(Ending::Closed { code, retry_ms });
            }
        }
        Ok(Some(taken))
    }

    #[inline]
    fn take_update(&mut self, update: Payload, reading: &mut Reading<'_>) -> Result<(), Torn> {
        let job = reading.job;
        let at = (update.channel + job.channels).checked_sub(self.channel).ok_or(Torn)? % job.channels;
        let stream = if update.goal { job.keys } else { update.key };
        if update.channel >= job.channels || at >= job.channels_per_socket || stream >= job.streams() {
            return Err(Torn); // another's update
        }
        let (late, stale) = (self.is(flag::LATE), self.is(flag::STALE));
        let newest = self.newest(job, at * job.streams() + stream);
        let before = std::mem::replace(newest, update.n.max(*newest));
        let tally = &mut *reading.tally;
        tally.received += 1;
        tally.goals += u64::from(update.goal);
        if update.n <= before {
            tally.disordered += 1;
        } else if before > 0 || !late {
            let skipped = u64::from(update.n - before - 1);
            tally.skipped += skipped;
            tally.goals_skipped += if update.goal { skipped } else { 0 };
        }
        if reading.measure {
            let age_us = reading.now_ns.saturating_sub(update.due_ns) / 1000;
            tally.age_us.record(age_us);
            reading.interval.record(age_us);
        }
        if stale {
            let since_ns = reading.epoch_ns + u64::from(self.since_ms) * 1_000_000;
            if update.due_ns >= since_ns {
                tally.resume_us.record(reading.now_ns.saturating_sub(since_ns) / 1000);
                self.set(flag::STALE, false);
            } else {
                tally.stale_updates += 1;
            }
        }
        Ok(())
    }

    #[inline]
    fn newest(&mut self, job: &Job, index: u32) -> &mut u32 {
        let streams = job.streams() * job.channels_per_socket;
        if streams <= 2 {
            return &mut self.newest[index as usize];
        }
        let newest = &mut self.extra.get_or_insert_default().newest;
        if newest.is_empty() {
            newest.resize(streams as usize, 0);
        }
        &mut newest[index as usize]
    }
}
