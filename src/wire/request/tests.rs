//! Requests as browsers, proxies and strangers send them.

use super::*;
use proptest::prelude::*;

const HANDSHAKE: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// The answer to that key, from RFC 6455, 1.3.
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

fn head(first_line: &str, headers: &str) -> String {
    format!("{first_line}\r\nHost: gate.example\r\n{headers}\r\n")
}

fn parsed(head: &str) -> Result<Option<(Request, usize)>, Refusal> {
    parse(head.as_bytes(), &Limits::default())
}

fn status(head: &str) -> u16 {
    match parsed(head) {
        Ok(Some(_)) => 200,
        Ok(None) => 0,
        Err(refusal) => refusal.status,
    }
}

fn response(head: &str) -> String {
    String::from_utf8(parsed(head).unwrap_err().response()).unwrap()
}

#[test]
fn each_path_leads_to_its_request() {
    let whole = head("GET /raw/a%2Fb/c HTTP/1.1", HANDSHAKE);
    let (request, head_bytes) = parsed(&whole).unwrap().unwrap();
    let Request::Raw { channel, accept } = request else { panic!("{request:?}") };
    assert_eq!((&*channel, accept.as_str(), head_bytes), ("a/b/c", ACCEPT, whole.len()));

    let whole = head("GET /ws?channels=a,b,a HTTP/1.1", HANDSHAKE);
    let (request, _) = parsed(&whole).unwrap().unwrap();
    assert_eq!(request, Request::Json { channels: vec!["a".into(), "b".into()], accept });

    for (line, head_only) in [("GET /", false), ("HEAD /index.html", true)] {
        let (request, _) = parsed(&head(&format!("{line} HTTP/1.1"), "")).unwrap().unwrap();
        assert_eq!(request, Request::Page { head_only });
    }
    assert_eq!(status("GET / HTTP/1.0\r\n\r\n"), 200);
}

#[test]
fn the_switch_carries_the_accept_of_rfc_6455() {
    let (request, _) = parsed(&head("GET /ws HTTP/1.1", HANDSHAKE)).unwrap().unwrap();
    let Request::Json { accept, .. } = request else { panic!("{request:?}") };
    let response = String::from_utf8(crate::wire::switching_protocols(&accept)).unwrap();
    assert!(response.starts_with("HTTP/1.1 101 Switching Protocols\r\n") && response.ends_with("\r\n\r\n"));
    assert!(response.contains(&format!("\r\nSec-WebSocket-Accept: {ACCEPT}\r\n")));
}

#[test]
fn a_head_cut_at_every_byte_is_incomplete_and_frames_behind_it_are_left() {
    let whole = head("GET /ws?channels=a HTTP/1.1", HANDSHAKE);
    for cut in 0..whole.len() {
        assert_eq!(parsed(&whole[..cut]), Ok(None), "{cut}");
    }
    let bytes = [whole.as_bytes(), &[0x81, 0x80, 1, 2, 3, 4]].concat();
    assert_eq!(parse(&bytes, &Limits::default()).unwrap().unwrap().1, whole.len());
}

#[test]
fn headers_are_read_in_any_case_order_and_form() {
    for headers in [
        HANDSHAKE.replace("Connection: Upgrade", "Connection: keep-alive, Upgrade"),
        HANDSHAKE.replace("Connection: Upgrade", "CONNECTION: upgrade,keep-alive"),
        HANDSHAKE.replace("Connection: Upgrade", "Connection: keep-alive\r\nConnection:\tUPGRADE\t"),
        HANDSHAKE.replace("Upgrade: websocket", "upgrade: WebSocket"),
        HANDSHAKE.replace("Upgrade: websocket", "Upgrade: h2c, websocket"),
        HANDSHAKE.replace("Sec-WebSocket-Key:", "sec-websocket-key:").replace("Sec-WebSocket-V", "SEC-WEBSOCKET-V"),
        format!("{HANDSHAKE}Sec-WebSocket-Extensions: permessage-deflate\r\nContent-Length: 0\r\nOrigin: null\r\n"),
    ] {
        assert_eq!(status(&head("GET /ws HTTP/1.1", &headers)), 200, "{headers}");
    }
}

