//! What a client holds against every whole thing that it is sent.
//!
//! Promise: an update that it did not subscribe to, that comes twice or out of order, that is changed or that is
//! missing fails the test; so does an answer that nobody asked for.

use super::{Client, Sub, Verb, View};
use crate::source::Source;
use crate::stream::Item;
use serde_json::Value;
use spillgate::ids::Face;

impl Client {
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

    pub(super) fn take(&mut self, item: Item, rng: &mut fastrand::Rng, view: View<'_>) {
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
        let id = asked.as_ref().map_or(0, |(id, ..)| *id);
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
                self.subs.remove(&at);
                let earlier =
                    |(asked, verb, on): &(u64, Verb, usize)| *asked < id && (verb, *on) == (&Verb::Subscribe, at);
                assert!(!self.commands.iter().any(earlier), "a subscribe was taken back and not answered");
            }
            (None, None, Some(at)) => assert!(asked == Some((Verb::Publish, at)), "{text} answers something else"),
            _ => assert!(reply["error"]["code"].is_string() && asked.is_some(), "{text} answers nothing"),
        }
    }
}
