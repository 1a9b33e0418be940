//! What the service manager is told (sd_notify(3)): ready, what the state is, alive, stopping. Without NOTIFY_SOCKET,
//! nothing.
//!
//! Invariant: nobody waits for the service manager. A thread of its own writes to the socket; where that thread is held
//! up, the newest words find no room and are lost, and the next ones are as good.
//! Invariant: only whoever has looked after the threads that serve calls [`Supervisor::alive`].

use anyhow::{Context, bail};
use crossbeam_channel::{Sender, bounded};
use sd_notify::NotifyState;
use std::io;
use std::time::{Duration, Instant};

/// Words that may wait for the service manager.
const WORDS_MAX: usize = 16;
/// How often the line of `systemctl status` may change.
const STATUS_EVERY: Duration = Duration::from_secs(2);
/// The shortest limit of a watchdog that makes sense: threads show ten times a second that they live, and half of the limit
/// without a sign is a hang.
const WATCHDOG_MIN: Duration = Duration::from_millis(500);
/// What the end of the process takes beyond the drain.
const END_MAX: Duration = Duration::from_secs(5);

/// The service manager, if there is one.
pub struct Supervisor {
    words: Option<Sender<Word>>,
    /// How long it waits for a sign of life before it ends this process and starts another.
    watchdog: Option<Duration>,
    alive_at: Option<Instant>,
    status: String,
    status_at: Option<Instant>,
}

enum Word {
    Ready,
    Status(String),
    Alive,
    /// With the time that it may take.
    Stopping(Duration),
}

impl Supervisor {
    /// The one that the environment tells of. Errors: its watchdog's limit is too short; its thread cannot be started.
    pub fn of_environment() -> anyhow::Result<Self> {
        let is_managed = std::env::var_os("NOTIFY_SOCKET").is_some();
        let watchdog = sd_notify::watchdog_enabled().filter(|limit| is_managed && !limit.is_zero());
        if let Some(limit) = watchdog.filter(|limit| *limit < WATCHDOG_MIN) {
            bail!(
                "WatchdogSec= (WATCHDOG_USEC) is {limit:?}, too short to tell a busy machine from a hang: make it \
                 {WATCHDOG_MIN:?} or more, as spillgate.service has it 10s"
            );
        }
        let speaker = || speaker().context("the thread for the service manager");
        let words = is_managed.then(speaker).transpose()?;
        Ok(Self { words, watchdog, alive_at: None, status: String::new(), status_at: None })
    }

    /// How long a thread may be without a sign of life while this process counts as alive: half of the watchdog's
    /// limit, for the other half is the pace of our own signs.
    pub fn patience(&self) -> Option<Duration> {
        self.watchdog.map(|limit| limit / 2)
    }

    /// Everyone who serves does so.
    pub fn ready(&mut self) {
        self.say(Word::Ready);
        self.alive();
    }

    /// Says in a line how things are, where that has changed, every two seconds at most.
    pub fn status(&mut self, text: String) {
        let is_due = self.status_at.is_none_or(|at| at.elapsed() >= STATUS_EVERY);
        if self.words.is_some() && is_due && self.status != text {
            self.status.clone_from(&text);
            self.status_at = Some(Instant::now());
            self.say(Word::Status(text));
        }
    }

    /// Gives a sign of life, where one is due: at half of the watchdog's limit (sd_watchdog_enabled(3)).
    pub fn alive(&mut self) {
        let Some(limit) = self.watchdog else { return };
        if self.alive_at.is_none_or(|at| at.elapsed() >= limit * 2 / 5) {
            self.alive_at = Some(Instant::now());
            self.say(Word::Alive);
        }
    }

    /// The gateway leaves; it may take as long as its drain.
    pub fn stopping(&mut self, drain: Duration) {
        self.say(Word::Stopping(drain + END_MAX));
    }

    fn say(&self, word: Word) {
        if let Some(words) = &self.words {
            let _ = words.try_send(word); // see the invariant
        }
    }
}

fn speaker() -> io::Result<Sender<Word>> {
    let (sender, words) = bounded(WORDS_MAX);
    let speak = move || {
        let mut was_told = true;
        for word in words {
            let said = match word {
                Word::Ready => sd_notify::notify(&[NotifyState::Ready]),
                Word::Status(text) => sd_notify::notify(&[NotifyState::Status(&text)]),
                Word::Alive => sd_notify::notify(&[NotifyState::Watchdog]),
                Word::Stopping(within) => {
                    let within_us = u32::try_from(within.as_micros()).unwrap_or(u32::MAX);
                    sd_notify::notify(&[NotifyState::Stopping, NotifyState::ExtendTimeoutUsec(within_us)])
                }
            };
            match &said {
                Err(error) if was_told => tracing::warn!(%error, "the service manager cannot be told (NOTIFY_SOCKET)"),
                _ => {}
            }
            was_told = said.is_ok();
        }
    };
    std::thread::Builder::new().name("systemd".into()).spawn(speak)?;
    Ok(sender)
}
