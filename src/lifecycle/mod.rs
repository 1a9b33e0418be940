//! When things happen to a connection: the clock, and who has been silent for too long. Pure but for the clock itself.

mod clock;
mod pace;

pub use clock::{Clock, Millis};
pub use pace::Pace;
