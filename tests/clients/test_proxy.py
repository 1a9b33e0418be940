"""PROXY headers on the wire: whole, in pieces, too late; and what the log says of those who are turned away."""

import contextlib
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


LOCAL = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"
NAMELESS = {"version 1": b"PROXY UNKNOWN\r\n", "version 2": b"\r\n\r\n\0\r\nQUIT\n\x21\0\0\0"}
OPTIONS = b"OPTIONS / HTTP/1.0\r\n\r\n"
ENDED = "ws_connections_terminated_total"


def ends(gateway):
    """How many connections have ended, by reason; those for which none has are left out."""
    counts = ((re.search(f'^{ENDED}{{reason="(.*)"}}', name), int(count)) for name, count in gateway.metrics().items())
    return {found[1]: count for found, count in counts if found and count}


def quiet(gateway):
    """Whether the log has nothing of a connection that ended, at any level."""
    return not told(gateway, r" (closed|ended) ")


def test_a_health_check_is_answered_if_it_asks_and_is_neither_refused_nor_vanished(proxied):
    gateway = proxied()
    asked = {b"OPTIONS / HTTP/1.0\r\n\r\n": 200, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n": 200}
    asked |= {b"GET /readyz HTTP/1.1\r\nHost: h\r\n\r\n": 404, b"POST / HTTP/1.0\r\n\r\n": 405}
    for check, status in asked.items():
        with Peer(gateway.port) as peer:
            peer.send(LOCAL + check)
            assert peer.response()[0] == status, check
    for header in NAMELESS.values():
        with Peer(gateway.port) as peer:
            peer.send(header + OPTIONS)
            assert peer.response()[0] == 200, header
    with Peer(gateway.port) as peer:  # as HAProxy does it in version 1
        own = "PROXY TCP4 127.0.0.1 127.0.0.1 {} {}\r\n".format(peer.socket.getsockname()[1], gateway.port)
        peer.send(own.encode() + OPTIONS)
        assert peer.response()[0] == 200
    wait_until(lambda: ends(gateway) == {"health_check": 7}, "seven checks")
    assert quiet(gateway)


def test_a_proxy_that_only_connects_or_sends_a_header_is_a_health_check(proxied):
    gateway = proxied()
    for header in (b"", LOCAL, LOCAL[:10], *NAMELESS.values()):
        with Peer(gateway.port) as peer:
            peer.send(header)
    # One that ends in the middle of its header is none.
    wait_until(lambda: ends(gateway) == {"health_check": 4, "vanished": 1}, "the checks")
    with Peer(gateway.port) as peer:
        peer.send(LOCAL + b"GET / HT")
    wait_until(lambda: ends(gateway) == {"health_check": 5, "vanished": 1}, "one that asks by half")
    assert len(told(gateway, " ended ")) == 1 and not told(gateway, " closed ")


def test_a_health_check_that_stays_and_says_nothing_is_closed_without_a_word(proxied):
    gateway = proxied(LIMITS_REQUEST_TIMEOUT="1s")
    peers = [Peer(gateway.port) for _ in range(3)]
    for peer, header in zip(peers, (LOCAL, *NAMELESS.values())):
        peer.send(header)
    for peer in peers:
        with contextlib.suppress(ConnectionResetError):
            assert peer.socket.recv(100) == b""
        peer.socket.close()
    wait_until(lambda: ends(gateway) == {"health_check": 3}, "three checks")
    assert quiet(gateway)


def test_a_full_shard_is_well_to_health_checks_and_names_the_client_that_it_refuses(proxied):
    gateway = proxied(LIMITS_CONNECTIONS_PER_SHARD_MAX=1)
    with Peer(gateway.port) as first:
        first.send(V1 + request("/raw/c"))
        first.expect_open()
        for check in (LOCAL, LOCAL + OPTIONS, NAMELESS["version 1"], NAMELESS["version 2"] + OPTIONS):
            with Peer(gateway.port) as peer:
                peer.send(check)
                if check.endswith(OPTIONS):
                    assert peer.response()[0] == 200, check
        wait_until(lambda: ends(gateway) == {"health_check": 4}, "four checks")
        assert quiet(gateway)
        for sent in (V2, V2 + request("/raw/c"), NAMELESS["version 1"] + request("/raw/c")):
            with Peer(gateway.port) as peer:
                peer.send(sent)
                assert peer.response()[0] == 503, sent
        wait_until(lambda: ends(gateway) == {"health_check": 4, "full": 3}, "three refusals")
        assert len(told(gateway, rf'INFO closed client={re.escape(CLIENTS[V2])} reason="full"')) == 2
        assert len(told(gateway, r'INFO closed proxy=127\.0\.0\.1:\d+ reason="full"')) == 1
        with Peer(gateway.port) as waiting:
            waiting.send(V2[:-1])
            first.socket.close()
            wait_until(lambda: ends(gateway).get("vanished") == 1, "a place that is free")
            waiting.send(V2[-1:] + request("/raw/c"))
            waiting.expect_open()


def test_those_who_do_not_hang_up_when_they_were_refused_keep_nobody_out(proxied):
    """More of them than the shard has slots for refusals, some without a word: a check is answered all the same, and a
    place that becomes free is given away."""
    gateway = proxied(LIMITS_CONNECTIONS_PER_SHARD_MAX=1, PROXY_PROTOCOL_TRUSTED="127.0.0.1", RUST_LOG="info")
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(Peer(gateway.port))
        first.send(V1 + request("/raw/c"))
        first.expect_open()
        for number in range(100):
            peer = stack.enter_context(Peer(gateway.port))
            peer.send(V2 if number % 4 else b"")
        with Peer(gateway.port) as check:
            check.socket.settimeout(5)
            check.send(LOCAL + OPTIONS)
            assert check.response()[0] == 200
        first.socket.close()
        wait_until(lambda: "vanished" in ends(gateway), "a place that is free")
        with Peer(gateway.port) as client:
            client.send(V1 + request("/raw/c"))
            client.expect_open()


def test_what_lets_everybody_claim_any_address_is_warned_of(start):
    pattern = "WARN proxy_protocol.trusted = .*any address"
    assert not told(start("--shards", 1, PROXY_PROTOCOL_TRUSTED="10.0.0.0/8,fc00::/7"), pattern)
    wide = start("--shards", 1, PROXY_PROTOCOL_TRUSTED="127.0.0.1,0.0.0.0/0,::/0")
    assert [re.search('"(.*)"', line)[1] for line in told(wide, pattern)] == ["0.0.0.0/0", "::/0"]


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
