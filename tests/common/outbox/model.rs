//! The outbox as one would write it who had all the time and memory: lists, looked through from end to end.

use spillgate::config::Policy;
use spillgate::fanout::{Gone, Offer, OutboxLimits, Unsent};

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Update = b'u' as isize,
    Critical = b'c' as isize,
    Notice = b'n' as isize,
    Missed = b'm' as isize,
    Control = b'r' as isize,
    Ping = b'p' as isize,
}

/// One frame.
#[derive(Clone, Debug)]
pub struct Item {
    pub kind: Kind,
    pub channel: u32,
    pub key: u64,
    pub policy: Policy,
    pub bytes: Vec<u8>,
}

/// What was handed out.
#[derive(Debug)]
pub enum Flight {
    /// Frames that can wait again.
    Parts(Vec<Item>),
    /// Bytes that complete so many updates: they are finished as they are.
    Blob(Vec<u8>, u64),
}

/// See the module.
#[derive(Debug)]
pub struct Model {
    limits: OutboxLimits,
    pub started: Option<(Vec<u8>, u64)>,
    pub control: Vec<Item>,
    critical: Vec<Item>,
    data: Vec<Item>,
    conflating: bool,
    /// Channels of whose newest some went, since somebody looked.
    pub missed: Vec<u32>,
    pub flight: Option<Flight>,
    pub ping: Vec<u8>,
}

fn is_update(item: &Item) -> bool {
    item.kind == Kind::Update
}

/// Whether a client has one update more when it has this.
fn completes(item: &Item) -> bool {
    matches!(item.kind, Kind::Update | Kind::Critical)
}

fn bytes(items: &[Item]) -> usize {
    items.iter().map(|item| item.bytes.len()).sum()
}

fn same_topic(one: &Item, other: &Item) -> bool {
    let conflates = |item: &Item| is_update(item) && item.policy == Policy::Conflate;
    conflates(one) && conflates(other) && (one.channel, one.key) == (other.channel, other.key)
}

impl Model {
    pub fn new(limits: OutboxLimits) -> Self {
        let (control, critical, data, missed, ping) = Default::default();
        Self { limits, started: None, control, critical, data, conflating: false, missed, flight: None, ping }
    }

    pub fn pending(&self) -> u64 {
        let started = self.started.as_ref().map_or(0, |(_, updates)| *updates);
        (self.updates() + self.critical.len()) as u64 + started
    }

    pub fn pending_bytes(&self) -> usize {
        bytes(&self.data) + bytes(&self.critical) + self.started.as_ref().map_or(0, |(bytes, _)| bytes.len())
    }

    pub fn is_empty(&self) -> bool {
        self.started.is_none() && self.control.is_empty() && self.critical.is_empty() && self.data.is_empty()
    }

    /// The bytes in flight, and the updates that they complete.
    pub fn in_flight(&self) -> (Vec<u8>, u64) {
        let (mut all, updates) = match self.flight.as_ref().expect("something is in flight") {
            Flight::Parts(parts) => {
                let updates = parts.iter().filter(|part| completes(part)).count();
                (parts.iter().flat_map(|part| part.bytes.clone()).collect(), updates as u64)
            }
            Flight::Blob(bytes, updates) => (bytes.clone(), *updates),
        };
        all.extend(&self.ping);
        (all, updates)
    }

    pub fn offer(&mut self, item: Item) -> Offer {
        let mut gone = Gone::default();
        if item.kind == Kind::Critical {
            if self.critical.len() >= self.limits.critical_max {
                return Offer::TooSlow(gone);
            }
            self.critical.push(item);
            return Offer::Queued(gone);
        }
        let many = self.updates() + 1 > self.whole_max();
        if item.policy == Policy::Conflate && !self.conflating && (many || !self.fits(&item)) {
            gone = self.conflate();
        }
        let older = self.data.iter().rposition(|older| self.conflating && same_topic(older, &item));
        if let Some(at) = older {
            gone.conflated += 1;
            let older = self.data[at].bytes.len();
            if item.bytes.len() <= older || bytes(&self.data) - older + item.bytes.len() <= self.limits.bytes_max {
                self.data[at] = item;
                return Offer::Queued(gone);
            }
            self.data.remove(at);
        }
        loop {
            let fits = self.fits(&item);
            let whole = self.data.iter().filter(|other| is_update(other) && other.policy != Policy::Conflate).count();
            let has_place = item.policy == Policy::Conflate || whole == 0 || whole < self.limits.messages_max;
            if fits && has_place {
                self.data.push(item);
                return Offer::Queued(gone);
            }
            let own = |other: &Item| item.policy == Policy::DropOldest && other.channel == item.channel;
            match item.policy {
                Policy::DropNewest => return Offer::Dropped,
                Policy::Disconnect => return Offer::TooSlow(gone),
                _ if self.drop_oldest(own) => gone.dropped += 1,
                _ if self.drop_oldest(|other| !fits || other.policy != Policy::Conflate) => gone.dropped += 1,
                _ => return Offer::TooSlow(gone),
            }
        }
    }

