//! One client: what it asks for, what it says, and what it holds against every byte that it is sent.
//!
//! Promise: an update that it did not subscribe to, that comes twice or out of order, that is changed or that is
//! missing fails the test; so does an answer that nobody asked for.

use crate::ring::{File, SimRing};
use crate::socket::ClientRead;
use crate::source::{CHANNELS, Source};
use crate::stream::{Item, Stream};
use serde_json::Value;
use spillgate::ids::Face;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What a client is held against.
#[derive(Clone, Copy)]
pub struct View<'a> {
    pub source: &'a Source,
    /// Outboxes hold everything: not one update may be missing.
    pub lossless: bool,
    /// Little is kept of unfinished requests and frames: anybody may be closed for it.
    pub tight: bool,
    /// The shard leaves: anybody may be closed.
    pub leaving: bool,
}

/// A subscription that was confirmed.
#[derive(Debug)]
struct Sub {
    /// Everything that was published after this one is owed.
    owed_after: u64,
    /// The newest update that came.
    newest: u64,
    epoch: u64,
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
    /// It answers pings.
    pub pongs: bool,
    /// It sends frames before it was answered.
    pub eager: bool,
    /// It closes its side when it has read the end.
    pub tidy: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Client {
    pub file: File,
    /// The face, where a WebSocket was asked for in a valid request.
    pub face: Option<Face>,
    manners: Manners,
    stream: Stream,
    out: VecDeque<u8>,
    pub status: Option<u16>,
    subs: BTreeMap<usize, Sub>,
    wanted: BTreeSet<usize>,
    pings: VecDeque<Vec<u8>>,
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
}

impl Client {
    pub fn new(file: File, manners: Manners) -> Self {
        Self {
            file,
            face: None,
            manners,
            stream: Stream::default(),
            out: VecDeque::new(),
            status: None,
            subs: BTreeMap::new(),
            wanted: BTreeSet::new(),
            pings: VecDeque::new(),
            commands: Vec::new(),
            stalled: false,
            blameless: manners.pongs,
            done: false,
            fin_after: false,
            fin: false,
            close_code: None,
            ended: false,
            updates: 0,
        }
    }

    /// Whether it may say something: its WebSocket is open, or it does not care.
    pub fn may_speak(&self) -> bool {
        let begun = self.status == Some(101) || (self.manners.eager && self.status.is_none());
        begun && self.face.is_some() && !self.done && !self.ended
    }

    /// Whether it is owed everything: open, reading, and not on its way out.
    pub fn is_owed(&self) -> bool {
        self.blameless && self.face.is_some() && !self.stalled && !self.ended && !self.done && self.close_code.is_none()
    }

