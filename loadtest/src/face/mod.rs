//! The ways in which a client asks for channels and gets updates. A face is one small file: a request line, and where in
//! a message the payload is.

mod centrifugo;
mod json;
mod pusher;
mod raw;

use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// What a message means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// An update: its payload.
    Update(Cow<'a, [u8]>),
    /// An answer or a notice, which carries no update.
    Notice,
    /// Nothing that this face may send.
    Wrong,
}

/// See the module.
pub trait Face: Sync {
    /// The path and query for some channels, by name.
    fn path(&self, channels: &[String]) -> String;
    /// What a message means.
    fn read<'a>(&self, message: &'a [u8]) -> Message<'a>;
    /// Channels that one connection may ask for.
    fn channels_max(&self) -> u32;
}

/// The faces there are, by the name that a scenario uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FaceName {
    /// `GET /raw/{channel}`: the payload as published.
    #[default]
    Raw,
    /// `GET /ws?channels=a,b`: envelopes.
    Json,
    /// The Pusher protocol, of peers.
    Pusher,
    /// Centrifugo's unidirectional WebSocket, of peers.
    Centrifugo,
}

impl FaceName {
    /// The face.
    pub fn face(self) -> &'static dyn Face {
        match self {
            Self::Raw => &raw::Raw,
            Self::Json => &json::Json,
            Self::Pusher => &pusher::Pusher,
            Self::Centrifugo => &centrifugo::Centrifugo,
        }
    }
}
