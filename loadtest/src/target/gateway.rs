//! Spillgate itself, started for a scenario or found where the user says.

use super::{Feed, Running, Target, free_port};
use crate::publish::Via;
use crate::scenario::{Scenario, is_remote};
use crate::sys;
use anyhow::{Context, bail};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Descriptors of a ring's table that are not for sockets, or not filled in time.
const TABLE_SLACK: u64 = 600;

/// Where the gateway is.
#[derive(Clone, Debug)]
pub enum Where {
    /// To be started: the program, if it is not beside this one.
    Ours(Option<PathBuf>),
    /// Already running: for clients, and its admin interface.
    Theirs(SocketAddrV4, Option<SocketAddr>),
}

/// The gateway, ready for clients. `redis` is none where updates come by its publish API. Call it from the main thread.
///
/// # Errors
/// The program is not found, refuses its settings or does not start.
pub fn start(
    scenario: &Scenario,
    place: &Where,
    redis: Option<&str>,
    cores: &[usize],
    directory: &Path,
) -> anyhow::Result<Target> {
    let by_api = |admin: SocketAddr| Via::Http(format!("http://{admin}/channels/{{channel}}/publish"));
    match place {
        Where::Theirs(address, admin) => {
            let via = match (redis, admin) {
                (Some(url), _) => Via::Redis(url.to_owned()),
                (None, Some(admin)) => by_api(*admin),
                (None, None) => bail!("nothing can be published: give --redis URL or --admin ADDR beside --gateway"),
            };
            let name = "spillgate".to_owned();
            let (address, admin) = (*address, *admin);
            let feed = Feed::Publish(via);
            let running = Vec::new();
            Ok(Target { name, address, admin, path: None, hello: None, face: None, feed, pid: None, running })
        }
        Where::Ours(program) => {
            let program = program.clone().map_or_else(beside, Ok)?;
            let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, free_port()?);
            let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
            let config = directory.join("spillgate.toml");
            std::fs::write(&config, settings(scenario, address, admin, redis, cores.len())?)?;
            let mut command = Command::new(&program);
            command.arg("serve").arg("--config").arg(&config).env("RUST_LOG", "warn");
            for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"SPILLGATE_"))
            {
                command.env_remove(name); // settings of the surroundings are none of the run's
            }
            let mut running = Running::start(&mut command, cores, &directory.join("spillgate.log"))?;
            let listens = |_: &str| std::net::TcpStream::connect(admin).ok();
            running.until(Duration::from_secs(20), listens).context("the gateway does not start")?;
            let via = redis.map_or_else(|| by_api(admin), |url| Via::Redis(url.to_owned()));
            Ok(Target {
                name: "spillgate".to_owned(),
                address,
                admin: Some(admin),
                path: None,
                hello: None,
                face: None,
                feed: Feed::Publish(via),
                pid: Some(running.child.id()),
                running: vec![running],
            })
        }
    }
}

/// The gateway's program, beside this one.
fn beside() -> anyhow::Result<PathBuf> {
    let mine = std::env::current_exe()?;
    let program = mine.with_file_name("spillgate");
    if !program.exists() {
        bail!("{} does not exist: build it (cargo build --release), or name it with --bin", program.display());
    }
    Ok(program)
}

/// The gateway's configuration file: what the scenario says, and what this host needs for so many sockets.
fn settings(
    scenario: &Scenario,
    address: SocketAddrV4,
    admin: SocketAddr,
    redis: Option<&str>,
    cores: usize,
) -> anyhow::Result<String> {
    let shards = if scenario.shards == 0 { cores.max(1) } else { scenario.shards };
    let table = u64::from(sys::nofile_raised()).saturating_sub(TABLE_SLACK).max(1);
    // The kernel spreads connections over the shards by a hash: none gets exactly its part.
    let of_a_shard = if shards == 1 { scenario.sockets } else { scenario.sockets / shards as u64 * 11 / 10 };
    let rings = of_a_shard.div_ceil(table).max(1);
    let mut all = scenario.gateway.clone();
    let mut set = |name: &str, value: toml::Value| {
        all.entry(name).or_insert(value);
    };
    // Far and vanishing clients come by a network of their own.
    let apart = scenario.kinds.keys().any(|kind| is_remote(*kind));
    let listen = if apart { SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, address.port()) } else { address };
    set("listen", vec![listen.to_string()].into());
    set("admin", admin.to_string().into());
    set("shards", (shards as i64).into());
    for (table, name, value) in [
        ("limits", "rings_per_shard", Some(toml::Value::from(rings as i64))),
        ("redis", "url", redis.map(toml::Value::from)),
    ] {
        let Some(value) = value else { continue };
        let table = all.entry(table).or_insert_with(|| toml::Table::new().into());
        let table = table.as_table_mut().with_context(|| format!("gateway.{name} of the scenario is no table"))?;
        table.entry(name).or_insert(value);
    }
    Ok(toml::to_string(&all)?)
}
