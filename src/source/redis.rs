//! Redis as the source of updates: connected, lost, tried again; subscriptions that follow what is wanted.
//!
//! Invariant: channels are confirmed to shards only when Redis confirmed them, and after every message that came before.
//! Invariant: whatever way Redis is lost, nothing of the old connection is heard afterwards.

use super::Reached;
use super::connect::{Endpoint, Next, Subscriber};
use super::desk::Desk;
use super::health::{AtMostEvery, Backoff, Look, Probe};
use super::publish::{Asker, Publish, Publisher, Replies};
use super::subscriptions::Subscriptions;
use crate::bus::PublishError;
use crate::config;
use futures_util::future::LocalBoxFuture;
use redis::aio::MultiplexedConnection;
use redis::{Msg, RedisResult};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// How often the same complaint is logged at most.
const COMPLAINT_PAUSE: Duration = Duration::from_secs(10);

/// The connection to Redis, whether there is one or not.
pub struct Redis {
    endpoint: Rc<Endpoint>,
    settings: config::Redis,
    subscriptions: Subscriptions,
    link: Link,
    backoff: Backoff,
    /// Where probes go: this process's own channel.
    probe_channel: Arc<str>,
    failures: AtMostEvery,
    refusals: AtMostEvery,
}

enum Link {
    Away { until_us: u64 },
    Connecting(LocalBoxFuture<'static, Connected>),
    Up(Box<Session>),
}

type Connected = Result<(Subscriber, MultiplexedConnection), String>;

struct Session {
    subscriber: Subscriber,
    publisher: Publisher,
    probe: Probe,
    /// Messages came since the probe was looked at.
    heard: bool,
    /// The batch of subscriptions in flight.
    change: Option<LocalBoxFuture<'static, RedisResult<()>>>,
}

/// What Redis has to say.
pub enum Event {
    /// An attempt to connect came to its end.
    Connected(Connected),
    /// A message; none: the connection has ended.
    Message(Option<Msg>),
    /// The batch of subscriptions in flight was answered.
    Changed(RedisResult<()>),
    /// A pipeline of publishes was answered.
    Published(Vec<Asker>, Replies),
}

impl Redis {
    /// A Redis that is yet to be reached.
    pub fn new(endpoint: Endpoint, settings: config::Redis) -> Self {
        Self {
            endpoint: Rc::new(endpoint),
            subscriptions: Subscriptions::default(),
            link: Link::Away { until_us: 0 },
            backoff: Backoff::new(settings.backoff_max),
            probe_channel: format!("spillgate:probe:{:016x}", fastrand::u64(..)).into(),
            failures: AtMostEvery::new(COMPLAINT_PAUSE),
            refusals: AtMostEvery::new(COMPLAINT_PAUSE),
            settings,
        }
    }

    /// Sets whether a channel is wanted; answers whether it is subscribed already.
    pub fn want(&mut self, name: &Arc<str>, wanted: bool) -> bool {
        self.subscriptions.want(name, wanted)
    }

    /// Whether another publish is taken; while Redis is away it is, and refused at once.
    pub fn has_room(&self) -> bool {
        match &self.link {
            Link::Up(session) => session.publisher.has_room(),
            Link::Away { .. } | Link::Connecting(_) => true,
        }
    }

    /// Takes in a publish. It is sent with the next [`Redis::steer`].
    pub fn publish(&mut self, publish: Publish, desk: &mut Desk) {
        match &mut self.link {
            Link::Up(session) if session.publisher.has_room() => session.publisher.push(publish),
            Link::Up(_) => desk.answer(publish.asker, Err(PublishError::Busy)),
            Link::Away { .. } | Link::Connecting(_) => desk.answer(publish.asker, Err(PublishError::Unavailable)),
        }
    }

    /// Waits until Redis has something to say. Cancel-safe.
    pub async fn next(&mut self) -> Event {
        match &mut self.link {
            Link::Away { .. } => std::future::pending().await,
            Link::Connecting(connected) => Event::Connected(connected.await),
            Link::Up(session) => session.next().await,
        }
    }

    /// When [`Redis::steer`] has something to do, in microseconds.
    pub fn due_us(&self) -> Option<u64> {
        match &self.link {
            Link::Away { until_us } => Some(*until_us),
            Link::Connecting(_) => None,
            Link::Up(session) => Some(session.probe.due_us()),
        }
    }

    /// Takes in what Redis said.
    pub fn take(&mut self, event: Event, desk: &mut Desk) {
        match event {
            Event::Connected(Ok((subscriber, publisher))) => self.connected(subscriber, publisher, desk),
            Event::Connected(Err(reason)) => self.failed(&reason, desk),
            Event::Message(Some(message)) => self.receive(&message, desk),
            Event::Message(None) => self.lose("the connection has ended", desk),
            Event::Changed(result) => {
                // What was published before the confirmation is handed out before it.
                while self.take_messages(usize::MAX, desk) {}
                self.changed(result, desk);
            }
            Event::Published(askers, replies) => self.published(askers, replies, desk),
        }
    }

    /// Takes in up to `max` messages that are here already; whether there may be more.
    pub fn take_messages(&mut self, max: usize, desk: &mut Desk) -> bool {
        for _ in 0..max {
            let Link::Up(session) = &mut self.link else { return false };
            match session.subscriber.try_next() {
                Next::Message(message) => self.receive(&message, desk),
                Next::Empty => return false,
                Next::Ended => self.lose("the connection has ended", desk),
            }
        }
        true
    }

