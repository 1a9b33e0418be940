//! When things happen to a connection: the clock, how far it may run ahead, and when it may come back. Pure but for the clock itself.

mod allowance;
mod clock;
mod moderation;
mod pace;
mod spread;

pub use allowance::Allowance;
pub use clock::{Clock, Millis};
pub use moderation::Moderation;
pub use pace::Pace;
pub use spread::Spread;
