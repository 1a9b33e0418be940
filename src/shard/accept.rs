//! Taking connections in: a few accepts are kept armed, each for a slot that is known to be free.

use super::{Shard, State, conn::Preface};
use crate::ids::{ConnId, ListenerId};
use crate::metrics::EndReason;
use crate::sys::{Op, Ring};
use crate::wire;
use std::net::SocketAddr;
use std::time::Duration;

/// Accepts that are kept armed at each listener.
const ARMED_PER_LISTENER: usize = 16;
/// Slots beyond the connections that are held, for those who are told that there is no room. Whoever comes when these
/// are taken too waits in the listener's backlog: an accept without a free slot would destroy the connection.
pub const REFUSAL_SLOTS: u32 = 32;
/// Of them, those who have lingered make room when all are taken: whoever has had its answer for so long (a round trip to
/// almost anywhere), and whoever does not take it, or has yet to be introduced by a proxy, after the longer time.
const LINGERS: Duration = Duration::from_millis(200);
const IS_SLOW: Duration = Duration::from_secs(1);
/// So many in a turn.
const ROOM_AT_ONCE: u64 = 32;
/// Slots of a shard's tables beside those of `limits.connections_per_shard_max`: twice the former, for what the rings'
/// tables round.
pub const CAPACITY_SLOTS: u64 = 64;
/// What those are told to wait before they come again, in seconds.
const RETRY_AFTER_S: std::ops::Range<u32> = 1..8;

/// The listeners, and how many accepts are armed at each.
pub struct Listening {
    armed: Vec<usize>,
    armed_max: usize,
    slots: u32,
    connections_max: u32,
    /// The kernel was out of descriptors or memory, or a listener is broken: armed again at the next tick.
    resting: bool,
}

impl Listening {
    pub fn new(ring: &impl Ring, listeners: u8, connections_max: usize) -> Self {
        let held = ring.slots().saturating_sub(REFUSAL_SLOTS).max(1);
        let held = if connections_max == 0 { held } else { held.min(connections_max.try_into().unwrap_or(u32::MAX)) };
        let armed_max = ARMED_PER_LISTENER.min(ring.accepts_max() / usize::from(listeners.max(1))).max(1);
        Self {
            armed: vec![0; usize::from(listeners)],
            armed_max,
            slots: ring.slots().min(held + REFUSAL_SLOTS),
            connections_max: held,
            resting: false,
        }
    }

    pub fn slots(&self) -> u32 {
        self.slots
    }

    pub fn connections_max(&self) -> u32 {
        self.connections_max
    }

    pub fn armed(&self) -> usize {
        self.armed.iter().sum()
    }

    /// Accepts that are armed at each listener.
    pub fn armed_max(&self) -> usize {
        self.armed_max
    }

    pub fn wake(&mut self) {
        self.resting = false;
    }
}

impl<R: Ring> Shard<R> {
    /// Arms what is missing, as long as slots are free.
    pub(super) fn arm_accepts(&mut self) {
        if self.leaving || self.listening.resting {
            return;
        }
        // One for each listener in turn, so that a scarce slot does not always go to the first.
        for round in 0..self.listening.armed_max {
            for listener in 0..self.listening.armed.len() {
                if self.listening.armed[listener] > round {
                    continue;
                }
                let Some(conn) = self.conns.take() else {
                    // A listener without any accept would be deaf.
                    return if round == 0 {
                        self.make_room()
                    };
                };
                self.listening.armed[listener] += 1;
                self.arm(conn, Op::Accept { listener: ListenerId(listener as u8), conn });
            }
        }
    }

    pub(super) fn accepted(&mut self, listener: ListenerId, id: ConnId, result: i32, peer: Option<SocketAddr>) {
        self.listening.armed[usize::from(listener.0)] -= 1;
        let (now, full) = (self.now, self.is_full());
        let trusted = result >= 0 && peer.is_some_and(|peer| self.config.proxy_protocol.trusts(peer.ip()));
        let Some(conn) = self.conns.find(id) else { return };
        conn.armed -= 1;
        if result < 0 {
            self.conns.release(id);
            if result != -libc::ECANCELED {
                self.counters.accept_errors += 1;
                self.listening.resting = matches!(
                    -result,
                    libc::ENFILE | libc::EMFILE | libc::ENOBUFS | libc::ENOMEM | libc::EINVAL // somebody shut the listener down
                );
            }
            return;
        }
        conn.state = State::Request;
        (conn.since, conn.heard, conn.spoke) = (now, now, now);
        conn.preface = if trusted { Preface::Awaited } else { Preface::None };
        if let Some(peer) = peer {
            self.conns.name(id, peer);
        }
        self.counters.accepted += 1;
        self.counters.connections += 1;
        tracing::trace!(?peer, slot = id.slot.0, "accepted");
        self.arm(id, Op::Watch(id));
        if full && trusted {
            self.step_outside(id);
        }
        if self.leaving {
            self.finish(id, EndReason::Shutdown);
        } else if full && !trusted {
            self.refuse_for_room(id);
        }
    }

    /// Whether every place is taken.
    pub(super) fn is_full(&self) -> bool {
        self.counters.connections - self.outside_count >= self.counters.connections_max
    }

    /// It takes no place any more, or none yet.
    pub(super) fn step_outside(&mut self, id: ConnId) {
        let (_, conn) = self.conns.at(id.slot.0);
        conn.outside = true;
        self.outside_count += 1;
        self.outside.push_back(id);
        // Those who have gone in the meantime: at most as many as there are others.
        if self.outside.len() as u64 > 2 * self.outside_count + ROOM_AT_ONCE {
            let conns = &mut self.conns;
            self.outside.retain(|id| conns.find(*id).is_some_and(|conn| conn.outside && !conn.closed));
        }
    }

    /// Every slot is taken. Those who only linger in theirs make room, in the order in which they came to that: whoever
    /// does not hang up when it was refused would keep others, a load balancer's checks among them, from being accepted.
    fn make_room(&mut self) {
        for _ in 0..ROOM_AT_ONCE {
            let Some(&id) = self.outside.front() else { return };
            let Some(conn) = self.conns.find(id) else {
                self.outside.pop_front();
                continue;
            };
            let since = self.now.since(conn.since);
            match conn.state {
                State::Leaving if since < if conn.shut { LINGERS } else { IS_SLOW } => return,
                State::Request if conn.outside && since < IS_SLOW => return,
                State::Leaving => self.finish_quietly(id),
                State::Request if conn.outside => self.finish(id, EndReason::RequestTimeout),
                _ => {} // it has got a place, or is closed already
            }
            self.outside.pop_front();
        }
    }

    /// There is no place: says when to come again.
    pub(super) fn refuse_for_room(&mut self, id: ConnId) {
        let after = fastrand::u32(RETRY_AFTER_S);
        let answer = wire::unavailable(after, "all places are taken; come again after Retry-After seconds");
        self.answer_and_leave(id, answer, "all places are taken", EndReason::Full);
    }

    pub(super) fn stop_listening(&mut self) {
        for listener in 0..self.listening.armed.len() {
            self.ring.push(Op::StopListening(ListenerId(listener as u8)));
        }
    }

    /// Pushes a request for a connection, and counts it.
    #[inline]
    pub(super) fn arm(&mut self, id: ConnId, op: Op) {
        let (_, conn) = self.conns.at(id.slot.0);
        debug_assert!(!conn.closed && conn.generation == id.generation, "nothing is pushed for another owner's slot");
        conn.armed += 1;
        self.ring.push(op);
    }
}
