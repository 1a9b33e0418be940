//! The admin interface: health, metrics and the publish API, over HTTP on a thread of its own. It reads what the shards
//! and the source show, and never makes them wait.

mod bodies;
mod door;
mod exposition;
mod pages;
mod pulse;
mod recent;

pub use door::Crowd;
pub use exposition::reference;
pub use recent::Recent;

use crate::bus::PublishError;
use crate::config::Limits;
use crate::lifecycle::{Clock, SIGN_EVERY, Signs};
use crate::shard::Shared;
use crate::source::{Handle, Reached};
use crate::wire::check_channel;
use axum::extract::rejection::PathRejection;
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bodies::{Bodies, Fault};
use exposition::Format;
use pages::Pages;
use serde_json::json;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// All threads that serve show ten times a second that they live: one that has taken no turn for this long hangs.
pub const HANGS_AFTER: Duration = Duration::from_secs(5);

/// What a publish waits for its turn where as many are worked on as may be: a Redis that works answers one within a
/// millisecond or two.
const TURN_TIME: Duration = Duration::from_millis(20);

const WHAT_THERE_IS: &str = "there are GET /healthz, /readyz, /metrics and POST /channels/{channel}/publish";

/// What the admin interface shows.
#[derive(Clone)]
pub struct View {
    /// The process's clock.
    pub clock: Clock,
    /// The source.
    pub source: Handle,
    /// The shards, by number.
    pub shards: Arc<[Arc<Shared>]>,
    /// What is limited: the publish API is, and metrics tell some limits.
    pub limits: Limits,
    /// This gateway's name, for its metrics.
    pub server_id: Option<String>,
    /// How it was lately.
    pub recent: Arc<Recent>,
    /// How full the admin interface itself is.
    pub crowd: Arc<Crowd>,
    /// The admin interface's signs of life.
    pub signs: Arc<Signs>,
    /// Set when the gateway leaves.
    pub leaving: Arc<AtomicBool>,
}

impl View {
    /// Connections of all shards now.
    pub fn connections(&self) -> u64 {
        self.shards.iter().map(|shard| shard.counters().connections).sum()
    }

    /// The first of the threads that serve which has taken no turn for `patience`, as a sentence without a dot.
    pub fn hanging(&self, patience: Duration) -> Option<String> {
        let now_us = self.clock.now_us();
        let turns = self.shards.iter().map(|shard| shard.counters().last_turn_us).enumerate();
        let mut threads = turns.map(|(number, turn_us)| (format!("shard {number}"), turn_us)).chain([
            ("the source".to_owned(), self.source.status().last_turn_us),
            ("the admin interface".to_owned(), self.signs.last_us()),
            ("the watcher of the metrics".to_owned(), self.recent.signs().last_us()),
        ]);
        threads.find_map(|(thread, turn_us)| {
            let quiet = Duration::from_micros(now_us.saturating_sub(turn_us));
            (quiet > patience).then(|| format!("{thread} has taken no turn for {:.1} s", quiet.as_secs_f64()))
        })
    }
}

/// Serves the admin interface on a thread of its own, for as long as the process lives: its end is an error.
///
/// # Errors
/// The thread or its runtime cannot be started.
pub fn spawn(listener: TcpListener, view: View) -> io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let listener = {
        let _entered = runtime.enter();
        door::listener(listener)?
    };
    let crowd = Arc::clone(&view.crowd);
    runtime.spawn(show_life(view.clock, Arc::clone(&view.signs)));
    let serve = move || runtime.block_on(door::serve(listener, routes(view), crowd, door::PATIENCE));
    std::thread::Builder::new().name("admin".into()).spawn(serve)
}

/// Runs on the thread that serves, between the requests: where one of them does not come back, this does not either.
async fn show_life(clock: Clock, signs: Arc<Signs>) {
    loop {
        signs.give(clock.now_us());
        tokio::time::sleep(SIGN_EVERY).await;
    }
}

/// What all requests share.
struct Served {
    view: View,
    pages: Pages,
    bodies: Bodies,
    /// Publishes that may be worked on now.
    publishes: Semaphore,
}

