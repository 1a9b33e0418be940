//! The Pusher protocol, as much of it as a subscriber reads: `data` of the event `update` is the payload, as a string.

use super::{Face, Message};
use serde::Deserialize;
use std::borrow::Cow;

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow)]
    event: Cow<'a, str>,
    #[serde(borrow, default)]
    data: Option<&'a serde_json::value::RawValue>,
}

/// See the module.
pub struct Pusher;

impl Face for Pusher {
    fn path(&self, _channels: &[String]) -> String {
        "/app/peer?protocol=7&client=spillgate&version=1".to_owned()
    }

    fn read<'a>(&self, message: &'a [u8]) -> Message<'a> {
        match serde_json::from_slice::<Event<'_>>(message) {
            Ok(Event { event, data: Some(data) }) if event == "update" => {
                let text = serde_json::from_str::<String>(data.get());
                Message::Update(
                    text.map_or_else(|_| Cow::Borrowed(data.get().as_bytes()), |text| text.into_bytes().into()),
                )
            }
            Ok(Event { event, .. }) if event.starts_with("pusher") => Message::Notice,
            _ => Message::Wrong,
        }
    }

    fn channels_max(&self) -> u32 {
        1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_payload_is_the_string_in_data() {
        let update = br#"{"event":"update","channel":"c","data":"{\"n\":1}"}"#;
        assert_eq!(Pusher.read(update), Message::Update(br#"{"n":1}"#.into()));
        let established = br#"{"event":"pusher:connection_established","data":"{}"}"#;
        assert_eq!(Pusher.read(established), Message::Notice);
        assert_eq!(Pusher.read(b"{}"), Message::Wrong);
    }
}