    /// A turn's updates of one channel: where they make it conflate, those that a later one replaces go first.
    pub fn offer_all(&mut self, items: Vec<Item>) -> (Gone, bool) {
        let displaceable = items.iter().filter(|item| is_update(item)).count();
        let conflates = self.conflating || self.updates() + displaceable > self.whole_max();
        let replaced = |at: usize| conflates && items[at + 1..].iter().any(|later| same_topic(&items[at], later));
        let replaced: Vec<_> = (0..items.len()).map(replaced).collect();
        let (mut gone, mut too_slow) = (Gone::default(), false);
        if replaced.contains(&true) {
            gone = self.conflate();
        }
        for (item, replaced) in items.into_iter().zip(replaced) {
            if replaced {
                gone.conflated += 1;
                continue;
            }
            let (more, dropped, slow) = match self.offer(item) {
                Offer::Queued(more) => (more, 0, false),
                Offer::Dropped => (Gone::default(), 1, false),
                Offer::TooSlow(more) => (more, 1, true),
            };
            gone = gone.and(more).and(Gone { conflated: 0, dropped });
            too_slow |= slow;
        }
        (gone, too_slow)
    }

    pub fn notice(&mut self, item: Item) {
        let at = self.same_notice(&item);
        at.map(|at| self.data.remove(at));
        self.data.push(item);
    }

    pub fn missed_notice(&mut self, item: Item) {
        match self.same_notice(&item) {
            Some(at) => self.data[at] = item,
            None => self.data.push(item),
        }
    }

    /// Whether there is something to write: then it is in flight.
    pub fn next(&mut self, write_max: usize) -> bool {
        let any = self.next_of(write_max, |_| true);
        self.conflating &= !self.data.is_empty() || !any;
        any
    }

    pub fn next_critical(&mut self, write_max: usize) -> bool {
        self.next_of(write_max, |next| matches!(next.kind, Kind::Control | Kind::Critical))
    }

    fn next_of(&mut self, write_max: usize, fits: impl Fn(&Item) -> bool) -> bool {
        if self.started.is_none() && !self.peek().is_some_and(&fits) {
            return false;
        }
        let first = match self.started.take() {
            Some((bytes, updates)) => Flight::Blob(bytes, updates),
            None => match self.pop() {
                Some(item) if item.kind == Kind::Control => Flight::Blob(item.bytes, 0),
                Some(item) => Flight::Parts(vec![item]),
                None => return false,
            },
        };
        self.flight = Some(first);
        while let Some(next) = self.peek()
            && fits(next)
            && self.in_flight().0.len() + next.bytes.len() <= write_max
            && let Some(next) = self.pop()
        {
            let (mut bytes, updates) = self.in_flight();
            bytes.extend(&next.bytes);
            let more = u64::from(completes(&next));
            self.flight = Some(Flight::Blob(bytes, updates + more));
        }
        true
    }

    pub fn next_control(&mut self, write_max: usize) -> bool {
        let mut all = Vec::new();
        while let Some(next) = self.control.first()
            && (all.is_empty() || all.len() + next.bytes.len() <= write_max)
        {
            all.extend(self.control.remove(0).bytes);
        }
        let any = !all.is_empty();
        self.flight = any.then_some(Flight::Blob(all, 0));
        any
    }

