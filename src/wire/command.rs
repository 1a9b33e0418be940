//! What a client asks for on the JSON face: one JSON object a message.
//!
//! ```json
//! {"id":1,"subscribe":"scores"}
//! {"id":2,"unsubscribe":"scores"}
//! {"id":3,"publish":"scores","data":{"home":1}}
//! ```
//! Invariant: what is published is the JSON text of `data`, byte for byte as the client wrote it.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::channel::check_channel;
use super::encode::cut;
use super::fields::{Fields, Scalar};
use super::json::{NESTING_MAX, nests_at_most};
use crate::config::Limits;

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Updates of a channel, from now on.
    Subscribe {
        /// Repeated in the reply.
        id: Option<Id>,
        /// The channel, its name checked.
        channel: Box<str>,
    },
    /// No more updates of a channel.
    Unsubscribe {
        /// Repeated in the reply.
        id: Option<Id>,
        /// The channel, its name checked.
        channel: Box<str>,
    },
    /// An update for everyone on a channel.
    Publish {
        /// Repeated in the reply.
        id: Option<Id>,
        /// The channel, its name checked.
        channel: Box<str>,
        /// The update: JSON, as the client wrote it.
        data: Vec<u8>,
    },
}

/// By what a client tells the reply to one command from the reply to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Id {
    /// A whole number from 0.
    Unsigned(u64),
    /// A negative one.
    Signed(i64),
    /// A string of at most [`ID_BYTES_MAX`] bytes.
    Text(Box<str>),
}

/// Bytes of an id that is a string.
pub const ID_BYTES_MAX: usize = 64;

/// Why a command is refused; to be told to the client, which may go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct CommandError {
    /// The command's id, if it could be read.
    pub id: Option<Id>,
    /// What is wrong, for programs: `bad_json`, `bad_command`, `bad_id` or `bad_channel`.
    pub code: &'static str,
    /// What is wrong and what to do, for people.
    pub message: String,
}

/// Shown with every command that is not understood.
const EXAMPLES: &str =
    r#"send {"subscribe":"c"}, {"unsubscribe":"c"} or {"publish":"c","data":…}, each with an "id" if you like"#;

/// Bytes of a client's own words that are shown to it again.
const SHOWN_BYTES_MAX: usize = 40;

/// Reads one command.
///
/// # Errors
/// What is wrong with it, and its id if that much could be read.
pub fn parse(text: &str, limits: &Limits) -> Result<Command, CommandError> {
    let Fields { id, verb, data, repeated, unknown } =
        fields(text).map_err(|message| fault(None, "bad_json", message))?;
    if repeated == Some("id") {
        return Err(fault(None, "bad_id", r#"there are two "id": send one"#));
    }
    let id = id.map(Id::try_from).transpose().map_err(|message| fault(None, "bad_id", message))?;
    let bad_command = |message: String| fault(id.clone(), "bad_command", message);
    if let Some(key) = repeated {
        return Err(bad_command(format!(
            r#"there are several verbs or two "{key}" in one command: send one a message"#
        )));
    }
    if let Some(key) = unknown {
        return Err(bad_command(format!("unknown key {:?}: {EXAMPLES}", cut(&key, SHOWN_BYTES_MAX))));
    }
    let Some((verb, channel)) = verb else {
        return Err(bad_command(format!("nothing is asked for: {EXAMPLES}")));
    };
    let Scalar::Text(channel) = channel else {
        return Err(bad_command(format!(r#"{:?} takes a channel's name, a string: {EXAMPLES}"#, verb.name())));
    };
    match (verb, data) {
        (Verb::Publish, false) => return Err(bad_command(format!(r#""publish" without "data": {EXAMPLES}"#))),
        (Verb::Subscribe | Verb::Unsubscribe, true) => {
            return Err(bad_command(format!(r#""data" goes with "publish" alone: {EXAMPLES}"#)));
        }
        _ => {}
    }
    check_channel(&channel, limits).map_err(|what| fault(id.clone(), "bad_channel", what.to_string()))?;
    let channel = channel.into_boxed_str();
    Ok(match verb {
        Verb::Subscribe => Command::Subscribe { id, channel },
        Verb::Unsubscribe => Command::Unsubscribe { id, channel },
        Verb::Publish => {
            let data = written_data(text).map_err(|message| fault(id.clone(), "bad_json", message))?;
            Command::Publish { id, channel, data }
        }
    })
}

/// What the client asks for, by the key that it uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Subscribe,
    Unsubscribe,
    Publish,
}

impl Verb {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Subscribe => "subscribe",
            Self::Unsubscribe => "unsubscribe",
            Self::Publish => "publish",
        }
    }
}

impl TryFrom<Scalar> for Id {
    type Error = &'static str;

    fn try_from(id: Scalar) -> Result<Self, Self::Error> {
        match id {
            Scalar::Unsigned(number) => Ok(Self::Unsigned(number)),
            Scalar::Signed(number) => Ok(Self::Signed(number)),
            Scalar::Text(text) if text.len() <= ID_BYTES_MAX => Ok(Self::Text(text.into_boxed_str())),
            Scalar::Text(_) => Err(r#"the "id" is too long: use at most 64 bytes"#),
            Scalar::Other => {
                Err(r#"the "id" is neither a whole number of 64 bits nor a string: use one of them, or none"#)
            }
        }
    }
}

fn fault(id: Option<Id>, code: &'static str, message: impl Into<String>) -> CommandError {
    CommandError { id, code, message: message.into() }
}

/// The keys of the object that `text` is.
fn fields(text: &str) -> Result<Fields, String> {
    // The object itself is one level; both parsers walk what is inside by recursion, so the depth is bounded before
    // either sees it.
    if !nests_at_most(text, NESTING_MAX + 1) {
        return Err(format!("nested too deep: use at most {NESTING_MAX} levels"));
    }
    // simd-json unescapes in place, hence the copy.
    if let Ok(fields) = simd_json::from_slice(&mut text.as_bytes().to_vec()) {
        return Ok(fields);
    }
    // simd-json refuses numbers beyond 64 bits and lone surrogates, which browsers do write (and `data` may hold);
    // serde_json passes over both. Where it refuses too, it says where and why.
    serde_json::from_str(text).map_err(|error| format!("not a command in JSON ({error}): {EXAMPLES}"))
}

/// The text of `data` as it was written. serde_json finds it: simd-json keeps no place of a value.
fn written_data(text: &str) -> Result<Vec<u8>, String> {
    #[derive(Deserialize)]
    struct Publish<'a> {
        #[serde(borrow)]
        data: &'a RawValue,
    }
    let publish: Publish<'_> = serde_json::from_str(text).map_err(|error| format!("not JSON ({error}): correct it"))?;
    Ok(publish.data.get().as_bytes().to_vec())
}

#[cfg(test)]
mod tests;
