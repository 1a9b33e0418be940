"""The heartbeat, and how the gateway leaves."""

import signal
import socket
import subprocess
import time

import pytest
from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK
from websockets.sync.client import connect

from harness import BINARY, Gateway, environment, run_spillgate, wait_until
from peer import PING, PONG, TEXT, Peer, frame, request

# Whoever is closed may take its time to answer, so that the test can look at one client after the other.
HEARTBEAT = {"HEARTBEAT_PING_AFTER": "1s", "HEARTBEAT_PONG_TIMEOUT": "1s", "DRAIN_CLOSE_TIMEOUT": "10s"}


def test_the_heartbeat_tells_the_silent_from_the_vanished(start):
    gateway = start("--shards", 1, **HEARTBEAT)
    with (
        Peer.opened(gateway.port, "/raw/quiet") as answering,
        Peer.opened(gateway.port, "/raw/quiet") as vanished,
        Peer.opened(gateway.port, "/raw/busy") as busy,
    ):
        began = time.monotonic()
        until = began + 6
        answering.socket.settimeout(0.05)
        pings = 0
        while time.monotonic() < until:
            gateway.ask("POST", "/channels/busy/publish", b"tick")
            assert busy.frame().opcode == TEXT, "whoever is sent updates is not pinged"
            try:
                got = answering.any_frame()
            except TimeoutError:
                continue
            assert got.opcode == PING
            answering.send(frame(PONG, got.payload))
            pings += 1
        assert 2 <= pings <= 6
        assert vanished.any_frame().opcode == PING
        assert vanished.expect_close(1001)
        answering.socket.settimeout(5)
        gateway.ask("POST", "/channels/quiet/publish", b"still there")
        while (got := answering.any_frame()).opcode == PING:
            pass
        assert got.payload == b"still there"
        assert gateway.metric('ws_connections_terminated_total{reason="ping_timeout"}') == 1


def test_a_client_that_talks_is_not_pinged(start):
    gateway = start("--shards", 1, **HEARTBEAT)
    with Peer.opened(gateway.port, "/raw/c") as peer:
        for _ in range(30):
            peer.send(frame(PONG))
            time.sleep(0.1)
        peer.send(frame(PING, b"mine"))
        assert peer.frame().payload == b"mine", "the first frame is the answer to its own ping"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_closes_everyone_with_1001_and_exits_0(start, redis, number):
    gateway = start("--shards", 2, redis=redis)
    peers = [Peer.opened(gateway.port, "/raw/c") for _ in range(30)]
    with connect(gateway.uri("/ws?channels=c")) as client, Peer(gateway.port) as half:
        client.recv(timeout=5)
        half.send(b"GET /ws HTTP/1.1\r\n")
        gateway.send_signal(number)
        with pytest.raises((ConnectionClosedOK, ConnectionClosedError)) as closed:
            client.recv(timeout=10)
        assert closed.value.rcvd.code == 1001
        for peer in peers:
            peer.expect_close(1001)
            peer.socket.close()
    began = time.monotonic()
    gateway.check_end()
    assert time.monotonic() - began < 5


def test_a_client_that_never_closes_its_side_does_not_hold_the_end_up(start):
    gateway = start(DRAIN_TIMEOUT="5s", DRAIN_CLOSE_TIMEOUT="1s")
    with (
        Peer.opened(gateway.port, "/raw/quiet") as stubborn,
        Peer.opened(gateway.port, "/raw/flood", receive_buffer=4096) as stalled,
        Peer(gateway.port) as mute,
    ):
        for _ in range(300):
            gateway.ask("POST", "/channels/flood/publish", b"x" * 10_000)
        mute.send(request("/ws")[:30])
        wait_until(lambda: gateway.metric("ws_outbox_messages") > 0, "a stalled client")
        began = time.monotonic()
        gateway.send_signal()
        assert stubborn.frame().close_code == 1001
        gateway.check_end()
        assert time.monotonic() - began < 4, "three clients stay, and none of them for long"
        assert stalled.socket.fileno() >= 0


def test_a_second_signal_ends_it_at_once(start):
    gateway = start(DRAIN_TIMEOUT="60s", DRAIN_CLOSE_TIMEOUT="60s")
    with Peer.opened(gateway.port, "/raw/c") as stubborn:
        gateway.send_signal()
        assert stubborn.frame().close_code == 1001
        began = time.monotonic()
        gateway.send_signal()
        gateway.check_end()
        assert time.monotonic() - began < 5


