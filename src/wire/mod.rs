//! Room `wire`.

/// Stub until the room is merged.
#[must_use]
pub fn raw_update(payload: &[u8]) -> Vec<u8> {
    payload.to_vec()
}

/// Stub until the room is merged.
#[must_use]
pub fn json_update(channel: &str, seq: u64, ts_ms: u64, payload: &[u8]) -> Vec<u8> {
    let payload = String::from_utf8_lossy(payload);
    format!("{channel}|{seq}|{ts_ms}|{payload}").into_bytes()
}
