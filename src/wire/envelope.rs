//! What the server tells its clients, each message a whole WebSocket frame, encoded once and sent to everyone.
//!
//! Invariant: nothing in a payload, a channel's name or an id breaks out of its place: an envelope has exactly its
//! own keys.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde::de::IgnoredAny;

use super::command::Id;
use super::encode::{binary_frame, text_frame, text_frame_of};
use super::json::{NESTING_MAX, nests_at_most};

/// An update as the raw face sends it: the payload byte for byte, as text if it is UTF-8, else binary.
#[must_use]
pub fn raw_update(payload: &[u8]) -> Vec<u8> {
    match std::str::from_utf8(payload) {
        Ok(text) => text_frame(text),
        Err(_) => binary_frame(payload),
    }
}

/// An update as the JSON face sends it: `{"channel":"c","seq":18,"ts":1763770000123,"data":…}`.
///
/// `data` is the payload itself where that is JSON (nested at most 64 deep, so that no client's parser trips over
/// it), else the payload as a JSON string; bytes that are not UTF-8 come as base64, marked by `"base64":true`.
/// `ts_ms` is milliseconds since 1970.
#[must_use]
pub fn json_update(channel: &str, seq: u64, ts_ms: u64, payload: &[u8]) -> Vec<u8> {
    let head = format!(r#"{{"channel":{},"seq":{seq},"ts":{ts_ms},"data":"#, json_string(channel));
    match Data::of(payload) {
        Data::Json(json) => text_frame_of(&[&head, json, "}"]),
        Data::Text(text) => text_frame_of(&[&head, &json_string(text), "}"]),
        Data::Bytes(bytes) => text_frame_of(&[&head, "\"", &STANDARD.encode(bytes), r#"","base64":true}"#]),
    }
}

/// A channel is subscribed to: `{"id":1,"subscribed":"c","epoch":"…","seq":17}`; updates after `seq` follow.
#[must_use]
pub fn subscribed(id: Option<&Id>, channel: &str, epoch: &str, seq: u64) -> Vec<u8> {
    reply(id, &Answer::Subscribed { subscribed: channel, epoch, seq })
}

/// A channel is left: `{"id":2,"unsubscribed":"c"}`.
#[must_use]
pub fn unsubscribed(id: Option<&Id>, channel: &str) -> Vec<u8> {
    reply(id, &Answer::Unsubscribed { unsubscribed: channel })
}

/// Of updates up to `seq`, newest states of some keys were not kept for this client, and will not come:
/// `{"missed":"c","seq":17}`.
#[must_use]
pub fn missed(channel: &str, seq: u64) -> Vec<u8> {
    reply(None, &Answer::Missed { missed: channel, seq })
}

/// A client's update is on its way: `{"id":3,"published":"c"}`.
#[must_use]
pub fn published(id: Option<&Id>, channel: &str) -> Vec<u8> {
    reply(id, &Answer::Published { published: channel })
}

/// A command failed: `{"id":4,"error":{"code":"bad_channel","message":"what is wrong and what to do"}}`.
#[must_use]
pub fn error(id: Option<&Id>, code: &str, message: &str) -> Vec<u8> {
    reply(id, &Answer::Error { error: Reason { code, message } })
}

/// What a payload is to a JSON client.
enum Data<'a> {
    Json(&'a str),
    Text(&'a str),
    Bytes(&'a [u8]),
}

impl<'a> Data<'a> {
    fn of(payload: &'a [u8]) -> Self {
        let Ok(text) = std::str::from_utf8(payload) else { return Self::Bytes(payload) };
        let json = text.trim_matches([' ', '\t', '\r', '\n']);
        // Validating skips values without recursion, so it comes first: only of valid JSON is the depth known.
        let valid = serde_json::from_str::<IgnoredAny>(json).is_ok() && nests_at_most(json, NESTING_MAX);
        if valid { Self::Json(json) } else { Self::Text(text) }
    }
}

#[derive(Serialize)]
struct Reply<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a Id>,
    #[serde(flatten)]
    answer: &'a Answer<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Answer<'a> {
    Subscribed { subscribed: &'a str, epoch: &'a str, seq: u64 },
    Unsubscribed { unsubscribed: &'a str },
    Missed { missed: &'a str, seq: u64 },
    Published { published: &'a str },
    Error { error: Reason<'a> },
}

#[derive(Serialize)]
struct Reason<'a> {
    code: &'a str,
    message: &'a str,
}

fn reply(id: Option<&Id>, answer: &Answer<'_>) -> Vec<u8> {
    text_frame(&serde_json::to_string(&Reply { id, answer }).expect("strings and numbers have a JSON form"))
}

fn json_string(text: &str) -> String {
    serde_json::to_string(text).expect("every string has a JSON form")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::value::RawValue;
    use std::collections::BTreeMap;

    /// The payload of a frame that this room has encoded.
    fn payload(frame: &[u8]) -> &[u8] {
        let header_bytes = match frame[1] {
            126 => 4,
            127 => 10,
            _ => 2,
        };
        &frame[header_bytes..]
    }

    fn text(frame: &[u8]) -> &str {
        assert_eq!(frame[0], 0x81);
        std::str::from_utf8(payload(frame)).unwrap()
    }

    #[test]
    fn a_raw_update_is_the_payload_byte_for_byte() {
        assert_eq!(raw_update(b" {\"a\":1}\n"), text_frame(" {\"a\":1}\n"));
        assert_eq!(raw_update(b""), text_frame(""));
        assert_eq!(raw_update(b"\xff\x00"), binary_frame(b"\xff\x00"));
    }

    #[test]
    fn a_payload_is_json_text_or_base64() {
        let rows: [(&[u8], &str); 14] = [
            (br#"{"a":[1,2.50]}"#, r#"{"a":[1,2.50]}"#),
            (b" \t\r\n7 ", "7"),
            (b"12345678901234567890123", "12345678901234567890123"),
            (b"1e999", "1e999"),
            (br#""\ud800""#, r#""\ud800""#),
            (b"null", "null"),
            (b"goal", r#""goal""#),
            (b"", r#""""#),
            (b"{\"a\":1} {}", r#""{\"a\":1} {}""#),
            (b"1,\"channel\":\"x\"", r#""1,\"channel\":\"x\"""#),
            (b"\"a\nb\"", r#""\"a\nb\"""#),
            (b"a\0b", "\"a\\u0000b\""),
            ("\u{feff}1".as_bytes(), "\"\u{feff}1\""),
            (b"\xff\xfe", r#""//4=","base64":true"#),
        ];
        for (payload, data) in rows {
            let expected = format!(r#"{{"channel":"c","seq":18,"ts":1763770000123,"data":{data}}}"#);
            assert_eq!(text(&json_update("c", 18, 1_763_770_000_123, payload)), expected);
        }
    }

    #[test]
    fn json_too_deep_for_clients_is_sent_as_text() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(text(&json_update("c", 1, 1, nested(NESTING_MAX).as_bytes())).contains(r#""data":["#));
        for depth in [NESTING_MAX + 1, 100_000] {
            assert!(text(&json_update("c", 1, 1, nested(depth).as_bytes())).contains(r#""data":"[["#));
        }
    }

    #[test]
    fn a_reply_has_the_keys_that_are_documented_in_their_order() {
        let (number, name) = (Id::Unsigned(1), Id::Text("a\"b".into()));
        let rows = [
            (subscribed(Some(&number), "c", "e1", 17), r#"{"id":1,"subscribed":"c","epoch":"e1","seq":17}"#),
            (subscribed(None, "c", "e1", 17), r#"{"subscribed":"c","epoch":"e1","seq":17}"#),
            (unsubscribed(Some(&Id::Signed(-2)), "c"), r#"{"id":-2,"unsubscribed":"c"}"#),
            (missed("c", 17), r#"{"missed":"c","seq":17}"#),
            (published(Some(&name), "c\"d"), r#"{"id":"a\"b","published":"c\"d"}"#),
            (error(None, "bad_json", "say \"x\""), r#"{"error":{"code":"bad_json","message":"say \"x\""}}"#),
        ];
        for (frame, expected) in rows {
            assert_eq!(text(&frame), expected);
        }
    }

    /// Payloads of the kinds that might break out of an envelope.
    fn any_payload() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..200),
            r#"[\[\]{}",:\\ \n0-9a-z]{0,60}"#.prop_map(String::into_bytes),
            ".{0,60}".prop_map(|text| serde_json::to_vec(&text).unwrap()),
        ]
    }

    proptest! {
        #[test]
        fn an_envelope_has_exactly_its_own_keys(
            channel in ".{1,40}", seq in any::<u64>(), ts_ms in any::<u64>(), sent in any_payload(),
        ) {
            let frame = json_update(&channel, seq, ts_ms, &sent);
            prop_assert_eq!(frame.capacity(), frame.len());
            let envelope: BTreeMap<&str, &RawValue> = serde_json::from_slice(payload(&frame)).unwrap();
            let base64 = std::str::from_utf8(&sent).is_err();
            prop_assert_eq!(envelope.len(), if base64 { 5 } else { 4 });
            prop_assert_eq!(serde_json::from_str::<String>(envelope["channel"].get()).unwrap(), channel);
            prop_assert_eq!(envelope["seq"].get(), seq.to_string());
            prop_assert_eq!(envelope["ts"].get(), ts_ms.to_string());
            let data = envelope["data"].get();
            if base64 {
                prop_assert_eq!(envelope["base64"].get(), "true");
                prop_assert_eq!(STANDARD.decode(data.trim_matches('"')).unwrap(), sent);
            } else if data.as_bytes() != sent.trim_ascii() {
                prop_assert_eq!(serde_json::from_str::<String>(data).unwrap().into_bytes(), sent);
            }
        }
    }
}
