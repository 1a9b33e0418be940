//! The one room that talks to the kernel, and the only one with `unsafe`.

mod async_bell;
mod doorbell;
mod host;
mod listener;
mod ring;
mod uring;

pub use async_bell::AsyncBell;
pub use doorbell::{Doorbell, Mode, bell_file};
pub use host::{HostError, KERNEL_MIN, check_host, raise_nofile};
pub use listener::{ListenError, listen};
pub use ring::{BufId, Completion, Op, Ring};
pub use uring::UringSet;
