//! A real shard over a real ring, whose turns the bench takes itself and whose source the bench plays.

use spillgate::bus::{self, Confirmed, InboxLimits, InboxSender, OutletReceiver, ToSource};
use spillgate::config::Config;
use spillgate::fanout::Update;
use spillgate::ids::{ChannelRef, Epoch, ShardId};
use spillgate::lifecycle::Clock;
use spillgate::shard::{Parts, Shard};
use spillgate::sys::{self, Doorbell, Mode, UringSet};
use spillgate::wire::envelope;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;

/// See the module.
pub struct Fed {
    /// Where clients connect.
    pub address: SocketAddr,
    shard: Shard<UringSet>,
    inbox: InboxSender,
    outlet: OutletReceiver,
    clock: Clock,
    channel: Option<ChannelRef>,
    _bell: Doorbell,
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

impl Fed {
    /// A shard that listens, with room for `sockets` and a few more.
    pub fn listen(sockets: u32) -> anyhow::Result<Self> {
        sys::raise_nofile();
        let listeners = sys::listen(&[SocketAddr::from(([127, 0, 0, 1], 0))], 1, sys::Options::default())?.remove(0);
        let address = listeners[0].local_addr()?;
        let (bell, source_bell) = (Doorbell::new(Mode::Blocking)?, Doorbell::new(Mode::NonBlocking)?);
        let ring = UringSet::new(1, sockets + 64, listeners, bell.as_raw_fd())?;
        let config = Arc::new(Config::default());
        let (inbox, receiver) = bus::inbox(InboxLimits::of(&config.limits), bell.clone(), source_bell.clone());
        let (outlet, requests) = bus::outlet(64, source_bell);
        let parts = Parts { id: ShardId(0), config, listeners: 1, page: None, inbox: receiver, outlet };
        let (shard, clock) = (Shard::new(ring, parts), Clock::start());
        Ok(Self { address, shard, inbox, outlet: requests, clock, channel: None, _bell: bell })
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
        let channel = self.channel.expect("clients are on the channel");
        let offer = self.inbox.offer(channel, raw_update(n + 1, self.clock.now_us(), payload));
        assert!(matches!(offer, bus::Offer::Queued), "{offer:?}");
        while self.shard.counters().delivered < due {
            self.turn()?;
        }
        Ok(())
    }

    fn turn(&mut self) -> io::Result<()> {
        self.shard.turn(self.clock.now_us()).map(drop)
    }
}
