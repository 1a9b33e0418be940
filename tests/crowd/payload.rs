//! Payloads that carry their own number, and show whether they arrived whole: `{"n":17,"pad":"rrr…"}`.

const NUMBER: &[u8] = b"{\"n\":";
const PAD: &[u8] = b",\"pad\":\"";
const END: &[u8] = b"\"}";

/// The payload with number `n`, of exactly `bytes` bytes.
pub fn numbered(n: u64, bytes: usize) -> Vec<u8> {
    let mut payload = [NUMBER, n.to_string().as_bytes(), PAD].concat();
    assert!(payload.len() + END.len() <= bytes, "{bytes} bytes do not hold a numbered payload");
    payload.resize(bytes - END.len(), pad(n));
    payload.extend_from_slice(END);
    payload
}

/// The number of a payload; none where a single byte of it is not as it was made.
pub fn number(payload: &[u8]) -> Option<u64> {
    let rest = payload.strip_prefix(NUMBER)?;
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let n = std::str::from_utf8(&rest[..digits]).ok()?.parse().ok()?;
    let padding = rest[digits..].strip_prefix(PAD)?.strip_suffix(END)?;
    padding.iter().all(|byte| *byte == pad(n)).then_some(n)
}

/// Neighbouring payloads differ in every byte of their padding.
fn pad(n: u64) -> u8 {
    b'a' + (n % 26) as u8
}
