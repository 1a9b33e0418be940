//! What waits for room in a shard's queue: in lanes, bounded, each key's newest in the place of its older one.
//!
//! Invariant: a notice is behind all updates of its channel that waited when it came, and before all that came later,
//! but for critical ones, which go before everything that is not.

use super::InboxLimits;
use crate::bus::Confirmed;
use crate::fanout::Update;
use crate::ids::ChannelRef;
use hashbrown::HashMap;
use indexmap::IndexMap;
use std::collections::VecDeque;
use std::sync::Arc;

/// A channel and a key of it (see [`Update::key`]).
type Topic = (ChannelRef, u64);

/// What goes next.
#[derive(Debug)]
pub enum Next {
    /// An update.
    Update(ChannelRef, Arc<Update>),
    /// A new epoch.
    Notice(Confirmed),
}

/// See the module.
#[derive(Default)]
pub struct Held {
    /// The newest answer to a demand of each channel. It goes before the channel's updates: what was published before a
    /// confirmation is not owed to those whom it confirms (they drop it by its seq), what came after it is.
    pub confirmed: IndexMap<ChannelRef, Confirmed>,
    critical: VecDeque<(ChannelRef, Arc<Update>)>,
    /// Channels whose notice has nothing before it any more, because that was lost.
    ripe: VecDeque<ChannelRef>,
    line: VecDeque<InLine>,
    /// How many have left the line: the number of its first.
    first: u64,
    /// By topic: the number in the line of the newest update.
    newest: HashMap<Topic, u64>,
    /// By channel: the notice in the line, or ripe.
    notices: HashMap<ChannelRef, Notice>,
    /// Of all updates that wait.
    bytes: usize,
}

#[derive(Debug)]
enum InLine {
    Update(ChannelRef, Arc<Update>),
    Notice(ChannelRef),
}

#[derive(Debug)]
struct Notice {
    confirmed: Confirmed,
    /// Its number in the line.
    at: u64,
    /// A newer one came while it waited: what was lost behind it has yet to be told.
    again: bool,
}

impl Held {
    /// Things that wait.
    pub fn len(&self) -> usize {
        self.confirmed.len() + self.critical.len() + self.ripe.len() + self.line.len()
    }

    /// Takes an update in; the older one whose place it took.
    pub fn hold(&mut self, channel: ChannelRef, update: Arc<Update>) -> Option<Arc<Update>> {
        self.bytes += update.bytes();
        if update.critical {
            self.critical.push_back((channel, update));
            return None;
        }
        let noticed = self.notices.get(&channel).map(|notice| notice.at);
        let topic = (channel, update.key);
        if let Some(&at) = self.newest.get(&topic)
            && noticed.is_none_or(|notice| at > notice)
            && let Some(InLine::Update(_, older)) = self.line.get_mut((at - self.first) as usize)
        {
            let older = std::mem::replace(older, update);
            self.bytes -= older.bytes();
            return Some(older);
        }
        self.newest.insert(topic, self.first + self.line.len() as u64);
        self.line.push_back(InLine::Update(channel, update));
        None
    }

    /// Takes a notice in. Where one of the channel waits already, that one tells the newer epoch, and what was lost
    /// behind it is told once more when it has gone (see [`Held::pop`]).
    pub fn notify(&mut self, confirmed: Confirmed) {
        match self.notices.get_mut(&confirmed.channel) {
            Some(notice) => {
                notice.confirmed = Confirmed { seq: notice.confirmed.seq, ..confirmed };
                notice.again = true;
            }
            None => {
                let at = self.first + self.line.len() as u64;
                self.notices.insert(confirmed.channel, Notice { confirmed, at, again: false });
                self.line.push_back(InLine::Notice(confirmed.channel));
            }
        }
    }

    /// The update or notice that goes next.
    pub fn front(&self) -> Option<Next> {
        if let Some((channel, update)) = self.critical.front() {
            return Some(Next::Update(*channel, Arc::clone(update)));
        }
        let notice = |channel| Next::Notice(self.notices[channel].confirmed);
        self.ripe.front().map(notice).or_else(|| {
            self.line.front().map(|first| match first {
                InLine::Update(channel, update) => Next::Update(*channel, Arc::clone(update)),
                InLine::Notice(channel) => notice(channel),
            })
        })
    }

    /// Takes away what goes next. Answers a channel whose losses are to be told once more.
    pub fn pop(&mut self) -> Option<ChannelRef> {
        if let Some((_, update)) = self.critical.pop_front() {
            self.bytes -= update.bytes();
            return None;
        }
        let channel = self.ripe.pop_front().or_else(|| match self.step()? {
            InLine::Notice(channel) => Some(channel),
            InLine::Update(..) => None,
        })?;
        self.notices.remove(&channel).filter(|notice| notice.again).map(|_| channel)
    }

    /// Whether more waits than may.
    pub fn is_over(&self, limits: &InboxLimits) -> bool {
        let in_line = self.line.len() - (self.notices.len() - self.ripe.len());
        let one = self.critical.len() + in_line == 1; // of any size
        self.critical.len() > limits.critical_max || (self.bytes > limits.bytes_max && !one)
    }

    /// Lets the oldest update go: a critical one where there are too many of those, else what waits of a key for longest.
    pub fn lose(&mut self, limits: &InboxLimits) -> Option<(ChannelRef, Arc<Update>)> {
        while self.critical.len() <= limits.critical_max
            && let Some(first) = self.step()
        {
            match first {
                InLine::Update(channel, update) => return Some((channel, update)),
                InLine::Notice(channel) => self.ripe.push_back(channel),
            }
        }
        let (channel, update) = self.critical.pop_front()?;
        self.bytes -= update.bytes();
        Some((channel, update))
    }

    /// Takes away the first in the line.
    fn step(&mut self) -> Option<InLine> {
        let first = self.line.pop_front()?;
        if let InLine::Update(channel, update) = &first {
            self.bytes -= update.bytes();
            let topic = (*channel, update.key);
            if self.newest.get(&topic) == Some(&self.first) {
                self.newest.remove(&topic);
            }
        }
        self.first += 1;
        Some(first)
    }
}
