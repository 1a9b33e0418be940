//! Centrifugo's unidirectional WebSocket: `pub.data` is the payload.

use super::{Face, Message};
use serde::Deserialize;
use serde_json::value::RawValue;

#[derive(Deserialize)]
struct Push<'a> {
    #[serde(borrow, default, rename = "pub")]
    publication: Option<Publication<'a>>,
}

#[derive(Deserialize)]
struct Publication<'a> {
    #[serde(borrow)]
    data: &'a RawValue,
}

/// See the module.
pub struct Centrifugo;

impl Face for Centrifugo {
    fn path(&self, _channels: &[String]) -> String {
        "/connection/uni_websocket".to_owned()
    }

    fn read<'a>(&self, message: &'a [u8]) -> Message<'a> {
        match serde_json::from_slice::<Push<'_>>(message) {
            Ok(Push { publication: Some(publication) }) => Message::Update(publication.data.get().as_bytes().into()),
            Ok(_) => Message::Notice,
            Err(_) => Message::Wrong,
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
    fn the_payload_is_the_data_of_a_publication() {
        assert_eq!(
            Centrifugo.read(br#"{"channel":"c","pub":{"data":{"n":1}}}"#),
            Message::Update(br#"{"n":1}"#.into())
        );
        assert_eq!(Centrifugo.read(br#"{"connect":{"client":"x"}}"#), Message::Notice);
    }
}
