//! The names by which the rooms call things: small, copyable, and never mixed up.

use std::fmt;

/// A place in a shard's table of sockets, and the direct descriptor of whoever sits there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(pub u32);

impl Slot {
    /// The place as an index.
    #[inline]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// One connection: its place, and which of the place's owners it is, so that a late completion never meets a new socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnId {
    /// The place in the table.
    pub slot: Slot,
    /// How many owners the place had before (wraps at [`ConnId::GENERATIONS`]).
    pub generation: u32,
}

impl ConnId {
    /// Generations are counted modulo this number (what fits beside a slot in a ring's user data). A place is given to
    /// a new owner only after every request of the old one has completed, so a wrap cannot be met by a late completion.
    pub const GENERATIONS: u32 = 1 << 20;
}

/// One channel in one shard's table, and which of that place's owners it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ChannelRef {
    /// The place in the shard's channel table.
    pub index: u32,
    /// How many channels had the place before.
    pub generation: u32,
}

/// One shard, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ShardId(pub u16);

impl ShardId {
    /// The shard as an index.
    #[inline]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// One of the listen addresses, counted in the order of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenerId(pub u8);

/// How a client wants its updates: each face is a codec over the same connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Face {
    /// The payload as published, one channel.
    Raw = 0,
    /// Envelopes with channel, seq and time, many channels.
    Json = 1,
}

impl Face {
    /// All faces, in the order of their indices.
    pub const ALL: [Face; 2] = [Face::Raw, Face::Json];
    /// How many there are.
    pub const COUNT: usize = Self::ALL.len();

    /// The face as an index.
    #[inline]
    pub fn index(self) -> usize {
        self as usize
    }
}

/// A set of faces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Faces(u8);

impl Faces {
    /// No face: nobody listens.
    pub const NONE: Faces = Faces(0);

    /// This set and `face`.
    #[must_use]
    pub fn with(self, face: Face) -> Faces {
        Faces(self.0 | 1 << face as u8)
    }

    /// Both sets together.
    #[must_use]
    pub fn union(self, other: Faces) -> Faces {
        Faces(self.0 | other.0)
    }

    /// Whether `face` is in the set.
    pub fn has(self, face: Face) -> bool {
        self.0 & 1 << face as u8 != 0
    }

    /// Whether the set is empty.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// One uninterrupted run of a channel's sequence numbers: a new epoch means that updates may have been missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}
