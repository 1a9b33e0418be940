//! What is shown while a run goes on.

use indicatif::{ProgressBar, ProgressStyle};

/// A line that changes; nothing where stderr is no terminal.
pub struct Progress(ProgressBar, String);

impl Progress {
    /// For a server of that name.
    pub fn new(name: &str) -> Self {
        let bar = ProgressBar::new(1);
        if let Ok(style) = ProgressStyle::with_template("{prefix} [{bar:30}] {human_pos}/{human_len} {msg}") {
            bar.set_style(style.progress_chars("=> "));
        }
        Self(bar, name.to_owned())
    }

    /// How far a step is.
    pub fn show(&self, step: &str, at: u64, of: u64, text: &str) {
        let Self(bar, name) = self;
        bar.set_length(of.max(1));
        bar.set_position(at.min(of));
        bar.set_prefix(format!("{name}: {step}"));
        bar.set_message(text.to_owned());
    }

    /// Takes the line away.
    pub fn done(&self) {
        self.0.finish_and_clear();
    }
}
