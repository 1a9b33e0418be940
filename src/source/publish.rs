//! Publishes on their way to Redis: in order, one pipeline at a time, bounded in number and bytes.

use super::Reached;
use crate::bus::{PublishError, Ticket};
use futures_util::future::LocalBoxFuture;
use redis::aio::MultiplexedConnection;
use redis::{Pipeline, RedisResult};
use std::collections::VecDeque;
use tokio::sync::oneshot;

/// Publishes that may be on their way; past it they are refused as busy.
pub const WAITING_MAX: usize = 1024;
/// Bytes of them.
const WAITING_BYTES_MAX: usize = 32 << 20;
/// Publishes and bytes in one pipeline.
const BATCH_MAX: usize = 256;
const BATCH_BYTES_MAX: usize = 1 << 20;

/// One publish.
#[derive(Debug)]
pub struct Publish {
    /// Where to.
    pub channel: Box<str>,
    /// What.
    pub payload: Vec<u8>,
    /// Whom to answer.
    pub asker: Asker,
}

/// Who is told what became of a publish.
#[derive(Debug)]
pub enum Asker {
    /// A client, through its shard.
    Client(Ticket),
    /// The publish API.
    Api(oneshot::Sender<Result<Reached, PublishError>>),
    /// Nobody: a probe, which answers by coming back.
    Probe,
}

/// What Redis said to each publish of a pipeline: the number of subscribers that it reached.
pub type Replies = RedisResult<Vec<RedisResult<u64>>>;

/// The connection that publishes.
pub struct Publisher {
    connection: MultiplexedConnection,
    waiting: VecDeque<Publish>,
    /// Bytes of `waiting` and of the pipeline in flight.
    bytes: usize,
    flight: Option<Flight>,
}

struct Flight {
    askers: Vec<Asker>,
    bytes: usize,
    replies: LocalBoxFuture<'static, Replies>,
}

impl Publisher {
    /// Publishes through `connection`.
    pub fn new(connection: MultiplexedConnection) -> Self {
        Self { connection, waiting: VecDeque::new(), bytes: 0, flight: None }
    }

    /// Whether another publish is taken.
    pub fn has_room(&self) -> bool {
        let flying = self.flight.as_ref().map_or(0, |flight| flight.askers.len());
        self.waiting.len() + flying < WAITING_MAX && self.bytes < WAITING_BYTES_MAX
    }

    /// Queues a publish; probes go first.
    pub fn push(&mut self, publish: Publish) {
        self.bytes += publish.payload.len();
        match publish.asker {
            Asker::Probe => self.waiting.push_front(publish),
            _ => self.waiting.push_back(publish),
        }
    }

    /// Sends what waits, unless a pipeline is in flight.
    pub fn send(&mut self) {
        if self.flight.is_some() || self.waiting.is_empty() {
            return;
        }
        let mut pipeline = Pipeline::new();
        pipeline.ignore_errors(); // one refused publish is not the others' failure
        let (mut askers, mut bytes) = (Vec::new(), 0);
        while askers.len() < BATCH_MAX && bytes < BATCH_BYTES_MAX {
            let Some(Publish { channel, payload, asker }) = self.waiting.pop_front() else { break };
            pipeline.cmd("PUBLISH").arg(&*channel).arg(payload.as_slice());
            bytes += payload.len();
            askers.push(asker);
        }
        let mut connection = self.connection.clone();
        let replies = Box::pin(async move { pipeline.query_async(&mut connection).await });
        self.flight = Some(Flight { askers, bytes, replies });
    }

    /// Waits for the pipeline in flight, for ever where there is none. Cancel-safe.
    pub async fn replies(&mut self) -> (Vec<Asker>, Replies) {
        let Some(flight) = &mut self.flight else { return std::future::pending().await };
        let replies = (&mut flight.replies).await;
        let askers = std::mem::take(&mut flight.askers);
        self.bytes -= flight.bytes;
        self.flight = None;
        (askers, replies)
    }

    /// All who still wait for an answer, and what is known of their publishes where the connection is lost.
    pub fn into_askers(self) -> impl Iterator<Item = (Asker, PublishError)> {
        let flying = self.flight.map(|flight| flight.askers).unwrap_or_default();
        let flying = flying.into_iter().map(|asker| (asker, PublishError::Unknown));
        flying.chain(self.waiting.into_iter().map(|publish| (publish.asker, PublishError::Unavailable)))
    }
}
