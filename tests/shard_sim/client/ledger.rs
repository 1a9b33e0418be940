//! What a client holds against every whole thing that it is sent.
//!
//! Promise: an update that it did not subscribe to, that comes twice or out of order, that is changed or that is
//! missing against the rule of its channel fails the test; so does an answer that nobody asked for.

use super::{Client, Pongs, Sub, Verb, View};
use crate::settings::Means;
use crate::source::{CONFLATES, DISCONNECT, GOALS, RATED, Source};
use crate::stream::Item;
use serde_json::Value;
use spillgate::ids::Face;

/// What the updates of one turn, sent together, may run over the window: one of any size, or 32 KiB of several.
const RUN_BYTES_MAX: usize = 48 << 10;

impl Sub {
    /// A subscription to what is published after `owed_after`.
    fn from(owed_after: u64, epoch: u64) -> Self {
        Self { owed_after, critical: 0, keys: Default::default(), epoch, noticed: 0, missed: 0 }
    }
}

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
            let end = channel.newest() + 1;
            self.check_gap(view, at, None, sub.critical.max(sub.owed_after), end);
            let owed = channel.given(sub.owed_after + 1..end).filter(|update| !update.critical);
            let json = self.face == Some(Face::Json);
            for update in owed.filter(|_| view.means != Means::Scarce || (json && CONFLATES.contains(&at))) {
                let (seq, key) = (update.seq, update.key);
                let newest = sub.keys.get(&key).copied().unwrap_or(0);
                assert!(
                    newest.max(sub.missed) >= seq,
                    "{seq} of {:?}/{key} is missing, nothing newer came, and nobody said so: {self:?}",
                    channel.name
                );
            }
            assert!(!json || sub.epoch == channel.epoch, "it was not told of epoch {}: {self:?}", channel.epoch);
        }
    }

    pub(super) fn take(&mut self, item: Item, rng: &mut fastrand::Rng, view: View<'_>) {
        match item {
            Item::Response(status) => {
                self.status = Some(status);
                assert!(self.face.is_some() || status != 101, "{self:?}");
                assert!(self.welcome || [400, 408, 503].contains(&status), "believed without a right: {self:?}");
                if let (Some(Face::Raw), 101, Some(at)) = (self.face, status, self.wanted.first()) {
                    // What was published until now may come, what is published from now on must.
                    self.subs.insert(*at, Sub::from(view.source.channels[*at].seq, 0));
                }
                if status != 101 {
                    assert!(status == 503 || !self.blameless, "a valid request was answered {status}: {self:?}");
                    self.end();
                }
            }
            Item::Frame { opcode: 9, .. } if self.done => {}
            Item::Frame { opcode: 9, bytes, payload } => match self.manners.pongs {
                Pongs::Prompt => self.frame(rng, 0x8a, &bytes[payload..]),
                Pongs::Late => self.late.push_back(bytes[payload..].to_vec()),
                Pongs::Twice => (0..2).for_each(|_| self.frame(rng, 0x8a, &bytes[payload..])),
                Pongs::Never => {}
                Pongs::Wrong => self.frame(rng, 0x8a, b"none"),
            },
            Item::Frame { opcode: 10, bytes, payload } => {
                let ping = self.pings.pop_front();
                assert_eq!(ping.as_deref(), Some(&bytes[payload..]), "a pong for no ping: {self:?}");
            }
            Item::Frame { opcode: 8, bytes, payload } => {
                self.close_code = Some(u16::from_be_bytes([bytes[payload], bytes[payload + 1]]));
                let too_slow = view.means == Means::Scarce && self.close_code == Some(1013);
                assert!(!self.blameless || too_slow || view.tight || view.leaving, "closed for nothing: {self:?}");
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
        let update = &view.source.channels[at].updates[&seq];
        assert!(update.frames[face.index()].as_deref() == Some(frame), "a torn frame: {text:?} was sent otherwise");
        self.updates += 1;
        match update.critical {
            true => self.critical_bytes += frame.len(),
            false => self.update_bytes += frame.len(),
        }
        let all = self.update_bytes + self.critical_bytes;
        let [most, all_most] = [1, 4].map(|windows| windows * view.window + RUN_BYTES_MAX);
        assert!(
            self.manners.is_honest() || (self.update_bytes <= most && all <= all_most),
            "it never says what it has read, and was sent {all} bytes: {self:?}"
        );
        let Some(sub) = self.subs.get_mut(&at) else {
            panic!("update {seq} of {name:?}, to which it is not subscribed: {self:?}");
        };
        // Critical ones are in order among themselves, the others by key.
        let before = match update.critical {
            true => std::mem::replace(&mut sub.critical, seq),
            false => sub.keys.insert(update.key, seq).unwrap_or(0),
        };
        let owed_after = sub.owed_after.max(before);
        assert!(seq > before, "update {seq} of {name:?} came twice or late: {self:?}");
        // Critical ones overtake notices, and `max_rate` holds back in the shard.
        let in_line = at != GOALS && at != RATED;
        let noticed = sub.noticed;
        assert!(!in_line || seq > noticed, "{seq} of {name:?} came after the notice of {noticed}: {self:?}");
        self.check_gap(view, at, (!update.critical).then_some(update.key), owed_after, seq);
    }

    /// Everything that may not be lost has come of what was published of a key after one update and before another: critical
    /// ones (`key` is none), those of a channel that would rather have the socket closed, and where there is room for all, all.
    fn check_gap(&self, view: View<'_>, at: usize, key: Option<u64>, after: u64, before: u64) {
        let channel = &view.source.channels[at];
        let all = at == DISCONNECT || (view.means == Means::Plenty && at != RATED);
        let mut given = channel.given(after + 1..before);
        let lost = given.find(|update| match key {
            None => update.critical,
            Some(key) => all && !update.critical && update.key == key,
        });
        let seq = lost.map(|update| update.seq);
        assert!(seq.is_none(), "update {seq:?} of {:?} is missing: {self:?}", channel.name);
    }

    fn reply(&mut self, text: &str, source: &Source) {
        let reply: Value = serde_json::from_str(text).expect("a torn frame: a reply is JSON");
        if let Some(name) = reply["missed"].as_str() {
            let at = source.channels.iter().position(|channel| channel.name == name).expect("a channel that there is");
            let Some(sub) = self.subs.get_mut(&at) else {
                panic!("{text} is about a channel to which it is not subscribed: {self:?}")
            };
            let seq = reply["seq"].as_u64().expect("a seq");
            assert!(CONFLATES.contains(&at) && reply["id"].is_null(), "{text} tells of nothing that can be missed");
            assert!(seq >= sub.missed, "{text} came late");
            sub.missed = seq;
            return;
        }
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
        let is_answer = asked.is_some();
        match (channel("subscribed"), channel("unsubscribed"), channel("published")) {
            (Some(at), None, None) => {
                assert!(asked.is_none_or(|asked| asked == (Verb::Subscribe, at)), "{text} answers something else");
                let epoch = u64::from_str_radix(reply["epoch"].as_str().expect("an epoch"), 16).expect("hexadecimal");
                let seq = reply["seq"].as_u64().expect("a seq");
                let sub = self.subs.entry(at).or_insert_with(|| Sub::from(seq, epoch));
                assert!(epoch >= sub.epoch, "{text} tells of an older epoch");
                if !is_answer && epoch > sub.epoch && source.channels[at].noticed.contains(&epoch) {
                    sub.noticed = seq;
                }
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
