//! The JSON face: `{"channel":"a","seq":18,"ts":1763770000123,"data":…}` for each of many channels.

use super::{Face, Message};

const UPDATE: &[u8] = b"{\"channel\":";
const DATA: &[u8] = b",\"data\":";
const SUBSCRIBED: &[u8] = b"{\"subscribed\":";

/// See the module.
pub struct Json;

impl Face for Json {
    fn path(&self, channels: &[String]) -> String {
        format!("/ws?channels={}", channels.join(","))
    }

    fn read<'a>(&self, message: &'a [u8]) -> Message<'a> {
        if message.starts_with(SUBSCRIBED) {
            return Message::Notice;
        }
        let data = || {
            let rest = message.strip_prefix(UPDATE)?.strip_suffix(b"}")?;
            let at = rest.windows(DATA.len()).position(|window| window == DATA)?;
            Some(&rest[at + DATA.len()..])
        };
        data().map_or(Message::Wrong, |data| Message::Update(data.into()))
    }

    fn channels_max(&self) -> u32 {
        100
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_payload_is_found_in_its_envelope() {
        let update = br#"{"channel":"a","seq":18,"ts":1763770000123,"data":{"n":1}}"#;
        assert_eq!(Json.read(update), Message::Update(br#"{"n":1}"#.into()));
        assert_eq!(Json.read(br#"{"subscribed":"a","epoch":"x","seq":17}"#), Message::Notice);
        assert_eq!(Json.read(br#"{"error":{"code":"bad_channel"}}"#), Message::Wrong);
    }
}
