//! The one room that talks to the kernel, and the only one with `unsafe`.

mod doorbell;
mod ring;
mod uring;

pub use doorbell::{Doorbell, Mode};
pub use ring::{BufId, Completion, Op, Ring};
pub use uring::UringSet;
