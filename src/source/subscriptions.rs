//! What is subscribed at Redis, what should be, and the one batch on its way between the two. Pure: no IO, no clock.
//!
//! Wishes are a set that is reconciled, never a queue of commands: whatever comes in between, and however often, what
//! is subscribed ends as what is wanted.
//!
//! Invariant: at most one batch is in flight, so that a channel is never subscribed and unsubscribed at a time.
//! Invariant: a channel that differs from what is wanted is in flight or in a queue.

use hashbrown::HashMap;
use std::collections::VecDeque;
use std::sync::Arc;

/// Channels in one command: large enough that 100,000 channels take 200 round trips, small enough that messages are
/// handled in between.
pub const BATCH_MAX: usize = 500;

/// What is to be said to Redis next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Batch {
    /// Subscribe these channels.
    Subscribe(Vec<Arc<str>>),
    /// Unsubscribe these channels.
    Unsubscribe(Vec<Arc<str>>),
}

/// Where the channels stand.
#[derive(Debug, Default)]
pub struct Subscriptions {
    channels: HashMap<Arc<str>, Channel>,
    /// Channels that may have to be subscribed.
    joining: VecDeque<Arc<str>>,
    /// Channels that may have to be unsubscribed.
    leaving: VecDeque<Arc<str>>,
    /// Parts of a batch that Redis refused as a whole.
    parts: Vec<Vec<Arc<str>>>,
    flight: Option<Batch>,
    /// Whose turn it is where there is work of both kinds.
    leavers_first: bool,
}

#[derive(Clone, Copy, Debug)]
struct Channel {
    wanted: bool,
    stands: Stands,
    /// It is in `joining` or `leaving`.
    queued: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stands {
    Out,
    /// In a batch, or in a part of one that was refused.
    Asked,
    In,
    /// Redis does not let us subscribe it.
    Refused,
}

impl Subscriptions {
    /// Sets whether a channel is wanted; answers whether it is subscribed now.
    pub fn want(&mut self, name: &Arc<str>, wanted: bool) -> bool {
        let out = Channel { wanted, stands: Stands::Out, queued: false };
        let channel = self.channels.entry_ref(name).or_insert(out);
        channel.wanted = wanted;
        let subscribed = channel.stands == Stands::In;
        self.settle(name);
        subscribed
    }

    /// The next batch, which is then in flight; none while there is one already, or nothing to do.
    pub fn next_batch(&mut self) -> Option<Batch> {
        if self.flight.is_some() {
            return None;
        }
        let batch = self.parts.pop().map(Batch::Subscribe).or_else(|| {
            self.leavers_first = !self.leavers_first;
            if self.leavers_first { self.leave().or_else(|| self.join()) } else { self.join().or_else(|| self.leave()) }
        });
        self.flight.clone_from(&batch);
        batch
    }

    /// Whether a batch of channels to subscribe is in flight.
    pub fn is_subscribing(&self) -> bool {
        matches!(self.flight, Some(Batch::Subscribe(_)))
    }

    /// Redis confirmed the batch in flight; answers the channels that are subscribed now.
    pub fn confirmed(&mut self) -> Vec<Arc<str>> {
        match self.flight.take() {
            Some(Batch::Subscribe(names)) => self.land(names, Stands::In),
            Some(Batch::Unsubscribe(names)) => {
                self.land(names, Stands::Out);
                Vec::new()
            }
            None => Vec::new(),
        }
    }

    /// Redis refused the batch in flight. A batch is refused whole for one of its channels: it is asked again in
    /// halves, until the channel that is refused is alone. Answers that channel.
    pub fn refused(&mut self) -> Option<Arc<str>> {
        match self.flight.take()? {
            Batch::Subscribe(mut names) if names.len() > 1 => {
                self.parts.push(names.split_off(names.len() / 2));
                self.parts.push(names);
                None
            }
            Batch::Subscribe(names) => self.land(names, Stands::Refused).pop(),
            // Not known to happen. Counted as done, it costs at most messages that nobody wants.
            Batch::Unsubscribe(names) => self.land(names, Stands::Out).pop().filter(|_| false),
        }
    }

