//! A head is served only if every part of it was incomplete and its channels are good; every refusal is a well-formed
//! response.

#![no_main]

use libfuzzer_sys::fuzz_target;
use spillgate::config::Limits;
use spillgate::wire::request::parse;
use spillgate::wire::{Accept, Refusal, Request, check_channel, switching_protocols};

const HANDSHAKE: &[u8] = b" HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

fuzz_target!(|input: &[u8]| {
    let limits = Limits { request_bytes_max: 1024, channels_per_connection_max: 3, ..Limits::default() };
    check(input, &limits);
    // The same bytes as the target of a good handshake.
    check(&[b"GET /", input, HANDSHAKE].concat(), &limits);
    check(&[b"GET /ws?channels=", input, HANDSHAKE].concat(), &limits);
});

fn check(head: &[u8], limits: &Limits) {
    match parse(head, limits) {
        Ok(Some((request, head_bytes))) => {
            assert!(head_bytes <= head.len() && head_bytes <= limits.request_bytes_max);
            assert_eq!(parse(&head[..head_bytes], limits), Ok(Some((request.clone(), head_bytes))));
            for cut in 0..head_bytes {
                assert_eq!(parse(&head[..cut], limits), Ok(None));
            }
            match request {
                Request::Raw { channel, accept } => check_handshake(&[channel], &accept, limits),
                Request::Json { channels, accept } => check_handshake(&channels, &accept, limits),
                Request::Page { .. } => {}
            }
        }
        Ok(None) => assert!(head.len() < limits.request_bytes_max),
        Err(refusal) => {
            check_refusal(&refusal);
            assert!(!matches!(parse(&[head, b"x"].concat(), limits), Ok(Some(_))), "a refusal was taken back");
        }
    }
}

fn check_handshake(channels: &[Box<str>], accept: &Accept, limits: &Limits) {
    assert!(channels.len() <= limits.channels_per_connection_max);
    for (index, channel) in channels.iter().enumerate() {
        assert_eq!(check_channel(channel, limits), Ok(()));
        assert!(!channels[..index].contains(channel));
    }
    assert!(switching_protocols(accept).ends_with(b"\r\n\r\n"));
}

fn check_refusal(refusal: &Refusal) {
    let response = refusal.response();
    let mut headers = [httparse::EMPTY_HEADER; 8];
    let mut parsed = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head_bytes) = parsed.parse(&response).expect("a response") else {
        panic!("an incomplete response")
    };
    assert_eq!(parsed.code, Some(refusal.status));
    let body = &response[head_bytes..];
    if !body.is_empty() {
        let body: serde_json::Value = serde_json::from_slice(body).expect("a JSON body");
        assert_eq!(body["error"]["message"], refusal.what);
    }
}
