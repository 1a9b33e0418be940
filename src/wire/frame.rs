//! Frames that clients send, decoded strictly by RFC 6455: the first byte that breaks the protocol ends the connection.
//!
//! Promise: however the bytes are cut into reads, the same frames come out.
//! Invariant: whole frames in one read are unmasked where they lie; nothing is allocated, and nothing is left behind.
//! Invariant: what is kept grows with what has arrived, never with what a header announces.

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::CloseCode;

use super::header::{HEADER_BYTES_MAX, Kind, Started, parse_header};

/// What a client said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientFrame<'a> {
    /// A whole text message, all its fragments together.
    Text(&'a str),
    /// A whole binary message, all its fragments together.
    Binary(&'a [u8]),
    /// A ping: its payload is owed back as a pong.
    Ping(&'a [u8]),
    /// A pong, with the payload of the ping that it answers.
    Pong(&'a [u8]),
    /// The client closes. Nothing that comes after it is decoded.
    Close {
        /// Why, as a number (RFC 6455, 7.4), if the client says.
        code: Option<u16>,
        /// Why, in words; often empty.
        reason: &'a str,
    },
}

/// What the sink wants after a frame that it has taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// The next frame.
    Continue,
    /// No more now: the rest of the bytes is kept until [`decode`] is called again.
    Pause,
    /// No more ever: the connection is ending, and the rest of the bytes is discarded.
    Stop,
}

/// How a client broke the protocol, to be said in a close frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The close code: 1002 protocol, 1007 not UTF-8, 1009 too big.
    pub code: u16,
    /// What the client did, and what it should have done.
    pub reason: &'static str,
}

impl Violation {
    pub(super) const fn protocol(reason: &'static str) -> Self {
        Self { code: 1002, reason }
    }
}

/// What one client has begun and not ended, or what waits behind a pause.
#[derive(Debug, Default)]
pub struct Partial {
    header: [u8; HEADER_BYTES_MAX],
    header_bytes: usize,
    started: Option<Started>,
    control: Vec<u8>,
    message: Option<Message>,
    held: Vec<u8>,
    held_from: usize,
}

impl Partial {
    /// Memory kept, in bytes: at most one message, what one read held behind a pause, and a small constant.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let message = self.message.as_ref().map_or(0, |message| message.payload.capacity());
        size_of::<Self>() + self.control.capacity() + message + self.held.capacity()
    }

    /// Whether bytes wait for the sink: call [`decode`] with no new ones when it can take more.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        !self.held.is_empty()
    }

    fn is_empty(&self) -> bool {
        self.header_bytes == 0 && self.started.is_none() && self.message.is_none() && self.held.is_empty()
    }
}

