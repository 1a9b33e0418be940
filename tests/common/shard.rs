//! A source with shards that the test itself plays.

#![allow(dead_code)] // not every test uses everything

use spillgate::bus::{Confirmed, Demand, InboxLimits, InboxReceiver, Outlet, ToShard, ToSource, inbox, outlet};
use spillgate::config::Config;
use spillgate::fanout::Update;
use spillgate::ids::{ChannelRef, Face, Faces, ShardId};
use spillgate::lifecycle::Clock;
use spillgate::metrics::SourceCounters;
use spillgate::source::{self, Handle, ShardLink};
use spillgate::sys::{Doorbell, Mode};
use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a test waits for anything before it fails.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A running source, and its shards.
pub struct Rig {
    pub source: Handle,
    pub shards: Vec<Shard>,
    thread: Option<JoinHandle<std::io::Result<()>>>,
}

/// The shard's side of the queues.
pub struct Shard {
    id: ShardId,
    outlet: Outlet,
    pub inbox: InboxReceiver,
    /// What was received while something else was waited for.
    unread: VecDeque<ToShard>,
}

/// Times that suit a test.
pub fn config(url: Option<String>) -> Config {
    let mut config = Config::default();
    config.redis.url = url;
    config.redis.unsubscribe_after = Duration::from_millis(200);
    config.redis.probe_interval = Duration::from_millis(100);
    config.redis.probe_timeout = Duration::from_millis(500);
    config.redis.backoff_max = Duration::from_millis(200);
    config
}

impl Rig {
    /// A source with `shards` shards; where it has a Redis, it is connected.
    pub fn start(config: &Config, shards: u16) -> Self {
        let bell = Doorbell::new(Mode::NonBlocking).unwrap();
        let limits = InboxLimits::of(&config.limits);
        let pair = |id| {
            let shard_bell = Doorbell::new(Mode::NonBlocking).unwrap();
            let (sender, receiver) = inbox(limits, shard_bell, bell.clone());
            let (outlet, requests) = outlet(1 << 16, bell.clone());
            let shard = Shard { id: ShardId(id), outlet, inbox: receiver, unread: VecDeque::new() };
            (ShardLink { inbox: sender, outlet: requests }, shard)
        };
        let (links, shards) = (0..shards).map(pair).unzip();
        let (source, thread) = source::spawn(config, Clock::start(), bell.clone(), links).unwrap();
        let rig = Self { source, shards, thread: Some(thread) };
        rig.wait_connected(true);
        rig
    }

    /// Waits until the source says that it is connected, or that it is not; answers how long it took.
    pub fn wait_connected(&self, connected: bool) -> Duration {
        wait(&format!("connected: {connected}"), || self.source.status().connected == connected)
    }

    /// Waits until the counters say so (they are shown at the end of a turn, after what was handed over in it).
    pub fn wait_counted(&self, what: &str, counted: impl Fn(&SourceCounters) -> bool) -> SourceCounters {
        wait(what, || counted(&self.source.status().counters));
        self.source.status().counters
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.source.stop();
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(matches!(ended, Some(Ok(Ok(())))) || std::thread::panicking(), "the source ended with {ended:?}");
    }
}

impl Shard {
    /// Wants the raw face of channel `name`, known as `index`.
    pub fn want(&self, index: u32, name: &str) {
        self.demand(index, name, Faces::NONE.with(Face::Raw), 1);
    }

    /// Wants nothing of it any more.
    pub fn leave(&self, index: u32, name: &str) {
        self.demand(index, name, Faces::NONE, 2);
    }

    pub fn demand(&self, index: u32, name: &str, faces: Faces, version: u32) {
        let channel = ChannelRef { index, generation: 0 };
        let demand = Demand { shard: self.id, channel, name: name.into(), faces, sockets: 5, version };
        self.send(ToSource::Demand(demand));
    }

    pub fn send(&self, request: ToSource) {
        self.outlet.try_send(request).expect("the outlet has room");
    }

    /// Waits for the next confirmation of channel `index`.
    pub fn confirmed(&mut self, index: u32) -> Confirmed {
        self.wait_for(&format!("confirmation of {index}"), |message| match message {
            ToShard::Confirmed(confirmed) if confirmed.channel.index == index => Some(*confirmed),
            _ => None,
        })
    }

    /// Waits for the next update of channel `index`.
    pub fn update(&mut self, index: u32) -> Arc<Update> {
        self.wait_for(&format!("update of {index}"), |message| match message {
            ToShard::Update { channel, update } if channel.index == index => Some(Arc::clone(update)),
            _ => None,
        })
    }

    /// Waits for the first message that `pick` wants; the others keep for later.
    pub fn wait_for<T>(&mut self, what: &str, mut pick: impl FnMut(&ToShard) -> Option<T>) -> T {
        let mut looked = 0;
        let mut found = None;
        wait(what, || {
            while let Some(message) = self.inbox.try_recv() {
                self.unread.push_back(message);
            }
            self.inbox.settle();
            while found.is_none() && looked < self.unread.len() {
                found = pick(&self.unread[looked]);
                looked += 1;
            }
            found.is_some()
        });
        self.unread.remove(looked - 1);
        found.expect("it was waited for")
    }

    /// Throws away what was received so far.
    pub fn forget(&mut self) {
        while self.inbox.try_recv().is_some() {}
        self.inbox.settle();
        self.unread.clear();
    }
}

/// Waits until `done`; answers how long it took.
pub fn wait(what: &str, mut done: impl FnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < PATIENCE, "waited in vain: {what}");
        std::thread::sleep(Duration::from_micros(100));
    }
    began.elapsed()
}

/// Whether the raw frame of an update ends with `payload`.
pub fn carries(update: &Update, payload: &str) -> bool {
    update.frames[Face::Raw.index()].as_ref().is_some_and(|frame| frame.ends_with(payload.as_bytes()))
}
