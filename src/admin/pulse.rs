//! Where a connection of the admin interface stands, and since when: what its deadline is, and whether it may lose its
//! place, follow from that.

use axum::body::{Bytes, HttpBody};
use hyper::body::{Frame, Incoming, SizeHint};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

/// Whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The peer's: there is no whole head of a request, and nothing is owed.
    Waits,
    /// The peer's: there is a head, and its body is not whole.
    Sends,
    /// Ours: a whole request is worked on.
    Works,
    /// The peer's: it has yet to take the answer.
    Answers,
}

/// The phase, and when it began. Its lock is never waited for: all who take it are on one thread.
#[derive(Debug)]
pub struct Pulse(Mutex<(Phase, Instant)>);

impl Pulse {
    /// A connection that was just made.
    pub fn new() -> Self {
        Self(Mutex::new((Phase::Waits, Instant::now())))
    }

    /// The phase, and when it began.
    pub fn phase(&self) -> (Phase, Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another phase begins.
    pub fn enter(&self, phase: Phase) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = (phase, Instant::now());
    }

    /// Comes back when a request was not answered for `works`, or an answer not taken for `answers`. (What is worked on has
    /// a shorter time of its own; but hyper lets it rest where the peer takes nothing of the answers before it.)
    pub async fn overdue(&self, works: Duration, answers: Duration) {
        loop {
            let now = Instant::now();
            let until = match self.phase() {
                (Phase::Waits, _) => now + answers.min(works), // what begins from now on is not overdue before
                (Phase::Sends | Phase::Works, since) => since + works,
                (Phase::Answers, since) => since + answers,
            };
            if until <= now {
                return;
            }
            // Woken at most once in the shorter time.
            sleep_until(until.min(now + answers.min(works))).await;
        }
    }
}

/// A connection's stream, which tells the pulse when an answer was taken whole.
#[derive(Debug)]
pub struct Tracked {
    stream: TcpStream,
    pulse: Arc<Pulse>,
}

impl Tracked {
    /// A stream and its pulse.
    pub fn new(stream: TcpStream, pulse: Arc<Pulse>) -> Self {
        Self { stream, pulse }
    }
}

/// A request's body, which tells the pulse when it is whole.
#[derive(Debug)]
pub struct TrackedBody {
    body: Incoming,
    pulse: Arc<Pulse>,
}

impl TrackedBody {
    /// The body of a request whose head has just come.
    pub fn new(body: Incoming, pulse: Arc<Pulse>) -> Self {
        pulse.enter(if body.is_end_stream() { Phase::Works } else { Phase::Sends });
        Self { body, pulse }
    }
}

impl HttpBody for TrackedBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        // What is read behind an answer changes nothing.
        if (frame.is_none() || self.body.is_end_stream()) && self.pulse.phase().0 == Phase::Sends {
            self.pulse.enter(Phase::Works);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl AsyncRead for Tracked {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Tracked {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// hyper asks for this when it has written everything.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        if self.pulse.phase().0 == Phase::Answers {
            self.pulse.enter(Phase::Waits);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