/// Decodes what one read brought, and hands each whole frame to `sink`.
///
/// `bytes` is unmasked in place and may be reused after the call. A paused client is resumed with no new bytes; ones
/// that are read nevertheless wait behind those already kept. After a [`ClientFrame::Close`], a [`Flow::Stop`] or an
/// error the stream is over: nothing is kept, and the function is not to be called again for this client.
///
/// # Errors
/// The first violation of the protocol. Frames before it have been handed over.
pub fn decode(
    partial: &mut Option<Box<Partial>>,
    bytes: &mut [u8],
    message_bytes_max: usize,
    sink: &mut impl FnMut(ClientFrame<'_>) -> Flow,
) -> Result<(), Violation> {
    let (mut held, from) = match partial {
        Some(partial) => (std::mem::take(&mut partial.held), std::mem::take(&mut partial.held_from)),
        None => (Vec::new(), 0),
    };
    let end = if held.is_empty() {
        walk(partial, bytes, message_bytes_max, sink)
    } else {
        held.reserve_exact(bytes.len());
        held.extend_from_slice(bytes);
        walk(partial, &mut held[from..], message_bytes_max, sink)
    };
    match end {
        Ok(End::Drained) => {
            partial.take_if(|partial| partial.is_empty());
        }
        Ok(End::Paused { used }) => {
            let partial = partial.get_or_insert_default();
            (partial.held, partial.held_from) =
                if held.is_empty() { (bytes[used..].to_vec(), 0) } else { (held, from + used) };
        }
        Ok(End::Over) => *partial = None,
        Err(violation) => {
            *partial = None;
            return Err(violation);
        }
    }
    Ok(())
}

/// How a walk over some bytes ended.
enum End {
    Drained,
    Paused { used: usize },
    Over,
}

fn walk(
    partial: &mut Option<Box<Partial>>,
    bytes: &mut [u8],
    message_bytes_max: usize,
    sink: &mut impl FnMut(ClientFrame<'_>) -> Flow,
) -> Result<End, Violation> {
    let mut used = 0;
    loop {
        let started = partial.as_mut().and_then(|partial| partial.started.take());
        let mut frame = match started {
            Some(frame) => frame,
            None => match next_header(partial, bytes, &mut used)? {
                Some((header, payload_bytes)) => {
                    let message = partial.as_ref().and_then(|partial| partial.message.as_ref());
                    let earlier = message.map(|message| message.payload.len());
                    Started::check(&header, payload_bytes, earlier, message_bytes_max)?
                }
                None => return Ok(End::Drained),
            },
        };
        let arrived = frame.left.min(bytes.len() - used);
        let payload = &mut bytes[used..used + arrived];
        used += arrived;
        let in_one_piece = frame.unmask(payload);

        let flow = if in_one_piece && frame.stands_alone() {
            hand_over(frame.kind, payload, sink)?
        } else {
            match keep(partial.get_or_insert_default(), frame, payload, message_bytes_max, sink)? {
                Some(flow) => flow,
                None => return Ok(End::Drained),
            }
        };
        match flow {
            Flow::Continue => {}
            Flow::Pause if used == bytes.len() => return Ok(End::Drained),
            Flow::Pause => return Ok(End::Paused { used }),
            Flow::Stop => return Ok(End::Over),
        }
    }
}

/// The next header, from the bytes at `used` and what is left of an earlier read; `None` when it is not whole yet.
fn next_header(
    partial: &mut Option<Box<Partial>>,
    bytes: &[u8],
    used: &mut usize,
) -> Result<Option<(FrameHeader, u64)>, Violation> {
    let rest = &bytes[*used..];
    let kept = partial.as_ref().map_or(0, |partial| partial.header_bytes);
    if kept == 0 {
        if let Some((header, payload_bytes, header_bytes)) = parse_header(rest)? {
            *used += header_bytes;
            return Ok(Some((header, payload_bytes)));
        }
        if rest.is_empty() {
            return Ok(None);
        }
    }
    let partial = partial.get_or_insert_default();
    let fresh = rest.len().min(HEADER_BYTES_MAX - kept);
    partial.header[kept..kept + fresh].copy_from_slice(&rest[..fresh]);
    if let Some((header, payload_bytes, header_bytes)) = parse_header(&partial.header[..kept + fresh])? {
        assert!(header_bytes > kept, "a header that was whole has been kept");
        *used += header_bytes - kept;
        partial.header_bytes = 0;
        return Ok(Some((header, payload_bytes)));
    }
    partial.header_bytes = kept + fresh;
    *used += fresh;
    Ok(None)
}

/// The data of a message that has not come to its end.
#[derive(Debug)]
struct Message {
    kind: Kind,
    payload: Vec<u8>,
    /// Bytes at the start of a text that are known to be UTF-8.
    checked: usize,
}

impl Message {
    /// Appends what has arrived. Capacity is at most twice that, and at most what a message may have.
    fn append(&mut self, arrived: &[u8], message_bytes_max: usize) -> Result<(), Violation> {
        let length = self.payload.len() + arrived.len();
        assert!(length <= message_bytes_max, "a header announced too much and was accepted");
        if length > self.payload.capacity() {
            let capacity = (2 * length).min(message_bytes_max);
            self.payload.reserve_exact(capacity - self.payload.len());
        }
        self.payload.extend_from_slice(arrived);
        if self.kind == Kind::Text {
            match std::str::from_utf8(&self.payload[self.checked..]) {
                Ok(_) => self.checked = length,
                Err(error) if error.error_len().is_none() => self.checked += error.valid_up_to(),
                Err(_) => return Err(NOT_UTF8),
            }
        }
        Ok(())
    }
}

const NOT_UTF8: Violation = Violation { code: 1007, reason: "text that is not UTF-8" };

/// Keeps a piece of a frame, and hands over what it completes; `None` while the frame itself is incomplete.
fn keep(
    partial: &mut Partial,
    frame: Started,
    payload: &[u8],
    message_bytes_max: usize,
    sink: &mut impl FnMut(ClientFrame<'_>) -> Flow,
) -> Result<Option<Flow>, Violation> {
    if frame.kind.is_control() {
        partial.control.extend_from_slice(payload);
    } else {
        let start = || Message { kind: frame.kind, payload: Vec::new(), checked: 0 };
        partial.message.get_or_insert_with(start).append(payload, message_bytes_max)?;
    }
    if frame.left > 0 {
        partial.started = Some(frame);
        return Ok(None);
    }
    if frame.kind.is_control() {
        return hand_over(frame.kind, &std::mem::take(&mut partial.control), sink).map(Some);
    }
    match partial.message.take_if(|_| frame.is_final) {
        Some(message) => hand_over(message.kind, &message.payload, sink).map(Some),
        None => Ok(Some(Flow::Continue)),
    }
}

fn hand_over(kind: Kind, payload: &[u8], sink: &mut impl FnMut(ClientFrame<'_>) -> Flow) -> Result<Flow, Violation> {
    Ok(match kind {
        Kind::Text => sink(ClientFrame::Text(std::str::from_utf8(payload).map_err(|_| NOT_UTF8)?)),
        Kind::Binary => sink(ClientFrame::Binary(payload)),
        Kind::Ping => sink(ClientFrame::Ping(payload)),
        Kind::Pong => sink(ClientFrame::Pong(payload)),
        Kind::Close => {
            let (code, reason) = parse_close(payload)?;
            sink(ClientFrame::Close { code, reason });
            Flow::Stop
        }
        Kind::Continuation => unreachable!("a message is of the kind of its first frame"),
    })
}

fn parse_close(payload: &[u8]) -> Result<(Option<u16>, &str), Violation> {
    /// Bad gateway: registered with IANA since RFC 6455, unknown to tungstenite 0.30.
    const BAD_GATEWAY: u16 = 1014;
    match payload {
        [] => Ok((None, "")),
        [_] => Err(Violation::protocol("close frame with half a code")),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            if !CloseCode::from(code).is_allowed() && code != BAD_GATEWAY {
                return Err(Violation::protocol("close code that may not be sent"));
            }
            let reason = std::str::from_utf8(reason).map_err(|_| NOT_UTF8)?;
            Ok((Some(code), reason))
        }
    }
}

#[cfg(test)]
mod tests;
