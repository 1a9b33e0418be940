//! One client: what it asks for, what it says, when it reads, and how it goes.
//!
//! Promise: it knows whether it has done anything for which it may be cut off; if not, it is not.

mod ledger;

use crate::proxy::Way;
use crate::ring::{File, SimRing};
use crate::settings::Means;
use crate::socket::ClientRead;
use crate::source::{CHANNELS, Source};
use crate::stream::Stream;
use spillgate::ids::Face;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What a client is held against.
#[derive(Clone, Copy)]
pub struct View<'a> {
    pub source: &'a Source,
    pub means: Means,
    /// Little is kept of unfinished requests and frames: anybody may be closed for it.
    pub tight: bool,
    /// The shard leaves: anybody may be closed.
    pub leaving: bool,
    /// All slots were taken at some time: whoever takes long to read why it was refused may have been cut off.
    pub crowded: bool,
    /// What may be sent to a client beyond its last pong, before it is behind.
    pub window: usize,
}

/// A subscription that was confirmed.
#[derive(Debug)]
struct Sub {
    /// Everything that was published after this one is owed.
    owed_after: u64,
    /// The newest critical update that came.
    critical: u64,
    /// By key: the newest that came of the others.
    keys: BTreeMap<u64, u64>,
    epoch: u64,
    /// Where it was told that the channel stands, by a notice that goes behind what was published until then.
    noticed: u64,
    /// Of updates up to here it was told that some newest ones were not kept for it.
    missed: u64,
}

/// How it answers pings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pongs {
    Prompt,
    /// Some time later, in order.
    Late,
    Twice,
    Never,
    /// With a payload that is not the ping's.
    Wrong,
}

#[derive(Debug, PartialEq, Eq)]
enum Verb {
    Subscribe,
    Unsubscribe,
    Publish,
    /// Nothing that means anything: an error is owed.
    Nonsense,
}

/// How it behaves.
#[derive(Clone, Copy, Debug)]
pub struct Manners {
    pub pongs: Pongs,
    /// It sends frames before it was answered.
    pub eager: bool,
    /// It closes its side when it has read the end.
    pub tidy: bool,
}

impl Manners {
    /// Whether its pongs say what it has read.
    pub fn is_honest(self) -> bool {
        matches!(self.pongs, Pongs::Prompt | Pongs::Late | Pongs::Twice)
    }
}

/// See the module.
#[derive(Debug)]
pub struct Client {
    pub file: File,
    /// The face, where a WebSocket was asked for in a valid request.
    pub face: Option<Face>,
    manners: Manners,
    /// Its connection begins as one from its address must.
    welcome: bool,
    stream: Stream,
    out: VecDeque<u8>,
    pub status: Option<u16>,
    subs: BTreeMap<usize, Sub>,
    wanted: BTreeSet<usize>,
    pings: VecDeque<Vec<u8>>,
    /// Pings that it has yet to answer.
    late: VecDeque<Vec<u8>>,
    commands: Vec<(u64, Verb, usize)>,
    pub stalled: bool,
    /// It has done nothing for which it may be cut off.
    pub blameless: bool,
    /// It has said its last word: a close frame, nonsense, or the end of its side.
    pub done: bool,
    fin_after: bool,
    pub fin: bool,
    pub close_code: Option<u16>,
    pub ended: bool,
    pub updates: u64,
    /// Bytes of critical ones, and of the others.
    critical_bytes: usize,
    /// See `critical_bytes`.
    update_bytes: usize,
}

impl Client {
    pub fn new(file: File, manners: Manners) -> Self {
        Self {
            file,
            face: None,
            manners,
            welcome: true,
            stream: Stream::default(),
            out: VecDeque::new(),
            status: None,
            subs: BTreeMap::new(),
            wanted: BTreeSet::new(),
            pings: VecDeque::new(),
            commands: Vec::new(),
            stalled: false,
            late: VecDeque::new(),
            blameless: manners.is_honest(),
            done: false,
            fin_after: false,
            fin: false,
            close_code: None,
            ended: false,
            updates: 0,
            critical_bytes: 0,
            update_bytes: 0,
        }
    }

