//! The source's side of the bus, played by the test: it hears of demand late, confirms late, starts new epochs now and
//! then, encodes only for faces that were asked for, and publishes into an inbox that is often full.

use spillgate::bus::{Confirmed, Demand, InboxSender, Offer, OutletReceiver, PublishError, Ticket, ToShard, ToSource};
use spillgate::fanout::Update;
use spillgate::ids::{ChannelRef, Epoch, Face, Faces};
use spillgate::sys::Doorbell;
use spillgate::wire::envelope::{json_update, raw_update};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;

/// Channels that there are, each with a rule of its own (see `settings.rs`). Clients may publish to the first; two names
/// need escaping.
pub const NAMES: [&str; CHANNELS] = ["p0", "keyed", "goals", "o/3", "n 4", "disconnect", "rated", "c7"];
pub const CHANNELS: usize = 8;
/// Some of its updates are critical, and it has keys.
pub const GOALS: usize = 2;
/// Those who cannot take all of it are closed.
pub const DISCONNECT: usize = 5;
/// Those that keep the newest of each key.
pub const CONFLATES: [usize; 5] = [0, 1, GOALS, RATED, 7];
/// It has keys, and lets this many updates a second of each through.
pub const RATED: usize = 6;
pub const RATE: u64 = 2;

/// One channel, as the source knows it.
#[derive(Default)]
pub struct Channel {
    pub name: String,
    pub seq: u64,
    pub epoch: u64,
    /// By seq: what was published. Numbers that are missing were given to nothing.
    pub updates: BTreeMap<u64, Arc<Update>>,
    /// What a newer update replaced before the shard had room for it, or was lost for want of room.
    pub conflated: BTreeSet<u64>,
    /// Epochs of which subscribers were told behind all that had been published before, and not by the answer to a demand.
    pub noticed: BTreeSet<u64>,
    /// A loss is told then.
    tells_at: Option<u64>,
    wanted: Option<Demand>,
    encoded: Faces,
    confirms_at: Option<u64>,
    /// By key: when the last update was let through at the earliest.
    passed_us: BTreeMap<u64, u64>,
}

impl Channel {
    /// The newest update that there was.
    pub fn newest(&self) -> u64 {
        self.updates.keys().next_back().copied().unwrap_or(0)
    }

    /// The updates from one to before another that reached the shard.
    pub fn given(&self, seqs: Range<u64>) -> impl Iterator<Item = &Arc<Update>> {
        let updates = (seqs.start < seqs.end).then(|| self.updates.range(seqs));
        updates.into_iter().flatten().map(|(_, update)| update).filter(|update| !self.conflated.contains(&update.seq))
    }
}

/// See the module.
pub struct Source {
    rng: fastrand::Rng,
    inbox: InboxSender,
    outlet: OutletReceiver,
    bell: Doorbell,
    waiting: bool,
    step: u64,
    /// How often it listens to the shard, of 256 times.
    attention: u8,
    answers: Vec<(u64, Ticket, Result<(), PublishError>)>,
    /// Which channel the shard has, or had, at each place.
    placed: HashMap<ChannelRef, usize>,
    pub channels: Vec<Channel>,
    pub counts: Counts,
}

/// What the source did.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    pub published: u64,
    pub conflated: u64,
    /// Updates that were lost in front of the full inbox.
    pub overrun: u64,
    pub confirmed: u64,
    pub epochs: u64,
    pub critical: u64,
    /// Updates that came sooner after the last of their key than the rule lets through.
    pub too_soon: u64,
}

impl Source {
    pub fn new(seed: u64, inbox: InboxSender, outlet: OutletReceiver, bell: Doorbell) -> Self {
        let channel = |name: &str| Channel { name: name.into(), ..Channel::default() };
        let mut rng = fastrand::Rng::with_seed(seed);
        Self {
            attention: [10, 180][rng.usize(..2)],
            rng,
            inbox,
            outlet,
            bell,
            waiting: false,
            step: 0,
            answers: Vec::new(),
            placed: HashMap::new(),
            channels: NAMES.into_iter().map(channel).collect(),
            counts: Counts::default(),
        }
    }

