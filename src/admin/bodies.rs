//! Bodies of requests: each within its limit and its time, and all that are held at once within one bound.
//!
//! Invariant: what was sent as bodies and is not answered yet is at most [`together_max`]; each takes its room, as large as
//! it says that it is, before any of it is read. One that says that it is over its limit takes none.

use axum::body::{Bytes, HttpBody};
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, Request};
use axum::http::{StatusCode, header};
use futures_util::StreamExt;
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

/// Bytes of all bodies together, at least.
const TOGETHER_MIN: usize = 16 << 20;
/// What a body has time for, from the end of the head: 1 MiB in it are 200 KiB a second.
pub const BODY_TIME: Duration = Duration::from_secs(5);

/// Bytes that all bodies may take together, where one may have `body_max`: room for two of the largest, so that one that
/// comes slowly does not keep all others out.
pub fn together_max(body_max: usize) -> usize {
    TOGETHER_MIN.max(2 * body_max)
}

/// The room for bodies.
#[derive(Debug)]
pub struct Bodies {
    /// Of one, in bytes.
    body_max: usize,
    room: Semaphore,
    time: Duration,
}

/// A whole body, and its room until it is dropped.
#[derive(Debug)]
pub struct Held<'a> {
    /// The body.
    pub bytes: Bytes,
    _room: SemaphorePermit<'a>,
}

/// Why there is no body.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// It is over the limit.
    #[error("the body is too large")]
    TooLarge,
    /// It did not come whole in time.
    #[error("the body was not complete within {} s: send it at once", BODY_TIME.as_secs())]
    TooSlow,
    /// There was no room in time.
    #[error("other bodies take all the room there is: try again")]
    NoRoom,
    /// The connection ended, or what came is no body.
    #[error("{0}")]
    Broken(String),
}

impl Bodies {
    /// Room for bodies of at most `body_max` bytes each, which have `time` each.
    pub fn new(body_max: usize, time: Duration) -> Self {
        Self { body_max, room: Semaphore::new(together_max(body_max)), time }
    }

    /// Reads a request's body to its end. The router's own limit (`DefaultBodyLimit`) must be `body_max`.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn read(&self, request: Request) -> Result<Held<'_>, Fault> {
        if request.body().size_hint().lower() > self.body_max as u64 {
            return Err(refuse_unread(request, 2 * self.body_max, self.time));
        }
        let said = request.body().size_hint().upper().and_then(|bytes| usize::try_from(bytes).ok());
        let bytes = said.unwrap_or(self.body_max).min(self.body_max);
        let (mut room, bytes) = (None, u32::try_from(bytes).unwrap_or(u32::MAX));
        let read = async {
            let taken = self.room.acquire_many(bytes).await.expect("nobody closes the room");
            room = Some(());
            Bytes::from_request(request, &()).await.map(|bytes| Held { bytes, _room: taken })
        };
        match timeout(self.time, read).await {
            Ok(Ok(held)) => Ok(held),
            Ok(Err(rejection)) => Err(Fault::from(rejection)),
            Err(_) if room.is_none() => Err(Fault::NoRoom),
            Err(_) => Err(Fault::TooSlow),
        }
    }
}

/// Whoever announces a body that is too large is told at once. One that sends it all the same would not hear it: the answer is
/// lost where a connection is closed on what was not read. So up to `most` bytes of it are read, for `time`, and thrown away;
/// but one that waits for `100 Continue` is not told to go on.
fn refuse_unread(request: Request, most: usize, time: Duration) -> Fault {
    if !request.headers().contains_key(header::EXPECT) {
        let mut pieces = request.into_body().into_data_stream();
        tokio::spawn(timeout(time, async move {
            let mut bytes = 0;
            while bytes <= most
                && let Some(Ok(piece)) = pieces.next().await
            {
                bytes += piece.len();
            }
        }));
    }
    Fault::TooLarge
}

impl From<BytesRejection> for Fault {
    fn from(rejection: BytesRejection) -> Self {
        match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Self::TooLarge,
            _ => Self::Broken(rejection.body_text()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use futures_util::stream;
    use std::convert::Infallible;

    const MAX: usize = 1 << 20;

    fn run<T>(test: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(test)
    }

    fn bodies() -> Bodies {
        Bodies::new(MAX, Duration::from_millis(50))
    }

    /// Its first bytes, and then nothing, without a length.
    fn unfinished() -> Request {
        let begin = stream::iter([Ok::<_, Infallible>("begin")]);
        Request::new(Body::from_stream(futures_util::StreamExt::chain(begin, stream::pending())))
    }

    #[test]
    fn a_body_holds_its_room_until_it_is_answered_and_no_longer() {
        run(async {
            let bodies = bodies();
            let all = bodies.room.available_permits();
            assert_eq!(all, together_max(MAX));
            let held = bodies.read(Request::new(Body::from(vec![b'x'; 1000]))).await.unwrap();
            assert_eq!((held.bytes.len(), bodies.room.available_permits()), (1000, all - 1000));
            drop(held);
            assert!(bodies.read(Request::new(Body::empty())).await.unwrap().bytes.is_empty());
            assert_eq!(bodies.room.available_permits(), all);
        });
    }

    #[test]
    fn a_body_that_does_not_come_is_not_awaited_for_long_and_gives_its_room_back() {
        run(async {
            let bodies = bodies();
            let fault = bodies.read(unfinished()).await.unwrap_err();
            assert!(matches!(fault, Fault::TooSlow), "{fault}");
            assert_eq!(bodies.room.available_permits(), together_max(MAX));
        });
    }

    #[test]
    fn one_that_says_that_it_is_too_large_is_refused_unread_and_takes_no_room() {
        run(async {
            let bodies = bodies();
            let _full = bodies.room.acquire_many(together_max(MAX) as u32).await.unwrap();
            let fault = bodies.read(Request::new(Body::from(vec![0; MAX + 1]))).await.unwrap_err();
            assert!(matches!(fault, Fault::TooLarge), "{fault}");
        });
    }

    #[test]
    fn bodies_together_have_a_bound_and_who_finds_no_room_is_told() {
        run(async {
            let bodies = bodies();
            let full = bodies.room.acquire_many((together_max(MAX) - 999) as u32).await.unwrap();
            let fault = bodies.read(Request::new(Body::from(vec![0; 1000]))).await.unwrap_err();
            assert!(matches!(fault, Fault::NoRoom), "{fault}");
            let fault = bodies.read(unfinished()).await.unwrap_err();
            assert!(matches!(fault, Fault::NoRoom), "one without a length may be as long as any: {fault}");
            assert_eq!(bodies.read(Request::new(Body::from(vec![0; 999]))).await.unwrap().bytes.len(), 999);
            drop(full);
            assert_eq!(bodies.read(Request::new(Body::from(vec![0; 1000]))).await.unwrap().bytes.len(), 1000);
        });
    }

    #[test]
    fn one_that_comes_slowly_does_not_keep_another_out_however_large_they_may_be() {
        for body_max in [1, MAX, 64 << 20] {
            assert!(together_max(body_max) >= 2 * body_max && u32::try_from(together_max(body_max)).is_ok());
        }
    }
}
