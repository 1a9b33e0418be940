//! What is shown while a run goes on.

use indicatif::{ProgressBar, ProgressStyle};
use std::cell::Cell;
use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

/// Where stderr is no terminal, a line is written this often.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// A line that changes; where stderr is no terminal, a new line now and then.
pub struct Progress {
    bar: ProgressBar,
    name: String,
    plain: bool,
    said: Cell<Instant>,
}

impl Progress {
    /// For a server of that name.
    pub fn new(name: &str) -> Self {
        let bar = ProgressBar::new(1);
        if let Ok(style) = ProgressStyle::with_template("{prefix} [{bar:30}] {human_pos}/{human_len} {msg}") {
            bar.set_style(style.progress_chars("=> "));
        }
        Self { bar, name: name.to_owned(), plain: !stderr().is_terminal(), said: Cell::new(Instant::now()) }
    }

    /// How far a step is.
    pub fn show(&self, step: &str, at: u64, of: u64, text: &str) {
        if self.plain {
            if self.said.get().elapsed() >= LINE_EVERY {
                self.said.set(Instant::now());
                eprintln!("{}: {step}: {at}/{of} {text}", self.name);
            }
            return;
        }
        self.bar.set_length(of.max(1));
        self.bar.set_position(at.min(of));
        self.bar.set_prefix(format!("{}: {step}", self.name));
        self.bar.set_message(text.to_owned());
    }

    /// Takes the line away.
    pub fn done(&self) {
        self.bar.finish_and_clear();
    }
}