    /// The connection is lost, and with it every subscription.
    pub fn lost(&mut self) {
        (self.flight, self.leavers_first) = (None, false);
        self.parts.clear();
        self.leaving.clear();
        self.joining.clear();
        self.channels.retain(|_, channel| channel.wanted);
        for (name, channel) in &mut self.channels {
            (channel.stands, channel.queued) = (Stands::Out, true);
            self.joining.push_back(Arc::clone(name));
        }
    }

    /// Notes where channels stand, and queues those that are not where they should be.
    fn land(&mut self, names: Vec<Arc<str>>, stands: Stands) -> Vec<Arc<str>> {
        for name in &names {
            if let Some(channel) = self.channels.get_mut(name) {
                channel.stands = stands;
            }
            self.settle(name);
        }
        names
    }

    /// Queues a channel if it is not where it should be, and forgets it if nothing is left to say about it.
    fn settle(&mut self, name: &Arc<str>) {
        let Some(channel) = self.channels.get_mut(name) else { return };
        if channel.queued {
            // Looked at when its turn comes; but without a Redis that may never be, and names come and go.
            if (channel.wanted, channel.stands) == (false, Stands::Out) {
                self.channels.remove(name);
                self.sweep_joining();
            }
            return;
        }
        let queue = match (channel.wanted, channel.stands) {
            (true, Stands::Out) => &mut self.joining,
            (false, Stands::In) => &mut self.leaving,
            (false, Stands::Out | Stands::Refused) => {
                self.channels.remove(name);
                return;
            }
            _ => return,
        };
        channel.queued = true;
        queue.push_back(Arc::clone(name));
    }

    /// Takes those out of the queue that were forgotten, once they are the most of it.
    fn sweep_joining(&mut self) {
        if self.joining.len() > 2 * self.channels.len() + BATCH_MAX {
            let joins = |channel: &Channel| channel.queued && channel.stands == Stands::Out;
            let joining = self.channels.iter().filter(|(_, channel)| joins(channel)).map(|(name, _)| Arc::clone(name));
            self.joining = joining.collect();
        }
    }

    fn join(&mut self) -> Option<Batch> {
        self.take(true).map(Batch::Subscribe)
    }

    fn leave(&mut self) -> Option<Batch> {
        self.take(false).map(Batch::Unsubscribe)
    }

