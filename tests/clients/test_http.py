"""A plain or broken HTTP request gets a proper status, and a body that says what to do."""

import json
import time

import pytest

from harness import wait_until
from peer import Peer, request

REQUEST_BYTES_MAX = 8 << 10


def without(path, name, *lines, **options):
    """The request of a WebSocket without one of its headers, and with further lines."""
    head = request(path, **options).decode().split("\r\n")
    kept = [line for line in head if not line.lower().startswith(name.lower() + ":")]
    return "\r\n".join([*kept[:-2], *lines, "", ""]).encode()


# What it is called, what is sent, the status, and what the answer says.
REFUSALS = [
    ("not HTTP", b"hello\r\n\r\n", 400, "not an HTTP/1.1 request"),
    ("a TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n\n", 400, "TLS"),
    ("a broken header", b"GET /ws HTTP/1.1\r\nHost h\r\n\r\n", 400, "not an HTTP/1.1 request"),
    ("no host", without("/ws", "Host"), 400, "Host"),
    ("two hosts", request("/ws", "Host: other"), 400, "Host"),
    ("a body", request("/ws", "Content-Length: 3") + b"abc", 400, "body"),
    ("a chunked body", request("/ws", "Transfer-Encoding: chunked"), 400, "body"),
    ("no key", without("/ws", "Sec-WebSocket-Key"), 400, "Sec-WebSocket-Key"),
    ("two keys", request("/ws", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="), 400, "Sec-WebSocket-Key"),
    ("a short key", without("/ws", "Sec-WebSocket-Key", "Sec-WebSocket-Key: AAAA"), 400, "Sec-WebSocket-Key"),
    ("HTTP/1.0", request("/ws").replace(b"HTTP/1.1", b"HTTP/1.0"), 400, "HTTP/1.1"),
    ("a channel without a name", request("/raw/"), 400, "empty"),
    ("a control character", request("/raw/a%00b"), 400, "control character"),
    ("not UTF-8", request("/raw/%ff"), 400, "UTF-8"),
    ("half an escape", request("/raw/a%4"), 400, "percent-encoded"),
    ("a name of 201 bytes", request("/raw/" + "x" * 201), 400, "at most 200"),
    ("a name of 201 bytes in a list", request("/ws?channels=a," + "x" * 201), 400, "at most 200"),
    ("101 channels", request("/ws?channels=" + ",".join(map(str, range(101)))), 400, "more than 100"),
    ("no such path", request("/nothing"), 404, "/raw/{channel}"),
    ("the page, where there is none", request("/"), 404, "no page here"),
    ("a POST", request("/ws", method="POST"), 405, "GET"),
    ("a PUT of the page", request("/", method="PUT"), 405, "GET"),
    ("a plain GET", b"GET /ws HTTP/1.1\r\nHost: h\r\n\r\n", 426, "speaks WebSocket"),
    ("a plain GET of a channel", b"GET /raw/c HTTP/1.1\r\nHost: h\r\n\r\n", 426, "speaks WebSocket"),
    ("another version", without("/ws", "Sec-WebSocket-Version", "Sec-WebSocket-Version: 8"), 426, "version 13"),
    ("a head that is too long", request("/ws", "X: " + "x" * REQUEST_BYTES_MAX), 431, "more than 8192 bytes"),
    ("a line without an end", b"GET /" + b"x" * REQUEST_BYTES_MAX, 431, "more than 8192 bytes"),
    ("too many headers", request("/ws", *(f"X-{number}: 1" for number in range(100))), 431, "headers"),
    ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "HTTP/1.1"),
]


@pytest.mark.parametrize(("sent", "status", "says"), [row[1:] for row in REFUSALS], ids=[row[0] for row in REFUSALS])
def test_a_request_that_is_not_served_is_told_why_and_harms_nobody_else(gateway, bystander, sent, status, says):
    with Peer(gateway.port) as peer:
        peer.send(sent)
        got, headers, body = peer.response()
        message = json.loads(body)["error"]["message"]
        assert (got, says in message) == (status, True), message
        assert headers["connection"] == "close"
        if status == 426:
            assert (headers["upgrade"], headers["sec-websocket-version"]) == ("websocket", "13")
        if status == 405:
            assert "GET" in headers["allow"]
        peer.expect_end()
    bystander()


def test_what_a_client_wrote_comes_back_only_as_text_in_json(gateway):
    with Peer(gateway.port) as peer:
        peer.send(request("/<script>alert(1)</script>"))
        status, headers, body = peer.response()
        assert (status, headers["content-type"]) in [(404, "application/json"), (400, "application/json")]
        assert headers["x-content-type-options"] == "nosniff"
        assert json.loads(body)["error"]["code"]


def test_a_head_is_answered_without_a_body(gateway):
    with Peer(gateway.port) as peer:
        peer.send(b"HEAD /nothing HTTP/1.1\r\nHost: h\r\n\r\n")
        while peer._fill():
            pass
        head = bytes(peer.buffer)
        assert head.startswith(b"HTTP/1.1 404 ") and head.endswith(b"\r\n\r\n")


def test_headers_are_read_as_http_reads_them(gateway):
    head = request("/ws").replace(b"Connection: Upgrade", b"connection: keep-alive, upgrade")
    head = head.replace(b"Upgrade: websocket", b"UPGRADE: WebSocket").replace(b"\r\nHost", b"\r\nOrigin: null\r\nHOST")
    with Peer(gateway.port) as peer:
        peer.send(head)
        headers = peer.expect_open()
        assert headers["upgrade"].lower() == "websocket"
        assert "sec-websocket-extensions" not in headers, "none was agreed on"


def test_the_answer_to_the_key_is_the_one_of_the_rfc(gateway):
    head = without("/ws", "Sec-WebSocket-Key", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
    with Peer(gateway.port) as peer:
        peer.send(head)
        assert peer.expect_open()["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def test_a_slow_request_is_ended_in_time_and_a_slow_but_whole_one_is_served(start):
    gateway = start(LIMITS_REQUEST_TIMEOUT="1s", DRAIN_CLOSE_TIMEOUT="500ms")
    with Peer(gateway.port) as slow, Peer(gateway.port) as silent, Peer(gateway.port) as whole:
        began = time.monotonic()
        slow.send(b"GET /ws HTTP/1.1\r\nHost: h\r\n")
        whole.send(request("/ws")[:-4])
        time.sleep(0.4)
        slow.send(b"X: 1\r\n")  # a byte now and then does not make it last
        whole.send(b"\r\n\r\n")
        whole.expect_open()
        for peer in (slow, silent):
            status, _, body = peer.response()
            assert (status, json.loads(body)["error"]["code"]) == (408, "request_timeout")
            peer.expect_end()
        assert 0.9 < time.monotonic() - began < 4
        whole.command(id=1, subscribe="c")
        assert whole.json()["id"] == 1
        name = 'ws_connections_terminated_total{reason="request_timeout"}'
        wait_until(lambda: gateway.metric(name) == 2, "two requests that came too late")


def test_past_the_last_place_new_clients_get_a_503_and_nobody_connected_is_hurt(start):
    gateway = start("--shards", 1, LIMITS_CONNECTIONS_PER_SHARD_MAX=5)
    inside = [Peer.opened(gateway.port, "/raw/c") for _ in range(5)]
    for _ in range(10):
        with Peer(gateway.port) as peer:
            status, headers, body = peer.response()
            assert (status, json.loads(body)["error"]["code"]) == (503, "unavailable")
            assert 1 <= int(headers["retry-after"]) <= 8
            peer.expect_end()
    assert gateway.ask("POST", "/channels/c/publish", b"1") == (200, '{"channel":"c","sockets":5}')
    assert {peer.text() for peer in inside} == {"1"}
    inside.pop().socket.close()
    wait_until(lambda: gateway.metric("ws_connections_active") == 4, "a free place")
    inside.append(Peer.opened(gateway.port, "/raw/c"))
    for peer in inside:
        peer.socket.close()
