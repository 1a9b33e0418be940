//! Nothing in a channel's name or a payload breaks out of an envelope, and the payload comes back out of it.

#![no_main]

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use libfuzzer_sys::fuzz_target;
use serde_json::value::RawValue;
use spillgate::wire::envelope::{json_update, raw_update};
use std::collections::BTreeMap;

fuzz_target!(|input: (&str, u64, u64, &[u8])| {
    let (channel, seq, ts_ms, sent) = input;
    let frame = json_update(channel, seq, ts_ms, sent);
    let (opcode, json) = unframed(&frame);
    assert_eq!(opcode, 1);
    let envelope: BTreeMap<&str, &RawValue> = serde_json::from_slice(json).expect("an envelope");
    let base64 = std::str::from_utf8(sent).is_err();
    let keys: &[&str] =
        if base64 { &["base64", "channel", "data", "seq", "ts"] } else { &["channel", "data", "seq", "ts"] };
    assert!(envelope.keys().eq(keys));
    // A map hides a key that comes twice: nothing but the parts may be there.
    let parts: usize = envelope.iter().map(|(key, value)| key.len() + 4 + value.get().len()).sum();
    assert_eq!(json.len(), parts + 1);
    assert_eq!(serde_json::from_str::<String>(envelope["channel"].get()).expect("a string"), channel);
    assert_eq!((envelope["seq"].get(), envelope["ts"].get()), (&*seq.to_string(), &*ts_ms.to_string()));

    let data = envelope["data"].get();
    if base64 {
        assert_eq!(STANDARD.decode(data.trim_matches('"')).expect("base64"), sent);
    } else if data.as_bytes() != sent.trim_ascii() {
        assert_eq!(serde_json::from_str::<String>(data).expect("a string").as_bytes(), sent);
    }

    let raw = raw_update(sent);
    assert_eq!(unframed(&raw), (if base64 { 2 } else { 1 }, sent));
});

/// The opcode and the payload of a final, unmasked frame.
fn unframed(frame: &[u8]) -> (u8, &[u8]) {
    assert_eq!(frame[0] & 0xf0, 0x80);
    let header_bytes = match frame[1] {
        0..126 => 2,
        126 => 4,
        _ => 10,
    };
    (frame[0] & 0x0f, &frame[header_bytes..])
}
