//! The start and the drain: threads are made in the order in which they need each other, and end in the opposite one.

use super::notices::Notices;
use super::supervisor::Supervisor;
use crate::admin::{self, HANGS_AFTER, Recent, View};
use crate::bus::{self, InboxLimits};
use crate::config::Config;
use crate::ids::ShardId;
use crate::lifecycle::{Clock, Signs};
use crate::shard::{self, CAPACITY_SLOTS, Parts, Seat, ShardEnd, Shared};
use crate::source::{self, Handle, ShardLink};
use crate::sys::{self, Doorbell, ListenError, Mode};
use anyhow::{Context, bail};
use crossbeam_channel::{Receiver, RecvTimeoutError, unbounded};
use signal_hook::iterator::Signals;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Messages from one shard that may wait at the source.
const OUTLET_MESSAGES_MAX: usize = 8192;
/// Time that the shards have to take their first turns.
const START_MAX: Duration = Duration::from_secs(10);
/// Time that a predecessor which was killed has for its listeners to go: the kernel takes a ring down, and with it the
/// accepts that hold them, some 20 ms after the process is gone.
const IN_USE_MAX: Duration = Duration::from_secs(1);
/// How often signals, and the threads that tell nobody of their end, are looked at. (A thread of its own that waits for
/// signals might hang, and nobody would know before it is needed.)
const WATCH_EVERY: Duration = Duration::from_millis(100);

/// A gateway that runs.
pub struct Gateway {
    /// Where clients connect.
    pub listening: Vec<SocketAddr>,
    /// Where the admin interface is.
    pub admin: SocketAddr,
    /// Publishes, and tells how the source is.
    pub source: Handle,
    source_thread: JoinHandle<io::Result<()>>,
    admin_thread: JoinHandle<()>,
    view: View,
    ends: Receiver<ShardEnd>,
    drain_timeout: Duration,
    supervisor: Supervisor,
    notices: Notices,
}

impl Gateway {
    /// Starts everything; `page` is served at `/`.
    ///
    /// # Errors
    /// What the host refuses, with what to do about it.
    pub fn start(config: Config, page: Option<&'static [u8]>) -> anyhow::Result<Self> {
        sys::check_host()?;
        let supervisor = Supervisor::of_environment()?;
        let nofile = sys::raise_nofile();
        let cores = core_affinity::get_core_ids().unwrap_or_default();
        let shards = if config.shards == 0 { cores.len().max(1) } else { config.shards };
        let admin = TcpListener::bind(config.admin)
            .with_context(|| format!("cannot listen on {} for the admin interface", config.admin))?;
        let options = sys::Options {
            // Later than our own judgement, which is counted and told to the client.
            user_timeout: Some(config.limits.stall_timeout * 2).filter(|timeout| !timeout.is_zero()),
            send_buffer_bytes: Some(config.limits.send_buffer_bytes).filter(|bytes| *bytes > 0),
        };
        let seats = listen(&config.listen, shards, options)?;
        let listening = seats[0].iter().map(TcpListener::local_addr).collect::<io::Result<Vec<_>>>()?;
        let table = table_slots(&config, nofile)?;
        let completions_max = sys::completions_max(shards, config.limits.rings_per_shard);

        let clock = Clock::start();
        let config = Arc::new(config);
        let source_bell = Doorbell::new(Mode::NonBlocking)?;
        let (ended, ends) = unbounded();
        let (mut links, mut shared, mut starts) = (Vec::new(), Vec::new(), Vec::new());
        for (number, listeners) in seats.into_iter().enumerate() {
            let bell = Doorbell::new(Mode::Blocking)?;
            let limits = InboxLimits::of(&config.limits);
            let (sender, inbox) = bus::inbox(limits, bell.clone(), source_bell.clone());
            let (outlet, receiver) = bus::outlet(OUTLET_MESSAGES_MAX, source_bell.clone());
            links.push(ShardLink { inbox: sender, outlet: receiver });
            let seen = Arc::new(Shared::new(bell));
            shared.push(Arc::clone(&seen));
            let parts = Parts {
                id: ShardId(number as u16),
                config: Arc::clone(&config),
                listeners: listeners.len() as u8,
                page,
                inbox,
                outlet,
            };
            let seat = Seat {
                core: if config.pin_shards { cores.get(number % cores.len().max(1)).map(|core| core.id) } else { None },
                rings: config.limits.rings_per_shard,
                table,
                completions_max,
                listeners,
                clock,
                shared: seen,
                ends: ended.clone(),
            };
            starts.push((seat, parts));
        }
        let (source, source_thread) = source::spawn(&config, clock, source_bell, links).context("the source")?;
        for (seat, parts) in starts {
            shard::run(seat, parts)?;
        }
        let shards: Arc<[Arc<Shared>]> = shared.into();
        await_first_turns(&shards, &ends)?;
        let admin_address = admin.local_addr()?;
        let recent = Recent::watch(clock, &shards, &listening).context("the watcher of the metrics")?;
        let view = View {
            clock,
            source: source.clone(),
            shards,
            limits: config.limits.clone(),
            server_id: config.server_id.clone(),
            recent,
            crowd: Arc::default(),
            signs: Arc::new(Signs::new(clock.now_us())),
            leaving: Arc::default(),
        };
        let admin_thread = admin::spawn(admin, view.clone()).context("the admin interface")?;
        let (drain_timeout, notices) = (config.drain.timeout, Notices::default());
        let admin = admin_address;
        Ok(Self {
            listening,
            admin,
            source,
            source_thread,
            admin_thread,
            view,
            ends,
            drain_timeout,
            supervisor,
            notices,
        })
    }

