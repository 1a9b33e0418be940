//! What the shards want of each channel, and where each channel stands. Pure: no IO, no clock.
//!
//! Invariant: every demand with faces and a new version is answered with one [`Confirmed`] of that version: at once
//! where the channel is subscribed or nothing can be waited for, else when it is.
//! Invariant: within an epoch `seq` grows by one with each update; where updates may have been missed, the epoch is new.
//! Invariant: what nobody wants any more is forgotten after the linger.
//! Invariant: however much shards miss of a channel, that begins at most one epoch of it in [`EPOCH_PAUSE_US`].

use crate::bus::{Confirmed, Demand};
use crate::config::ChannelRule;
use crate::fanout::Update;
use crate::ids::{ChannelRef, Epoch, Face, Faces, ShardId};
use crate::wire::envelope::{json_update, raw_update};
use crate::wire::sort::Sorter;
use hashbrown::HashMap;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// Between two epochs of a channel that begin because shards missed updates: a notice goes to every subscriber.
const EPOCH_PAUSE_US: u64 = 1_000_000;

/// What is to be handed to a shard.
#[derive(Clone, Debug)]
pub enum Word {
    /// The answer to a demand.
    Confirmed(ShardId, Confirmed),
    /// The channel is in a new epoch.
    Notice(ShardId, Confirmed),
    /// A channel's next update.
    Update(ShardId, ChannelRef, Arc<Update>),
}

/// What was published to a channel.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// The channel's name.
    pub channel: &'a str,
    /// What was published.
    pub payload: &'a [u8],
    /// When it was received, in microseconds of the process's clock.
    pub now_us: u64,
    /// The same in milliseconds since 1970.
    pub ts_ms: u64,
    /// A SUBSCRIBE is under way. Then a message of a channel that waits proves that it is subscribed, ahead of the
    /// confirmation of the whole batch; else it is the rest of an earlier subscription.
    pub subscribing: bool,
}

/// What became of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Received {
    /// It goes to shards with this many subscribers; 0 where nobody listens.
    Given(u64),
    /// It was dropped: it is larger than `limits.update_bytes_max`. The gap shows in `seq`.
    TooLarge,
}

/// Whether subscriptions have to be waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    /// The embedded engine: every channel is there.
    Embedded,
    /// Redis is away: nobody waits, and the epoch changes when it is back.
    Away,
    /// Redis is there: it confirms.
    Up,
}

/// Channel name → where it stands, and who wants it.
#[derive(Debug)]
pub struct Table {
    /// Rules by channel name, and what each says of an update.
    rules: Vec<(ChannelRule, Option<Arc<Sorter>>)>,
    channels: HashMap<Arc<str>, Channel>,
    /// Channels that nobody wants, by the time (in microseconds) at which they are forgotten.
    lingering: BTreeSet<(u64, Arc<str>)>,
    /// The names of channels by what shards know them as.
    places: HashMap<(ShardId, ChannelRef), Arc<str>>,
    /// Channels of which shards missed updates, by the time (in microseconds) at which they begin new epochs for it.
    overrun: BTreeSet<(u64, Arc<str>)>,
    link: Link,
    linger_us: u64,
    update_bytes_max: usize,
    confirmed: u64,
    epochs: fastrand::Rng,
}

#[derive(Debug)]
struct Channel {
    sorter: Option<Arc<Sorter>>,
    epoch: Epoch,
    /// The last sequence number given out.
    seq: u64,
    stands: Stands,
    /// Updates may have been missed in this epoch.
    missed: bool,
    /// Until then it begins no epoch because shards missed updates.
    epoch_until_us: u64,
    /// The faces that updates are encoded for: those of all wants.
    faces: Faces,
    wants: Vec<Want>,
    /// When it is forgotten, while nobody wants it.
    until_us: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stands {
    Waiting,
    Confirmed,
    /// Redis does not let us subscribe it: nobody waits for it, nothing comes.
    Refused,
}

#[derive(Debug)]
struct Want {
    shard: ShardId,
    channel: ChannelRef,
    faces: Faces,
    sockets: u32,
    version: u32,
    /// The newest version that was answered.
    answered: Option<u32>,
}

impl Table {
    /// An empty table: of the embedded engine, or of a Redis that is yet to be reached.
    pub fn new(embedded: bool, linger: Duration, update_bytes_max: usize, rules: &[ChannelRule]) -> Self {
        // Rules whose pointers are none are refused when the configuration is checked.
        let sorter = |rule: &ChannelRule| Sorter::of(rule).ok().flatten().map(Arc::new);
        Self {
            rules: rules.iter().map(|rule| (rule.clone(), sorter(rule))).collect(),
            channels: HashMap::new(),
            lingering: BTreeSet::new(),
            places: HashMap::new(),
            overrun: BTreeSet::new(),
            link: if embedded { Link::Embedded } else { Link::Away },
            linger_us: linger.as_micros() as u64,
            update_bytes_max,
            confirmed: 0,
            epochs: fastrand::Rng::new(),
        }
    }

