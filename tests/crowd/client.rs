//! One client without its socket: bytes from the server go in, what they meant is counted. Strict: whatever RFC 6455
//! forbids a server to send, and every payload that is not whole, is a tear.

use super::payload;
use super::report::Tally;

/// The request of a client for `path`. All clients use one key: its answer is a constant.
pub fn request(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: crowd\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
}

/// The answer to the key above (RFC 6455, 1.3).
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// Where a client is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The 101 has yet to come.
    Upgrading,
    /// A WebSocket.
    Open,
    /// Refused, closed, or cut off.
    Ended,
}

/// See the module.
pub struct Client {
    pub phase: Phase,
    /// Updates received.
    pub updates: u64,
    /// The highest number of an update.
    pub newest: Option<u64>,
    /// The start of a frame or head whose rest has yet to come.
    kept: Vec<u8>,
}

enum Frame<'a> {
    Message(&'a [u8]),
    Ping(&'a [u8]),
    Pong,
    Close(&'a [u8]),
}

struct Torn;

impl Client {
    pub fn new() -> Self {
        Self { phase: Phase::Upgrading, updates: 0, newest: None, kept: Vec::new() }
    }

    /// Takes bytes in; what must be answered is put into `replies`.
    pub fn take(&mut self, bytes: &[u8], tally: &mut Tally, replies: &mut Vec<u8>) {
        let mut joined = std::mem::take(&mut self.kept);
        let mut rest = if joined.is_empty() {
            bytes
        } else {
            joined.extend_from_slice(bytes);
            &joined
        };
        while !rest.is_empty() {
            let taken = match self.phase {
                Phase::Upgrading => self.take_head(rest, tally),
                Phase::Open => self.take_frame(rest, tally, replies),
                Phase::Ended => return,
            };
            match taken {
                Ok(Some(taken)) => rest = &rest[taken..],
                Ok(None) => {
                    self.kept = rest.to_vec();
                    return;
                }
                Err(Torn) => {
                    tally.torn += 1;
                    return self.end(tally);
                }
            }
        }
    }

    /// The server's side has ended, or the client leaves.
    pub fn end(&mut self, tally: &mut Tally) {
        match std::mem::replace(&mut self.phase, Phase::Ended) {
            Phase::Upgrading => {
                tally.answered += 1;
                tally.cut_off += 1;
            }
            Phase::Open => {
                tally.open -= 1;
                tally.torn += u64::from(!self.kept.is_empty());
            }
            Phase::Ended => {}
        }
    }

    fn take_head(&mut self, bytes: &[u8], tally: &mut Tally) -> Result<Option<usize>, Torn> {
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
        let head = std::str::from_utf8(&bytes[..end]).map_err(|_| Torn)?;
        let status: u16 = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok()).ok_or(Torn)?;
        if status == 101 && !head.contains(ACCEPT) {
            return Err(Torn);
        }
        tally.answered += 1;
        if status == 101 {
            tally.open += 1;
            self.phase = Phase::Open;
        } else {
            *tally.refused.entry(status).or_default() += 1;
            self.phase = Phase::Ended;
        }
        Ok(Some(end + 4))
    }

    fn take_frame(&mut self, bytes: &[u8], tally: &mut Tally, replies: &mut Vec<u8>) -> Result<Option<usize>, Torn> {
        let Some((frame, taken)) = frame(bytes)? else { return Ok(None) };
        match frame {
            Frame::Message(message) => self.take_message(message, tally)?,
            Frame::Ping(payload) => {
                tally.pings += 1;
                replies.extend_from_slice(&[0x8a, 0x80 | payload.len() as u8, 0, 0, 0, 0]); // masked with zeroes
                replies.extend_from_slice(payload);
            }
            Frame::Pong => {}
            Frame::Close(payload) => {
                let code = payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code));
                *tally.closes.entry(code).or_default() += 1;
                self.end(tally);
            }
        }
        Ok(Some(taken))
    }

    fn take_message(&mut self, message: &[u8], tally: &mut Tally) -> Result<(), Torn> {
        let n = match payload::number(message) {
            Some(n) => n,
            None => match enveloped(message).ok_or(Torn)? {
                Some(data) => payload::number(data).ok_or(Torn)?,
                None => return Ok(()), // a reply
            },
        };
        self.updates += 1;
        tally.updates += 1;
        match self.newest {
            Some(newest) if n <= newest => tally.disordered += 1,
            Some(newest) => tally.missed += n - newest - 1,
            None => {}
        }
        self.newest = Some(n.max(self.newest.unwrap_or(0)));
        Ok(())
    }
}

/// The data of a JSON envelope; `Some(None)` for a reply, none for anything else.
fn enveloped(message: &[u8]) -> Option<Option<&[u8]>> {
    const DATA: &[u8] = b"\"data\":";
    if message.starts_with(b"{\"channel\":") {
        let at = message.windows(DATA.len()).position(|window| window == DATA)?;
        return message[at + DATA.len()..].strip_suffix(b"}").map(Some);
    }
    (message.starts_with(b"{\"subscribed\":") && message.ends_with(b"}")).then_some(None)
}

/// The first frame and its bytes; none where it has yet to come whole.
fn frame(bytes: &[u8]) -> Result<Option<(Frame<'_>, usize)>, Torn> {
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
    if header != shortest || (control && len > 125) {
        return Err(Torn);
    }
    let Some(payload) = bytes[header..].get(..len) else { return Ok(None) };
    let frame = match first {
        0x81 | 0x82 => Frame::Message(payload),
        0x88 => Frame::Close(payload),
        0x89 => Frame::Ping(payload),
        0x8a => Frame::Pong,
        _ => return Err(Torn),
    };
    Ok(Some((frame, header + len)))
}