    /// Sends a request: for a face, something else, or nonsense.
    pub fn request(&mut self, rng: &mut fastrand::Rng, source: &Source) {
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
        match rng.u8(..) {
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
            190..205 if json => self.command(rng, id, Verb::Nonsense, at, &format!(r#"{{"id":{id},"dance":"{name}"}}"#)),
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
                assert!(!self.blameless || refused || view.tight || view.leaving, "cut off for nothing: {self:?}");
                self.ended = true;
            }
        }
    }

    /// Whether it has everything that it is owed, where the world is at rest.
    pub fn check(&self, view: View<'_>) {
        assert!(self.status.is_some(), "a whole request was never answered: {self:?}");
        if self.status != Some(101) {
            return;
        }
        assert!(self.pings.is_empty(), "pings were never answered: {self:?}");
        assert!(self.commands.is_empty(), "commands were never answered: {self:?}");
        assert!(self.subs.keys().eq(&self.wanted), "not subscribed as wanted: {self:?}");
        for (&at, sub) in &self.subs {
            let channel = &view.source.channels[at];
            let (came, newest) = (sub.newest.max(sub.owed_after), channel.newest());
            self.check_gap(view, at, came, newest + 1);
            if self.face == Some(Face::Raw) {
                assert!(came >= newest, "the newest update, {newest} of {:?}, is missing: {self:?}", channel.name);
            }
            let json = self.face == Some(Face::Json);
            assert!(!json || sub.epoch == channel.epoch, "it was not told of epoch {}: {self:?}", channel.epoch);
        }
    }

    /// Whether it has something to write or to read.
    pub fn is_busy(&self, ring: &SimRing) -> bool {
        let unwritten = !self.fin && (!self.out.is_empty() || self.fin_after);
        !self.ended && (unwritten || (!self.stalled && ring.sockets[self.file].has_news()))
    }

    fn take(&mut self, item: Item, rng: &mut fastrand::Rng, view: View<'_>) {
        match item {
            Item::Response(status) => {
                self.status = Some(status);
                assert!(self.face.is_some() || status != 101, "{self:?}");
                if let (Some(Face::Raw), 101, Some(at)) = (self.face, status, self.wanted.first()) {
                    // What was published until now may come, what is published from now on must.
                    self.subs.insert(*at, Sub { owed_after: view.source.channels[*at].seq, newest: 0, epoch: 0 });
                }
                if status != 101 {
                    assert!(status == 503 || !self.blameless, "a valid request was answered {status}: {self:?}");
                    self.end();
                }
            }
            Item::Frame { opcode: 9, bytes, payload } if self.manners.pongs && !self.done => {
                self.frame(rng, 0x8a, &bytes[payload..]);
            }
            Item::Frame { opcode: 9, .. } => {}
            Item::Frame { opcode: 10, bytes, payload } => {
                let ping = self.pings.pop_front();
                assert_eq!(ping.as_deref(), Some(&bytes[payload..]), "a pong for no ping: {self:?}");
            }
            Item::Frame { opcode: 8, bytes, payload } => {
                self.close_code = Some(u16::from_be_bytes([bytes[payload], bytes[payload + 1]]));
                assert!(!self.blameless || view.tight || view.leaving, "closed for nothing: {self:?}");
                if !self.done {
                    self.frame(rng, 0x88, &bytes[payload..payload + 2]);
                }
                self.done = true;
                self.fin_after = self.manners.tidy;
            }
            Item::Frame { bytes, payload, .. } => self.message(&bytes, payload, view),
        }
    }

    fn message(&mut self, frame: &[u8], payload: usize, view: View<'_>) {
        let text = std::str::from_utf8(&frame[payload..]).expect("a torn frame: it is not text");
        if self.face == Some(Face::Json) && !text.starts_with(r#"{"channel":"#) {
            return self.reply(text, view.source);
        }
        let data = text.split_once(r#""data":""#).map_or(text, |(_, data)| data);
        let (name, rest) = data.split_once('#').unwrap_or_else(|| panic!("a torn frame: {text:?}"));
        let at = view.source.channels.iter().position(|channel| channel.name == name);
        let at = at.unwrap_or_else(|| panic!("a torn frame: {text:?}"));
        let seq = rest.split_once('#').and_then(|(seq, _)| seq.parse().ok());
        let seq: u64 = seq.unwrap_or_else(|| panic!("a torn frame: {text:?}"));
        let face = self.face.expect("only WebSockets get frames");
        let sent = view.source.channels[at].updates[&seq].frames[face.index()].as_deref();
        assert!(sent == Some(frame), "a torn frame: {text:?} was sent otherwise");
        self.updates += 1;
        let Some(sub) = self.subs.get_mut(&at) else {
            panic!("update {seq} of {name:?}, to which it is not subscribed: {self:?}");
        };
        let last = std::mem::replace(&mut sub.newest, seq);
        let owed_after = last.max(sub.owed_after);
        assert!(seq > last, "update {seq} of {name:?} came twice or late: {self:?}");
        self.check_gap(view, at, owed_after, seq);
    }

    /// Everything that was published after one update and before another has come.
    fn check_gap(&self, view: View<'_>, at: usize, after: u64, before: u64) {
        let channel = &view.source.channels[at];
        if view.lossless && after + 1 < before {
            for (seq, _) in channel.updates.range(after + 1..before) {
                assert!(channel.conflated.contains(seq), "update {seq} of {:?} is missing: {self:?}", channel.name);
            }
        }
    }

    fn reply(&mut self, text: &str, source: &Source) {
        let reply: Value = serde_json::from_str(text).expect("a torn frame: a reply is JSON");
        let channel = |verb: &str| {
            let name = reply[verb].as_str()?;
            Some(source.channels.iter().position(|channel| channel.name == name).expect("a channel that there is"))
        };
        let asked = reply["id"].as_u64().map(|id| {
            let at = self.commands.iter().position(|(asked, ..)| *asked == id);
            self.commands.remove(at.unwrap_or_else(|| panic!("{text} answers another client: {self:?}")))
        });
        let asked = asked.map(|(_, verb, at)| (verb, at));
        match (channel("subscribed"), channel("unsubscribed"), channel("published")) {
            (Some(at), None, None) => {
                assert!(asked.is_none_or(|asked| asked == (Verb::Subscribe, at)), "{text} answers something else");
                let epoch = u64::from_str_radix(reply["epoch"].as_str().expect("an epoch"), 16).expect("hexadecimal");
                let seq = reply["seq"].as_u64().expect("a seq");
                let sub = self.subs.entry(at).or_insert(Sub { owed_after: seq, newest: seq, epoch });
                assert!(epoch >= sub.epoch, "{text} tells of an older epoch");
                sub.epoch = epoch;
            }
            (None, Some(at), None) => {
                assert!(asked == Some((Verb::Unsubscribe, at)), "{text} answers something else");
                assert!(self.subs.remove(&at).is_some() || self.gave_up(at), "{text} was not subscribed: {self:?}");
            }
            (None, None, Some(at)) => assert!(asked == Some((Verb::Publish, at)), "{text} answers something else"),
            _ => assert!(reply["error"]["code"].is_string() && asked.is_some(), "{text} answers nothing"),
        }
    }

    /// Whether it unsubscribed before its subscription was confirmed: then that is never answered.
    fn gave_up(&mut self, at: usize) -> bool {
        self.commands.retain(|(_, verb, channel)| (verb, *channel) != (&Verb::Subscribe, at));
        true
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
