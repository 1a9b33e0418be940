//! The head of a client's HTTP/1.1 request, parsed once into what the client wants of the gateway.
//!
//! Promise: a [`Request`] can be served as it is: its channels are checked, and its handshake is one that RFC 6455
//! accepts. Every other head is a [`Refusal`] that says what is wrong and what to do.

use httparse::{Header, Status};
use tungstenite::handshake::server::create_response;

use super::refusal::{Refusal, here_response};
use super::target::{Target, json_channels, raw_channel};
use crate::config::Limits;

/// What a client wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// `GET /raw/{channel}`: the payloads of one channel, as published.
    Raw {
        /// The channel, its name checked.
        channel: Box<str>,
        /// The client's handshake, for the 101.
        accept: Accept,
    },
    /// `GET /ws?channels=a,b`: envelopes, and commands.
    Json {
        /// The channels to start with, each once, in the order named; none is fine.
        channels: Vec<Box<str>>,
        /// The client's handshake, for the 101.
        accept: Accept,
    },
    /// `GET /` or `/index.html`: the demo page.
    Page {
        /// Whether the request is a HEAD, which wants no body.
        head_only: bool,
    },
}

/// The answer to a client's `Sec-WebSocket-Key`, as the 101 carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accept([u8; ACCEPT_BYTES]);

/// Base64 of a SHA-1.
const ACCEPT_BYTES: usize = 28;

impl Accept {
    /// The value of `Sec-WebSocket-Accept`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("base64 is ASCII")
    }
}

/// Headers that a request may have.
pub const HEADERS_MAX: usize = 64;

/// Parses a request's head: `None` while it is incomplete (the caller bounds the time), else the request and the
/// length of its head, in bytes; what lies behind it is the client's first frames.
///
/// # Errors
/// Why the request is not served.
pub fn parse(bytes: &[u8], limits: &Limits) -> Result<Option<(Request, usize)>, Refusal> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Request::new(&mut headers);
    let status = head.parse(&bytes[..bytes.len().min(limits.request_bytes_max)]);
    let head_bytes = match status {
        Ok(Status::Complete(head_bytes)) => head_bytes,
        Ok(Status::Partial) if bytes.len() < limits.request_bytes_max => return Ok(None),
        Ok(Status::Partial) => return Err(too_long(limits)),
        Err(error) => return Err(malformed(error, bytes)),
    };
    let method = head.method.expect("a complete head has a method");
    let request = route(&head, limits).map_err(|refusal| refusal.for_method(method))?;
    Ok(Some((request, head_bytes)))
}

/// The answer to a request that only asks whether somebody is here (`OPTIONS /`, which HAProxy's `option httpchk` sends if
/// nothing else is said, and GET and HEAD of the same); `None` for all other requests.
#[must_use]
pub fn check_response(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Request::new(&mut headers);
    let whole = head.parse(bytes).is_ok_and(|status| status.is_complete()) && check_framing(&head).is_ok();
    match head.method {
        Some(method @ ("GET" | "HEAD" | "OPTIONS")) if whole && head.path == Some("/") => {
            Some(here_response(method == "HEAD"))
        }
        _ => None,
    }
}

fn route(head: &httparse::Request<'_, '_>, limits: &Limits) -> Result<Request, Refusal> {
    check_framing(head)?;
    let method = head.method.expect("a complete head has a method");
    match Target::parse(head.path.expect("a complete head has a target"))? {
        Target::Page => match method {
            "GET" => Ok(Request::Page { head_only: false }),
            "HEAD" => Ok(Request::Page { head_only: true }),
            _ => Err(method_not_allowed(method, "GET, HEAD")),
        },
        Target::Raw { channel } => {
            let accept = handshake(head)?;
            Ok(Request::Raw { channel: raw_channel(&channel, limits)?, accept })
        }
        Target::Json { query } => {
            let accept = handshake(head)?;
            Ok(Request::Json { channels: json_channels(&query, limits)?, accept })
        }
    }
}