fn routes(view: View) -> Router {
    let body_max = view.limits.update_bytes_max;
    let bodies = Bodies::new(body_max, bodies::BODY_TIME);
    let served = Served { view, pages: Pages::new(), bodies, publishes: Semaphore::new(door::PUBLISHES_MAX) };
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/channels/{channel}/publish", post(publish))
        .fallback(nothing_here)
        .method_not_allowed_fallback(method_means_nothing)
        .layer(DefaultBodyLimit::max(body_max))
        .with_state(Arc::new(served))
}

/// Whether the process does its work: a supervisor restarts it if not.
async fn healthz(State(served): State<Arc<Served>>) -> Response {
    let view = &served.view;
    match view.hanging(HANGS_AFTER) {
        None => "ok\n".into_response(),
        Some(_) if view.leaving.load(Ordering::Relaxed) => "leaving\n".into_response(),
        Some(hanging) => (StatusCode::SERVICE_UNAVAILABLE, hanging + "\n").into_response(),
    }
}

/// Whether clients should be sent here: a load balancer looks elsewhere if not.
async fn readyz(State(served): State<Arc<Served>>) -> Response {
    let view = &served.view;
    let status = view.source.status();
    let since = Duration::from_micros(view.clock.now_us().saturating_sub(status.since_us));
    let (code, text) = match () {
        () if view.leaving.load(Ordering::Relaxed) => (StatusCode::SERVICE_UNAVAILABLE, "leaving\n".to_owned()),
        () if !status.connected => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("Redis is away, since {:.0} s\n", since.as_secs_f64()))
        }
        () => (StatusCode::OK, "ready\n".to_owned()),
    };
    (code, text).into_response()
}

async fn metrics(State(served): State<Arc<Served>>, headers: HeaderMap) -> Response {
    let (view, format) = (&served.view, Format::wanted(&headers));
    match served.pages.show(format, view.clock.now_us(), || exposition::expose(view, format)) {
        Ok(text) => ([(header::CONTENT_TYPE, format.content_type()), (header::VARY, "Accept")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

/// Publishes the body, byte for byte; answers whom it reached.
async fn publish(
    State(served): State<Arc<Served>>,
    channel: Result<Path<String>, PathRejection>,
    request: Request,
) -> Response {
    let view = &served.view;
    let channel = match channel {
        Ok(Path(channel)) => channel,
        Err(rejection) => return refuse(StatusCode::BAD_REQUEST, "bad_channel", &rejection.body_text()),
    };
    if let Err(fault) = check_channel(&channel, &view.limits) {
        return refuse(StatusCode::BAD_REQUEST, "bad_channel", &fault.to_string());
    }
    let body = match served.bodies.read(request).await {
        Ok(body) => body,
        Err(fault) => return refuse_body(&fault),
    };
    let Ok(Ok(_working)) = timeout(TURN_TIME, served.publishes.acquire()).await else {
        return refuse_publish(PublishError::Busy);
    };
    match view.source.publish(&channel, body.bytes.into()).await {
        Ok(Reached::Gateways(gateways)) => Json(json!({ "channel": channel, "gateways": gateways })).into_response(),
        Ok(Reached::Sockets(sockets)) => Json(json!({ "channel": channel, "sockets": sockets })).into_response(),
        Err(error) => refuse_publish(error),
    }
}

fn refuse_body(fault: &Fault) -> Response {
    let (status, code) = match fault {
        Fault::TooLarge => return refuse_publish(PublishError::TooLarge),
        Fault::TooSlow => (StatusCode::REQUEST_TIMEOUT, "request_timeout"),
        Fault::NoRoom => (StatusCode::SERVICE_UNAVAILABLE, "busy"),
        Fault::Broken(_) => (StatusCode::BAD_REQUEST, "bad_body"),
    };
    refuse(status, code, &fault.to_string())
}

fn refuse_publish(error: PublishError) -> Response {
    let (status, code) = match error {
        PublishError::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
        PublishError::Unknown => (StatusCode::SERVICE_UNAVAILABLE, "timeout"),
        PublishError::Busy => (StatusCode::SERVICE_UNAVAILABLE, "busy"),
        PublishError::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
    };
    refuse(status, code, &error.to_string())
}

async fn nothing_here() -> Response {
    refuse(StatusCode::NOT_FOUND, "not_found", WHAT_THERE_IS)
}

async fn method_means_nothing() -> Response {
    refuse(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", WHAT_THERE_IS)
}

fn refuse(status: StatusCode, code: &str, message: &str) -> Response {
    (status, Json(json!({ "error": { "code": code, "message": message } }))).into_response()
}