    /// Whether it may say something: its WebSocket is open, or it does not care.
    pub fn may_speak(&self) -> bool {
        let begun = self.status == Some(101) || (self.manners.eager && self.status.is_none());
        begun && self.face.is_some() && !self.done && !self.ended
    }

    /// Whether it is owed what its rules say: open, reading, saying what it has read, and not on its way out.
    pub fn is_owed(&self) -> bool {
        self.manners.is_honest()
            && self.face.is_some()
            && !self.stalled
            && !self.ended
            && !self.done
            && self.close_code.is_none()
    }

    /// Begins as whoever comes this way does: perhaps with a PROXY header, mostly with a request behind it.
    pub fn begin(&mut self, rng: &mut fastrand::Rng, source: &Source, way: Way) {
        self.out.extend(way.header(rng));
        self.welcome = way.is_welcome();
        if way == Way::Check {
            return self.end();
        }
        self.request(rng, source);
        if !self.welcome {
            (self.face, self.blameless) = (None, false);
        }
    }

    /// Sends a request: for a face, something else, or nonsense.
    fn request(&mut self, rng: &mut fastrand::Rng, source: &Source) {
        let encoded = |at: usize| source.channels[at].name.replace('/', "%2F").replace(' ', "%20");
        let path = match rng.u8(..) {
            0..110 => {
                let at = rng.usize(..CHANNELS);
                (self.face, self.wanted) = (Some(Face::Raw), BTreeSet::from([at]));
                format!("/raw/{}", encoded(at))
            }
            110..225 => {
                let some = (0..CHANNELS).filter(|_| rng.u8(..) < 80).collect::<BTreeSet<_>>();
                let list = some.iter().map(|at| encoded(*at)).collect::<Vec<_>>().join(",");
                (self.face, self.wanted) = (Some(Face::Json), some);
                format!("/ws?channels={list}")
            }
            225..235 => "/".into(),
            235..245 => "/nothing".into(),
            _ => {
                self.say_last(&b"NO\0NSENSE\r\n\r\n"[..rng.usize(1..13)]);
                return;
            }
        };
        self.out.extend(
            format!(
                "GET {path} HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            )
            .bytes(),
        );
        self.blameless &= self.face.is_some();
    }

    /// Says something, whatever comes to mind. `id` is used by no other command of any client.
    pub fn act(&mut self, rng: &mut fastrand::Rng, source: &Source, id: u64) {
        let json = self.face == Some(Face::Json);
        let at = rng.usize(..CHANNELS);
        let name = &source.channels[at].name;
        // Before it was answered, a client that speaks at all often says its last word.
        match if self.status.is_none() && rng.u8(..) < 60 { 220 } else { rng.u8(..) } {
            0..60 => (0..[1, 1, 1, 5, 20][rng.usize(..5)]).for_each(|_| self.ping(rng)),
            60..120 if json => {
                self.wanted.insert(at);
                self.command(rng, id, Verb::Subscribe, at, &format!(r#"{{"id":{id},"subscribe":"{name}"}}"#));
            }
            120..160 if json => {
                self.wanted.remove(&at);
                self.command(rng, id, Verb::Unsubscribe, at, &format!(r#"{{"id":{id},"unsubscribe":"{name}"}}"#));
            }
            160..190 if json => {
                let text = format!(r#"{{"id":{id},"publish":"{name}","data":1}}"#);
                self.command(rng, id, Verb::Publish, at, &text);
            }
            190..205 if json => {
                self.command(rng, id, Verb::Nonsense, at, &format!(r#"{{"id":{id},"dance":"{name}"}}"#))
            }
            60..205 => self.frame(rng, 0x81, b"words that mean nothing here"),
            205..215 => self.frame(rng, 0x8a, b"a pong that nobody asked for"),
            215..225 => {
                self.frame(rng, 0x88, &[3, 232]);
                (self.done, self.blameless) = (true, false);
            }
            225..230 => self.say_last(b"\x81\x05naked"), // not masked
            230..235 => self.end(),
            235..245 => (self.stalled, self.blameless) = (true, false),
            _ => {}
        }
    }

    /// Closes its side once everything was said.
    pub fn end(&mut self) {
        (self.fin_after, self.done, self.blameless) = (true, true, false);
    }

    /// Writes some of what it has to say.
    pub fn write(&mut self, rng: &mut fastrand::Rng, ring: &mut SimRing) {
        if self.fin || self.ended {
            return;
        }
        while self.status == Some(101)
            && !self.done
            && rng.u8(..) < 20
            && let Some(ping) = self.late.pop_front()
        {
            self.frame(rng, 0x8a, &ping);
        }
        let socket = &mut ring.sockets[self.file];
        if !self.out.is_empty() {
            let len = if rng.bool() { self.out.len() } else { rng.usize(1..=self.out.len()) };
            let bytes: Vec<u8> = self.out.drain(..len).collect();
            socket.client_write(&bytes, rng);
        }
        if self.out.is_empty() && self.fin_after {
            self.fin = true;
            socket.client_fin(rng);
        }
    }

    /// Reads some of what has arrived.
    pub fn read(&mut self, rng: &mut fastrand::Rng, ring: &mut SimRing, view: View<'_>) {
        if self.stalled || self.ended {
            return;
        }
        match ring.sockets[self.file].client_read(rng) {
            ClientRead::Later => {}
            ClientRead::Bytes(bytes) => {
                self.stream.push(&bytes);
                while let Some(item) = self.stream.next() {
                    self.take(item, rng, view);
                }
            }
            ClientRead::End => {
                assert!(self.stream.is_whole(), "a torn frame at the end of a stream: {self:?}");
                assert!(self.status.is_some(), "ended without an answer: {self:?}");
                let said = self.close_code.is_some() || self.status != Some(101);
                assert!(said, "ended without a close frame: {self:?}");
                self.ended = true;
                if self.manners.tidy && !self.fin {
                    self.fin = true;
                    ring.sockets[self.file].client_fin(rng);
                }
            }
            ClientRead::Cut => {
                let refused = ring.sockets[self.file].queued; // its accept failed, or nobody listens any more
                // Who was too slow may be too slow for its close frame, too.
                let refused_slowly = view.crowded && self.status.is_none();
                let excused = refused || refused_slowly || view.tight || view.leaving || view.means == Means::Scarce;
                assert!(!self.blameless || excused, "cut off for nothing: {self:?}");
                self.ended = true;
            }
        }
    }

    /// Whether it has something to write or to read.
    pub fn is_busy(&self, ring: &SimRing) -> bool {
        let pongs = !self.late.is_empty() && !self.done;
        let unwritten = !self.fin && (!self.out.is_empty() || self.fin_after || pongs);
        !self.ended && (unwritten || (!self.stalled && ring.sockets[self.file].has_news()))
    }

    fn ping(&mut self, rng: &mut fastrand::Rng) {
        let payload: Vec<u8> = (0..rng.usize(..20)).map(|_| rng.u8(..)).collect();
        self.frame(rng, 0x89, &payload);
        self.pings.push_back(payload);
    }

    fn command(&mut self, rng: &mut fastrand::Rng, id: u64, verb: Verb, at: usize, text: &str) {
        self.commands.push((id, verb, at));
        match rng.u8(..) {
            0..40 => {
                let (first, second) = text.as_bytes().split_at(rng.usize(..=text.len()));
                self.frame(rng, 0x01, first);
                self.ping(rng);
                self.frame(rng, 0x80, second);
            }
            _ => self.frame(rng, 0x81, text.as_bytes()),
        }
    }

    fn say_last(&mut self, bytes: &[u8]) {
        self.out.extend(bytes);
        (self.done, self.blameless) = (true, false);
    }

    /// A masked frame.
    fn frame(&mut self, rng: &mut fastrand::Rng, first: u8, payload: &[u8]) {
        let mask = rng.u32(..).to_be_bytes();
        self.out.push_back(first);
        match payload.len() {
            len @ 0..126 => self.out.push_back(0x80 | len as u8),
            len => self.out.extend([0x80 | 126, (len >> 8) as u8, len as u8]),
        }
        self.out.extend(mask);
        self.out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    }
}