#[test]
fn a_request_is_refused_with_its_status_or_served() {
    let without =
        |name: &str| HANDSHAKE.split_inclusive("\r\n").filter(|header| !header.starts_with(name)).collect::<String>();
    let with = |header: &str| format!("{HANDSHAKE}{header}\r\n");
    let key = |key: &str| HANDSHAKE.replace("dGhlIHNhbXBsZSBub25jZQ==", key);
    let rows: Vec<(u16, String)> = vec![
        (426, head("GET /ws HTTP/1.1", "")),
        (426, head("GET /raw/a HTTP/1.1", &without("Upgrade"))),
        (426, head("GET /raw/a HTTP/1.1", &without("Connection"))),
        (426, head("GET /ws HTTP/1.1", &HANDSHAKE.replace("websocket\r", "websockets\r"))),
        (426, head("GET /ws HTTP/1.1", &HANDSHAKE.replace(": 13", ": 8"))),
        (426, head("GET /ws HTTP/1.1", &without("Sec-WebSocket-Version"))),
        (426, head("GET /ws HTTP/1.1", &with("Sec-WebSocket-Version: 8"))),
        (400, head("GET /ws HTTP/1.1", &without("Sec-WebSocket-Key"))),
        (400, head("GET /ws HTTP/1.1", &with("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="))),
        (400, head("GET /ws HTTP/1.1", &key(""))),
        (400, head("GET /ws HTTP/1.1", &key("dGhlIHNhbXBsZSBub25jZQ"))),
        (400, head("GET /ws HTTP/1.1", &key("c2hvcnQ="))),
        (400, head("GET /ws HTTP/1.1", &key("dGhlIHNhbXBsZSBub25jZQ!="))),
        (400, head("GET /ws HTTP/1.1", &key("dGhlIHNhbXBsZSBub25jZXh4"))),
        (400, head("GET /ws HTTP/1.0", HANDSHAKE)),
        (405, head("POST /ws HTTP/1.1", HANDSHAKE)),
        (405, head("HEAD /raw/a HTTP/1.1", HANDSHAKE)),
        (405, head("DELETE / HTTP/1.1", "")),
        (404, head("GET /chat HTTP/1.1", HANDSHAKE)),
        (404, head("OPTIONS * HTTP/1.1", "")),
        (200, head("GET /raw/é{}|[],'\" HTTP/1.1", HANDSHAKE)),
        (200, head("GET /ws?channels=é{}|[],'a HTTP/1.1", HANDSHAKE)),
        (400, format!("GET /ws HTTP/1.1\r\n{HANDSHAKE}\r\n")),
        (400, head("GET /ws HTTP/1.1", &with("host: other.example"))),
        (400, head("GET / HTTP/1.1", "Content-Length: 5\r\n")),
        (400, head("GET / HTTP/1.1", "Content-Length: 0\r\nContent-Length: 5\r\n")),
        (400, head("GET / HTTP/1.1", "Transfer-Encoding: chunked\r\n")),
        (400, head("GET /raw/ HTTP/1.1", HANDSHAKE)),
        (400, head("GET /raw/%00 HTTP/1.1", HANDSHAKE)),
        (400, head(&format!("GET /raw/{} HTTP/1.1", "a".repeat(201)), HANDSHAKE)),
        (400, head("GET /ws?channels=a,,b HTTP/1.1", HANDSHAKE)),
        (400, head("GET /ws HTTP/1.1", "Bad Header: x\r\n")),
        (400, head("GET /ws HTTP/1.1", " folded\r\n")),
        (400, "GET /ws\r\n\r\n".into()),
        (400, "\x16\x03\x01\x02\x00\x01".into()),
        (505, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into()),
        (431, head("GET / HTTP/1.1", &"X: y\r\n".repeat(64))),
        (200, head("GET / HTTP/1.1", &"X: y\r\n".repeat(63))),
    ];
    for (expected, head) in rows {
        assert_eq!(status(&head), expected, "{head}");
    }
}

#[test]
fn a_head_over_its_limit_is_refused_whether_or_not_it_ends() {
    let limits = Limits { request_bytes_max: 200, ..Limits::default() };
    let of_bytes = |bytes: usize| {
        let rest = "GET / HTTP/1.1\r\nHost: h\r\nX: \r\n\r\n".len();
        format!("GET / HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n", "x".repeat(bytes - rest))
    };
    assert_eq!(parse(of_bytes(200).as_bytes(), &limits).unwrap().unwrap().1, 200);
    let whole = of_bytes(201);
    assert_eq!(parse(&whole.as_bytes()[..199], &limits), Ok(None));
    for head in [&whole, &whole[..200], &"\r\n".repeat(200)] {
        assert_eq!(parse(head.as_bytes(), &limits).map_err(|refusal| refusal.status), Err(431));
    }
    let frames_behind = [of_bytes(150).into_bytes(), vec![0; 500]].concat();
    assert_eq!(parse(&frames_behind, &limits).unwrap().unwrap().1, 150);
}