    /// Takes in what a shard wants of a channel. Answers the channel's name where it is new: then it has to be subscribed.
    #[must_use]
    pub fn demand(&mut self, demand: &Demand, now_us: u64, words: &mut Vec<Word>) -> Option<Arc<str>> {
        if demand.faces.is_empty() {
            self.forget(demand, now_us);
            return None;
        }
        let new = (!self.channels.contains_key(&demand.name)).then(|| Arc::clone(&demand.name));
        if new.is_some() {
            let channel = self.new_channel(&demand.name);
            self.confirmed += u64::from(channel.stands == Stands::Confirmed);
            self.channels.insert(Arc::clone(&demand.name), channel);
        }
        let channel = self.channels.get_mut(&demand.name)?;
        if let Some(until_us) = channel.until_us.take() {
            self.lingering.remove(&(until_us, Arc::clone(&demand.name)));
        }
        if let Some(place) = channel.take_in(demand) {
            self.places.remove(&(demand.shard, place));
        }
        self.places.entry((demand.shard, demand.channel)).or_insert_with(|| Arc::clone(&demand.name));
        if channel.stands != Stands::Waiting || self.link != Link::Up {
            channel.answer(words);
        }
        new
    }

    /// Redis confirmed a channel.
    pub fn confirm(&mut self, name: &str, words: &mut Vec<Word>) {
        if let Some(channel) = self.channels.get_mut(name)
            && channel.stands != Stands::Confirmed
        {
            channel.confirm(&mut self.epochs, words);
            self.confirmed += 1;
        }
    }

    /// Redis refused a channel: nobody waits for it any longer.
    pub fn refuse(&mut self, name: &str, words: &mut Vec<Word>) {
        if let Some(channel) = self.channels.get_mut(name) {
            (channel.stands, channel.missed) = (Stands::Refused, true);
            channel.answer(words);
        }
    }

    /// Takes in what was published.
    pub fn receive(&mut self, message: &Message<'_>, words: &mut Vec<Word>) -> Received {
        let &Message { channel: name, payload, now_us, ts_ms, subscribing } = message;
        let Some(channel) = self.channels.get_mut(name) else { return Received::Given(0) };
        if channel.stands != Stands::Confirmed {
            if !subscribing {
                return Received::Given(0); // the rest of a subscription that was given up
            }
            channel.confirm(&mut self.epochs, words);
            self.confirmed += 1;
        }
        channel.seq += 1;
        if payload.len() > self.update_bytes_max {
            return Received::TooLarge;
        }
        if channel.wants.is_empty() {
            return Received::Given(0);
        }
        let seq = channel.seq;
        let frames = Face::ALL.map(|face| {
            channel.faces.has(face).then(|| match face {
                Face::Raw => raw_update(payload).into(),
                Face::Json => json_update(name, seq, ts_ms, payload).into(),
            })
        });
        let (key, critical) = channel.sorter.as_ref().map_or((0, false), |sorter| sorter.sort(payload));
        let update = Arc::new(Update { seq, received_us: now_us, key, critical, frames });
        words.extend(channel.wants.iter().map(|want| Word::Update(want.shard, want.channel, Arc::clone(&update))));
        Received::Given(channel.wants.iter().map(|want| u64::from(want.sockets)).sum())
    }

    /// Redis is lost: nobody waits for it, and every channel's epoch is over. Answers the channels that nobody wants
    /// and that are forgotten for it.
    pub fn lost(&mut self, words: &mut Vec<Word>) -> Vec<Arc<str>> {
        (self.link, self.confirmed) = (Link::Away, 0);
        let unwanted = std::mem::take(&mut self.lingering).into_iter().map(|(_, name)| name);
        let unwanted: Vec<_> = unwanted.inspect(|name| drop(self.channels.remove(name))).collect();
        for channel in self.channels.values_mut() {
            (channel.stands, channel.missed) = (Stands::Waiting, true);
            channel.answer(words);
        }
        unwanted
    }

    /// A shard has missed an update of what it knows as `place`: the channel's epoch is over, as soon as it may be.
    pub fn missed(&mut self, shard: ShardId, place: ChannelRef, now_us: u64) {
        let Some(name) = self.places.get(&(shard, place)) else { return };
        let Some(channel) = self.channels.get_mut(name) else { return };
        if !std::mem::replace(&mut channel.missed, true) {
            self.overrun.insert((channel.epoch_until_us.max(now_us), Arc::clone(name)));
        }
    }