/// What would let two readers of one request disagree on where it ends or whom it is for.
fn check_framing(head: &httparse::Request<'_, '_>) -> Result<(), Refusal> {
    let hosts = values(head.headers, "Host").count();
    let http_1_0 = head.version == Some(0);
    if hosts > 1 || (hosts == 0 && !http_1_0) {
        return Err(bad_request("the request needs exactly one Host header: send it"));
    }
    let has_length = values(head.headers, "Content-Length").any(|value| value != b"0");
    if has_length || values(head.headers, "Transfer-Encoding").next().is_some() {
        return Err(bad_request("the request has a body, and nothing here takes one: send it without"));
    }
    Ok(())
}

/// Checks a WebSocket handshake (RFC 6455, 4.2.1).
fn handshake(head: &httparse::Request<'_, '_>) -> Result<Accept, Refusal> {
    let method = head.method.expect("a complete head has a method");
    if method != "GET" {
        return Err(method_not_allowed(method, "GET"));
    }
    if !has_token(head.headers, "Upgrade", "websocket") || !has_token(head.headers, "Connection", "upgrade") {
        return Err(upgrade_required(
            "this path speaks WebSocket: connect with, for example, new WebSocket(\"ws://host/ws?channels=a,b\"); \
             a proxy in between must pass the Upgrade and Connection headers on",
        ));
    }
    if head.version == Some(0) {
        return Err(bad_request("a WebSocket starts from HTTP/1.1, and this is HTTP/1.0: send HTTP/1.1"));
    }
    if single(head.headers, "Sec-WebSocket-Version") != Some(b"13") {
        return Err(upgrade_required(
            "only version 13 of the WebSocket protocol is spoken: send Sec-WebSocket-Version: 13",
        ));
    }
    let bad_key = || bad_request("Sec-WebSocket-Key must be there once, and base64 of 16 bytes: send a random one");
    let key = single(head.headers, "Sec-WebSocket-Key").ok_or_else(bad_key)?;
    // What tungstenite looks at, in the one form that it knows: it takes a list of upgrades, or a second Connection
    // line, for none.
    let request = http::Request::get("/")
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", key)
        .body(())
        .map_err(|_| bad_key())?;
    let response = create_response(&request).map_err(|_| bad_key())?;
    let accept = response.headers().get("Sec-WebSocket-Accept").expect("a 101 carries it");
    Ok(Accept(accept.as_bytes().try_into().expect("base64 of a SHA-1 has 28 bytes")))
}

fn values<'a>(headers: &'a [Header<'a>], name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value.trim_ascii())
}

/// The value of a header that is there once.
fn single<'a>(headers: &'a [Header<'a>], name: &'a str) -> Option<&'a [u8]> {
    let mut values = values(headers, name);
    values.next().filter(|_| values.next().is_none())
}

/// Whether a header, which may be a list and on several lines, names `token` in any case.
fn has_token(headers: &[Header<'_>], name: &str, token: &str) -> bool {
    values(headers, name)
        .flat_map(|value| value.split(|&byte| byte == b','))
        .any(|part| part.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

fn malformed(error: httparse::Error, bytes: &[u8]) -> Refusal {
    match error {
        httparse::Error::TooManyHeaders => {
            Refusal::new(431, "too_many_headers", format!("more than {HEADERS_MAX} headers: send fewer"))
        }
        httparse::Error::Version if bytes.starts_with(b"PRI * HTTP/2") => {
            Refusal::new(505, "http_version", "HTTP/2 is not spoken here: send HTTP/1.1")
        }
        error => bad_request(&format!(
            "not an HTTP/1.1 request ({error}): send one; TLS, if any, ends in front of the gateway"
        )),
    }
}

fn too_long(limits: &Limits) -> Refusal {
    let bytes_max = limits.request_bytes_max;
    Refusal::new(431, "request_too_long", format!("the request's head has more than {bytes_max} bytes: send less"))
}

fn method_not_allowed(method: &str, allow: &'static str) -> Refusal {
    let what = format!("{method} means nothing on this path: use {allow}");
    Refusal::new(405, "method_not_allowed", what).with_header("Allow", allow)
}

/// A 426. It names the version too: a client that has the wrong one and no Upgrade learns both at once.
fn upgrade_required(what: &str) -> Refusal {
    Refusal::new(426, "upgrade_required", what)
        .with_header("Upgrade", "websocket")
        .with_header("Sec-WebSocket-Version", "13")
}

fn bad_request(what: &str) -> Refusal {
    Refusal::new(400, "bad_request", what)
}

#[cfg(test)]
mod tests;
