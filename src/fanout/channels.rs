//! The channels of one shard and who is subscribed to each. Pure: no IO, no clock.
//!
//! Invariant: a channel without subscribers is forgotten as soon as the source has been told.
//! Invariant: what the source was last told of a channel is what holds, or the channel is on the list of what to tell.

use super::{Throttle, Update};
use crate::config::{Config, Policy};
use crate::ids::{ChannelRef, Epoch, Face, Faces};
use hashbrown::HashMap;
use std::collections::VecDeque;
use std::sync::Arc;

/// One subscription, seen from the channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// The subscriber's slot.
    pub slot: u32,
    /// Which of the subscriber's subscriptions this is.
    pub sub: u32,
}

/// The subscribers of one channel with one face.
#[derive(Debug, Default)]
pub struct Audience {
    /// In no order.
    pub members: Vec<Member>,
    /// Whether the source has confirmed the channel for this face: only then are its members owed what is published.
    pub confirmed: bool,
    /// What was published up to here is not owed to them: it came before the confirmation.
    pub from_seq: u64,
}

/// One channel.
#[derive(Debug)]
pub struct Channel {
    /// Its name.
    pub name: Arc<str>,
    /// Subscribers by [`Face::index`].
    pub audiences: [Audience; Face::COUNT],
    /// The present epoch, once confirmed.
    pub epoch: Epoch,
    /// The newest sequence number that was fanned out or confirmed.
    pub seq: u64,
    /// What is done with its updates that a socket cannot take.
    pub policy: Policy,
    /// Its updates that `max_rate` holds back, where its rule has one.
    pub throttle: Option<Box<Throttle>>,
    /// What arrived this turn, in order, and its bytes.
    pub arrived: Vec<Arc<Update>>,
    /// See `arrived`.
    pub arrived_bytes: usize,
    generation: u32,
    /// Counts the changes of the faces that the source was told of.
    version: u32,
    told: Faces,
    told_sockets: u32,
    dirty: bool,
}

/// What the source is to be told of a channel.
#[derive(Debug)]
pub struct Telling {
    /// The channel.
    pub channel: ChannelRef,
    /// Its name.
    pub name: Arc<str>,
    /// Faces with subscribers.
    pub faces: Faces,
    /// Number of subscribers.
    pub sockets: u32,
    /// Counts the changes of `faces`.
    pub version: u32,
}

/// All channels of one shard.
#[derive(Debug, Default)]
pub struct Channels {
    slab: Vec<Channel>,
    free: Vec<u32>,
    by_name: HashMap<Arc<str>, u32>,
    /// Those of which the source is to be told, in the order in which they changed.
    dirty: VecDeque<u32>,
}

impl Channel {
    /// To how many subscribers an update is owed: they were confirmed before it, and it was encoded for their face.
    pub fn owed(&self, update: &Update) -> u64 {
        let audiences = self.audiences.iter().zip(&update.frames);
        let owed = audiences
            .filter(|(audience, frame)| audience.confirmed && frame.is_some() && update.seq > audience.from_seq);
        owed.map(|(audience, _)| audience.members.len() as u64).sum()
    }

    /// Whether nobody is subscribed.
    pub fn is_deserted(&self) -> bool {
        self.audiences.iter().all(|audience| audience.members.is_empty())
    }

    /// Which channel at its place this is.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    fn faces(&self) -> Faces {
        let used = Face::ALL.into_iter().filter(|face| !self.audiences[face.index()].members.is_empty());
        used.fold(Faces::NONE, Faces::with)
    }

    fn sockets(&self) -> u32 {
        self.audiences.iter().map(|audience| audience.members.len() as u32).sum()
    }
}

