//! The one room that talks to the kernel, and the only one with `unsafe`.

mod doorbell;

pub use doorbell::{Doorbell, Mode};
