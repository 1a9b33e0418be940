//! Connections to Redis: one that subscribes (RESP3 pushes where the server has them, else RESP2), one that publishes.
//!
//! Invariant: the password reaches no log line (Redis before 6 quotes the refused HELLO, password and all).

use super::subscriptions::Batch;
use futures_util::{FutureExt, StreamExt, future::LocalBoxFuture};
use redis::aio::{MultiplexedConnection, PubSubSink, PubSubStream};
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, ErrorKind, Msg, ProtocolVersion, PushInfo, PushKind, RedisError, RedisResult,
};
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, error::TryRecvError, unbounded_channel};
use tokio::task::unconstrained;

/// Commands that may wait inside the crate for being written; ours come one batch at a time.
const PIPELINE_BUFFER: usize = 64;

/// Where Redis is, and how it is spoken to.
#[derive(Debug)]
pub struct Endpoint {
    resp2: Client,
    /// None where the URL forces RESP2.
    resp3: Option<Client>,
    /// Host and port, for log lines.
    address: String,
    secret: Option<String>,
}

/// The connection that subscribes.
///
/// Messages wait in a queue without a bound of its own: the crate's reader and this queue's consumer share one thread,
/// and the reader puts in no more than one round of reading before the consumer empties it.
pub enum Subscriber {
    /// Pushes beside replies on one connection.
    Resp3(MultiplexedConnection, UnboundedReceiver<PushInfo>),
    /// A connection that can only subscribe.
    Resp2(PubSubSink, Box<PubSubStream>),
}

/// What is in the queue of messages.
pub enum Next {
    /// A message.
    Message(Msg),
    /// Nothing yet.
    Empty,
    /// The connection has ended.
    Ended,
}

impl Endpoint {
    /// Reads `url`; `protocol=resp2` in it forces RESP2. Errors: the URL is not one of a Redis.
    pub fn new(url: &str) -> RedisResult<Self> {
        let info = Client::open(url)?.get_connection_info().clone();
        // The crate's default leaves Nagle's algorithm on: a PUBLISH behind another would wait for an ACK.
        let info = info.set_tcp_settings(TcpSettings::default().set_nodelay(true));
        let settings = info.redis_settings().clone();
        let client = |protocol| Client::open(info.clone().set_redis_settings(settings.clone().set_protocol(protocol)));
        let query = url.split_once('?').map_or("", |(_, query)| query);
        let forced = query.split('&').any(|pair| matches!(pair, "protocol=resp2" | "protocol=2"));
        Ok(Self {
            resp2: client(ProtocolVersion::RESP2)?,
            resp3: if forced { None } else { Some(client(ProtocolVersion::RESP3)?) },
            address: info.addr().to_string(),
            secret: settings.password().map(str::to_owned),
        })
    }

    /// Host and port.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Opens both connections and subscribes `channel`. Errors: why not, fit for a log line; after `timeout` too.
    pub async fn connect(
        &self,
        channel: &str,
        timeout: Duration,
    ) -> Result<(Subscriber, MultiplexedConnection), String> {
        match tokio::time::timeout(timeout, self.connect_both(channel)).await {
            Ok(connected) => connected.map_err(|error| self.speakable(&error)),
            Err(_) => Err(format!("no connection within {timeout:?}")),
        }
    }

    /// What an error says, without the password.
    pub fn speakable(&self, error: &RedisError) -> String {
        let said = error.to_string();
        match &self.secret {
            Some(secret) if !secret.is_empty() => said.replace(secret.as_str(), "***"),
            _ => said,
        }
    }

    async fn connect_both(&self, channel: &str) -> RedisResult<(Subscriber, MultiplexedConnection)> {
        let (subscriber, client) = match &self.resp3 {
            Some(client) => match subscribe_resp3(client, channel).await {
                Err(error) if refuses_resp3(&error) => (subscribe_resp2(&self.resp2, channel).await?, &self.resp2),
                subscriber => (subscriber?, client),
            },
            None => (subscribe_resp2(&self.resp2, channel).await?, &self.resp2),
        };
        Ok((subscriber, client.get_multiplexed_async_connection_with_config(&config()).await?))
    }
}