    /// Does what is due: attempts to connect, probes, the next batch of subscriptions, waiting publishes.
    pub fn steer(&mut self, desk: &mut Desk) {
        let now_us = desk.now_us();
        match &mut self.link {
            Link::Away { until_us } if *until_us <= now_us => {
                let (endpoint, channel) = (Rc::clone(&self.endpoint), Arc::clone(&self.probe_channel));
                let timeout = self.settings.probe_timeout;
                self.link = Link::Connecting(Box::pin(async move { endpoint.connect(&channel, timeout).await }));
            }
            Link::Away { .. } | Link::Connecting(_) => {}
            Link::Up(session) => {
                if std::mem::take(&mut session.heard) {
                    session.probe.heard(now_us);
                }
                match session.probe.look(now_us) {
                    Look::Wait => {}
                    Look::Lost => return self.lose("no message comes through it any more", desk),
                    Look::Send(number) => session.publisher.push(Publish {
                        channel: (&*self.probe_channel).into(),
                        payload: number.to_string().into_bytes(),
                        asker: Asker::Probe,
                    }),
                }
                if session.change.is_none() {
                    session.change = self.subscriptions.next_batch().map(|batch| session.subscriber.say(batch));
                }
                session.publisher.send();
            }
        }
    }

    fn receive(&mut self, message: &Msg, desk: &mut Desk) {
        // A name that is not UTF-8 reads as "?"; but only UTF-8 names are ever subscribed.
        let (channel, payload) = (message.get_channel_name(), message.get_payload_bytes());
        let Link::Up(session) = &mut self.link else { return };
        if *channel != *self.probe_channel {
            session.heard = true;
            // What becomes of it is counted; nobody waits for an answer.
            let _ = desk.receive(channel, payload, self.subscriptions.is_subscribing());
        } else if session.probe.returned(payload) {
            self.backoff.reset();
        }
    }

    fn changed(&mut self, result: RedisResult<()>, desk: &mut Desk) {
        if !matches!(self.link, Link::Up(_)) {
            return; // lost while the messages before it were read
        }
        match result {
            Ok(()) => {
                for name in self.subscriptions.confirmed() {
                    desk.with_table(|table, words| table.confirm(&name, words));
                }
            }
            Err(error) if error.code() == Some("NOPERM") => {
                let Some(name) = self.subscriptions.refused() else { return };
                desk.with_table(|table, words| table.refuse(&name, words));
                if self.refusals.allows(desk.now_us()) {
                    tracing::warn!(channel = &*name, "Redis does not permit this channel");
                }
            }
            Err(error) => self.lose(&self.endpoint.speakable(&error), desk),
        }
    }

    fn published(&mut self, askers: Vec<Asker>, replies: Replies, desk: &mut Desk) {
        let mut lost = None;
        match replies {
            Ok(replies) => {
                for (asker, reply) in askers.into_iter().zip(replies) {
                    match (&asker, &reply, &mut self.link) {
                        (Asker::Probe, Ok(_), Link::Up(session)) => session.probe.taken(),
                        (Asker::Probe, Err(error), _) => {
                            lost = Some(format!("it refuses probes: {}", self.endpoint.speakable(error)));
                        }
                        _ => {}
                    }
                    desk.answer(asker, reply.map(Reached::Gateways).map_err(|_| PublishError::Unavailable));
                }
            }
            Err(error) => {
                askers.into_iter().for_each(|asker| desk.answer(asker, Err(PublishError::Unknown)));
                lost = Some(self.endpoint.speakable(&error));
            }
        }
        if let Some(reason) = lost {
            self.lose(&reason, desk);
        }
    }

    fn connected(&mut self, subscriber: Subscriber, publisher: MultiplexedConnection, desk: &mut Desk) {
        let probe = Probe::new(self.settings.probe_interval, self.settings.probe_timeout, desk.now_us());
        let publisher = Publisher::new(publisher);
        self.link = Link::Up(Box::new(Session { subscriber, publisher, probe, heard: false, change: None }));
        desk.set_connected(true);
        desk.table.restored();
        tracing::info!(redis = self.endpoint.address(), losses = desk.counters.lost, "Redis is connected");
    }

    fn failed(&mut self, reason: &str, desk: &mut Desk) {
        let now_us = desk.now_us();
        let pause = self.backoff.pause(fastrand::f64());
        self.link = Link::Away { until_us: now_us + pause.as_micros() as u64 };
        if self.failures.allows(now_us) {
            tracing::warn!(redis = self.endpoint.address(), reason, "Redis cannot be reached; trying on");
        }
    }

    fn lose(&mut self, reason: &str, desk: &mut Desk) {
        let pause = self.backoff.pause(fastrand::f64());
        let away = Link::Away { until_us: desk.now_us() + pause.as_micros() as u64 };
        let Link::Up(session) = std::mem::replace(&mut self.link, away) else { return };
        tracing::warn!(redis = self.endpoint.address(), reason, "Redis is lost");
        desk.set_connected(false);
        session.publisher.into_askers().for_each(|(asker, error)| desk.answer(asker, Err(error)));
        for name in desk.with_table(|table, words| table.lost(words)) {
            self.subscriptions.want(&name, false);
        }
        self.subscriptions.lost();
    }
}

impl Session {
    async fn next(&mut self) -> Event {
        tokio::select! {
            message = self.subscriber.next() => Event::Message(message),
            result = landed(&mut self.change) => Event::Changed(result),
            (askers, replies) = self.publisher.replies() => Event::Published(askers, replies),
        }
    }
}

/// Waits for what is in flight, for ever where nothing is. Cancel-safe.
async fn landed<T>(flight: &mut Option<LocalBoxFuture<'static, T>>) -> T {
    let Some(landing) = flight else { return std::future::pending().await };
    let landed = landing.await;
    *flight = None;
    landed
}
