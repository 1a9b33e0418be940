//! Subscriptions: who is on which channel, and when each of them is told so.

use super::Shard;
use super::conn::{State, Sub, Waiting};
use crate::bus::Confirmed;
use crate::fanout::{Member, Run};
use crate::ids::{ConnId, Face};
use crate::metrics::DropReason;
use crate::sys::Ring;
use crate::wire::{self, Id};
use std::rc::Rc;

impl<R: Ring> Shard<R> {
    /// Subscribes; whether the channel is confirmed already. If not, its confirmation answers `id`.
    pub(super) fn subscribe(&mut self, id: ConnId, name: &str, reply_to: Option<Id>) -> bool {
        let channel = self.channels.open(name, &self.config);
        let (_, conn) = self.conns.at(id.slot.0);
        let member = Member { slot: id.slot.0, sub: conn.subs.as_slice().len() as u32 };
        let (position, confirmed) = self.channels.join(channel, conn.face(), member);
        let waiting = (!confirmed).then(|| Box::new(Waiting { id: reply_to }));
        conn.subs.push(Sub { channel, position, waiting });
        confirmed
    }

    /// Subscribes, and says so as soon as it is true.
    pub(super) fn subscribe_and_reply(&mut self, id: ConnId, name: &str, reply_to: Option<Id>) {
        if self.subscribe(id, name, reply_to.clone()) {
            let channel = self.channels.open(name, &self.config);
            self.reply_subscribed(id, channel, reply_to.as_ref());
        }
    }

    /// Says that a channel is subscribed, where it stands, and answers `reply_to`.
    pub(super) fn reply_subscribed(&mut self, id: ConnId, channel: u32, reply_to: Option<&Id>) {
        let channel = self.channels.at(channel);
        let reply = wire::envelope::subscribed(reply_to, &channel.name, &channel.epoch.to_string(), channel.seq);
        self.control(id, reply);
    }

    /// Takes away a connection's subscription number `at`, and what waits of it.
    pub(super) fn unsubscribe(&mut self, id: ConnId, at: usize) {
        let (_, conn) = self.conns.at(id.slot.0);
        let face = conn.face();
        let sub = conn.subs.swap_remove(at);
        let renumbered = conn.subs.as_slice().get(at).map(|moved| (moved.channel, moved.position));
        if let Some((channel, position)) = renumbered {
            self.channels.renumber(channel, face, position, at as u32);
        }
        if let Some(moved) = self.channels.leave(sub.channel, face, sub.position) {
            let (_, other) = self.conns.at(moved.slot);
            other.subs.as_mut_slice()[moved.sub as usize].position = sub.position;
        }
        if self.channels.at(sub.channel).is_deserted() {
            self.forget_held(sub.channel);
        }
        let dropped = self.change_outbox(id, |outbox| outbox.forget_channel(sub.channel));
        self.counters.drop_updates(DropReason::Unsubscribed, dropped.unwrap_or_default());
    }

    /// Takes all subscriptions of a connection away.
    pub(super) fn unsubscribe_all(&mut self, id: ConnId) {
        loop {
            let (_, conn) = self.conns.at(id.slot.0);
            match conn.subs.as_slice().len() {
                0 => return,
                len => self.unsubscribe(id, len - 1),
            }
        }
    }

    /// The source says what holds for a channel.
    pub(super) fn confirmed(&mut self, confirmed: Confirmed) {
        let Confirmed { channel: place, version, faces, epoch, seq } = confirmed;
        if self.channels.find(place).is_some_and(|channel| !channel.arrived.is_empty()) {
            self.fan_out(); // what was published before is owed to those who were confirmed before
        }
        let Some((news, new_epoch)) = self.channels.confirm(place, version, faces, epoch, seq) else { return };
        for face in Face::ALL {
            match () {
                () if news.has(face) => self.answer_waiting(place.index, face),
                () if new_epoch && face == Face::Json => self.tell_epoch(place.index, face),
                () => {}
            }
        }
    }

    /// Those who wait for a channel get their answer.
    fn answer_waiting(&mut self, channel: u32, face: Face) {
        // What came behind a request may take its sender off the list again, and the last member takes its place: from
        // the end, that one has been answered already.
        for at in (0..self.channels.at(channel).audiences[face.index()].members.len()).rev() {
            let member = self.channels.at(channel).audiences[face.index()].members[at];
            let (id, conn) = self.conns.at(member.slot);
            let Some(waiting) = conn.subs.as_mut_slice()[member.sub as usize].waiting.take() else { continue };
            match conn.state {
                State::Confirming => self.open(id),
                _ => self.reply_subscribed(id, channel, waiting.id.as_ref()),
            }
        }
    }

    /// A client is told of which channels it missed the newest state, where its face has a word for it.
    pub(super) fn tell_missed(&mut self, id: ConnId) {
        let missed = self.change_outbox(id, |outbox| outbox.take_missed()).unwrap_or_default();
        for index in missed {
            let (_, conn) = self.conns.at(id.slot.0);
            let is_subscribed = conn.subs.as_slice().iter().any(|sub| sub.channel == index);
            if conn.state != State::Open || conn.face() != Face::Json || !is_subscribed {
                continue;
            }
            let channel = self.channels.at(index);
            let notice = Rc::new(Run::missed(index, wire::envelope::missed(&channel.name, channel.seq)));
            self.change_outbox_made(id, |outbox| outbox.missed(notice));
            self.flush_later(id);
        }
    }

    /// Live subscribers are told that updates may have been missed.
    fn tell_epoch(&mut self, index: u32, face: Face) {
        let channel = self.channels.at(index);
        if !channel.audiences[face.index()].confirmed {
            return; // they were told nothing yet: their own confirmation is on its way
        }
        let frame = wire::envelope::subscribed(None, &channel.name, &channel.epoch.to_string(), channel.seq);
        let notice = Rc::new(Run::notice(index, frame));
        for at in 0..channel.audiences[face.index()].members.len() {
            let member = self.channels.at(index).audiences[face.index()].members[at];
            let (id, _) = self.conns.at(member.slot);
            self.change_outbox_made(id, |outbox| outbox.notice(Rc::clone(&notice)));
            self.flush_later(id);
        }
    }
}