    /// One look at everything; `busy`: with publishes of its own and new epochs.
    pub fn run(&mut self, now_us: u64, busy: bool) {
        self.step += 1;
        if self.rng.u8(..) < self.attention {
            for _ in 0..self.rng.u32(1..4) {
                let Some(message) = self.outlet.try_recv() else { break };
                self.hear(message, now_us);
            }
        }
        for at in 0..CHANNELS {
            if self.channels[at].confirms_at.is_some_and(|at| at <= self.step) {
                self.confirm(at);
            }
            if self.channels[at].tells_at.is_some_and(|at| at <= self.step) {
                self.begin_epoch(at);
            }
        }
        for at in (0..self.answers.len()).rev() {
            if self.answers[at].0 <= self.step {
                let (_, ticket, outcome) = self.answers.swap_remove(at);
                self.inbox.answer(ToShard::Published { ticket, outcome });
            }
        }
        if busy {
            for _ in 0..[0, 0, 0, 1, 1, 2, 8][self.rng.usize(..7)] {
                let at = self.rng.usize(..CHANNELS);
                self.publish(at, now_us);
            }
            if self.rng.u8(..) < 3 {
                let at = self.rng.usize(..CHANNELS);
                self.begin_epoch(at);
            }
        }
        // It sleeps until its bell rings, where the shard must make room first.
        if !self.waiting || self.bell.take().is_ok() {
            self.waiting = !self.inbox.flush();
        }
        for place in self.inbox.take_untold() {
            self.tell_later(place);
        }
        self.bell.asleep();
        self.inbox.ring();
    }

    /// Whether everything that was asked was answered, and handed over.
    pub fn is_idle(&self) -> bool {
        let confirming =
            self.channels.iter().any(|channel| channel.confirms_at.is_some() || channel.tells_at.is_some());
        !confirming
            && self.answers.is_empty()
            && self.outlet.is_empty()
            && self.inbox.waiting() == 0
            && self.inbox.depth() == 0
    }

    /// Whether the shard wants anything.
    pub fn is_wanted(&self) -> bool {
        self.channels.iter().any(|channel| channel.wanted.is_some())
    }

    fn hear(&mut self, message: ToSource, now_us: u64) {
        match message {
            ToSource::Demand(demand) => {
                let at = self.at(&demand.name);
                let delay = if self.rng.u8(..) < 200 { self.rng.u64(0..30) } else { self.rng.u64(0..400) };
                let channel = &mut self.channels[at];
                let before = channel.wanted.take().filter(|before| before.channel == demand.channel);
                channel.encoded = common(channel.encoded, demand.faces);
                if demand.faces.is_empty() {
                    channel.confirms_at = None;
                    channel.epoch += 1; // nobody listens from now on, so updates will be missed
                    return;
                }
                if before.is_none_or(|before| before.version != demand.version) {
                    channel.confirms_at = Some(self.step + delay);
                }
                self.placed.insert(demand.channel, at);
                channel.wanted = Some(demand);
            }
            ToSource::Publish { ticket, .. } => {
                let delay = if self.rng.u8(..) < 200 { self.rng.u64(0..10) } else { self.rng.u64(0..400) };
                let at = self.at(&ticket.channel);
                let outcome = match self.rng.u8(..) {
                    0..30 => Err(PublishError::Unavailable),
                    _ => {
                        self.publish(at, now_us);
                        Ok(())
                    }
                };
                self.answers.push((self.step + delay, ticket, outcome));
            }
        }
    }

    fn confirm(&mut self, at: usize) {
        let channel = &mut self.channels[at];
        channel.confirms_at = None;
        let Some(Demand { channel: place, version, faces, .. }) = channel.wanted else { return };
        channel.encoded = faces;
        self.counts.confirmed += 1;
        channel.noticed.remove(&channel.epoch); // it overtakes the notice, if that still waits
        let (epoch, seq) = (Epoch(channel.epoch), channel.seq);
        self.inbox.confirm(Confirmed { channel: place, version, faces, epoch, seq });
    }

