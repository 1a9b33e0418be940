//! The embedded engine: what is published here is an update here. For one gateway without a Redis.

use super::Reached;
use super::desk::Desk;
use super::publish::Publish;

/// Hands a publish to everyone who listens, and answers it.
pub fn publish(publish: Publish, desk: &mut Desk) {
    let outcome = desk.receive(&publish.channel, &publish.payload, false).map(Reached::Sockets);
    desk.answer(publish.asker, outcome);
}
