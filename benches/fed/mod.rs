//! A real shard whose turns the bench takes itself and whose source the bench plays.

use spillgate::bus::{self, Confirmed, InboxLimits, InboxSender, OutletReceiver, ToSource};
use spillgate::config::Config;
use spillgate::fanout::Update;
use spillgate::ids::{ChannelRef, Epoch, ShardId};
use spillgate::lifecycle::Clock;
use spillgate::metrics::ShardCounters;
use spillgate::shard::{Parts, Shard};
use spillgate::sys::{self, Doorbell, Mode, Ring, UringSet};
use spillgate::wire::envelope;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;

/// See the module.
pub struct Fed<R: Ring> {
    shard: Shard<R>,
    inbox: InboxSender,
    outlet: OutletReceiver,
    time: Time,
    channel: Option<ChannelRef>,
    _bell: Doorbell,
}

/// What a shard goes by.
pub enum Time {
    /// The process's clock.
    Real(Clock),
    /// A clock that stands still but for what is said to pass, in microseconds: the same at every run.
    Told(u64),
}

/// An update for the raw face alone.
pub fn raw_update(seq: u64, received_us: u64, payload: &[u8]) -> Arc<Update> {
    Arc::new(Update {
        seq,
        received_us,
        key: 0,
        critical: false,
        frames: [Some(envelope::raw_update(payload).into()), None],
    })
}

impl Fed<UringSet> {
    /// A shard over a real ring, with room for `sockets` and a few more, and where its clients connect.
    pub fn listen(sockets: u32) -> anyhow::Result<(Self, SocketAddr)> {
        sys::raise_nofile();
        let listeners = sys::listen(&[SocketAddr::from(([127, 0, 0, 1], 0))], 1, sys::Options::default())?.remove(0);
        let address = listeners[0].local_addr()?;
        let bell = Doorbell::new(Mode::Blocking)?;
        let ring = UringSet::new(1, sockets + 64, listeners, bell.as_raw_fd())?;
        Ok((Self::over(ring, bell, Time::Real(Clock::start()))?, address))
    }
}

impl<R: Ring> Fed<R> {
    /// A shard over `ring`, which has one listener, whose bell is `bell`.
    pub fn over(ring: R, bell: Doorbell, time: Time) -> io::Result<Self> {
        let source_bell = Doorbell::new(Mode::NonBlocking)?;
        let config = Arc::new(Config::default());
        let (inbox, receiver) = bus::inbox(InboxLimits::of(&config.limits), bell.clone(), source_bell.clone());
        let (outlet, requests) = bus::outlet(64, source_bell);
        let parts = Parts { id: ShardId(0), config, listeners: 1, page: None, inbox: receiver, outlet };
        Ok(Self { shard: Shard::new(ring, parts), inbox, outlet: requests, time, channel: None, _bell: bell })
    }

    /// Takes clients of one channel in until there are `sockets` of them, each answered.
    pub fn accept(&mut self, sockets: u32) -> io::Result<()> {
        while self.shard.counters().websockets < u64::from(sockets) {
            self.turn()?;
            while let Some(ToSource::Demand(demand)) = self.outlet.try_recv() {
                let (channel, version, faces) = (demand.channel, demand.version, demand.faces);
                self.channel = Some(channel);
                self.inbox.confirm(Confirmed { channel, version, faces, epoch: Epoch(1), seq: 0 });
            }
        }
        Ok(())
    }

    /// Gives the channel's update `n` to the shard, and takes turns until every socket's SEND has completed.
    pub fn deliver(&mut self, n: u64, payload: &[u8]) -> io::Result<()> {
        let counters = self.shard.counters();
        let due = counters.delivered + counters.websockets;
        self.offer(n, payload);
        while self.shard.counters().delivered < due {
            self.turn()?;
        }
        Ok(())
    }

    /// Puts the channel's update `n` into the shard's inbox.
    pub fn offer(&mut self, n: u64, payload: &[u8]) {
        let channel = self.channel.expect("clients are on the channel");
        let offer = self.inbox.offer(channel, raw_update(n + 1, self.now_us(), payload));
        assert!(matches!(offer, bus::Offer::Queued), "{offer:?}");
    }

    /// One turn of the shard; whether there is more to do.
    pub fn turn(&mut self) -> io::Result<bool> {
        let began_us = self.now_us();
        let more = self.shard.turn(began_us)?;
        self.shard.took(self.now_us() - began_us); // pongs are not late for the time that a turn takes
        Ok(more)
    }

    /// The ring.
    pub fn ring(&mut self) -> &mut R {
        self.shard.ring_mut()
    }

    /// Lets time pass, where it is told.
    pub fn pass(&mut self, us: u64) {
        if let Time::Told(now_us) = &mut self.time {
            *now_us += us;
        }
    }

    /// What the shard has counted.
    pub fn counters(&self) -> &ShardCounters {
        self.shard.counters()
    }

    fn now_us(&self) -> u64 {
        match &self.time {
            Time::Real(clock) => clock.now_us(),
            Time::Told(now_us) => *now_us,
        }
    }
}
