//! What goes over a client's socket: HTTP request heads, WebSocket frames, commands and envelopes.
//!
//! Promise: pure. Bytes and limits come in, values and bytes come out: no IO, no clock, no `unsafe`. Nothing that a
//! client or a publisher sends makes this room panic, keep more than the limits say, or write bytes that the other
//! side could misread.

pub mod channel;
pub mod command;
pub mod encode;
pub mod envelope;
mod fields;
pub mod frame;
mod header;
mod json;
pub mod proxy;
pub mod refusal;
pub mod request;
pub mod sort;
mod target;

pub use channel::{ChannelFault, check_channel};
pub use command::{Command, CommandError, Id};
pub use encode::{binary_frame, close_frame, ping_frame, pong_frame, text_frame};
pub use envelope::{json_update, raw_update};
pub use frame::{ClientFrame, Flow, Partial, Violation, decode};
pub use refusal::{Refusal, page_response, switching_protocols, unavailable};
pub use request::{Accept, Request, check_response};
