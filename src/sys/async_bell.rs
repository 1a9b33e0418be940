//! A [`Doorbell`] that a tokio runtime waits at.

use super::Doorbell;
use std::io;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The sleeping side of a doorbell in [`super::Mode::NonBlocking`], for a thread that runs tokio.
#[derive(Debug)]
pub struct AsyncBell(AsyncFd<Doorbell>);

impl AsyncBell {
    /// Watches `bell`. Errors: the runtime's epoll cannot.
    ///
    /// # Panics
    /// Outside a tokio runtime with its IO enabled.
    pub fn new(bell: Doorbell) -> io::Result<Self> {
        // SAFETY: the eventfd is owned by the doorbell's shared part, of which `bell` is a handle that nothing takes out
        // of the `AsyncFd`; so it stays open, and `as_raw_fd` the same, for as long as it is registered.
        let registered = unsafe { AsyncFd::register_with_interest(bell, Interest::READABLE) };
        Ok(Self(registered.map_err(io::Error::from)?))
    }

    /// The bell itself, to announce sleep at.
    pub fn bell(&self) -> &Doorbell {
        self.0.get_ref()
    }

    /// Waits until it is rung. Cancel-safe. Errors: the runtime is shutting down.
    pub async fn rung(&self) -> io::Result<()> {
        loop {
            match self.0.readable().await?.try_io(|bell| bell.get_ref().take()) {
                Ok(taken) => return taken,
                Err(_would_block) => continue,
            }
        }
    }
}
