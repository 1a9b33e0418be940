//! What a host must allow for a number of sockets, and whether it does: `spillgate doctor`.
//!
//! `figures` are the measured costs; `needs` is the table of what is needed, each with its formula, its reason and its
//! source (told in `rings`, `memory`, `network`, `queues`, `cores` and `redis`); `host` reads what is there, and `unit` what
//! systemd gives the gateway (by the rules of `unit_values`); `report` says it; `guide` writes the same table down as `tuning/`.
//!
//! Invariant: a judge is a pure function of plan and host, so that made-up hosts prove each of them; and no check calls
//! something short that has no consequence for this plan.

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
mod unit;
mod unit_values;

pub use figures::{FIGURES, Figure};
pub use guide::{GUIDE_SHARDS, GUIDE_SOCKETS, GUIDE_STALLED_SHARE, limits_conf, readme_part, sysctl_conf};
pub use host::{Core, Host, Limit, Network, RingProbe, Softnet};
pub use mend::Mend;
pub use needs::{NEEDS, Need, Verdict};
pub use plan::{Part, Plan};
pub use redis::{PubsubLimit, RedisSeen, ask as ask_redis};
pub use report::{Finding, Report};
pub use unit::{Unit, unit_config};

/// Judges every need.
pub fn examine(plan: &Plan, host: &Host) -> Report {
    let judge = |need: &'static Need| match plan.config.shards {
        0 if host.allowed.is_empty() && needs::BY_SHARD.contains(&need.id) => no_cores(host),
        _ => (need.judge)(plan, host),
    };
    let findings = NEEDS.iter().map(|need| Finding { need, verdict: judge(need) }).collect();
    Report {
        sockets: plan.sockets,
        stalled_share: plan.stalled_share,
        settings: plan.settings.clone(),
        memory: plan.memory_parts(host),
        findings,
    }
}

/// Where not even the number of shards is known.
fn no_cores(host: &Host) -> Verdict {
    Verdict::Unknown(format!("a matter of the shards, and there is one a core: {}", cores::unknown(host)))
}
