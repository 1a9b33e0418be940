//! What clients of the JSON face say, and what they are answered.

use super::Shard;
use super::conn::State;
use crate::bus::{PublishError, Ticket, ToSource};
use crate::ids::{ConnId, Face};
use crate::sys::Ring;
use crate::wire::envelope;
use crate::wire::{Command, Id, command};

impl<R: Ring> Shard<R> {
    /// A text message: a command on the JSON face, of no meaning on the raw one.
    pub(super) fn take_text(&mut self, id: ConnId, text: &str) {
        let (_, conn) = self.conns.at(id.slot.0);
        if conn.face() != Face::Json {
            return;
        }
        match command::parse(text, &self.config.limits) {
            Ok(Command::Subscribe { id: reply_to, channel }) => self.command_subscribe(id, reply_to, &channel),
            Ok(Command::Unsubscribe { id: reply_to, channel }) => self.command_unsubscribe(id, reply_to, &channel),
            Ok(Command::Publish { id: reply_to, channel, data }) => self.command_publish(id, reply_to, &channel, data),
            Err(error) => self.refuse(id, error.id.as_ref(), error.code, &error.message),
        }
    }

    pub(super) fn take_binary(&mut self, id: ConnId) {
        let (_, conn) = self.conns.at(id.slot.0);
        if conn.face() == Face::Json {
            self.refuse(id, None, "bad_command", "commands are JSON in text messages, and this one was binary");
        }
    }

    /// The source says what became of a client's publish.
    pub(super) fn published(&mut self, ticket: Ticket, outcome: Result<(), PublishError>) {
        if self.conns.find(ticket.conn).is_none_or(|conn| conn.state != State::Open) {
            return; // it has left since, or said its goodbye
        }
        match outcome {
            Ok(()) => self.control(ticket.conn, envelope::published(ticket.id.as_ref(), &ticket.channel)),
            Err(error) => self.refuse_publish(ticket.conn, ticket.id.as_ref(), error),
        }
    }

    fn command_subscribe(&mut self, id: ConnId, reply_to: Option<Id>, name: &str) {
        let (channel, held) = (self.subscription(id, name), self.subscriptions(id));
        let max = self.config.limits.channels_per_connection_max;
        match channel {
            None if held >= max => {
                let message =
                    format!("this connection has {max} channels, as many as it may; unsubscribe from one first");
                self.refuse(id, reply_to.as_ref(), "too_many_channels", &message);
            }
            None => self.subscribe_and_reply(id, name, reply_to),
            Some((at, channel)) => {
                let (_, conn) = self.conns.at(id.slot.0);
                if conn.subs.as_slice()[at].waiting.is_some() {
                    let message = format!("the answer to an earlier subscribe to {name:?} is on its way");
                    self.refuse(id, reply_to.as_ref(), "already_subscribing", &message);
                } else {
                    self.reply_subscribed(id, channel, reply_to.as_ref());
                }
            }
        }
    }

    fn command_unsubscribe(&mut self, id: ConnId, reply_to: Option<Id>, name: &str) {
        match self.subscription(id, name) {
            Some((at, _)) => {
                let (_, conn) = self.conns.at(id.slot.0);
                if let Some(subscribe) = conn.subs.as_mut_slice()[at].waiting.take().and_then(|waiting| waiting.id) {
                    let message = format!("unsubscribed from {name:?} before it was confirmed");
                    self.refuse(id, Some(&subscribe), "unsubscribed", &message);
                }
                self.unsubscribe(id, at);
                self.control(id, envelope::unsubscribed(reply_to.as_ref(), name));
            }
            None => {
                let message = format!("this connection is not subscribed to {name:?}");
                self.refuse(id, reply_to.as_ref(), "not_subscribed", &message);
            }
        }
    }

    fn command_publish(&mut self, id: ConnId, reply_to: Option<Id>, name: &str, payload: Vec<u8>) {
        if !self.config.rule(name).is_some_and(|rule| rule.client_publish) {
            let message = format!("clients may not publish to {name:?}; a channel rule with client_publish allows it");
            return self.refuse(id, reply_to.as_ref(), "forbidden", &message);
        }
        if payload.len() > self.config.limits.update_bytes_max {
            return self.refuse_publish(id, reply_to.as_ref(), PublishError::TooLarge);
        }
        let ticket = Ticket { shard: self.id, conn: id, id: reply_to, channel: name.into() };
        if let Err(ToSource::Publish { ticket, .. }) = self.outlet.try_send(ToSource::Publish { ticket, payload }) {
            self.refuse_publish(id, ticket.id.as_ref(), PublishError::Busy);
        }
    }

    fn refuse_publish(&mut self, id: ConnId, reply_to: Option<&Id>, error: PublishError) {
        let code = match error {
            PublishError::Unavailable => "unavailable",
            PublishError::Unknown => "timeout",
            PublishError::TooLarge => "too_large",
            PublishError::Busy => "busy",
        };
        self.refuse(id, reply_to, code, &error.to_string());
    }

    fn refuse(&mut self, id: ConnId, reply_to: Option<&Id>, code: &str, message: &str) {
        self.control(id, envelope::error(reply_to, code, message));
    }

    /// Which of a connection's subscriptions is to a channel of that name, and the channel.
    fn subscription(&mut self, id: ConnId, name: &str) -> Option<(usize, u32)> {
        let (_, conn) = self.conns.at(id.slot.0);
        let subs = conn.subs.as_slice();
        let at = subs.iter().position(|sub| &*self.channels.at(sub.channel).name == name)?;
        Some((at, subs[at].channel))
    }

    fn subscriptions(&mut self, id: ConnId) -> usize {
        let (_, conn) = self.conns.at(id.slot.0);
        conn.subs.as_slice().len()
    }
}
