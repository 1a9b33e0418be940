//! Who gets what: updates, channels and their subscribers, and what one socket is still owed. Pure: no IO, no clock.

mod update;

pub use update::{Chunk, Run, Update};
