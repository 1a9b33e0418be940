//! Frames that the server sends, each in one buffer of exactly its size, ready for the socket.
//!
//! Invariant: every frame is final, unmasked, and carries the shortest header that its length allows.

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

/// Bytes that a control frame's payload may have (RFC 6455, 5.5).
pub const CONTROL_BYTES_MAX: usize = 125;

/// Bytes that the reason in a close frame may have: what the code leaves.
pub const CLOSE_REASON_BYTES_MAX: usize = CONTROL_BYTES_MAX - 2;

/// A text frame.
#[must_use]
pub fn text_frame(text: &str) -> Vec<u8> {
    frame(OpCode::Data(Data::Text), &[text.as_bytes()])
}

/// A binary frame.
#[must_use]
pub fn binary_frame(payload: &[u8]) -> Vec<u8> {
    frame(OpCode::Data(Data::Binary), &[payload])
}

/// A ping whose payload the client's pong repeats; cut at 125 bytes.
#[must_use]
pub fn ping_frame(payload: &[u8]) -> Vec<u8> {
    frame(OpCode::Control(Control::Ping), &[&payload[..payload.len().min(CONTROL_BYTES_MAX)]])
}

/// The answer to a client's ping; `payload` is the ping's own, cut at 125 bytes.
#[must_use]
pub fn pong_frame(payload: &[u8]) -> Vec<u8> {
    frame(OpCode::Control(Control::Pong), &[&payload[..payload.len().min(CONTROL_BYTES_MAX)]])
}

/// A close frame; `reason` is cut at 123 bytes, between two characters.
#[must_use]
pub fn close_frame(code: u16, reason: &str) -> Vec<u8> {
    let reason = cut(reason, CLOSE_REASON_BYTES_MAX);
    frame(OpCode::Control(Control::Close), &[&code.to_be_bytes()[..], reason.as_bytes()])
}

/// The start of `text`: at most `bytes_max` bytes, ended between two characters.
pub(super) fn cut(text: &str, bytes_max: usize) -> &str {
    let end = (0..=bytes_max.min(text.len())).rev().find(|&end| text.is_char_boundary(end));
    &text[..end.unwrap_or(0)]
}

/// A text frame whose payload is `parts`, one after the other.
pub(super) fn text_frame_of(parts: &[&str]) -> Vec<u8> {
    frame(OpCode::Data(Data::Text), parts)
}

fn frame(opcode: OpCode, parts: &[impl AsRef<[u8]>]) -> Vec<u8> {
    let header = FrameHeader { opcode, ..FrameHeader::default() };
    let payload_bytes: usize = parts.iter().map(|part| part.as_ref().len()).sum();
    let mut bytes = Vec::with_capacity(header.len(payload_bytes as u64) + payload_bytes);
    header.format(payload_bytes as u64, &mut bytes).expect("a Vec takes every write");
    for part in parts {
        bytes.extend_from_slice(part.as_ref());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_has_the_shortest_header_and_no_spare_capacity() {
        for (payload_bytes, header) in [
            (0, vec![0x82, 0]),
            (125, vec![0x82, 125]),
            (126, vec![0x82, 126, 0, 126]),
            (65_535, vec![0x82, 126, 0xff, 0xff]),
            (65_536, vec![0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let bytes = binary_frame(&vec![7; payload_bytes]);
            assert_eq!(bytes[..header.len()], header);
            assert_eq!(bytes.len(), header.len() + payload_bytes);
            assert_eq!(bytes.capacity(), bytes.len());
        }
    }

    #[test]
    fn each_kind_has_its_opcode() {
        assert_eq!(text_frame("é"), [0x81, 2, 0xc3, 0xa9]);
        assert_eq!(text_frame_of(&["a", "", "bc"]), [0x81, 3, b'a', b'b', b'c']);
        assert_eq!(ping_frame(b"p"), [0x89, 1, b'p']);
        assert_eq!(pong_frame(b"p"), [0x8a, 1, b'p']);
        assert_eq!(close_frame(1012, "ok"), [0x88, 4, 0x03, 0xf4, b'o', b'k']);
    }

    #[test]
    fn a_control_frame_never_exceeds_125_bytes_nor_splits_a_character() {
        assert_eq!(ping_frame(&[1; 300]).len(), 2 + 125);
        assert_eq!(pong_frame(&[1; 126])[1], 125);
        let bytes = close_frame(1000, &"é".repeat(100));
        assert_eq!(bytes.len(), 2 + 2 + 122);
        assert!(std::str::from_utf8(&bytes[4..]).is_ok());
    }
}
