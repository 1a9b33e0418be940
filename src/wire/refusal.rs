//! HTTP responses: the switch to WebSocket, the page, and every refusal with what to do about it.
//!
//! Invariant: what a client sent is shown to it only inside a JSON string, escaped, and never in a header.

use http::StatusCode;
use serde::Serialize;
use std::borrow::Cow;
use std::fmt::Write;

use super::request::Accept;

/// Why a request is not served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{status} {code}: {what}")]
pub struct Refusal {
    /// The HTTP status, 400 to 599.
    pub status: u16,
    /// What is wrong, for programs.
    pub code: &'static str,
    /// What is wrong and what to do, for people.
    pub what: String,
    /// Headers that the status asks for.
    headers: Vec<(&'static str, Cow<'static, str>)>,
    /// Whether the request was a HEAD, which is answered without a body.
    head_only: bool,
}

impl Refusal {
    /// A refusal with its status (400 to 599), its code for programs and its text for people.
    pub fn new(status: u16, code: &'static str, what: impl Into<String>) -> Self {
        assert!((400..600).contains(&status), "{status} refuses nothing");
        Self { status, code, what: what.into(), headers: Vec::new(), head_only: false }
    }

    /// The same with one more header.
    #[must_use]
    pub fn with_header(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        let value = value.into();
        assert!(!value.contains(['\r', '\n']), "a header is one line");
        self.headers.push((name, value));
        self
    }

    /// The same as the answer to a request of this method.
    #[must_use]
    pub(super) fn for_method(mut self, method: &str) -> Self {
        self.head_only = method == "HEAD";
        self
    }

    /// The whole HTTP/1.1 response, with `{"error":{"code":"…","message":"…"}}` as its body; the connection closes
    /// after it.
    #[must_use]
    pub fn response(&self) -> Vec<u8> {
        #[derive(Serialize)]
        struct Body<'a> {
            error: Reason<'a>,
        }
        #[derive(Serialize)]
        struct Reason<'a> {
            code: &'a str,
            message: &'a str,
        }
        let body = Body { error: Reason { code: self.code, message: &self.what } };
        let body = serde_json::to_vec(&body).expect("strings have a JSON form");
        let mut headers = String::from("X-Content-Type-Options: nosniff\r\n");
        for (name, value) in &self.headers {
            let _ = write!(headers, "{name}: {value}\r\n");
        }
        closing_response(self.status, "application/json", &headers, &body, self.head_only)
    }
}

/// The 101 that ends HTTP on a connection; frames follow.
#[must_use]
pub fn switching_protocols(accept: &Accept) -> Vec<u8> {
    let accept = accept.as_str();
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    )
    .into_bytes()
}

/// The demo page; `head_only` leaves the body out, as a HEAD asks for.
#[must_use]
pub fn page_response(html: &[u8], head_only: bool) -> Vec<u8> {
    closing_response(200, "text/html; charset=utf-8", "Cache-Control: no-store\r\n", html, head_only)
}

/// Says that somebody is here; `head_only` leaves the body out.
#[must_use]
pub fn here_response(head_only: bool) -> Vec<u8> {
    closing_response(200, "text/plain; charset=utf-8", "Cache-Control: no-store\r\n", b"ok\n", head_only)
}

/// A 503 that tells the client when to come back, in seconds.
#[must_use]
pub fn unavailable(retry_after_seconds: u32, what: &str) -> Vec<u8> {
    Refusal::new(503, "unavailable", what).with_header("Retry-After", retry_after_seconds.to_string()).response()
}

/// A whole response; `headers` are further lines, each with its end.
fn closing_response(status: u16, content_type: &str, headers: &str, body: &[u8], head_only: bool) -> Vec<u8> {
    let reason = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or("");
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n{headers}Connection: close\r\n\r\n"
    );
    let mut response = head.into_bytes();
    if !head_only {
        response.extend_from_slice(body);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A response as a client's parser reads it: status, headers by lower-case name, body.
    fn read(response: &[u8]) -> (u16, Vec<(String, String)>, Vec<u8>) {
        let mut headers = [httparse::EMPTY_HEADER; 16];
        let mut parsed = httparse::Response::new(&mut headers);
        let httparse::Status::Complete(head_bytes) = parsed.parse(response).unwrap() else { panic!("incomplete") };
        let text = |value: &[u8]| String::from_utf8(value.to_vec()).unwrap();
        let headers = parsed.headers.iter().map(|header| (header.name.to_lowercase(), text(header.value))).collect();
        (parsed.code.unwrap(), headers, response[head_bytes..].to_vec())
    }

    fn header(response: &[u8], name: &str) -> Option<String> {
        read(response).1.into_iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    #[test]
    fn a_refusal_is_a_whole_response_that_says_what_to_do() {
        let what = "no \"channel\" <b>\r\nSet-Cookie: x";
        let response = Refusal::new(405, "method_not_allowed", what).with_header("Allow", "GET").response();
        let (status, _, body) = read(&response);
        assert_eq!(status, 405);
        assert!(response.starts_with(b"HTTP/1.1 405 Method Not Allowed\r\n"));
        assert_eq!(header(&response, "content-length"), Some(body.len().to_string()));
        assert_eq!(header(&response, "connection").as_deref(), Some("close"));
        assert_eq!(header(&response, "allow").as_deref(), Some("GET"));
        assert_eq!(header(&response, "set-cookie"), None);
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body, serde_json::json!({"error": {"code": "method_not_allowed", "message": what}}));
    }

    #[test]
    fn a_head_is_answered_without_a_body_but_with_its_length() {
        let refusal = Refusal::new(404, "not_found", "nothing").for_method("HEAD").response();
        assert!(read(&refusal).2.is_empty() && header(&refusal, "content-length").unwrap() != "0");
        let page = page_response(b"<p>", true);
        assert_eq!((read(&page).2.len(), header(&page, "content-length").as_deref()), (0, Some("3")));
    }

    #[test]
    fn the_page_is_html_and_never_stored() {
        let page = page_response("<p>é".as_bytes(), false);
        let (status, _, body) = read(&page);
        assert_eq!((status, body.as_slice()), (200, "<p>é".as_bytes()));
        assert_eq!(header(&page, "content-type").as_deref(), Some("text/html; charset=utf-8"));
        assert_eq!(header(&page, "cache-control").as_deref(), Some("no-store"));
        assert_eq!(header(&page, "connection").as_deref(), Some("close"));
    }

    #[test]
    fn a_busy_gateway_says_when_to_come_back() {
        let response = unavailable(17, "full: come back later");
        assert_eq!(read(&response).0, 503);
        assert_eq!(header(&response, "retry-after").as_deref(), Some("17"));
    }
}
