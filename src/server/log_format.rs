//! How log lines look: for people, for journald, or as JSON; and which of them stderr wants.
//!
//! journald gets plain lines with the priority in front, `<4>…` (sd-daemon(3)), which it takes off: `journalctl -p warning`
//! works, and so does every other reader of stderr. Its native protocol would bring a field for each value, but on a
//! socket of its own that is not there in containers, and past the one thread that may wait.

use crate::config::LogFormat;
use serde_json::json;
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::{Format, Full, Writer};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// What a line looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Time, level, message; coloured where stderr is a terminal.
    Text,
    /// Priority and message: journald knows the time.
    Journald,
    /// One JSON object.
    Json,
}

impl Form {
    /// What is asked for; `auto` looks whether `stderr` leads to journald, which says so in JOURNAL_STREAM.
    pub fn new(asked: LogFormat, stderr: impl AsFd, journal_stream: Option<&OsStr>) -> Self {
        match asked {
            LogFormat::Text => Self::Text,
            LogFormat::Json => Self::Json,
            LogFormat::Journald => Self::Journald,
            LogFormat::Auto if is_journal(stderr, journal_stream) => Self::Journald,
            LogFormat::Auto => Self::Text,
        }
    }

    /// A line for what cannot go through tracing: a panic, a gap in the log, a refusal before the log is there.
    pub fn line(self, level: Level, message: &str) -> String {
        let message = message.trim_end().replace('\n', " ");
        match self {
            Self::Text => format!("spillgate: {message}\n"),
            Self::Journald => format!("<{}>{message}\n", priority(level)),
            Self::Json => {
                let mut timestamp = String::new();
                let _ = SystemTime.format_time(&mut Writer::new(&mut timestamp)); // a String takes everything
                format!("{}\n", json!({ "timestamp": timestamp, "level": level.as_str(), "message": message }))
            }
        }
    }
}

/// Whether `stderr` is the stream that JOURNAL_STREAM names by `device:inode` (systemd.exec(5)): a child of a service
/// inherits the variable also where its own stderr leads elsewhere.
fn is_journal(stderr: impl AsFd, journal_stream: Option<&OsStr>) -> bool {
    let named = journal_stream.and_then(OsStr::to_str).and_then(|named| named.split_once(':'));
    let Some((Ok(device), Ok(inode))) = named.map(|(device, inode)| (device.parse::<u64>(), inode.parse::<u64>()))
    else {
        return false;
    };
    let metadata = stderr.as_fd().try_clone_to_owned().and_then(|stderr| File::from(stderr).metadata());
    metadata.is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == (device, inode))
}

/// The priority of syslog(3) that journald files a line under.
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

/// Lines for journald.
pub struct JournaldLines(Format<Full, ()>);

impl JournaldLines {
    /// Message and values behind a priority.
    pub fn new() -> Self {
        Self(tracing_subscriber::fmt::format().with_target(false).with_level(false).with_ansi(false).without_time())
    }
}

impl<S, N> FormatEvent<S, N> for JournaldLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> std::fmt::Result {
        write!(writer, "<{}>", priority(*event.metadata().level()))?;
        self.0.format_event(context, writer, event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn journald_is_told_by_the_stream_that_stderr_is() {
        let stream = tempfile::tempfile().unwrap();
        let metadata = stream.metadata().unwrap();
        let (device, inode) = (metadata.dev(), metadata.ino());
        for (named, form) in [
            (Some(format!("{device}:{inode}")), Form::Journald),
            (Some(format!("{device}:{}", inode + 1)), Form::Text),
            (Some(format!("{}:{inode}", device + 1)), Form::Text),
            (Some("8:".to_owned()), Form::Text),
            (Some(String::new()), Form::Text),
            (None, Form::Text),
        ] {
            let named = named.as_deref().map(OsStr::new);
            assert_eq!(Form::new(LogFormat::Auto, &stream, named), form, "{named:?}");
            assert_eq!(Form::new(LogFormat::Json, &stream, named), Form::Json);
        }
    }

    #[test]
    fn a_line_is_one_line_in_every_form() {
        let message = "panicked at a.rs:1:2:\n\"why\"\n";
        assert_eq!(Form::Text.line(Level::ERROR, message), "spillgate: panicked at a.rs:1:2: \"why\"\n");
        assert_eq!(Form::Journald.line(Level::ERROR, message), "<3>panicked at a.rs:1:2: \"why\"\n");
        let json: serde_json::Value = serde_json::from_str(&Form::Json.line(Level::WARN, message)).unwrap();
        assert_eq!((&json["level"], &json["message"]), (&"WARN".into(), &"panicked at a.rs:1:2: \"why\"".into()));
        assert!(json["timestamp"].as_str().unwrap().ends_with('Z'));
    }
}