    fn begin_epoch(&mut self, at: usize) {
        let channel = &mut self.channels[at];
        channel.epoch += 1;
        channel.seq += self.rng.u64(0..3);
        channel.tells_at = None;
        self.counts.epochs += 1;
        if channel.confirms_at.is_some() {
            return;
        }
        let Some(Demand { channel: place, version, faces, .. }) = channel.wanted else { return };
        channel.noticed.insert(channel.epoch);
        let (epoch, seq) = (Epoch(channel.epoch), channel.seq);
        self.inbox.notify(Confirmed { channel: place, version, faces, epoch, seq });
    }

    /// Subscribers of a channel have to be told of a loss, some time from now.
    fn tell_later(&mut self, place: ChannelRef) {
        let known = |channel: &&mut Channel| channel.wanted.as_ref().is_some_and(|wanted| wanted.channel == place);
        let step = self.step + self.rng.u64(0..20);
        if let Some(channel) = self.channels.iter_mut().find(known) {
            channel.tells_at.get_or_insert(step);
        }
    }

    fn publish(&mut self, at: usize, now_us: u64) {
        let channel = &mut self.channels[at];
        let Some(place) = channel.wanted.as_ref().map(|demand| demand.channel) else { return };
        if channel.encoded.is_empty() {
            return; // it is not subscribed yet
        }
        channel.seq += 1;
        let (seq, name) = (channel.seq, &channel.name);
        let padding = match self.rng.u8(..) {
            3..200 if at == RATED => self.rng.usize(..6000), // many are let through at once
            0..3 => self.rng.usize(..40_000),
            3..40 => self.rng.usize(..2000),
            _ => self.rng.usize(..100),
        };
        let letter = char::from(b'a' + (seq % 26) as u8);
        let payload = format!("{name}#{seq}#{}", letter.to_string().repeat(padding)).into_bytes();
        let mut frames = [None, None];
        for face in Face::ALL.into_iter().filter(|face| channel.encoded.has(*face)) {
            let frame = match face {
                Face::Raw => raw_update(&payload),
                Face::Json => json_update(name, seq, now_us / 1000, &payload),
            };
            frames[face.index()] = Some(frame.into());
        }
        let key = match at {
            RATED => self.rng.u64(1..40),
            1 | GOALS => self.rng.u64(1..5),
            _ => 0,
        };
        let critical = at == GOALS && self.rng.u8(..) < 60;
        self.counts.critical += u64::from(critical);
        if at == RATED {
            let passed_us = channel.passed_us.entry(key).or_insert(0);
            match now_us < *passed_us + 1_000_000 / RATE {
                true => self.counts.too_soon += 1,
                false => *passed_us = now_us,
            }
        }
        let update = Arc::new(Update { seq, received_us: now_us, key, critical, frames });
        channel.updates.insert(seq, Arc::clone(&update));
        self.counts.published += 1;
        if let Offer::Conflated(replaced) = self.inbox.offer(place, Arc::clone(&update)) {
            self.counts.conflated += 1;
            assert!(
                !replaced.critical && replaced.key == key && replaced.seq < seq,
                "{replaced:?} went for {update:?}"
            );
            channel.conflated.insert(replaced.seq);
        }
        for (place, lost) in self.inbox.take_lost() {
            self.counts.overrun += 1;
            let at = self.placed[&place];
            assert!(self.channels[at].updates.contains_key(&lost), "{lost} was never published");
            self.channels[at].conflated.insert(lost);
            self.tell_later(place);
        }
    }

    fn at(&self, name: &str) -> usize {
        let at = self.channels.iter().position(|channel| channel.name == name);
        at.unwrap_or_else(|| panic!("the shard asks for {name:?}, which nobody named"))
    }
}

fn common(some: Faces, others: Faces) -> Faces {
    let both = Face::ALL.into_iter().filter(|face| some.has(*face) && others.has(*face));
    both.fold(Faces::NONE, Faces::with)
}
