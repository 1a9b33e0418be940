//! How the threads meet: bounded queues with a doorbell, and nothing else.
//!
//! Invariant: a sender never waits. Invariant: the newest update of a channel and key is never lost without a word,
//! however full the queue.

mod inbox;
mod outlet;

pub use inbox::{InboxLimits, InboxReceiver, InboxSender, Offer, inbox};
pub use outlet::{Outlet, OutletReceiver, outlet};

use crate::fanout::Update;
use crate::ids::{ChannelRef, ConnId, Epoch, Faces, ShardId};
use crate::wire::Id;
use std::sync::Arc;

/// From the source to a shard.
#[derive(Clone, Debug)]
pub enum ToShard {
    /// A channel's next update.
    Update {
        /// The channel, as this shard knows it.
        channel: ChannelRef,
        /// What was published.
        update: Arc<Update>,
    },
    /// What is said about a channel's subscription.
    Confirmed(Confirmed),
    /// The answer to a client's publish.
    Published {
        /// Who asked.
        ticket: Ticket,
        /// What became of it.
        outcome: Result<(), PublishError>,
    },
}

/// The channel is subscribed at the source: what is published from now on arrives. Sent again with a new epoch when
/// updates may have been missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Confirmed {
    /// The channel, as this shard knows it.
    pub channel: ChannelRef,
    /// The demand that this answers; an answer to an older demand says nothing about the newest.
    pub version: u32,
    /// The faces that updates are encoded for.
    pub faces: Faces,
    /// The present epoch.
    pub epoch: Epoch,
    /// The last sequence number given out.
    pub seq: u64,
}

/// From a shard to the source.
#[derive(Debug)]
pub enum ToSource {
    /// What this shard's clients want of a channel; replaces what it said before.
    Demand(Demand),
    /// A client publishes.
    Publish {
        /// Whom to answer, and where to.
        ticket: Ticket,
        /// What.
        payload: Vec<u8>,
    },
}

/// What one shard's clients want of one channel.
#[derive(Clone, Debug)]
pub struct Demand {
    /// The shard that asks.
    pub shard: ShardId,
    /// The channel, as that shard knows it; not used by the shard again once `faces` was empty.
    pub channel: ChannelRef,
    /// The channel's name.
    pub name: Arc<str>,
    /// Faces with at least one subscriber; none: nobody listens any more.
    pub faces: Faces,
    /// Number of subscribers.
    pub sockets: u32,
    /// Counts the changes of `faces`.
    pub version: u32,
}

/// Whom a publish is answered to.
#[derive(Clone, Debug)]
pub struct Ticket {
    /// The shard of the connection.
    pub shard: ShardId,
    /// The connection; by then it may be gone.
    pub conn: ConnId,
    /// The command's id, where it had one.
    pub id: Option<Id>,
    /// The channel published to.
    pub channel: Arc<str>,
}

/// Why a publish did not happen, or may not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The source cannot be reached.
    #[error("Redis is away; try again later")]
    Unavailable,
    /// It was sent, and the source was lost before it answered.
    #[error("Redis did not answer; whether the update went out is not known")]
    Unknown,
    /// The payload is larger than `limits.update_bytes_max`.
    #[error("the payload is larger than limits.update_bytes_max")]
    TooLarge,
    /// Too many publishes are on their way.
    #[error("too many publishes are on their way; try again later")]
    Busy,
}