impl Subscriber {
    /// The next message; none when the connection has ended.
    pub async fn next(&mut self) -> Option<Msg> {
        match self {
            Subscriber::Resp3(_, pushes) => loop {
                match pushes.recv().await {
                    Some(push) if push.kind == PushKind::Disconnection => return None,
                    Some(push) => match Msg::from_push_info(push) {
                        Some(message) => return Some(message),
                        None => continue, // a confirmation; the batch's own future tells
                    },
                    None => return None,
                }
            },
            Subscriber::Resp2(_, messages) => messages.next().await,
        }
    }

    /// The next message, if it is here.
    pub fn try_next(&mut self) -> Next {
        match self {
            Subscriber::Resp3(_, pushes) => loop {
                match pushes.try_recv() {
                    Ok(push) if push.kind == PushKind::Disconnection => return Next::Ended,
                    Ok(push) => match Msg::from_push_info(push) {
                        Some(message) => return Next::Message(message),
                        None => continue,
                    },
                    Err(TryRecvError::Empty) => return Next::Empty,
                    Err(TryRecvError::Disconnected) => return Next::Ended,
                }
            },
            // Unconstrained: tokio's fairness would call a full queue empty after 128 messages.
            Subscriber::Resp2(_, messages) => match unconstrained(messages.next()).now_or_never() {
                Some(Some(message)) => Next::Message(message),
                Some(None) => Next::Ended,
                None => Next::Empty,
            },
        }
    }

    /// Says a batch to Redis; done when all its channels are confirmed. By then every earlier message is in the queue.
    pub fn say(&self, batch: Batch) -> LocalBoxFuture<'static, RedisResult<()>> {
        match self {
            Subscriber::Resp3(connection, _) => {
                let mut connection = connection.clone();
                Box::pin(async move {
                    match batch {
                        Batch::Subscribe(names) => connection.subscribe(arguments(&names)).await,
                        Batch::Unsubscribe(names) => connection.unsubscribe(arguments(&names)).await,
                    }
                })
            }
            Subscriber::Resp2(sink, _) => {
                let mut sink = sink.clone();
                Box::pin(async move {
                    match batch {
                        Batch::Subscribe(names) => sink.subscribe(arguments(&names)).await,
                        Batch::Unsubscribe(names) => sink.unsubscribe(arguments(&names)).await,
                    }
                })
            }
        }
    }
}

async fn subscribe_resp3(client: &Client, channel: &str) -> RedisResult<Subscriber> {
    let (sender, pushes) = unbounded_channel();
    let mut connection = client.get_multiplexed_async_connection_with_config(&config().set_push_sender(sender)).await?;
    connection.subscribe(channel).await?;
    Ok(Subscriber::Resp3(connection, pushes))
}

async fn subscribe_resp2(client: &Client, channel: &str) -> RedisResult<Subscriber> {
    let (mut sink, messages) = client.get_async_pubsub().await?.split();
    sink.subscribe(channel).await?;
    Ok(Subscriber::Resp2(sink, Box::new(messages)))
}

/// The crate's own time-outs are off (its default for a reply is 500 ms): the probe is the one judge of a connection.
fn config() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(None)
        .set_response_timeout(None)
        .set_pipeline_buffer_size(PIPELINE_BUFFER)
}

/// Whether the server does not know HELLO 3 (Redis before 6).
fn refuses_resp3(error: &RedisError) -> bool {
    error.kind() == ErrorKind::RESP3NotSupported
        || error.code() == Some("NOPROTO")
        || error.detail().is_some_and(|detail| detail.contains("unknown command"))
}

fn arguments(names: &[std::sync::Arc<str>]) -> Vec<&str> {
    names.iter().map(|name| &**name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_url_decides_whether_resp2_is_forced() {
        let forced = |url| Endpoint::new(url).unwrap().resp3.is_none();
        assert!(forced("redis://h:1/?protocol=resp2"));
        assert!(forced("redis://h:1/0?protocol=2"));
        assert!(!forced("redis://h:1/"));
        assert!(!forced("redis://h:1/?protocol=resp3"));
    }

    #[test]
    fn the_password_reaches_no_log_line() {
        let endpoint = Endpoint::new("redis://user:hunter2@h:1/").unwrap();
        let detail = "unknown command 'HELLO', with args beginning with: '3' 'AUTH' 'user' 'hunter2'".to_owned();
        let error = RedisError::from((ErrorKind::Extension, "refused", detail));
        assert!(refuses_resp3(&error));
        assert!(!endpoint.speakable(&error).contains("hunter2"));
        assert!(!endpoint.address().contains("hunter2"));
    }
}
