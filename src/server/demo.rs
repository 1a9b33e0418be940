//! `spillgate demo`: the embedded engine, a simulated match, and a page that shows it.

use super::demo_match::{DemoMatch, TICKS_PER_SECOND};
use crate::source::Handle;
use std::io;
use std::time::{Duration, Instant};

/// The page, served at `/`.
pub const PAGE: &[u8] = include_bytes!("demo.html");

/// Plays matches for as long as the process lives.
///
/// # Errors
/// The thread cannot be started.
pub fn play(source: Handle) -> io::Result<()> {
    let play = move || {
        let mut game = DemoMatch::with_seed(fastrand::u64(..));
        let tick = Duration::from_secs(1) / TICKS_PER_SECOND;
        let mut due = Instant::now();
        loop {
            for (channel, payload) in game.tick() {
                if let Err(error) = source.publish_blocking(channel, payload) {
                    tracing::debug!(channel, %error, "a demo update was not published");
                }
            }
            due += tick;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
    };
    std::thread::Builder::new().name("demo".into()).spawn(play).map(drop)
}