#[test]
fn a_refusal_tells_the_client_what_to_send_instead() {
    let rows = [
        (head("GET /ws HTTP/1.1", ""), vec!["\r\nUpgrade: websocket\r\n", "new WebSocket("]),
        (head("GET /ws HTTP/1.1", &HANDSHAKE.replace(": 13", ": 8")), vec!["\r\nSec-WebSocket-Version: 13\r\n"]),
        (head("PUT /ws HTTP/1.1", ""), vec!["\r\nAllow: GET\r\n"]),
        (head("PUT / HTTP/1.1", ""), vec!["\r\nAllow: GET, HEAD\r\n"]),
        (head("GET /x\"b HTTP/1.1", ""), vec!["/raw/{channel}", "/ws?channels=a,b", "404"]),
        (head("GET /raw/a%22%0Ab HTTP/1.1", HANDSHAKE), vec!["bad_channel", "control character"]),
    ];
    for (head, says) in rows {
        let response = response(&head);
        let (_, body) = response.split_once("\r\n\r\n").unwrap();
        serde_json::from_str::<serde_json::Value>(body).unwrap();
        for text in says {
            assert!(response.contains(text), "{text} in {response}");
        }
    }
}

#[test]
fn who_only_asks_whether_somebody_is_here_is_told_so() {
    for (line, headers, here) in [
        ("OPTIONS / HTTP/1.0", "", Some(true)), // HAProxy's
        ("OPTIONS / HTTP/1.1", "Host: h\r\n", Some(true)),
        ("GET / HTTP/1.1", "Host: h\r\n", Some(true)),
        ("HEAD / HTTP/1.1", "Host: h\r\n", Some(false)),
        ("GET / HTTP/1.1", "", None),
        ("POST / HTTP/1.1", "Host: h\r\n", None),
        ("GET /readyz HTTP/1.1", "Host: h\r\n", None),
        ("OPTIONS * HTTP/1.1", "Host: h\r\n", None),
        ("OPTIONS /", "Host: h\r\n", None),
    ] {
        let request = format!("{line}\r\n{headers}\r\n");
        let answer = check_response(request.as_bytes()).map(|answer| String::from_utf8(answer).unwrap());
        assert_eq!(answer.as_ref().map(|answer| answer.ends_with("ok\n")), here, "{line}");
        assert!(answer.is_none_or(|answer| answer.starts_with("HTTP/1.1 200 OK\r\n")));
        assert_eq!(check_response(&request.as_bytes()[..request.len() - 1]), None, "it is not whole");
    }
}

#[test]
fn too_many_channels_are_refused() {
    let list = |count: usize| (0..count).map(|index| index.to_string()).collect::<Vec<_>>().join(",");
    assert_eq!(status(&head(&format!("GET /ws?channels={} HTTP/1.1", list(100)), HANDSHAKE)), 200);
    assert_eq!(status(&head(&format!("GET /ws?channels={} HTTP/1.1", list(101)), HANDSHAKE)), 400);
}

proptest! {
    #[test]
    fn arbitrary_heads_never_panic_and_every_refusal_is_a_response(
        line in "(GET|HEAD|PUT) (/|/ws|/raw/)[ -~é]{0,20} HTTP/1.[01]",
        headers in proptest::collection::vec("(Host|Upgrade|Connection|Sec-WebSocket-Key|X): [ -~]{0,30}", 0..6),
        noise in proptest::collection::vec(any::<u8>(), 0..20),
    ) {
        for bytes in [format!("{line}\r\n{}\r\n\r\n", headers.join("\r\n")).into_bytes(), noise] {
            if let Err(refusal) = parse(&bytes, &Limits::default()) {
                prop_assert!(refusal.response().starts_with(b"HTTP/1.1 "));
            }
        }
    }

    #[test]
    fn any_channel_name_survives_its_encoding(name in "[^\\x00-\\x1f\\x7f-\\u{9f}]{1,40}") {
        let encoded: String = name.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let (request, _) = parsed(&head(&format!("GET /ws?channels={encoded} HTTP/1.1"), HANDSHAKE)).unwrap().unwrap();
        let Request::Json { channels, .. } = request else { panic!("{request:?}") };
        prop_assert_eq!(channels, vec![name.into_boxed_str()]);
    }
}
