//! The source's loop: what the shards ask for, what Redis says, what is published; then sleep until the bell rings.
//!
//! Invariant: no input keeps another waiting for longer than a slice. Invariant: nothing here waits for a shard.

use super::desk::Desk;
use super::embedded;
use super::handle::StatusBoard;
use super::publish::{Asker, Publish};
use super::redis::{Event, Redis};
use crate::bus::{Demand, PublishError, ToSource};
use crate::lifecycle::SIGN_EVERY;
use crate::sys::AsyncBell;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, mpsc};

/// What is taken from one input before the others are looked at.
const REQUESTS_MAX: usize = 1024;
const MESSAGES_MAX: usize = 512;
const ASKS_MAX: usize = 256;
/// Slices before the runtime is let in: only it reads from Redis.
const SLICES_MAX: usize = 64;
/// Where updates come from.
pub enum Engine {
    /// The publishes of this process.
    Embedded,
    /// A Redis.
    Redis(Box<Redis>),
}

/// Everything that the source's thread owns.
pub struct Source {
    pub desk: Desk,
    pub engine: Engine,
    pub bell: AsyncBell,
    pub asks: mpsc::Receiver<Publish>,
    pub stop: Arc<Notify>,
    pub board: Arc<StatusBoard>,
    /// See `limits.update_bytes_max`.
    pub update_bytes_max: usize,
}

/// Why the loop woke up.
enum Woken {
    /// There is, or may be, work: the next turn finds it.
    Work,
    Said(Event),
    Ask(Publish),
    Stop,
}

impl Source {
    /// Runs until it is stopped. Errors: the bell cannot be waited for.
    pub async fn run(mut self) -> io::Result<()> {
        self.desk.set_connected(matches!(self.engine, Engine::Embedded));
        loop {
            self.turn();
            match self.wait().await? {
                Woken::Work => {}
                Woken::Ask(publish) => {
                    self.take_requests(); // whoever was let in before the publish is counted among those whom it reaches
                    self.publish(publish);
                }
                Woken::Said(event) => {
                    if let Engine::Redis(redis) = &mut self.engine {
                        redis.take(event, &mut self.desk);
                    }
                }
                Woken::Stop => return Ok(()),
            }
        }
    }

    fn turn(&mut self) {
        for _ in 0..SLICES_MAX {
            let mut more = self.take_requests();
            more |= self.take_asks();
            if let Engine::Redis(redis) = &mut self.engine {
                more |= redis.take_messages(MESSAGES_MAX, &mut self.desk);
            }
            self.desk.hand_over();
            if !more {
                break;
            }
        }
        self.expire();
        if let Engine::Redis(redis) = &mut self.engine {
            redis.steer(&mut self.desk);
        }
        self.board.publish(&self.desk.shown());
    }

    /// Sleeps until something happens.
    async fn wait(&mut self) -> io::Result<Woken> {
        self.bell.bell().asleep();
        self.desk.hand_over();
        if self.desk.has_request() {
            self.bell.bell().awake();
            tokio::task::yield_now().await;
            return Ok(Woken::Work);
        }
        let (pause, room) = (self.pause(), self.has_room());
        let woken = tokio::select! {
            () = self.stop.notified() => Woken::Stop,
            rung = self.bell.rung() => {
                rung?;
                Woken::Work
            }
            event = said(&mut self.engine) => Woken::Said(event),
            Some(publish) = self.asks.recv(), if room => Woken::Ask(publish),
            () = tokio::time::sleep(pause) => Woken::Work,
        };
        self.bell.bell().awake();
        Ok(woken)
    }

    /// What the shards ask for; whether there may be more.
    fn take_requests(&mut self) -> bool {
        let mut more = false;
        for shard in 0..self.desk.shard_count() {
            let mut taken = 0;
            while taken < REQUESTS_MAX
                && let Some(request) = self.desk.next_request(shard)
            {
                taken += 1;
                match request {
                    ToSource::Demand(demand) => self.demand(&demand),
                    ToSource::Publish { ticket, payload } => {
                        let channel = (*ticket.channel).into();
                        self.publish(Publish { channel, payload, asker: Asker::Client(ticket) });
                    }
                }
            }
            more |= taken == REQUESTS_MAX;
        }
        more
    }

    fn demand(&mut self, demand: &Demand) {
        let now_us = self.desk.now_us();
        let new = self.desk.with_table(|table, words| table.demand(demand, now_us, words));
        if let (Some(name), Engine::Redis(redis)) = (new, &mut self.engine)
            && redis.want(&name, true)
        {
            // Forgotten, but not unsubscribed yet.
            self.desk.with_table(|table, words| table.confirm(&name, words));
        }
    }

    /// What the publish API asks for; whether there may be more.
    fn take_asks(&mut self) -> bool {
        for _ in 0..ASKS_MAX {
            if !self.has_room() {
                return false; // they wait where they are
            }
            let Ok(publish) = self.asks.try_recv() else { return false };
            self.publish(publish);
        }
        true
    }

    fn has_room(&self) -> bool {
        match &self.engine {
            Engine::Embedded => true,
            Engine::Redis(redis) => redis.has_room(),
        }
    }

    fn publish(&mut self, publish: Publish) {
        if publish.payload.len() > self.update_bytes_max {
            return self.desk.answer(publish.asker, Err(PublishError::TooLarge));
        }
        match &mut self.engine {
            Engine::Embedded => embedded::publish(publish, &mut self.desk),
            Engine::Redis(redis) => redis.publish(publish, &mut self.desk),
        }
    }

    /// Lets go of the channels that nobody wanted for the linger.
    fn expire(&mut self) {
        for name in self.desk.table.expire(self.desk.now_us()) {
            if let Engine::Redis(redis) = &mut self.engine {
                redis.want(&name, false);
            }
        }
    }

    /// How long nothing is due by the clock, and no longer than whoever looks may wait for a sign of life.
    fn pause(&self) -> Duration {
        let redis = match &self.engine {
            Engine::Embedded => None,
            Engine::Redis(redis) => redis.due_us(),
        };
        let due_us = [redis, self.desk.table.due_us()].into_iter().flatten().min();
        let pause = due_us.map(|due_us| Duration::from_micros(due_us.saturating_sub(self.desk.now_us())));
        pause.unwrap_or(SIGN_EVERY).min(SIGN_EVERY)
    }
}

/// Waits until the engine has something to say.
async fn said(engine: &mut Engine) -> Event {
    match engine {
        Engine::Embedded => std::future::pending().await,
        Engine::Redis(redis) => redis.next().await,
    }
}
