//! When things happen to a connection: the clock, how far it may run ahead, when it may come back, and how often it may
//! be spoken of. Pure but for the clock itself.

mod allowance;
mod clock;
mod intake;
mod lines;
mod moderation;
mod pace;
mod signs;
mod spread;

pub use allowance::Allowance;
pub use clock::{Clock, Millis};
pub use intake::Intake;
pub use lines::Lines;
pub use moderation::Moderation;
pub use pace::Pace;
pub use signs::{SIGN_EVERY, Signs};
pub use spread::Spread;
