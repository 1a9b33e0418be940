//! `spillgate doctor`: made-up hosts by which each need is proved short and mended, the real host, and the files in
//! `tuning/` that are written from the same table.

mod capacity;
mod fake;
mod guide;
mod here;
mod hidden;
mod install;
mod install_host;
mod lines;
mod mends;
mod namespaces;
#[path = "../common/redis.rs"]
mod redis;
mod unit;

use spillgate::config::Config;
use spillgate::doctor::Plan;

/// A plan with the default settings.
fn plan(sockets: u64) -> Plan {
    Plan { sockets, stalled_share: 0.2, proxies: None, config: Config::default(), settings: "defaults".into() }
}