    pub fn unsent(&mut self, written: usize) -> Unsent {
        let (all, updates) = self.in_flight();
        let ping = std::mem::take(&mut self.ping);
        let parts = match self.flight.take().expect("something is in flight") {
            Flight::Blob(..) => {
                self.started = Some((all[written..].to_vec(), updates));
                return Unsent::default();
            }
            Flight::Parts(parts) => parts,
        };
        let (mut unsent, mut end, mut back) = (Unsent::default(), 0, Vec::new());
        let mut started = None;
        for part in parts {
            let start = end;
            end += part.bytes.len();
            let update = u64::from(completes(&part));
            if end <= written {
                unsent.whole += update;
            } else if start < written {
                started = Some((part.bytes[written - start..].to_vec(), update));
            } else {
                back.push(part);
            }
        }
        if !self.control.is_empty() || written >= end {
            self.started = Some((all[written..].to_vec(), updates - unsent.whole));
            return unsent;
        }
        self.started = started;
        unsent.unpinged = !ping.is_empty();
        unsent.gone = self.put_back(back);
        unsent
    }

    pub fn conflate(&mut self) -> Gone {
        self.conflating = true;
        let mut kept: Vec<Item> = Vec::new();
        let before = self.data.len();
        for item in self.data.drain(..) {
            match kept.iter_mut().find(|older| same_topic(older, &item)) {
                Some(older) => *older = item,
                None => kept.push(item),
            }
        }
        self.data = kept;
        Gone { conflated: (before - self.data.len()) as u64, dropped: 0 }
    }

    pub fn spill(&mut self, less: usize) -> Gone {
        let (before, mut gone) = (bytes(&self.data), Gone::default());
        while bytes(&self.data) > before.saturating_sub(less) && self.drop_oldest(|_| true) {
            gone.dropped += 1;
        }
        gone
    }

    pub fn forget_channel(&mut self, channel: u32) -> u64 {
        let before = self.updates() + self.critical.len();
        self.data.retain(|item| item.channel != channel);
        self.critical.retain(|item| item.channel != channel);
        (before - self.updates() - self.critical.len()) as u64
    }

    pub fn forget_data(&mut self) -> u64 {
        (0..7).map(|channel| self.forget_channel(channel)).sum()
    }

    fn put_back(&mut self, items: Vec<Item>) -> Gone {
        let mut gone = Gone::default();
        let conflates = items.iter().any(|item| item.policy == Policy::Conflate && completes(item));
        for item in items.into_iter().rev() {
            let newer = self.data.iter().rposition(|newer| self.conflating && same_topic(newer, &item));
            if item.kind == Kind::Critical {
                self.critical.insert(0, item);
            } else if let Some(at) = newer {
                let newer = self.data.remove(at);
                self.data.insert(0, newer);
                gone.conflated += 1;
            } else if completes(&item) || self.same_notice(&item).is_none() {
                self.data.insert(0, item);
            }
        }
        if conflates && !self.conflating && self.updates() > self.whole_max() {
            gone = gone.and(self.conflate());
        }
        let whole = |item: &Item| is_update(item) && item.policy != Policy::Conflate;
        while self.data.iter().filter(|item| whole(item)).count() > self.limits.messages_max && self.drop_oldest(whole)
        {
            gone.dropped += 1;
        }
        gone
    }

    fn drop_oldest(&mut self, fits: impl Fn(&Item) -> bool) -> bool {
        let may = |item: &Item| is_update(item) && item.policy != Policy::Disconnect && fits(item);
        let at = self.data.iter().position(may);
        let Some(gone) = at.map(|at| self.data.remove(at)) else { return false };
        let was_newest = gone.policy == Policy::Conflate && !self.data.iter().any(|other| same_topic(other, &gone));
        if was_newest && !self.missed.contains(&gone.channel) {
            self.missed.push(gone.channel);
        }
        true
    }

    fn same_notice(&self, item: &Item) -> Option<usize> {
        self.data.iter().position(|other| (other.kind, other.channel) == (item.kind, item.channel))
    }

    /// Whether there is room for the bytes of one more.
    fn fits(&self, item: &Item) -> bool {
        self.updates() == 0 || bytes(&self.data) + item.bytes.len() <= self.limits.bytes_max
    }

    fn whole_max(&self) -> usize {
        self.limits.slack.min(self.limits.messages_max)
    }

    fn updates(&self) -> usize {
        self.data.iter().filter(|item| is_update(item)).count()
    }

    fn peek(&self) -> Option<&Item> {
        self.control.first().or(self.critical.first()).or(self.data.first())
    }

    fn pop(&mut self) -> Option<Item> {
        let lane = [&mut self.control, &mut self.critical, &mut self.data].into_iter().find(|lane| !lane.is_empty())?;
        Some(lane.remove(0))
    }
}
