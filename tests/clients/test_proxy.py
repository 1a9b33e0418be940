"""PROXY headers on the wire: whole, in pieces, too late; and what the log says of those who are turned away."""

import re
import socket
import time

import pytest

from harness import wait_until
from peer import PING, PONG, Peer, frame, request

V1 = b"PROXY TCP4 203.0.113.9 203.0.113.1 4711 443\r\n"
V2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x21\x00\x24" + socket.inet_pton(socket.AF_INET6, "2001:db8::9") + bytes(16) + b"\x12\x67\x01\xbb"
CLIENTS = {V1: "203.0.113.9:4711", V2: "[2001:db8::9]:4711"}


@pytest.fixture
def proxied(start):
    """A gateway for which this machine is a trusted proxy."""

    def proxied(**settings):
        settings = {"PROXY_PROTOCOL_TRUSTED": "127.0.0.1, ::1", "RUST_LOG": "spillgate=debug"} | settings
        return start("--shards", 1, **settings)

    return proxied


def told(gateway, pattern):
    return [line for line in list(gateway.log) if re.search(pattern, line)]


@pytest.mark.parametrize("header", CLIENTS, ids=["version 1", "version 2"])
def test_header_request_and_frames_may_come_in_one_piece_or_byte_by_byte(proxied, header):
    gateway = proxied()
    sent = header + request("/raw/c") + frame(PING, b"mine")
    for send in (Peer.send, Peer.send_bytewise):
        with Peer(gateway.port) as peer:
            send(peer, sent)
            peer.expect_open()
            got = peer.any_frame()
            assert (got.opcode, got.payload) == (PONG, b"mine")
    client = re.escape(CLIENTS[header])
    wait_until(lambda: len(told(gateway, f" connected client={client} ")) == 2, "both clients in the log")
    assert len(told(gateway, rf"client={client} proxy=127\.0\.0\.1:\d+")) == 2


def test_a_header_that_does_not_end_is_not_awaited_for_ever(proxied):
    gateway = proxied(LIMITS_REQUEST_TIMEOUT="1s")
    with Peer(gateway.port) as peer:
        peer.send(V2[:-1])
        assert peer.response()[0] == 408
    assert gateway.metric('ws_connections_terminated_total{reason="request_timeout"}') == 1


def test_a_header_is_as_long_as_it_may_be_and_no_longer(proxied):
    gateway = proxied()
    longest = 4096 - 16 - 36 - 3
    for padding, status in ((longest, 101), (longest + 1, 400)):
        length = (36 + 3 + padding).to_bytes(2, "big")
        header = V2[:14] + length + V2[16:] + b"\x04" + padding.to_bytes(2, "big") + bytes(padding)
        with Peer(gateway.port) as peer:
            peer.send(header + request("/raw/c"))
            assert peer.response()[0] == status


def test_a_flood_of_refusals_is_cut_in_the_log_and_the_log_says_so(start):
    gateway = start("--shards", 1)
    began = time.monotonic()
    for _ in range(100):
        with Peer(gateway.port) as peer:
            peer.send(request("/nothing"))
            assert peer.response()[0] == 404
    lines = told(gateway, 'reason="request_refused"')
    assert 20 <= len(lines) <= 20 + 2 * (time.monotonic() - began) + 2
    time.sleep(0.6)
    with Peer(gateway.port) as peer:
        peer.send(request("/nothing"))
        peer.response()
        kept_back = 101 - len(lines) - 1
        pattern = rf'INFO closed client=127\.0\.0\.1:{peer.socket.getsockname()[1]} reason="request_refused" why="not_found"'
        line = wait_until(lambda: told(gateway, pattern), "the last line")[0]
        assert f"kept_back={kept_back}" in line
    assert gateway.metric('ws_connections_terminated_total{reason="request_refused"}') == 101


def test_a_slow_consumer_is_told_of_by_its_address(start):
    gateway = start("--shards", 1, LIMITS_STALL_TIMEOUT="1s")
    with Peer.opened(gateway.port, "/raw/c", receive_buffer=4096) as peer:
        address = re.escape("127.0.0.1:{}".format(peer.socket.getsockname()[1]))

        def closed():
            gateway.ask("POST", "/channels/c/publish", bytes(16 << 10))
            return told(gateway, rf'client={address} reason="slow_consumer"')

        assert len(wait_until(closed, "the line about it", pause_s=0.05)) == 1
