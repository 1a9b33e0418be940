//! The one room that talks to the kernel, and the only one with `unsafe`.

mod async_bell;
mod doorbell;

pub use async_bell::AsyncBell;
pub use doorbell::{Doorbell, Mode};
