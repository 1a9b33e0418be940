//! Frames that say what they are, and the client's view of them.
//!
//! Promise: bytes that are no whole frame, or a frame out of order, fail the test. The model has no part in this.

use super::model::Kind;
use std::collections::HashMap;

const HEADER: usize = 16;

/// A frame: its kind, channel, key and number, its length, and so many bytes of it.
pub fn frame(kind: Kind, channel: u32, key: u64, seq: u32, size: u16) -> Vec<u8> {
    let mut bytes = vec![kind as u8, channel as u8];
    bytes.extend((key as u32).to_be_bytes());
    bytes.extend(seq.to_be_bytes());
    bytes.extend(u32::from(size).to_be_bytes());
    bytes.extend(seq.to_be_bytes()[2..].iter());
    bytes.resize(HEADER + usize::from(size), seq as u8);
    bytes
}

/// A ping, as long as those of the shard are short.
pub fn ping(seq: u32) -> [u8; HEADER] {
    frame(Kind::Ping, 0, 0, seq, 0).try_into().expect("a frame without a payload is a header")
}

/// What a client has read.
#[derive(Debug, Default)]
pub struct Stream {
    bytes: Vec<u8>,
    updates: u64,
    /// The last number of each thing that comes in order.
    last: HashMap<(u8, u8, u32), u32>,
}

impl Stream {
    /// Bytes arrive.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        let mut at = 0;
        while let Some(frame) = whole(&self.bytes[at..]) {
            let number = |from: usize| u32::from_be_bytes(frame[from..from + 4].try_into().expect("four bytes"));
            let (kind, channel, key, seq) = (frame[0], frame[1], number(2), number(6));
            assert!(frame[HEADER..].iter().all(|byte| *byte == seq as u8), "a torn frame");
            // Updates are in order by channel and key, critical ones and replies among themselves.
            let line = if kind == Kind::Update as u8 { (kind, channel, key) } else { (kind, 0, 0) };
            let about = kind == Kind::Notice as u8 || kind == Kind::Missed as u8;
            let line = if about { (kind, channel, 0) } else { line };
            let last = self.last.insert(line, seq).unwrap_or(0);
            assert!(seq > last, "{} {seq} of {channel}/{key} came after {last}", char::from(kind));
            self.updates += u64::from(kind == Kind::Update as u8 || kind == Kind::Critical as u8);
            at += frame.len();
        }
        self.bytes.drain(..at);
    }

    /// Nothing comes any more; updates that came.
    pub fn end(&self) -> u64 {
        assert!(self.bytes.is_empty(), "a torn frame at the end");
        self.updates
    }
}

fn whole(bytes: &[u8]) -> Option<&[u8]> {
    let header = bytes.get(..HEADER)?;
    assert!(b"ucnmrp".contains(&header[0]) && header[8..10] == header[14..16], "a torn frame");
    let size = u32::from_be_bytes(header[10..14].try_into().expect("four bytes"));
    bytes.get(..HEADER + size as usize)
}
