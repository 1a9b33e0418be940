//! Who gets what: updates, channels and their subscribers, and what one socket is still owed. Pure: no IO, no clock.

mod channels;
mod line;
mod outbox;
mod throttle;
mod update;

pub use channels::{Audience, Channel, Channels, Member, Telling};
pub use outbox::{Gone, Offer, Outbox, OutboxLimits, Unsent};
pub use throttle::{Held, Throttle, Verdict};
pub use update::{Chunk, Newest, Run, Update};
