//! One connection, as small as it can be: a million of them are a million of these.

use super::caller::{Caller, Callers};
use crate::fanout::Outbox;
use crate::ids::{ConnId, Face, Slot};
use crate::lifecycle::{Millis, Pace};
use crate::wire::{Accept, Id, Partial};
use std::net::SocketAddr;

/// Where a connection is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Nobody sits in the slot.
    #[default]
    Free,
    /// An accept is armed for the slot.
    Accepting,
    /// The request has yet to arrive whole.
    Request,
    /// The 101 waits for the source's confirmation of the channel.
    Confirming,
    /// A WebSocket.
    Open,
    /// What is owed is written, then our direction is closed, and the peer is given time to close its own.
    Leaving,
    /// A close was pushed: nothing more may be pushed for the slot.
    Closing,
}

/// What comes before the request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Preface {
    /// Nothing: it is the client's own connection.
    #[default]
    None,
    /// A PROXY header, which has yet to arrive whole.
    Awaited,
    /// A PROXY header: whose connection it is, is known.
    Given,
    /// A PROXY header that names nobody (UNKNOWN, UNSPEC, a Unix socket): a client without an address, or a health check of
    /// a proxy whose version has no LOCAL.
    Nameless,
    /// A PROXY header that says that the proxy wants something for itself (LOCAL, or its own address): mostly, to know
    /// whether we are here.
    Local,
}

/// See the module. What a delivery touches comes first, in one line of the cache: with hundreds of thousands of
/// connections each first look at one is waited for.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Conn {
    /// What it is owed; none while it keeps up.
    pub out: Option<Box<Outbox>>,
    /// How far it may run ahead of what the client has read.
    pub pace: Pace,
    /// Which of the slot's owners this is.
    pub generation: u32,
    /// When something was last sent to the client.
    pub spoke: Millis,
    /// When a client that owes a pong, or that is behind, last took something.
    pub progress: Millis,
    /// See [`State`].
    pub state: State,
    /// Requests at the ring that have yet to complete.
    pub armed: u8,
    /// A SEND is at the ring: there is at most one.
    pub sending: bool,
    /// A POLLOUT is at the ring.
    pub awaiting_writable: bool,
    /// It does not keep up: it is written to at the pace of its pongs.
    pub behind: bool,
    /// On the list of those to write to.
    pub to_flush: bool,
    /// A RECV is at the ring.
    pub reading: bool,
    /// On the list of those to read from.
    pub to_read: bool,
    /// The control lane is full: the client's commands are not read.
    pub paused: bool,
    /// The peer's side has ended, or the socket is in error.
    pub ended: bool,
    /// The heartbeat's ping has yet to be answered.
    pub pinged: bool,
    /// Our direction is closed, or about to be.
    pub shut: bool,
    /// When the state, or the wait for a pong, began.
    pub since: Millis,
    /// When the client last sent something.
    pub heard: Millis,
    /// The slot's CLOSE has completed.
    pub closed: bool,
    face: u8,
    /// On the list of those that are behind.
    pub listed: bool,
    /// See [`Preface`].
    pub preface: Preface,
    /// It takes no place: all were taken when it came, and a proxy has yet to say for whom; or it was answered, and lingers
    /// until it has gone.
    pub outside: bool,
    /// What it is subscribed to.
    pub subs: Subs,
    /// Bytes that wait for more bytes.
    pub kept: Kept,
    caller: Caller,
}

const _: () = assert!(std::mem::offset_of!(Conn, since) <= 64, "what a delivery touches lies in one line of the cache");
const _: () = assert!(size_of::<Conn>() <= 128, "a connection grew: a million of them grow");

/// What is kept of a client's bytes until there is more, or until it may go on.
#[derive(Debug, Default)]
pub enum Kept {
    /// Nothing, as almost always.
    #[default]
    Nothing,
    /// The start of a request.
    #[allow(clippy::box_collection)] // a Vec would make every connection 16 bytes larger
    Request(Box<Vec<u8>>),
    /// A whole request that waits for its confirmation, and what came behind it.
    Upgrade(Box<(Accept, Vec<u8>)>),
    /// The start of a frame or message.
    Frames(Box<Partial>),
}

/// One subscription, seen from the connection.
#[derive(Debug)]
pub struct Sub {
    /// The channel's place in the shard's table.
    pub channel: u32,
    /// The place among the channel's members.
    pub position: u32,
    /// Set while the source has yet to confirm the channel: the command to answer.
    pub waiting: Option<Box<Waiting>>,
}

/// A subscription that has yet to be answered.
#[derive(Debug)]
pub struct Waiting {
    /// The command's id.
    pub id: Option<Id>,
}

/// Subscriptions; most connections have one.
#[derive(Debug, Default)]
pub enum Subs {
    /// None.
    #[default]
    None,
    /// One, without an allocation.
    One(Sub),
    /// Any number.
    #[allow(clippy::box_collection)] // a Vec would make every connection 8 bytes larger
    Many(Box<Vec<Sub>>),
}