    /// Begins the epochs that are due because shards have missed updates.
    pub fn begin_epochs(&mut self, now_us: u64, words: &mut Vec<Word>) {
        while self.overrun.first().is_some_and(|(at_us, _)| *at_us <= now_us) {
            let Some((_, name)) = self.overrun.pop_first() else { break };
            let Some(channel) = self.channels.get_mut(&name) else { continue };
            // Whatever else ended its epoch since has told its subscribers, or will.
            if channel.missed && channel.stands == Stands::Confirmed && channel.epoch_until_us <= now_us {
                channel.epoch_until_us = now_us + EPOCH_PAUSE_US;
                channel.confirm(&mut self.epochs, words);
            }
        }
    }

    /// Redis is there again: from now on it is waited for.
    pub fn restored(&mut self) {
        self.link = Link::Up;
    }

    /// Forgets the channels that nobody wanted for the linger: they have to be unsubscribed.
    pub fn expire(&mut self, now_us: u64) -> Vec<Arc<str>> {
        let mut expired = Vec::new();
        while self.lingering.first().is_some_and(|(until_us, _)| *until_us <= now_us) {
            let Some((_, name)) = self.lingering.pop_first() else { break };
            let channel = self.channels.remove(&name);
            self.confirmed -= u64::from(channel.is_some_and(|channel| channel.stands == Stands::Confirmed));
            expired.push(name);
        }
        expired
    }

    /// When [`Table::expire`] or [`Table::begin_epochs`] has something to do, in microseconds.
    pub fn due_us(&self) -> Option<u64> {
        let first = |times: &BTreeSet<(u64, Arc<str>)>| times.first().map(|(at_us, _)| *at_us);
        [first(&self.lingering), first(&self.overrun)].into_iter().flatten().min()
    }

    /// Channels that some shard wants.
    pub fn channels_wanted(&self) -> u64 {
        (self.channels.len() - self.lingering.len()) as u64
    }

    /// Channels that are subscribed.
    pub fn channels_confirmed(&self) -> u64 {
        self.confirmed
    }

    fn new_channel(&mut self, name: &str) -> Channel {
        let rule = self.rules.iter().find(|(rule, _)| rule.fits(name));
        Channel {
            sorter: rule.and_then(|(_, sorter)| sorter.clone()),
            epoch: Epoch(self.epochs.u64(..)),
            seq: 0,
            stands: if self.link == Link::Embedded { Stands::Confirmed } else { Stands::Waiting },
            missed: self.link == Link::Away,
            epoch_until_us: 0,
            faces: Faces::NONE,
            wants: Vec::new(),
            until_us: None,
        }
    }

    fn forget(&mut self, demand: &Demand, now_us: u64) {
        let Some(channel) = self.channels.get_mut(&demand.name) else { return };
        channel.wants.retain(|want| (want.shard, want.channel) != (demand.shard, demand.channel));
        self.places.remove(&(demand.shard, demand.channel));
        channel.unite_faces();
        if channel.wants.is_empty() && channel.until_us.is_none() {
            let until_us = now_us + self.linger_us;
            channel.until_us = Some(until_us);
            self.lingering.insert((until_us, Arc::clone(&demand.name)));
        }
    }
}

impl Channel {
    /// Answers what the shard knew the channel as before, where that was something else.
    fn take_in(&mut self, demand: &Demand) -> Option<ChannelRef> {
        let known = self.wants.iter_mut().find(|want| want.shard == demand.shard);
        // A channel that the shard has given another place to is another channel to it.
        let answered = known.as_ref().filter(|want| want.channel == demand.channel).and_then(|want| want.answered);
        let Demand { shard, channel, faces, sockets, version, .. } = *demand;
        let want = Want { shard, channel, faces, sockets, version, answered };
        let before = match known {
            Some(known) => Some(std::mem::replace(known, want).channel),
            None => {
                self.wants.push(want);
                None
            }
        };
        self.unite_faces();
        before.filter(|before| *before != channel)
    }

    fn unite_faces(&mut self) {
        self.faces = self.wants.iter().fold(Faces::NONE, |faces, want| faces.union(want.faces));
    }

    fn confirm(&mut self, epochs: &mut fastrand::Rng, words: &mut Vec<Word>) {
        self.stands = Stands::Confirmed;
        if std::mem::take(&mut self.missed) {
            self.epoch = Epoch(epochs.u64(..));
            let answered = self.wants.iter().filter(|want| want.answered == Some(want.version));
            words.extend(answered.map(|want| Word::Notice(want.shard, self.word(want))));
        }
        self.answer(words);
    }

    /// Answers every demand that is not answered yet.
    fn answer(&mut self, words: &mut Vec<Word>) {
        for at in 0..self.wants.len() {
            let version = Some(self.wants[at].version);
            if std::mem::replace(&mut self.wants[at].answered, version) != version {
                words.push(Word::Confirmed(self.wants[at].shard, self.word(&self.wants[at])));
            }
        }
    }

    fn word(&self, want: &Want) -> Confirmed {
        let Want { channel, version, faces, .. } = *want;
        Confirmed { channel, version, faces, epoch: self.epoch, seq: self.seq }
    }
}

#[cfg(test)]
mod tests;
