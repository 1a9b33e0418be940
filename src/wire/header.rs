//! A client frame's header: what may stand in it, and the mask that it carries.
//!
//! Invariant: a [`Started`] frame is one that may come here and now; everything else was refused at its header,
//! before any payload.

use std::io::Cursor;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::encode::CONTROL_BYTES_MAX;
use super::frame::Violation;

/// The longest header that a client's frame can have (RFC 6455, 5.2).
pub const HEADER_BYTES_MAX: usize = 14;

/// A whole header at the start of `bytes`, the payload that it announces and its own length.
pub fn parse_header(bytes: &[u8]) -> Result<Option<(FrameHeader, u64, usize)>, Violation> {
    let mut cursor = Cursor::new(bytes);
    let Some((header, payload_bytes)) =
        FrameHeader::parse(&mut cursor).map_err(|_| Violation::protocol("reserved opcode"))?
    else {
        return Ok(None);
    };
    let header_bytes = cursor.position() as usize;
    // tungstenite reads longer forms of short lengths too, which RFC 6455 (5.2) forbids.
    if header_bytes != header.len(payload_bytes) {
        return Err(Violation::protocol("payload length not in its shortest form"));
    }
    Ok(Some((header, payload_bytes, header_bytes)))
}

/// A frame whose header has been read and accepted.
#[derive(Debug)]
pub struct Started {
    pub kind: Kind,
    pub is_final: bool,
    /// Bytes of the payload that are yet to come.
    pub left: usize,
    mask: [u8; 4],
    begun: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Text,
    Binary,
    Continuation,
    Ping,
    Pong,
    Close,
}

impl Kind {
    pub fn is_control(self) -> bool {
        matches!(self, Self::Ping | Self::Pong | Self::Close)
    }
}

impl Started {
    /// Accepts a header or says what is wrong with it. `earlier` is what has come of a fragmented message that has
    /// not ended.
    pub fn check(
        header: &FrameHeader,
        payload_bytes: u64,
        earlier: Option<usize>,
        message_bytes_max: usize,
    ) -> Result<Self, Violation> {
        if header.rsv1 || header.rsv2 || header.rsv3 {
            return Err(Violation::protocol("reserved bit set, and no extension was agreed on"));
        }
        let Some(mask) = header.mask else {
            return Err(Violation::protocol("frame not masked: a client masks every frame"));
        };
        if payload_bytes >> 63 != 0 {
            return Err(Violation::protocol("payload length with the top bit set"));
        }
        let kind = match header.opcode {
            OpCode::Data(Data::Text) => Kind::Text,
            OpCode::Data(Data::Binary) => Kind::Binary,
            OpCode::Data(Data::Continue) => Kind::Continuation,
            OpCode::Control(Control::Ping) => Kind::Ping,
            OpCode::Control(Control::Pong) => Kind::Pong,
            OpCode::Control(Control::Close) => Kind::Close,
            OpCode::Data(Data::Reserved(_)) | OpCode::Control(Control::Reserved(_)) => {
                return Err(Violation::protocol("reserved opcode"));
            }
        };
        if kind.is_control() {
            if !header.is_final {
                return Err(Violation::protocol("fragmented control frame"));
            }
            if payload_bytes > CONTROL_BYTES_MAX as u64 {
                return Err(Violation::protocol("control frame of more than 125 bytes"));
            }
        } else {
            match (kind, earlier) {
                (Kind::Continuation, None) => {
                    return Err(Violation::protocol("continuation of a message that was not started"));
                }
                (Kind::Text | Kind::Binary, Some(_)) => {
                    return Err(Violation::protocol("message started inside a fragmented one"));
                }
                _ => {}
            }
            if payload_bytes > message_bytes_max.saturating_sub(earlier.unwrap_or(0)) as u64 {
                return Err(Violation { code: 1009, reason: "message too big: send smaller ones" });
            }
        }
        Ok(Self { kind, is_final: header.is_final, left: payload_bytes as usize, mask, begun: false })
    }

    /// Whether this frame is the whole of what it says, not a fragment.
    pub fn stands_alone(&self) -> bool {
        self.is_final && self.kind != Kind::Continuation
    }

    /// Unmasks the next bytes of the payload; says whether they are all of it.
    pub fn unmask(&mut self, payload: &mut [u8]) -> bool {
        unmask(payload, self.mask);
        self.mask.rotate_left(payload.len() % 4);
        self.left -= payload.len();
        let begun = std::mem::replace(&mut self.begun, true);
        self.left == 0 && !begun
    }
}

fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let mut words = payload.chunks_exact_mut(8);
    for word in &mut words {
        let unmasked = u64::from_ne_bytes(word.try_into().expect("chunks of 8")) ^ wide;
        word.copy_from_slice(&unmasked.to_ne_bytes());
    }
    for (byte, key) in words.into_remainder().iter_mut().zip(mask.into_iter().cycle()) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unmasking_in_pieces_is_unmasking_at_once() {
        let mask = [0x12, 0x34, 0x56, 0x78];
        let masked: Vec<u8> = (0..40).collect();
        let plain: Vec<u8> = masked.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key).collect();
        for cut in 0..=masked.len() {
            let mut frame = Started { kind: Kind::Binary, is_final: true, left: masked.len(), mask, begun: false };
            let mut bytes = masked.clone();
            let (head, tail) = bytes.split_at_mut(cut);
            assert_eq!(frame.unmask(head), cut == masked.len());
            assert!(tail.is_empty() || !frame.unmask(tail));
            assert_eq!((bytes, frame.left), (plain.clone(), 0));
        }
    }

    #[test]
    fn a_header_cut_short_is_incomplete_never_misread() {
        for whole in [
            vec![0x81, 0x85, 1, 2, 3, 4],
            vec![0x82, 0xfe, 0, 126, 1, 2, 3, 4],
            vec![0x82, 0xff, 0, 0, 0, 0, 0, 1, 0, 0, 1, 2, 3, 4],
        ] {
            for cut in 0..whole.len() {
                assert_eq!(parse_header(&whole[..cut]), Ok(None), "{cut} bytes of {whole:?}");
            }
            let (_, _, header_bytes) = parse_header(&whole).unwrap().unwrap();
            assert_eq!(header_bytes, whole.len());
        }
    }
}