impl Conn {
    /// The face that the client asked for.
    pub fn face(&self) -> Face {
        Face::ALL[usize::from(self.face)]
    }

    /// Sets the face.
    pub fn set_face(&mut self, face: Face) {
        self.face = face as u8;
    }

    /// Whether nothing waits for it.
    pub fn owes_nothing(&self) -> bool {
        self.out.as_ref().is_none_or(|out| out.is_empty())
    }

    /// Bytes kept, for the shard's budget.
    pub fn kept_bytes(&self) -> usize {
        match &self.kept {
            Kept::Nothing => 0,
            Kept::Request(bytes) => bytes.capacity(),
            Kept::Upgrade(upgrade) => upgrade.1.capacity(),
            Kept::Frames(partial) => partial.bytes(),
        }
    }
}

impl Subs {
    /// All of them.
    pub fn as_slice(&self) -> &[Sub] {
        match self {
            Subs::None => &[],
            Subs::One(sub) => std::slice::from_ref(sub),
            Subs::Many(subs) => subs,
        }
    }

    /// The same, to change them.
    pub fn as_mut_slice(&mut self) -> &mut [Sub] {
        match self {
            Subs::None => &mut [],
            Subs::One(sub) => std::slice::from_mut(sub),
            Subs::Many(subs) => subs,
        }
    }

    /// Adds one at the end.
    pub fn push(&mut self, sub: Sub) {
        *self = match std::mem::take(self) {
            Subs::None => Subs::One(sub),
            Subs::One(first) => Subs::Many(Box::new(vec![first, sub])),
            Subs::Many(mut subs) => {
                subs.push(sub);
                Subs::Many(subs)
            }
        }
    }

    /// Takes one out; the last takes its place.
    pub fn swap_remove(&mut self, at: usize) -> Sub {
        match std::mem::take(self) {
            Subs::One(sub) if at == 0 => sub,
            Subs::Many(mut subs) => {
                let removed = subs.swap_remove(at);
                if !subs.is_empty() {
                    *self = Subs::Many(subs);
                }
                removed
            }
            _ => unreachable!("the caller found the subscription at this place"),
        }
    }
}

/// All slots of a shard.
#[derive(Debug)]
pub struct Conns {
    slab: Vec<Conn>,
    free: Vec<u32>,
    slots: u32,
    callers: Callers,
}

impl Conns {
    /// `slots` free slots; memory is taken only for those that were ever used.
    pub fn new(slots: u32) -> Self {
        Self { slab: Vec::new(), free: Vec::new(), slots, callers: Callers::default() }
    }

    /// Takes a free slot, the last that became free first.
    pub fn take(&mut self) -> Option<ConnId> {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None if (self.slab.len() as u32) < self.slots => {
                self.slab.push(Conn::default());
                self.slab.len() as u32 - 1
            }
            None => return None,
        };
        let conn = &mut self.slab[slot as usize];
        conn.state = State::Accepting;
        Some(ConnId { slot: Slot(slot), generation: conn.generation })
    }

    /// Gives a slot back: nothing of its owner is left, and the next one has another generation.
    pub fn release(&mut self, id: ConnId) {
        let conn = &mut self.slab[id.slot.index()];
        debug_assert!(conn.generation == id.generation && conn.armed == 0 && conn.subs.as_slice().is_empty());
        self.callers.forget(conn.caller);
        let generation = (id.generation + 1) % ConnId::GENERATIONS;
        *conn = Conn { generation, ..Conn::default() };
        self.free.push(id.slot.0);
    }

    /// The connection, unless its slot has another owner by now.
    #[inline]
    pub fn find(&mut self, id: ConnId) -> Option<&mut Conn> {
        let conn = self.slab.get_mut(id.slot.index())?;
        (conn.generation == id.generation && conn.state != State::Free).then_some(conn)
    }

    /// The connection in a slot that is known to be taken.
    #[inline]
    pub fn at(&mut self, slot: u32) -> (ConnId, &mut Conn) {
        let conn = &mut self.slab[slot as usize];
        (ConnId { slot: Slot(slot), generation: conn.generation }, conn)
    }

    /// Says who a connection is; what was said before holds no more.
    pub fn name(&mut self, id: ConnId, address: SocketAddr) {
        let conn = &mut self.slab[id.slot.index()];
        self.callers.forget(conn.caller);
        conn.caller = self.callers.note(address);
    }

    /// The address of a connection: the client's, or the proxy's until that has said whose it is.
    pub fn address(&self, id: ConnId) -> Option<SocketAddr> {
        self.callers.address(self.slab[id.slot.index()].caller)
    }

    /// Slots that were ever used: all others are free.
    pub fn used(&self) -> u32 {
        self.slab.len() as u32
    }
}