    /// Up to [`BATCH_MAX`] channels from one queue that still differ from what is wanted.
    fn take(&mut self, wanted: bool) -> Option<Vec<Arc<str>>> {
        let mut names = Vec::new();
        while names.len() < BATCH_MAX {
            let queue = if wanted { &mut self.joining } else { &mut self.leaving };
            let Some(name) = queue.pop_front() else { break };
            let Some(channel) = self.channels.get_mut(&name) else { continue };
            channel.queued = false;
            let differs = if wanted { Stands::Out } else { Stands::In };
            if channel.wanted == wanted && channel.stands == differs {
                channel.stands = Stands::Asked;
                names.push(name);
            } else {
                self.settle(&name);
            }
        }
        (!names.is_empty()).then_some(names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const CHANNELS: u8 = 6;

    fn name(index: u8) -> Arc<str> {
        format!("c{index}").into()
    }

    /// Redis as the reconciler sees it: what is subscribed, and one channel that may not be.
    #[derive(Default)]
    struct Server {
        subscribed: BTreeSet<Arc<str>>,
        forbidden: Option<Arc<str>>,
    }

    impl Server {
        /// Answers a batch; whether there was one.
        fn answer(&mut self, subscriptions: &mut Subscriptions) -> bool {
            let Some(batch) = subscriptions.flight.clone() else { return false };
            match batch {
                Batch::Subscribe(names) if names.iter().any(|name| Some(name) == self.forbidden.as_ref()) => {
                    let alone = subscriptions.refused();
                    assert!(alone.is_none() || alone == self.forbidden);
                    return true;
                }
                Batch::Subscribe(names) => names.into_iter().for_each(|name| assert!(self.subscribed.insert(name))),
                Batch::Unsubscribe(names) => names.iter().for_each(|name| assert!(self.subscribed.remove(name))),
            }
            subscriptions.confirmed();
            true
        }
    }

    #[derive(Clone, Debug)]
    enum Op {
        Want(u8, bool),
        Send,
        Answer,
        Lose,
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            6 => (0..CHANNELS, any::<bool>()).prop_map(|(index, wanted)| Op::Want(index, wanted)),
            3 => Just(Op::Send),
            3 => Just(Op::Answer),
            1 => Just(Op::Lose),
        ]
    }

    proptest! {
        #[test]
        fn whatever_happens_what_is_subscribed_ends_as_what_is_wanted(
            ops in proptest::collection::vec(op(), 0..80),
            forbidden in proptest::option::of(0..CHANNELS),
        ) {
            let (mut subscriptions, mut wanted) = (Subscriptions::default(), BTreeSet::new());
            let mut server = Server { forbidden: forbidden.map(name), ..Default::default() };
            for op in ops {
                match op {
                    Op::Want(index, true) => {
                        wanted.insert(name(index));
                        let known = subscriptions.want(&name(index), true);
                        prop_assert!(!known || server.subscribed.contains(&name(index)));
                    }
                    Op::Want(index, false) => {
                        wanted.remove(&name(index));
                        subscriptions.want(&name(index), false);
                    }
                    Op::Send => _ = subscriptions.next_batch(),
                    Op::Answer => _ = server.answer(&mut subscriptions),
                    Op::Lose => {
                        server.subscribed.clear();
                        subscriptions.lost();
                    }
                }
            }
            let mut batches = 0;
            while server.answer(&mut subscriptions) || subscriptions.next_batch().is_some() {
                batches += 1;
                prop_assert!(batches < 100, "it never ends");
            }
            if let Some(forbidden) = &server.forbidden {
                wanted.remove(forbidden);
            }
            prop_assert_eq!(&server.subscribed, &wanted);
            let known: BTreeSet<_> = subscriptions.channels.into_keys().filter(|name| Some(name) != server.forbidden.as_ref()).collect();
            prop_assert_eq!(known, wanted, "what is neither wanted nor subscribed is forgotten");
        }
    }

    #[test]
    fn names_that_come_and_go_while_there_is_no_redis_leave_nothing_behind() {
        let mut subscriptions = Subscriptions::default();
        subscriptions.want(&"stays".into(), true);
        for i in 0..100_000 {
            let name = format!("c{}", i % 70_000).into();
            subscriptions.want(&name, true);
            subscriptions.want(&name, false);
        }
        assert_eq!(subscriptions.channels.len(), 1);
        assert!(subscriptions.joining.len() < 2 * BATCH_MAX, "{} wait", subscriptions.joining.len());
        assert_eq!(subscriptions.next_batch(), Some(Batch::Subscribe(vec!["stays".into()])));
    }

    #[test]
    fn one_forbidden_channel_holds_no_other_back() {
        let (mut subscriptions, mut server) = (Subscriptions::default(), Server::default());
        server.forbidden = Some("c300".into());
        for i in 0..BATCH_MAX {
            assert!(!subscriptions.want(&format!("c{i}").into(), true));
        }
        let mut commands = 0;
        while server.answer(&mut subscriptions) || subscriptions.next_batch().is_some() {
            commands += 1;
        }
        assert_eq!(server.subscribed.len(), BATCH_MAX - 1);
        assert!(commands < 50, "halves, not one by one: {commands}");
    }
}
