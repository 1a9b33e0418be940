//! The counters themselves. Whoever adds one here must move it somewhere: a test looks.

/// Declares a struct of `u64` counters and gauges that can be flattened into an array and back.
macro_rules! counters {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $field:ident $([$many:ty])?,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct $name { $($(#[$doc])* pub $field: counters!(@type $($many)?),)* }

        impl $name {
            /// How many integers it holds.
            pub const LEN: usize = 0 $(+ counters!(@len $($many)?))*;

            /// Calls `each` with every integer in a fixed order.
            fn visit(&mut self, mut each: impl FnMut(&mut u64)) {
                $(counters!(@visit self.$field, each $(, $many)?);)*
            }

            /// All integers in a fixed order.
            pub fn values(&self) -> [u64; Self::LEN] {
                let (mut values, mut at) = ([0; Self::LEN], 0);
                self.clone().visit(|value| {
                    values[at] = *value;
                    at += 1;
                });
                values
            }

            /// The opposite of `values`.
            pub fn from_values(values: &[u64]) -> Self {
                let (mut all, mut values) = (Self::default(), values.iter());
                all.visit(|value| *value = values.next().copied().unwrap_or_default());
                all
            }
        }
    };
    (@type) => { u64 };
    (@type $many:ty) => { [u64; <$many>::COUNT] };
    (@len) => { 1 };
    (@len $many:ty) => { <$many>::COUNT };
    (@visit $self:ident.$field:ident, $each:ident) => { $each(&mut $self.$field) };
    (@visit $self:ident.$field:ident, $each:ident, $many:ty) => { $self.$field.iter_mut().for_each(&mut $each) };
}

/// Declares an enum of reasons with the names that they have as label values.
macro_rules! reasons {
    ($(#[$meta:meta])* $name:ident { $($(#[doc = $doc:literal])+ $variant:ident = $label:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[doc = $doc])+ $variant,)* }

        impl $name {
            /// All reasons, in the order of their indices.
            pub const ALL: &[$name] = &[$($name::$variant,)*];
            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();

            /// The value of the `reason` label.
            pub fn label(self) -> &'static str {
                match self { $($name::$variant => $label,)* }
            }

            /// What it means, in a sentence.
            pub fn sentence(self) -> &'static str {
                match self { $($name::$variant => concat!($($doc),+).trim_start(),)* }
            }
        }
    };
}

reasons! {
    /// Why an update did not reach a subscriber.
    DropReason {
        /// The socket's outbox was full.
        OutboxFull = "outbox_full",
        /// It still waited when the socket was closed.
        Closed = "closed",
        /// It still waited when the client unsubscribed.
        Unsubscribed = "unsubscribed",
        /// Its subscriber left while it was held back by `max_rate`.
        Left = "left",
        /// The shard's outboxes together were over their budget.
        ShardBudget = "shard_budget",
    }
}

reasons! {
    /// Why a connection ended.
    EndReason {
        /// The client closed: a close frame, or after an HTTP answer.
        ClientClosed = "client_closed",
        /// The client's side ended without a close frame.
        Vanished = "vanished",
        /// The kernel reported an error (reset, timed out).
        SocketError = "socket_error",
        /// The request was not one that we answer with a WebSocket (see the HTTP statuses).
        RequestRefused = "request_refused",
        /// The request was not complete in time.
        RequestTimeout = "request_timeout",
        /// No slot was free.
        Full = "full",
        /// A frame broke RFC 6455.
        ProtocolError = "protocol_error",
        /// A message was too large.
        MessageTooBig = "message_too_big",
        /// Unfinished frames of all clients took more than their budget.
        PartialBudget = "partial_budget",
        /// A ping stayed unanswered.
        PingTimeout = "ping_timeout",
        /// The gateway leaves.
        Shutdown = "shutdown",
        /// It was owed something and made no progress, or had too many critical updates waiting.
        SlowConsumer = "slow_consumer",
        /// A page was served.
        Served = "served",
        /// It began with a PROXY header that is not believed, or without one where there must be one.
        ProxyHeader = "proxy_header",
        /// A proxy looked whether we are here (a LOCAL header, one that names nobody, or no word at all), and no client came.
        HealthCheck = "health_check",
    }
}

counters! {
    /// What one shard counts. A shard owns it; [`super::Board`] shows it to others.
    ShardCounters {
        /// Connections that occupy a slot now, whatever their state.
        connections,
        /// Connections that may be held.
        connections_max,
        /// WebSockets that are open now.
        websockets,
        /// Connections accepted.
        accepted,
        /// Updates owed to a socket: one for each subscriber at the time of the fan-out.
        due,
        /// Updates written whole to a socket.
        delivered,
        /// Updates that a newer one of the same key replaced before they were written.
        conflated,
        /// Updates that did not reach a subscriber, by [`DropReason`].
        dropped [DropReason],
        /// Connections ended, by [`EndReason`].
        ended [EndReason],
        /// Updates that wait now: in outboxes, on their way to the kernel, or held back by `max_rate`.
        outbox_messages,
        /// Memory of what waits now, in outboxes or held back by `max_rate`: what several sockets wait for counts once.
        outbox_bytes,
        /// Updates that passed before `max_rate` let them, because too much was held back.
        released_early,
        /// Sockets that do not keep up now.
        behind,
        /// Bytes of unfinished requests and frames now.
        partial_bytes,
        /// Messages received from clients.
        received,
        /// Messages in the inbox after the last turn.
        inbox_depth,
        /// Turns taken.
        turns,
        /// When the last turn began, in microseconds of the process's clock.
        last_turn_us,
        /// Polls that the kernel ended and that were armed again.
        polls_rearmed,
        /// Accepts that failed (no descriptor, no memory); each lost a connection.
        accept_errors,
        /// Critical updates that found no room at a socket, which is closed for it.
        critical_overflows,
    }
}

counters! {
    /// What the source counts.
    SourceCounters {
        /// Updates received.
        received,
        /// Updates refused because they were larger than `limits.update_bytes_max`.
        too_large,
        /// Updates offered to a shard.
        offered,
        /// Updates that a newer one of the same key replaced while a shard's inbox was full.
        conflated,
        /// Updates that were dropped because too much waited for a shard whose inbox was full.
        overrun,
        /// What waits now for shards whose inboxes are full: updates, answers and notices.
        held,
        /// Channels that some shard wants now.
        channels_wanted,
        /// Channels that the source is subscribed to now.
        channels_confirmed,
        /// Whether the source can be reached (1) or not (0).
        connected,
        /// Times that the source was lost.
        lost,
        /// Publishes by clients and the publish API that failed.
        publish_errors,
    }
}

impl EndReason {
    /// Whether the client never got the WebSocket that it came for: it was refused.
    pub fn is_refusal(self) -> bool {
        matches!(self, Self::RequestRefused | Self::RequestTimeout | Self::Full | Self::ProxyHeader)
    }
}

impl ShardCounters {
    /// Counts `updates` that did not reach a subscriber.
    #[inline]
    pub fn drop_updates(&mut self, reason: DropReason, updates: u64) {
        self.dropped[reason as usize] += updates;
    }

    /// Counts a connection that ended.
    pub fn end(&mut self, reason: EndReason) {
        self.ended[reason as usize] += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_survive_being_flattened() {
        let mut counters = ShardCounters { connections: 3, accept_errors: 9, ..Default::default() };
        counters.end(EndReason::Served);
        counters.drop_updates(DropReason::Closed, 7);
        assert_eq!(ShardCounters::from_values(&counters.values()), counters);
        assert_eq!(counters.values().iter().sum::<u64>(), 3 + 9 + 1 + 7);
    }
}