def test_while_it_leaves_it_is_not_ready_and_takes_nobody_new(start):
    gateway = start("--shards", 2, DRAIN_TIMEOUT="10s", DRAIN_CLOSE_TIMEOUT="3s")
    with Peer.opened(gateway.port, "/raw/c") as stubborn:
        gateway.send_signal()
        assert stubborn.frame().close_code == 1001
        assert gateway.ask("GET", "/readyz") == (503, "leaving\n")
        assert gateway.ask("GET", "/healthz")[0] == 200
        with pytest.raises((ConnectionError, AssertionError)):
            Peer.opened(gateway.port, "/raw/c")


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
@pytest.mark.parametrize("first_host", ["127.0.0.1", "0.0.0.0"])
def test_an_address_in_use_is_refused_with_what_to_do(start, first_host, host):
    gateway = start(listen=f"{first_host}:0")
    second = run_spillgate("serve", "--listen", f"{host}:{gateway.port}", "--admin", "127.0.0.1:0")
    assert second.returncode != 0
    assert f"{host}:{gateway.port}" in second.stderr and "another process" in second.stderr
    assert "panicked" not in second.stderr
    with Peer.opened(gateway.port, "/raw/c") as peer:
        gateway.ask("POST", "/channels/c/publish", b"1")
        assert peer.text() == "1", "the first one is unharmed"


def test_an_admin_address_in_use_is_refused(start):
    gateway = start()
    second = run_spillgate("serve", "--listen", "127.0.0.1:0", "--admin", f"127.0.0.1:{gateway.admin}")
    assert second.returncode != 0 and f"127.0.0.1:{gateway.admin}" in second.stderr


def test_a_port_is_free_again_at_once_though_clients_were_on_it(start):
    gateway = start()
    peers = [Peer.opened(gateway.port, "/raw/c") for _ in range(10)]
    gateway.send_signal()
    for peer in peers:
        peer.expect_close(1001)
    gateway.check_end()
    again = start(listen=f"127.0.0.1:{gateway.port}")
    assert again.port == gateway.port
    for peer in peers:
        peer.socket.close()


def test_a_gateway_that_was_killed_has_a_successor_at_once(start):
    gateway = start("--shards", 4)
    for _ in range(5):
        gateway.process.kill()
        gateway.exit_code = gateway.process.wait()  # it could not end in order
        gateway = start("--shards", 4, listen=f"127.0.0.1:{gateway.port}")


def test_it_listens_on_every_address_that_it_is_given(start):
    with socket.socket() as probe:
        probe.bind(("127.0.0.2", 0))
        extra = probe.getsockname()
    gateway = start("--shards", 2, "--listen", f"{extra[0]}:{extra[1]}")
    with Peer.opened(gateway.port, "/raw/c") as first, connect(f"ws://{extra[0]}:{extra[1]}/raw/c") as second:
        gateway.ask("POST", "/channels/c/publish", b"both")
        assert first.text() == second.recv(timeout=5) == "both"


def test_a_client_that_left_is_no_connection_any_more(start):
    gateway = start("--shards", 1)
    for _ in range(3):
        peers = [Peer.opened(gateway.port, "/raw/c") for _ in range(50)]
        wait_until(lambda: gateway.metric("ws_websockets_active") == 50, "fifty WebSockets")
        for peer in peers:
            peer.socket.close()
        wait_until(lambda: gateway.metric("ws_connections_active") == 0, "nobody")
    assert gateway.metric('ws_connections_terminated_total{reason="vanished"}') == 150


def test_a_log_that_cannot_be_written_ends_nobody(redis):
    with socket.socket() as probe, socket.socket() as other:
        probe.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        port, admin = probe.getsockname()[1], other.getsockname()[1]
    line = ["serve", "--listen", f"127.0.0.1:{port}", "--admin", f"127.0.0.1:{admin}", "--redis", redis.url]
    with open("/dev/full", "w") as full:
        process = subprocess.Popen([str(BINARY), *line], env=environment({}), stderr=full)
    try:
        wait_until(lambda: accepts(port) or process.poll() is not None, "a gateway that listens")
        assert process.poll() is None
        with Peer.opened(port, "/raw/c") as peer:
            redis.stop()
            redis.start()
            wait_until(lambda: redis.client().publish("c", "still there") == 1, "the channel at Redis again")
            assert peer.text() == "still there"
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()


def accepts(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_an_unused_gateway_ends_by_itself_as_soon_as_it_is_told():
    gateway = Gateway("--shards", 1)
    began = time.monotonic()
    gateway.end()
    assert time.monotonic() - began < 2