impl Channels {
    /// The channel of that name, made if there is none.
    pub fn open(&mut self, name: &str, config: &Config) -> u32 {
        if let Some(index) = self.by_name.get(name) {
            return *index;
        }
        let rule = config.rule(name);
        let name: Arc<str> = name.into();
        let index = self.free.pop().unwrap_or(self.slab.len() as u32);
        let generation = self.slab.get(index as usize).map_or(0, |old| old.generation.wrapping_add(1));
        let channel = Channel {
            name: Arc::clone(&name),
            audiences: Default::default(),
            epoch: Epoch(0),
            seq: 0,
            policy: rule.map(|rule| rule.policy).unwrap_or_default(),
            throttle: rule.and_then(|rule| rule.max_rate).map(|rate| Box::new(Throttle::new(rate))),
            arrived: Vec::new(),
            arrived_bytes: 0,
            generation,
            version: 0,
            told: Faces::NONE,
            told_sockets: 0,
            dirty: false,
        };
        match self.slab.get_mut(index as usize) {
            Some(place) => *place = channel,
            None => self.slab.push(channel),
        }
        self.by_name.insert(name, index);
        index
    }

    /// Adds a subscriber; its position, and whether the channel is confirmed for its face already.
    pub fn join(&mut self, channel: u32, face: Face, member: Member) -> (u32, bool) {
        let audience = &mut self.slab[channel as usize].audiences[face.index()];
        audience.members.push(member);
        let joined = (audience.members.len() as u32 - 1, audience.confirmed);
        self.touch(channel);
        joined
    }

    /// Takes a subscriber away; the one that now has its position, if any, must be told so.
    pub fn leave(&mut self, channel: u32, face: Face, position: u32) -> Option<Member> {
        let members = &mut self.slab[channel as usize].audiences[face.index()].members;
        members.swap_remove(position as usize);
        if members.len() * 4 < members.capacity() && members.capacity() > 64 {
            members.shrink_to(members.len() * 2);
        }
        let moved = members.get(position as usize).copied();
        self.touch(channel);
        moved
    }

    /// The member at a position has another number among its own subscriptions now.
    pub fn renumber(&mut self, channel: u32, face: Face, position: u32, sub: u32) {
        self.slab[channel as usize].audiences[face.index()].members[position as usize].sub = sub;
    }

    /// The channel, unless it was forgotten since.
    pub fn find(&mut self, channel: ChannelRef) -> Option<&mut Channel> {
        let found = self.slab.get_mut(channel.index as usize)?;
        // Its name may be in use again, at another place.
        let in_use = self.by_name.get(&found.name) == Some(&channel.index);
        (found.generation == channel.generation && in_use).then_some(found)
    }

    /// The channel at a place that is known to be in use.
    pub fn at(&self, index: u32) -> &Channel {
        &self.slab[index as usize]
    }

    /// The same, to change it.
    pub fn at_mut(&mut self, index: u32) -> &mut Channel {
        &mut self.slab[index as usize]
    }

    /// A confirmation: the faces whose members were waiting for it, and whether live subscribers of the others are in a
    /// new epoch. `None` where it answers an older demand.
    pub fn confirm(
        &mut self,
        channel: ChannelRef,
        version: u32,
        faces: Faces,
        epoch: Epoch,
        seq: u64,
    ) -> Option<(Faces, bool)> {
        let found = self.find(channel)?;
        if found.version != version {
            return None;
        }
        let mut news = Faces::NONE;
        for face in Face::ALL.into_iter().filter(|face| faces.has(*face)) {
            let audience = &mut found.audiences[face.index()];
            if !std::mem::replace(&mut audience.confirmed, true) {
                audience.from_seq = seq;
                news = news.with(face);
            }
        }
        let new_epoch = found.epoch != epoch;
        (found.epoch, found.seq) = (epoch, found.seq.max(seq));
        Some((news, new_epoch))
    }

