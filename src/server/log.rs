//! Log lines on their way to stderr, written by a thread of their own: whoever reads them may be slow, stopped or gone,
//! and nobody who logs waits for it.
//!
//! Invariant: what is not written is bounded; a line for which there is no room is dropped, and the gap is told.

use super::log_format::Form;
use crossbeam_channel::{Receiver, Sender, bounded};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tracing::Level;

/// Lines that may wait.
const LINES_MAX: usize = 1024;
/// How long the end of the process waits for the last ones.
const FINISH_MAX: Duration = Duration::from_secs(1);

/// The log, as those who write to it hold it.
#[derive(Clone)]
pub struct Log {
    entries: Sender<Entry>,
    dropped: Arc<AtomicU64>,
}

enum Entry {
    Line(Box<[u8]>),
    /// Answered when everything before it was written.
    Finish(Sender<()>),
}

impl Log {
    /// A log to stderr; `form` is that of its own lines. Errors: no descriptor, or no thread, is free.
    pub fn to_stderr(form: Form) -> io::Result<Self> {
        // A descriptor of its own: a panic takes the lock of `io::stderr`, which a stuck writer would hold.
        Self::to(File::from(io::stderr().as_fd().try_clone_to_owned()?), form)
    }

    fn to(out: impl Write + Send + 'static, form: Form) -> io::Result<Self> {
        let (sender, entries) = bounded(LINES_MAX);
        let log = Self { entries: sender, dropped: Arc::default() };
        let dropped = Arc::clone(&log.dropped);
        std::thread::Builder::new().name("log".into()).spawn(move || write_out(&entries, &dropped, out, form))?;
        Ok(log)
    }

    /// Waits, a second at most, until everything is written.
    pub fn finish(&self) {
        let (done, finished) = bounded(1);
        if self.entries.send_timeout(Entry::Finish(done), FINISH_MAX).is_ok() {
            // In vain where nobody reads: then nobody misses it.
            let _ = finished.recv_timeout(FINISH_MAX);
        }
    }
}

impl Write for Log {
    /// Takes a whole line: tracing writes each in one piece.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.entries.try_send(Entry::Line(one_line(line))).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What somebody else worded (an error of the system, of Redis) may have several lines: an event is one.
fn one_line(line: &[u8]) -> Box<[u8]> {
    let mut line: Box<[u8]> = line.into();
    if let Some((_end, text)) = line.split_last_mut() {
        text.iter_mut().filter(|byte| **byte == b'\n').for_each(|byte| *byte = b' ');
    }
    line
}

fn write_out(entries: &Receiver<Entry>, dropped: &AtomicU64, mut out: impl Write, form: Form) {
    for entry in entries {
        // A line that cannot be written (a full disk, a reader that is gone) is lost; the next one is tried.
        let _ = match entry {
            Entry::Line(line) => out.write_all(&line),
            Entry::Finish(done) => {
                let _ = done.send(());
                Ok(())
            }
        };
        match dropped.swap(0, Ordering::Relaxed) {
            0 => {}
            lines => {
                let gap = form.line(Level::WARN, &format!("{lines} log lines found no room while nobody read them"));
                drop(out.write_all(gap.as_bytes()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    /// Writes only while nobody holds the lock.
    struct Held(Arc<Mutex<Vec<u8>>>);

    impl Write for Held {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn whoever_logs_does_not_wait_for_whoever_reads_and_the_gap_is_told() {
        let written = Arc::default();
        let mut log = Log::to(Held(Arc::clone(&written)), Form::Text).unwrap();
        let held = written.lock().unwrap();
        for _ in 0..2 * LINES_MAX {
            log.write_all(b"a\nline\n").unwrap();
        }
        drop(held);
        log.finish();
        let text = String::from_utf8(written.lock().unwrap().clone()).unwrap();
        let lines = text.lines().filter(|line| *line == "a line").count();
        let told: usize = text.lines().find_map(|line| line.split(' ').nth(1)?.parse().ok()).unwrap();
        assert_eq!(lines + told, 2 * LINES_MAX);
    }

    #[test]
    fn a_log_that_refuses_every_line_is_no_error() {
        let mut log = Log::to(File::options().write(true).open("/dev/full").unwrap(), Form::Text).unwrap();
        log.write_all(b"line\n").unwrap();
        log.finish();
        log.write_all(b"line\n").unwrap();
        log.finish();
    }
}
