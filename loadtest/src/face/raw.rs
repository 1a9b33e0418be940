//! The raw face: one channel, the payload byte for byte.

use super::{Face, Message};

/// See the module.
pub struct Raw;

impl Face for Raw {
    fn path(&self, channels: &[String]) -> String {
        format!("/raw/{}", channels.first().map_or("", String::as_str))
    }

    fn read<'a>(&self, message: &'a [u8]) -> Message<'a> {
        Message::Update(message.into())
    }

    fn channels_max(&self) -> u32 {
        1
    }
}
