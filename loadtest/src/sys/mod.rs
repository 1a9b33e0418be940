//! The one room of the load tester that talks to the kernel by hand, and the only one with `unsafe`.

mod clock;
mod process;
mod rings;
mod tun;

pub use clock::now_ns;
pub use process::{ignore_interrupts, is_root, kill, new_network, nofile_raised, spawn, terminate};
pub use rings::{BUFFER_BYTES, Event, Opening, Rings};
pub use tun::{current_network, enter_network, enter_network_of, open_tun, wait_readable};
