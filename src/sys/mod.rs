//! The one room that talks to the kernel, and the only one with `unsafe`.

mod async_bell;
mod cgroup;
mod doorbell;
mod host;
mod listener;
mod probe;
mod proc;
mod ring;
mod sock_diag;
mod uring;

pub use async_bell::AsyncBell;
pub use cgroup::{CgroupUse, Cgroups, CpuLimit, MemoryGroup, cgroup_use};
pub use doorbell::{Doorbell, Mode, bell_file};
pub use host::{
    DESCRIPTORS_LEFT, HostError, KERNEL_MIN, MEMLOCK_RING_MIN, MEMLOCK_SHARD, TABLE_MAX, avoid_huge_pages, check_host,
    completions_max, explain_ring, raise_nofile,
};
pub use listener::{ListenError, Options, listen};
pub use probe::missing_features;
pub use proc::{HostUse, ProcessUse, host_use, process_use};
pub use ring::{BufId, Completion, Op, Ring};
pub use sock_diag::{Queues, SockDiag, Sockets};
pub use uring::UringSet;