    /// Runs until `signals` brings something, then leaves: everyone gets a close frame. A second signal ends it at once.
    ///
    /// # Errors
    /// A thread has ended that should not have.
    pub fn run(mut self, signals: &mut Signals) -> anyhow::Result<()> {
        let patience = self.supervisor.patience().unwrap_or(HANGS_AFTER).min(HANGS_AFTER);
        let look_every = WATCH_EVERY.min(patience / 4);
        self.supervisor.ready();
        let signal = loop {
            if let Some(signal) = signals.pending().next() {
                break signal;
            }
            self.look(patience)?;
            std::thread::sleep(look_every);
        };
        let signal = signal_hook::low_level::signal_name(signal).unwrap_or("a signal");
        tracing::info!(signal, connections = self.view.connections(), "leaving");
        self.leave(signals)
    }

    /// Looks after the threads. Whoever hangs may come back, but while it hangs nobody says that this process lives:
    /// the service manager's watchdog, or the health check, ends it.
    fn look(&mut self, patience: Duration) -> anyhow::Result<()> {
        self.check_threads()?;
        let hanging = self.view.hanging(patience);
        if hanging.is_none() {
            self.supervisor.alive();
        }
        let updates = if self.source.status().connected { "updates flow" } else { "Redis is away" };
        let how = || format!("{} connections, {updates}", self.view.connections());
        self.supervisor.status(hanging.clone().unwrap_or_else(how));
        self.notices.look(&self.view, hanging);
        Ok(())
    }

    fn check_threads(&self) -> anyhow::Result<()> {
        if let Ok(end) = self.ends.try_recv() {
            match end.result {
                Ok(()) => bail!("shard {} has ended by itself", end.shard.0),
                Err(error) => return Err(error).with_context(|| format!("shard {} has ended", end.shard.0)),
            }
        }
        if self.source_thread.is_finished() {
            bail!("the source has ended by itself");
        }
        if self.admin_thread.is_finished() {
            bail!("the admin interface has ended by itself");
        }
        Ok(())
    }

    fn leave(mut self, signals: &mut Signals) -> anyhow::Result<()> {
        let deadline = Instant::now() + self.drain_timeout;
        self.supervisor.stopping(self.drain_timeout);
        self.view.leaving.store(true, Ordering::Relaxed);
        let shards = Arc::clone(&self.view.shards);
        shards.iter().for_each(|shard| shard.leave());
        let mut left = 0;
        while left < shards.len() && Instant::now() < deadline && signals.pending().next().is_none() {
            match self.ends.recv_timeout(Duration::from_millis(50)) {
                Ok(end) => {
                    end.result.with_context(|| format!("shard {} could not leave in order", end.shard.0))?;
                    left += 1;
                }
                // Also where a shard hangs: the deadline ends that.
                Err(RecvTimeoutError::Timeout) => self.supervisor.alive(),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        if left < shards.len() {
            tracing::warn!(connections = self.view.connections(), "left before everyone had closed");
        } else {
            tracing::info!("left");
        }
        self.source.stop();
        Ok(())
    }
}

/// Listens; an address in use is tried again for a while.
fn listen(
    addresses: &[SocketAddr],
    shards: usize,
    options: sys::Options,
) -> Result<Vec<Vec<TcpListener>>, ListenError> {
    let deadline = Instant::now() + IN_USE_MAX;
    loop {
        match sys::listen(addresses, shards, options) {
            Err(error) if error.is_in_use() && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(10));
            }
            listened => return listened,
        }
    }
}

/// Waits until every shard takes connections.
fn await_first_turns(shards: &[Arc<Shared>], ends: &Receiver<ShardEnd>) -> anyhow::Result<()> {
    let deadline = Instant::now() + START_MAX;
    while shards.iter().any(|shard| shard.counters().turns == 0) {
        match ends.recv_timeout(Duration::from_millis(1)) {
            Ok(ShardEnd { shard, result }) => {
                result.with_context(|| format!("shard {} cannot start", shard.0))?;
                bail!("shard {} has ended at the start", shard.0);
            }
            Err(_) if Instant::now() > deadline => bail!("the shards took no turn within {START_MAX:?}"),
            Err(_) => {}
        }
    }
    Ok(())
}

/// Slots of each ring's table.
fn table_slots(config: &Config, nofile: u64) -> anyhow::Result<u32> {
    let most = nofile.saturating_sub(sys::DESCRIPTORS_LEFT).min(sys::TABLE_MAX);
    if most < 64 {
        bail!("RLIMIT_NOFILE is {nofile}, too low for a ring's table; raise it (`ulimit -n 65536`, LimitNOFILE=)");
    }
    let (wanted, rings) = (config.limits.connections_per_shard_max as u64, config.limits.rings_per_shard as u64);
    if wanted == 0 {
        return Ok(most as u32);
    }
    let slots = wanted + CAPACITY_SLOTS;
    let needed = slots.div_ceil(rings);
    if needed > most {
        bail!(
            "limits.connections_per_shard_max = {wanted} needs {} rings a shard: RLIMIT_NOFILE is {nofile} and bounds \
             each ring; set limits.rings_per_shard to {} or raise the limit",
            slots.div_ceil(most),
            slots.div_ceil(most),
        );
    }
    Ok(needed as u32)
}
