//! An update as it travels: encoded once, shared by every socket that it goes to.

use super::account::{Account, Charge};
use crate::config::Policy;
use crate::ids::Face;
use hashbrown::HashSet;
use std::cell::OnceCell;
use std::rc::Rc;
use std::sync::Arc;

/// One published payload, encoded for every face that has a subscriber. Made by the source, shared by the shards.
#[derive(Debug)]
pub struct Update {
    /// Position in its channel.
    pub seq: u64,
    /// When the source received it, in microseconds of the process's clock (see [`crate::lifecycle::Clock`]).
    pub received_us: u64,
    /// What it is about within its channel, as a hash of the key that the channel's rule names; 0 where it names none.
    pub key: u64,
    /// Whether it must not be lost (see the rules in the configuration).
    pub critical: bool,
    /// Whole WebSocket frames, by [`Face::index`]; none for a face that nobody uses.
    pub frames: [Option<Box<[u8]>>; Face::COUNT],
}

impl Update {
    /// Bytes that this update keeps in memory, for the bounds of a queue.
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.frames.iter().flatten().map(|frame| frame.len()).sum::<usize>()
    }
}

/// Bytes on their way to sockets of one shard: counted without atomics, shared by all sockets of a fan-out.
#[derive(Debug)]
pub struct Run {
    bytes: RunBytes,
    /// Since it first waited for some socket.
    charge: OnceCell<Charge>,
    /// The channel's place in the shard's table; [`Run::NO_CHANNEL`] where the bytes belong to none.
    pub channel: u32,
    /// See [`Update::key`]; which of a channel's notices this is, where it is one.
    pub key: u64,
    /// See [`Update::critical`].
    pub critical: bool,
    /// What is done with it where its socket cannot take it: its channel's policy.
    pub policy: Policy,
    /// Whether a ping rides at its end.
    pub ping: bool,
    /// Number of updates that are delivered when the last byte of this run is written.
    pub updates: u32,
    /// When the oldest of them was received, in microseconds of the process's clock.
    pub received_us: u64,
}

/// See [`Run::newest`].
#[derive(Debug)]
pub struct Newest {
    /// Critical updates, and the newest of each key of the others, in order.
    pub parts: Box<[Rc<Run>]>,
    /// Updates in all that are not critical.
    pub displaceable: usize,
}

#[derive(Debug)]
enum RunBytes {
    /// One update, straight from the memory that the source encoded it into.
    Update(Arc<Update>, Face),
    /// Several updates of one channel and face, joined in order, so that one SEND carries a turn's worth.
    Joined { bytes: Box<[u8]>, parts: Box<[Rc<Run>]>, newest: OnceCell<Newest> },
    /// Anything else: replies, pings, closes, the rest of a started frame, a slow socket's next write.
    Own(Box<[u8]>),
}

impl Run {
    /// The channel of bytes that belong to none.
    pub const NO_CHANNEL: u32 = u32::MAX;

    /// One update of the channel at `channel`, which has that policy, for one face; `None` where it was not encoded for
    /// that face.
    pub fn update(channel: u32, policy: Policy, update: &Arc<Update>, face: Face) -> Option<Run> {
        update.frames[face.index()].as_ref()?;
        let bytes = RunBytes::Update(Arc::clone(update), face);
        let Update { received_us, key, critical, .. } = **update;
        let (charge, ping, updates) = (OnceCell::new(), false, 1);
        Some(Run { bytes, charge, channel, key, critical, policy, ping, updates, received_us })
    }

    /// Several updates of one channel as one run of bytes.
    pub fn joined(parts: Vec<Rc<Run>>) -> Run {
        let mut bytes = Vec::with_capacity(parts.iter().map(|part| part.bytes().len()).sum());
        parts.iter().for_each(|part| bytes.extend_from_slice(part.bytes()));
        Run {
            charge: OnceCell::new(),
            channel: parts.first().map_or(Self::NO_CHANNEL, |part| part.channel),
            key: 0,
            critical: false,
            policy: Policy::default(),
            ping: false,
            updates: parts.iter().map(|part| part.updates).sum(),
            received_us: parts.first().map_or(0, |part| part.received_us),
            bytes: RunBytes::Joined { bytes: bytes.into(), parts: parts.into(), newest: OnceCell::new() },
        }
    }

    /// Bytes that complete no update: replies, pings, closes.
    pub fn own(bytes: Vec<u8>) -> Run {
        Self::completing(bytes, 0, 0)
    }

    /// Bytes for one socket that complete `updates`, of which the oldest was received at `received_us`.
    pub fn completing(bytes: Vec<u8>, updates: u32, received_us: u64) -> Run {
        Run {
            bytes: RunBytes::Own(bytes.into()),
            charge: OnceCell::new(),
            channel: Self::NO_CHANNEL,
            key: 0,
            critical: false,
            policy: Policy::default(),
            ping: false,
            updates,
            received_us,
        }
    }

