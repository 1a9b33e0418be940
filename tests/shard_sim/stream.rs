//! What a client makes of the bytes that it reads: one HTTP response, then whole WebSocket frames.
//!
//! Promise: bytes that are anything else fail the test: a torn frame shows within a frame's length.

use std::fmt;

/// Something whole.
#[derive(Debug, PartialEq, Eq)]
pub enum Item {
    /// The response, its body included.
    Response(u16),
    /// A frame: its opcode, all its bytes, and where its payload begins.
    Frame { opcode: u8, bytes: Vec<u8>, payload: usize },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Mode {
    #[default]
    Response,
    Frames,
    /// Nothing may come any more.
    Over,
}

/// See the module.
#[derive(Default)]
pub struct Stream {
    bytes: Vec<u8>,
    at: usize,
    mode: Mode,
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} with {} bytes", self.mode, self.bytes.len() - self.at)
    }
}

impl Stream {
    pub fn push(&mut self, bytes: &[u8]) {
        assert!(self.mode != Mode::Over, "bytes after the end of a stream: {:?}", String::from_utf8_lossy(bytes));
        self.bytes.drain(..self.at);
        self.at = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// Whether the stream could end here.
    pub fn is_whole(&self) -> bool {
        self.at == self.bytes.len()
    }

    /// The next whole thing, if it has arrived.
    pub fn next(&mut self) -> Option<Item> {
        let rest = &self.bytes[self.at..];
        let (item, len) = match self.mode {
            Mode::Response => response(rest)?,
            Mode::Frames => frame(rest)?,
            Mode::Over => {
                assert!(rest.is_empty(), "bytes after the end of a stream: {:?}", String::from_utf8_lossy(rest));
                return None;
            }
        };
        self.at += len;
        self.mode = match item {
            Item::Response(101) => Mode::Frames,
            Item::Response(_) | Item::Frame { opcode: 8, .. } => Mode::Over,
            Item::Frame { .. } => Mode::Frames,
        };
        Some(item)
    }
}

fn response(bytes: &[u8]) -> Option<(Item, usize)> {
    let start = &bytes[..bytes.len().min(9)];
    assert!(b"HTTP/1.1 ".starts_with(start), "no response: {:?}", String::from_utf8_lossy(bytes));
    let head = bytes.windows(4).position(|end| end == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&bytes[..head]).expect("a head is text");
    let status = text[9..12].parse().expect("a status has three digits");
    let length = text.lines().find_map(|line| line.strip_prefix("Content-Length: "));
    let whole = head + length.map_or(0, |length| length.parse().expect("a length is a number"));
    (bytes.len() >= whole).then_some((Item::Response(status), whole))
}

fn frame(bytes: &[u8]) -> Option<(Item, usize)> {
    let (first, second) = (*bytes.first()?, *bytes.get(1)?);
    let opcode = first & 0x0f;
    let lawful = first & 0xf0 == 0x80 && second & 0x80 == 0 && matches!(opcode, 1 | 2 | 8 | 9 | 10);
    assert!(lawful, "a torn frame: it begins with {first:#04x} {second:#04x}");
    let (payload, len) = match second {
        126 => (4, bytes.get(2..4)?.iter().fold(0, |len, byte| len << 8 | usize::from(*byte))),
        127 => (10, bytes.get(2..10)?.iter().fold(0, |len, byte| len << 8 | usize::from(*byte))),
        short => (2, usize::from(short)),
    };
    assert!(len < 1 << 20, "a torn frame: it announces {len} bytes");
    let bytes = bytes.get(..payload + len)?.to_vec();
    Some((Item::Frame { opcode, bytes, payload }, payload + len))
}