    /// Tells the source everything that has changed, through `tell`, which answers whether there was room for it. What
    /// there was no room for is told the next time; a channel that nobody wants any more is forgotten once it is told.
    pub fn tell(&mut self, mut tell: impl FnMut(Telling) -> bool) {
        while let Some(&index) = self.dirty.front() {
            let channel = &mut self.slab[index as usize];
            let (faces, sockets) = (channel.faces(), channel.sockets());
            if faces != channel.told || sockets != channel.told_sockets {
                let version = channel.version.wrapping_add(u32::from(faces != channel.told));
                let place = ChannelRef { index, generation: channel.generation };
                let name = Arc::clone(&channel.name);
                if !tell(Telling { channel: place, name, faces, sockets, version }) {
                    return;
                }
                (channel.told, channel.told_sockets, channel.version) = (faces, sockets, version);
                for face in Face::ALL.into_iter().filter(|face| !faces.has(*face)) {
                    channel.audiences[face.index()].confirmed = false;
                }
            }
            channel.dirty = false;
            self.dirty.pop_front();
            if faces.is_empty() {
                self.by_name.remove(&*channel.name);
                self.free.push(index);
            }
        }
    }

    fn touch(&mut self, index: u32) {
        let channel = &mut self.slab[index as usize];
        if !std::mem::replace(&mut channel.dirty, true) {
            self.dirty.push_back(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(slot: u32) -> Member {
        Member { slot, sub: 0 }
    }

    fn told(channels: &mut Channels) -> Vec<(String, Faces, u32, u32)> {
        let mut told = Vec::new();
        channels.tell(|telling| {
            told.push((telling.name.to_string(), telling.faces, telling.sockets, telling.version));
            true
        });
        told
    }

    #[test]
    fn the_source_is_told_of_every_change_once_and_the_channel_forgotten_when_nobody_is_left() {
        let mut channels = Channels::default();
        let raw = Faces::NONE.with(Face::Raw);
        let a = channels.open("a", &Config::default());
        assert_eq!(channels.join(a, Face::Raw, member(7)), (0, false));
        assert_eq!(channels.join(a, Face::Raw, member(8)), (1, false));
        assert_eq!(told(&mut channels), [("a".into(), raw, 2, 1)]);
        assert_eq!(told(&mut channels), []);
        assert_eq!(channels.leave(a, Face::Raw, 0), Some(member(8)), "the last takes the first's place");
        assert_eq!(told(&mut channels), [("a".into(), raw, 1, 1)]);
        let place = ChannelRef { index: a, generation: channels.at(a).generation };
        assert_eq!(channels.leave(a, Face::Raw, 0), None);
        assert_eq!(told(&mut channels), [("a".into(), Faces::NONE, 0, 2)]);
        assert!(channels.by_name.is_empty());
        assert!(channels.find(place).is_none(), "it was forgotten");
        let b = channels.open("b", &Config::default());
        assert_eq!(b, a, "the place is used again");
        assert!(channels.find(place).is_none(), "but not found under the old name");
    }

    #[test]
    fn the_list_of_a_channel_that_most_have_left_is_short_again() {
        let mut channels = Channels::default();
        let a = channels.open("a", &Config::default());
        for slot in 0..1000 {
            channels.join(a, Face::Raw, member(slot));
        }
        let capacity = |channels: &Channels| channels.at(a).audiences[Face::Raw.index()].members.capacity();
        let most = capacity(&channels);
        for left in (0..1000).rev() {
            assert!(channels.leave(a, Face::Raw, 0).is_none_or(|moved| moved.slot > 0));
            assert!(capacity(&channels) <= (4 * left).max(64) && (left * 4 < most || capacity(&channels) == most));
        }
    }

    #[test]
    fn a_forgotten_channel_is_not_found_while_its_name_is_in_use_at_another_place() {
        let mut channels = Channels::default();
        let a = channels.open("a", &Config::default());
        let b = channels.open("b", &Config::default());
        let place = ChannelRef { index: a, generation: channels.at(a).generation };
        for channel in [a, b] {
            channels.join(channel, Face::Raw, member(7));
            channels.leave(channel, Face::Raw, 0);
        }
        told(&mut channels);
        assert_eq!(channels.open("a", &Config::default()), b);
        assert!(channels.find(place).is_none());
    }

    #[test]
    fn a_demand_without_room_is_told_later_and_never_lost() {
        let mut channels = Channels::default();
        let a = channels.open("a", &Config::default());
        channels.join(a, Face::Raw, member(7));
        channels.tell(|_| false);
        channels.leave(a, Face::Raw, 0);
        assert_eq!(told(&mut channels), [], "wanted and unwanted before the source heard of it");
        assert!(channels.by_name.is_empty());
    }

    #[test]
    fn an_update_is_owed_to_the_confirmed_of_the_faces_that_it_was_encoded_for_from_then_on() {
        let mut channels = Channels::default();
        let a = channels.open("a", &Config::default());
        assert!(channels.at(a).is_deserted());
        for slot in 0..5 {
            channels.join(a, if slot < 3 { Face::Raw } else { Face::Json }, member(slot));
        }
        assert!(!channels.at(a).is_deserted());
        let frame: Option<Box<[u8]>> = Some([0].into());
        let update = |seq, frames| Update { seq, received_us: 0, key: 0, critical: false, frames };
        let both = |seq| update(seq, [frame.clone(), frame.clone()]);
        assert_eq!(channels.at(a).owed(&both(9)), 0, "nobody is confirmed");
        told(&mut channels);
        let place = ChannelRef { index: a, generation: channels.at(a).generation() };
        channels.confirm(place, 1, Faces::NONE.with(Face::Raw).with(Face::Json), Epoch(5), 4);
        assert_eq!([4, 5].map(|seq| channels.at(a).owed(&both(seq))), [0, 5]);
        assert_eq!(channels.at(a).owed(&update(5, [frame.clone(), None])), 3);
        assert_eq!(channels.at(a).owed(&update(5, [None, frame.clone()])), 2);
    }

    #[test]
    fn a_place_that_is_used_again_is_another_generation_and_a_member_keeps_its_new_number() {
        let mut channels = Channels::default();
        for generation in 0..3 {
            let a = channels.open("a", &Config::default());
            assert_eq!((a, channels.at(a).generation()), (0, generation));
            channels.join(a, Face::Raw, member(7));
            channels.renumber(a, Face::Raw, 0, 9);
            assert_eq!(channels.at(a).audiences[Face::Raw.index()].members[0], Member { slot: 7, sub: 9 });
            channels.leave(a, Face::Raw, 0);
            told(&mut channels);
        }
    }

    #[test]
    fn a_face_that_nobody_wants_any_more_is_confirmed_anew_and_the_other_stays_confirmed() {
        let mut channels = Channels::default();
        let a = channels.open("a", &Config::default());
        let both = Faces::NONE.with(Face::Raw).with(Face::Json);
        channels.join(a, Face::Raw, member(1));
        channels.join(a, Face::Json, member(2));
        told(&mut channels);
        channels.confirm(ChannelRef { index: a, generation: 0 }, 1, both, Epoch(5), 0);
        channels.leave(a, Face::Json, 0);
        told(&mut channels);
        assert_eq!(channels.join(a, Face::Json, member(3)), (0, false));
        assert_eq!(channels.join(a, Face::Raw, member(4)), (1, true));
    }

    #[test]
    fn a_confirmation_of_an_older_demand_confirms_nothing() {
        let mut channels = Channels::default();
        let a = channels.open("a", &Config::default());
        let (raw, both) = (Faces::NONE.with(Face::Raw), Faces::NONE.with(Face::Raw).with(Face::Json));
        channels.join(a, Face::Raw, member(1));
        told(&mut channels);
        channels.join(a, Face::Json, member(2));
        told(&mut channels);
        let place = ChannelRef { index: a, generation: 0 };
        assert_eq!(channels.confirm(place, 1, raw, Epoch(5), 0), None);
        assert_eq!(channels.confirm(place, 2, both, Epoch(5), 0), Some((both, true)));
        assert_eq!(channels.confirm(place, 2, both, Epoch(6), 3), Some((Faces::NONE, true)));
    }
}