    /// What `chunk` has yet to write, and a ping behind it. What it was joined from can still be taken apart.
    pub fn with_ping(chunk: &Chunk, ping: &[u8]) -> Run {
        let run = &chunk.run;
        let parts = match run.parts() {
            _ if chunk.start > 0 => Box::default(),
            [] if run.channel != Self::NO_CHANNEL => Box::from([Rc::clone(run)]),
            parts => parts.into(),
        };
        let bytes = [chunk.bytes(), ping].concat().into();
        let Run { updates, received_us, .. } = **run;
        let bytes = RunBytes::Joined { bytes, parts, newest: OnceCell::new() };
        Run { bytes, ping: true, ..Self::completing(Vec::new(), updates, received_us) }
    }

    /// Bytes about a channel's epoch, which complete no update of it.
    pub fn notice(channel: u32, bytes: Vec<u8>) -> Run {
        Run { channel, ..Self::own(bytes) }
    }

    /// The same, to say that its newest state was not kept for the client.
    pub fn missed(channel: u32, bytes: Vec<u8>) -> Run {
        Run { key: 1, ..Self::notice(channel, bytes) }
    }

    /// Charges `account` with what this run keeps in memory, until it is gone: it waits for some socket. However often
    /// that is said, it is charged once.
    pub fn charge(&self, account: &Account) {
        self.charge.get_or_init(|| {
            self.parts().iter().for_each(|part| part.charge(account));
            account.charge(match &self.bytes {
                RunBytes::Update(update, _) => update.bytes(),
                // Joined bytes go as soon as they are written; others are their socket's own.
                RunBytes::Joined { .. } | RunBytes::Own(_) => 0,
            })
        });
    }

    /// Bytes that a socket which holds this run shares with nobody.
    pub fn owned_bytes(&self) -> usize {
        match &self.bytes {
            RunBytes::Update(..) => 0,
            RunBytes::Joined { bytes, .. } | RunBytes::Own(bytes) => bytes.len(),
        }
    }

    /// What is written.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        match &self.bytes {
            RunBytes::Update(update, face) => update.frames[face.index()].as_deref().unwrap_or_default(),
            RunBytes::Joined { bytes, .. } | RunBytes::Own(bytes) => bytes,
        }
    }

    /// The runs that this one was joined from, in order; empty unless it was.
    pub fn parts(&self) -> &[Rc<Run>] {
        match &self.bytes {
            RunBytes::Joined { parts, .. } => parts,
            _ => &[],
        }
    }

    /// What a socket that conflates is owed of [`Run::parts`], all of one channel; none unless it was joined. Found once
    /// for all sockets.
    pub fn newest(&self) -> Option<&Newest> {
        let RunBytes::Joined { parts, newest, .. } = &self.bytes else { return None };
        Some(newest.get_or_init(|| {
            let mut keys = HashSet::new();
            let owed = parts.iter().rev().filter(|part| part.critical || keys.insert(part.key));
            let mut owed: Vec<_> = owed.map(Rc::clone).collect();
            owed.reverse();
            Newest { parts: owed.into(), displaceable: parts.iter().filter(|part| !part.critical).count() }
        }))
    }
}

/// A run from some byte on: what one SEND carries.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// The run.
    pub run: Rc<Run>,
    /// Its first byte that has yet to be written.
    pub start: u32,
}

impl Chunk {
    /// All of a run.
    #[inline]
    pub fn whole(run: Rc<Run>) -> Chunk {
        Chunk { run, start: 0 }
    }

    /// What has yet to be written.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        &self.run.bytes()[self.start as usize..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_weighs_all_its_frames_and_itself() {
        let frames = [Some([0; 1000].into()), Some([0; 200].into())];
        let update = Update { seq: 1, received_us: 0, key: 0, critical: false, frames };
        assert_eq!(update.bytes(), size_of::<Update>() + 1200);
    }

    #[test]
    fn a_run_that_waits_is_charged_once_and_until_it_is_gone() {
        let account = Account::default();
        let update = Arc::new(Update {
            seq: 1,
            received_us: 0,
            key: 0,
            critical: false,
            frames: [Some([0; 1000].into()), None],
        });
        let part = || Rc::new(Run::update(0, Policy::Conflate, &update, Face::ALL[0]).unwrap());
        let (one, other) = (part(), part());
        let joined = Run::joined(vec![Rc::clone(&one), other]);
        assert_eq!((account.bytes(), one.owned_bytes(), joined.owned_bytes()), (0, 0, 2000));
        one.charge(&account);
        (0..3).for_each(|_| joined.charge(&account));
        assert_eq!(account.bytes(), 2 * update.bytes());
        drop(joined);
        assert_eq!(account.bytes(), update.bytes(), "one waits on");
        drop(one);
        assert_eq!(account.bytes(), 0);
        Run::own(vec![0; 10]).charge(&account);
        assert_eq!(account.bytes(), 0, "what is its socket's own is not shared");
    }

    #[test]
    fn a_chunk_begins_where_it_was_cut_and_a_ping_rides_behind_all_of_it() {
        let chunk = Chunk { run: Rc::new(Run::completing(b"cut off, rest".to_vec(), 3, 7)), start: 9 };
        assert_eq!(chunk.bytes(), b"rest");
        let run = Run::with_ping(&chunk, b"+ping");
        assert_eq!((run.bytes(), run.updates, run.received_us), (&b"rest+ping"[..], 3, 7));
        assert!(run.ping && run.parts().is_empty(), "a started frame is not taken apart again");
    }
}
