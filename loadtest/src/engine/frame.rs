//! Frames and heads as a strict client reads them (RFC 6455).

/// The request of a client for `path`. All clients use one key: its answer is a constant.
pub fn request(host: std::net::SocketAddrV4, path: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    .into_bytes()
}

/// The answer to the key above (RFC 6455, 1.3).
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// An unmasked frame of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A whole text or binary message.
    Message(&'a [u8]),
    /// A ping.
    Ping(&'a [u8]),
    /// A pong.
    Pong,
    /// A close frame's payload.
    Close(&'a [u8]),
}

/// The stream is not what RFC 6455 allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Torn;

/// An answer to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// HTTP status.
    pub status: u16,
    /// Retry-After, in seconds, where there is one.
    pub retry_after_s: Option<u32>,
    /// Bytes of the head.
    pub len: usize,
}

/// The answer's head; none where it has yet to come whole.
pub fn head(bytes: &[u8]) -> Result<Option<Head>, Torn> {
    const LONGEST: usize = 16 << 10;
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        return if bytes.len() > LONGEST { Err(Torn) } else { Ok(None) };
    };
    let text = std::str::from_utf8(&bytes[..end]).map_err(|_| Torn)?;
    let status = text.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok()).ok_or(Torn)?;
    if status == 101 && !text.contains(ACCEPT) {
        return Err(Torn);
    }
    let retry_after_s = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("retry-after").then(|| value.trim().parse().ok())?
    });
    Ok(Some(Head { status, retry_after_s, len: end + 4 }))
}

/// The first frame and its bytes; none where it has yet to come whole. Fragments are refused: no server here sends any.
#[inline]
pub fn frame(bytes: &[u8]) -> Result<Option<(Frame<'_>, usize)>, Torn> {
    let [first, second, rest @ ..] = bytes else { return Ok(None) };
    let (len, header) = match *second {
        short @ 0..=125 => (usize::from(short), 2),
        126 => match rest.first_chunk() {
            Some(len) => (usize::from(u16::from_be_bytes(*len)), 4),
            None => return Ok(None),
        },
        127 => match rest.first_chunk() {
            Some(len) => (usize::try_from(u64::from_be_bytes(*len)).map_err(|_| Torn)?, 10),
            None => return Ok(None),
        },
        _ => return Err(Torn), // a server masks nothing
    };
    let shortest = match len {
        0..=125 => 2,
        126..=0xffff => 4,
        _ => 10,
    };
    let control = first & 0x08 != 0;
    if header != shortest || (control && len > 125) || len > 1 << 30 {
        return Err(Torn);
    }
    let Some(payload) = bytes[header..].get(..len) else { return Ok(None) };
    let frame = match first {
        0x81 | 0x82 => Frame::Message(payload),
        0x88 if len != 1 => Frame::Close(payload),
        0x89 => Frame::Ping(payload),
        0x8a => Frame::Pong,
        _ => return Err(Torn),
    };
    Ok(Some((frame, header + len)))
}

/// Appends a masked control frame (the mask is zeroes).
pub fn control(opcode: u8, payload: &[u8], into: &mut Vec<u8>) {
    into.extend_from_slice(&[0x80 | opcode, 0x80 | payload.len() as u8, 0, 0, 0, 0]);
    into.extend_from_slice(payload);
}

/// A masked text frame (the mask is zeroes). Errors: over 65,535 bytes, which no client here sends.
pub fn text(payload: &str) -> Option<Vec<u8>> {
    let (len, mut frame) = (u16::try_from(payload.len()).ok()?, vec![0x81]);
    if len <= 125 {
        frame.push(0x80 | len as u8);
    } else {
        frame.push(0x80 | 126);
        frame.extend_from_slice(&len.to_be_bytes());
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload.as_bytes());
    Some(frame)
}

/// The code and the `retry_ms` of a close frame's payload.
pub fn close_reason(payload: &[u8]) -> (u16, Option<u32>) {
    let code = payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code));
    let reason = payload.get(2..).unwrap_or_default();
    let retry_ms = serde_json::from_slice::<serde_json::Value>(reason)
        .ok()
        .and_then(|reason| reason.get("retry_ms")?.as_u64())
        .and_then(|ms| u32::try_from(ms).ok());
    (code, retry_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_strictly() {
        let long = [&[0x82, 126, 0, 200][..], &[7; 200]].concat();
        for (bytes, expected) in [
            (&b"\x81\x02hi"[..], Ok(Some((Frame::Message(b"hi"), 4)))),
            (b"\x81\x02h", Ok(None)),
            (b"\x81", Ok(None)),
            (b"\x89\x00", Ok(Some((Frame::Ping(b""), 2)))),
            (b"\x88\x02\x03\xe8", Ok(Some((Frame::Close(b"\x03\xe8"), 4)))),
            (b"\x88\x01\x03", Err(Torn)),
            (b"\x81\x82hi", Err(Torn)),
            (b"\x01\x02hi", Err(Torn)),
            (b"\xc1\x02hi", Err(Torn)),
            (b"\x81\x7e\x00\x02hi", Err(Torn)),
            (b"\x89\x7e\x00\xc8", Err(Torn)),
            (&long, Ok(Some((Frame::Message(&[7; 200]), 204)))),
        ] {
            assert_eq!(frame(bytes), expected, "{bytes:?}");
        }
    }

    #[test]
    fn a_refusal_says_when_to_come_back() {
        let refusal = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 7\r\n\r\n";
        assert_eq!(head(refusal), Ok(Some(Head { status: 503, retry_after_s: Some(7), len: refusal.len() })));
        assert_eq!(head(b"HTTP/1.1 101 Switching Protocols\r\n\r\n"), Err(Torn), "without the accept header");
        assert_eq!(close_reason(b"\x03\xf5{\"reason\":\"slow consumer\",\"retry_ms\":4321}"), (1013, Some(4321)));
        assert_eq!(close_reason(b""), (1005, None));
    }
}
