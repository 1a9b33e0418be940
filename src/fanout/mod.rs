//! Who gets what: updates, channels and their subscribers, and what one socket is still owed. Pure: no IO, no clock.

mod account;
mod channels;
mod lane;
mod line;
mod outbox;
mod throttle;
mod update;

pub use account::Account;
pub use channels::{Audience, Channel, Channels, Member, Telling};
pub use outbox::{Gone, Offer, Outbox, OutboxLimits, Unsent};
pub use throttle::{Held, Throttle, Verdict};
pub use update::{Chunk, Newest, Run, Update};
