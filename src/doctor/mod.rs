//! What a host must allow for a number of sockets, and whether it does: `spillgate doctor`.
//!
//! `figures` are the measured costs; `needs` is the table of what is needed, each with its formula, its reason and its
//! source (told in `rings`, `memory`, `network`, `queues`, `cores` and `redis`); `host` reads what is there; `report` says
//! it; `guide` writes the same table down as `tuning/`.
//!
//! Invariant: a judge is a pure function of plan and host, so that made-up hosts prove each of them; and no check calls
//! something short that has no consequence for this plan.

mod cgroup;
mod cores;
mod figures;
mod guide;
mod host;
mod memory;
mod mend;
mod needs;
mod network;
mod plan;
mod queues;
mod redis;
mod report;
mod rings;
mod text;

pub use figures::{FIGURES, Figure};
pub use guide::{GUIDE_SHARDS, GUIDE_SOCKETS, GUIDE_STALLED_SHARE, limits_conf, readme_part, sysctl_conf};
pub use host::{Core, Host, Limit, Network, RingProbe, Softnet};
pub use mend::Mend;
pub use needs::{NEEDS, Need, Verdict};
pub use plan::Plan;
pub use redis::{PubsubLimit, RedisSeen, ask as ask_redis};
pub use report::{Finding, Report};

/// Judges every need.
pub fn examine(plan: &Plan, host: &Host) -> Report {
    let findings = NEEDS.iter().map(|need| Finding { need, verdict: (need.judge)(plan, host) }).collect();
    Report { sockets: plan.sockets, stalled_share: plan.stalled_share, findings }
}
