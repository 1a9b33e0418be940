//! Who the admin interface takes in, and for how long: whatever its peers do, it holds so many descriptors and so much
//! memory, and whoever asks it something is answered.
//!
//! Invariant: at most [`CONNECTIONS_MAX`] connections are served, and one more waits to be. While all places are taken, the
//! one that has for longest sent no whole request, or not taken its answer, makes room; those whose whole request is worked
//! on have a deadline and are let be, and publishes, which wait for Redis, are at most [`PUBLISHES_MAX`] of them.

use super::pulse::{Phase, Pulse, Tracked, TrackedBody};
use super::refuse;
use axum::Router;
use axum::http::StatusCode;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, Id, JoinSet};
use tokio::time::{Instant, sleep, timeout};

/// Connections at a time. A Prometheus or two, a supervisor, the checks of some load balancers and publishers that keep a
/// connection each are a dozen; each takes a descriptor, which Redis must not be short of (RLIMIT_NOFILE may be 1,024).
pub const CONNECTIONS_MAX: usize = 64;
/// Publishes that are worked on at a time: a Redis that hangs keeps each waiting for seconds, and whoever asks for health or
/// metrics meanwhile has the other places.
pub const PUBLISHES_MAX: usize = CONNECTIONS_MAX - 4;
/// Bytes of a request that are read ahead, and of an answer that are copied: a head has some hundred, a channel's name
/// included. (hyper's own default is 408 KiB for each connection.)
const BUFFER_BYTES: usize = 32 << 10;
/// Time in which nobody takes a place away from whoever has just got it: a client's request is right behind its connection.
const SAFE: Duration = Duration::from_millis(100);
/// The same for whoever is to take an answer: the largest are some 100 KB.
const SAFE_ANSWERED: Duration = Duration::from_secs(1);
/// Pause between two lines in the log on accepts that the kernel refused.
const TOLD_EVERY: Duration = Duration::from_secs(10);
/// Pause after an accept that the kernel refused (no descriptor, no memory).
const REST: Duration = Duration::from_millis(100);

/// How long whoever connects may take for what.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// From the moment that a request can be sent to the end of its head. So this is what a connection may be idle for, too:
    /// Prometheus, which asks every 15 s, keeps its own.
    pub head: Duration,
    /// For the request's body, the work, and what Redis says.
    pub request: Duration,
    /// For taking the answer.
    pub answer: Duration,
}

/// What holds for the admin interface.
pub const PATIENCE: Patience =
    Patience { head: Duration::from_secs(30), request: Duration::from_secs(10), answer: Duration::from_secs(10) };

/// How full it is.
#[derive(Debug, Default)]
pub struct Crowd {
    connections: AtomicU64,
    cut: AtomicU64,
}

impl Crowd {
    /// Connections now.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// Connections that were closed, while they waited, for others who needed their places.
    pub fn cut(&self) -> u64 {
        self.cut.load(Ordering::Relaxed)
    }
}

/// Serves `routes` to whoever connects, for ever.
pub async fn serve(listener: TcpListener, routes: Router, crowd: Arc<Crowd>, patience: Patience) {
    let mut guests = Guests { tasks: JoinSet::new(), known: HashMap::new(), crowd };
    let mut told: Option<Instant> = None;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = guests.one_leaves(), if !guests.tasks.is_empty() => continue,
        };
        match accepted {
            Ok((stream, _)) => {
                guests.make_room().await;
                guests.admit(stream, routes.clone(), patience);
            }
            Err(error) => {
                if told.is_none_or(|at| at.elapsed() >= TOLD_EVERY) {
                    told = Some(Instant::now());
                    tracing::warn!(%error, "the admin interface cannot take a connection in; it goes on trying");
                }
                sleep(REST).await;
            }
        }
    }
}

/// Those who are served.
struct Guests {
    tasks: JoinSet<()>,
    known: HashMap<Id, (AbortHandle, Arc<Pulse>)>,
    crowd: Arc<Crowd>,
}

impl Guests {
    fn admit(&mut self, stream: TcpStream, routes: Router, patience: Patience) {
        // Else an answer behind another waits until the peer has acknowledged that one, 40 ms. It fails where the peer is gone.
        let _ = stream.set_nodelay(true);
        let pulse = Arc::new(Pulse::new());
        let handle = self.tasks.spawn(attend(stream, routes, Arc::clone(&pulse), patience));
        self.known.insert(handle.id(), (handle, pulse));
        self.count();
    }

    /// Waits until there is a place, and takes one away where somebody only waits.
    async fn make_room(&mut self) {
        while self.tasks.len() >= CONNECTIONS_MAX {
            let movable = self.known.values().filter_map(|(handle, pulse)| match pulse.phase() {
                (Phase::Waits | Phase::Sends, since) => Some((since + SAFE, handle)),
                (Phase::Answers, since) => Some((since + SAFE_ANSWERED, handle)),
                (Phase::Works, _) => None,
            });
            let now = Instant::now();
            let pause = match movable.min_by_key(|(from, _)| *from) {
                Some((from, handle)) if from <= now => {
                    handle.abort();
                    self.crowd.cut.fetch_add(1, Ordering::Relaxed);
                    self.one_leaves().await;
                    continue;
                }
                Some((from, _)) => from - now,
                None => SAFE,
            };
            tokio::select! {
                () = self.one_leaves() => {}
                () = sleep(pause) => {}
            }
        }
    }

    /// Waits for somebody's end. Nobody is lost where this is not waited for.
    async fn one_leaves(&mut self) {
        let id = match self.tasks.join_next_with_id().await {
            Some(Ok((id, ()))) => id,
            Some(Err(error)) => error.id(),
            None => return,
        };
        self.known.remove(&id);
        self.count();
    }

    fn count(&self) {
        self.crowd.connections.store(self.tasks.len() as u64, Ordering::Relaxed);
    }
}

/// Serves one connection to its end, which comes where its time is over.
async fn attend(stream: TcpStream, routes: Router, pulse: Arc<Pulse>, patience: Patience) {
    let routes = TowerToHyperService::new(routes);
    let service = service_fn(|request: hyper::Request<Incoming>| {
        let request = request.map(|body| TrackedBody::new(body, Arc::clone(&pulse)));
        let answer = timeout(patience.request, routes.call(request));
        let pulse = Arc::clone(&pulse);
        async move {
            let answer = answer.await.unwrap_or_else(|_| {
                let what = "this took too long; whether an update that was to be published went out is not known";
                Ok(refuse(StatusCode::SERVICE_UNAVAILABLE, "timeout", what))
            });
            pulse.enter(Phase::Answers);
            answer
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(patience.head)
        .max_buf_size(BUFFER_BYTES)
        .serve_connection(TokioIo::new(Tracked::new(stream, Arc::clone(&pulse))), service);
    tokio::select! {
        // An error is the peer's, or its time was over: nobody but the peer could do anything about it.
        _ = connection => {}
        () = pulse.overdue(patience.request + patience.answer, patience.answer) => {}
    }
}

/// A listener of tokio's, on the runtime that is entered.
pub fn listener(listener: std::net::TcpListener) -> io::Result<TcpListener> {
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

#[cfg(test)]
mod tests;
