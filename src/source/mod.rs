//! Where updates come from: Redis Pub/Sub, or the embedded engine. One thread; it owns the subscriptions, the sequence
//! numbers and the encoding.
//!
//! Invariant: the source never waits for a shard. Invariant: what the shards want is a set that is reconciled with what
//! is subscribed, so that no full queue and no lost connection loses a subscription.

mod connect;
mod desk;
mod embedded;
mod handle;
mod health;
mod publish;
mod redis;
mod subscriptions;
mod table;
mod turn;

pub use handle::{Handle, Reached, Status};

use crate::bus::{InboxSender, OutletReceiver};
use crate::config::Config;
use crate::lifecycle::Clock;
use crate::sys::{AsyncBell, Doorbell};
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use tokio::sync::{Notify, mpsc};

/// The source's ends of one shard's queues.
pub struct ShardLink {
    /// To the shard.
    pub inbox: InboxSender,
    /// From the shard.
    pub outlet: OutletReceiver,
}

/// Starts the source's thread. `shards` is in the order of the shards' numbers; `bell` wakes the source: the one that
/// the shards' queues were made with, in [`crate::sys::Mode::NonBlocking`].
///
/// The thread ends with `Ok` when it is stopped; every other end is an error that the process should not survive.
///
/// Errors: `redis.url` is not the URL of a Redis, or the thread cannot be started. That Redis cannot be reached is none.
pub fn spawn(
    config: &Config,
    clock: Clock,
    bell: Doorbell,
    shards: Vec<ShardLink>,
) -> io::Result<(Handle, JoinHandle<io::Result<()>>)> {
    let endpoint = config.redis.url.as_deref().map(connect::Endpoint::new).transpose();
    let endpoint = endpoint.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error.to_string()))?;
    let (settings, core) = (config.redis.clone(), config.source_core);
    let update_bytes_max = config.limits.update_bytes_max;
    let (asks_sender, asks) = mpsc::channel(handle::ASKS_MAX);
    let (board, stop) = (Arc::<handle::StatusBoard>::default(), Arc::new(Notify::new()));
    let handle = Handle { asks: asks_sender, board: Arc::clone(&board), stop: Arc::clone(&stop), update_bytes_max };

    let run = move || {
        if let Some(core) = core {
            pin(core);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async move {
            let table = table::Table::new(endpoint.is_none(), settings.unsubscribe_after, update_bytes_max);
            let desk = desk::Desk::new(table, clock, shards);
            let engine = match endpoint {
                Some(endpoint) => turn::Engine::Redis(Box::new(redis::Redis::new(endpoint, settings))),
                None => turn::Engine::Embedded,
            };
            let bell = AsyncBell::new(bell)?;
            turn::Source { desk, engine, bell, asks, stop, board, update_bytes_max }.run().await
        })
    };
    let thread = std::thread::Builder::new().name("source".into()).spawn(run)?;
    Ok((handle, thread))
}

fn pin(core: usize) {
    if !core_affinity::set_for_current(core_affinity::CoreId { id: core }) {
        tracing::warn!(core, "the source cannot be pinned to this core: it floats");
    }
}
