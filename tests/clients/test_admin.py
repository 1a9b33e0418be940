"""The admin interface: health, metrics whose numbers move, and the publish API."""

import contextlib
import json
import os
import re
import socket
import statistics
import threading
import time

import pytest

from harness import Redis, run_spillgate, wait_until
from peer import Peer, close_frame, frame

UPDATE_BYTES_MAX = 1 << 20
NAMES = [
    "ws_connections_active",
    "ws_messages_delivered_total",
    'ws_messages_dropped_total{reason="outbox_full"}',
    'ws_connections_terminated_total{reason="client_closed"}',
    "ws_message_latency_seconds_count",
    "ws_message_latency_seconds_sum",
    'ws_message_latency_seconds_bucket{le="+Inf"}',
]


def test_a_gateway_that_works_says_so(gateway):
    assert gateway.ask("GET", "/healthz") == (200, "ok\n")
    assert gateway.ask("GET", "/readyz") == (200, "ready\n")


def test_the_embedded_engine_is_ready_from_the_start(start):
    assert start(ready=False).ask("GET", "/readyz") == (200, "ready\n")


def test_the_numbers_of_the_metrics_move_with_what_happens(start):
    gateway = start("--shards", 2)
    before = gateway.metrics()
    missing = [name for name in NAMES if name not in before]
    assert not missing, sorted(before)
    peers = [Peer.opened(gateway.port, "/raw/c") for _ in range(6)]
    for number in range(10):
        assert gateway.ask("POST", "/channels/c/publish", str(number).encode())[0] == 200
    for peer in peers:
        assert [peer.text() for _ in range(10)] == [str(number) for number in range(10)]
    wait_until(lambda: gateway.metric("ws_messages_delivered_total") == 60, "sixty deliveries")
    wait_until(lambda: gateway.metric("ws_message_latency_seconds_count") == 60, "sixty latencies")
    wait_until(lambda: gateway.metric("ws_updates_received_total") == 10, "ten updates")
    shown = gateway.metrics()
    assert (shown["ws_connections_active"], shown["ws_websockets_active"]) == (6, 6)
    assert 0 < shown["ws_message_latency_seconds_sum"] < 60
    buckets = [value for name, value in shown.items() if name.startswith("ws_message_latency_seconds_bucket")]
    assert buckets == sorted(buckets) and buckets[-1] == 60

    peers[0].send(close_frame(1000))
    peers[0].expect_close(1000)
    peers[1].send(frame(3))
    peers[1].expect_close(1002)
    for peer in peers:
        peer.socket.close()
    wait_until(lambda: gateway.metric("ws_connections_active") == 0, "nobody")
    ended = gateway.metrics()
    assert ended['ws_connections_terminated_total{reason="client_closed"}'] == 1
    assert ended['ws_connections_terminated_total{reason="protocol_error"}'] == 1
    assert ended['ws_connections_terminated_total{reason="vanished"}'] == 4


def test_the_metrics_are_openmetrics_with_help_for_each_where_it_is_asked_for(gateway):
    _, text = gateway.ask("GET", "/metrics", Accept="application/openmetrics-text;version=1.0.0,text/plain;q=0.5")
    assert text.endswith("# EOF\n")
    families = set(re.findall(r"^# TYPE (\S+)", text, re.M))
    assert families == set(re.findall(r"^# HELP (\S+) \S+", text, re.M))
    suffixes = r"(_total|_info|_bucket|_count|_sum)?(\{.*\})? [0-9.eE+-]+$"
    for line in text.splitlines():
        if not line.startswith("#"):
            name = re.sub(suffixes, "", line)
            assert name in families, line


def test_half_open_connections_do_not_keep_a_health_check_out_or_take_descriptors(start):
    gateway = start("--shards", 1)

    def descriptors():
        return len(os.listdir(f"/proc/{gateway.process.pid}/fd"))

    before = descriptors()
    with contextlib.ExitStack() as stack:
        for number in range(200):
            half = stack.enter_context(socket.create_connection(("127.0.0.1", gateway.admin), timeout=10))
            half.sendall(b"GET /metr"[: number % 10])
        began = time.monotonic()
        for path in ("/healthz", "/readyz", "/metrics"):
            assert gateway.ask("GET", path)[0] == 200
        assert time.monotonic() - began < 5
        assert descriptors() <= before + 65
        assert gateway.metric("ws_admin_connections") <= 64 and gateway.metric("ws_admin_connections_cut_total") >= 100
    wait_until(lambda: any("connections of the admin interface were closed" in line for line in gateway.log), "a line")
    wait_until(lambda: gateway.metric("ws_admin_connections") == 1, "only who asks")


def test_pipelined_scrapes_cost_a_few_renderings_and_keep_nobody_waiting(start):
    gateway = start("--shards", 1)
    request = b"GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n"
    with socket.create_connection(("127.0.0.1", gateway.admin), timeout=20) as scraper:
        count, began = 300, time.monotonic()
        scraper.sendall(request * (count - 1) + request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        text = b"".join(iter(lambda: scraper.recv(1 << 20), b"")).decode()
    assert text.count("HTTP/1.1 200 OK") == count
    seconds = re.findall(r"^process_cpu_seconds_total (\S+)$", text, re.M)
    ages = re.findall(r"^ws_shard_last_turn_age_seconds\S* (\S+)$", text, re.M)
    assert len(seconds) == len(ages) == count
    # Two renderings never show the same age, in microseconds, but by chance.
    assert len(set(zip(seconds, ages))) <= 40 + 20 * (time.monotonic() - began) + 1


def test_bodies_that_do_not_come_take_little_memory_and_are_let_go(start):
    gateway = start("--shards", 1)
    before = gateway.rss_kib()
    head = b"POST /channels/c/publish HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % UPDATE_BYTES_MAX
    with contextlib.ExitStack() as stack:
        for _ in range(60):
            slow = stack.enter_context(socket.create_connection(("127.0.0.1", gateway.admin), timeout=20))
            slow.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                slow.send(head + b"x" * (UPDATE_BYTES_MAX - 1))
        assert gateway.ask("GET", "/healthz")[0] == 200
        slow.settimeout(20)
        status = slow.recv(1000).split()[1]
        assert status in (b"408", b"503"), "in its time, or for want of room"
        assert gateway.rss_kib() - before < 48 << 10, "room for 16 of them, twice while they are put together, and buffers"
    wait_until(lambda: gateway.ask("POST", "/channels/c/publish", b"x" * UPDATE_BYTES_MAX)[0] == 200, "room again")


HALF_A_PUBLISH = b"POST /channels/c/publish HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\nx"


def healthy(gateway):
    checked = run_spillgate("healthcheck", "--admin", f"127.0.0.1:{gateway.admin}")
    return (checked.returncode, checked.stdout) == (0, "ok\n")


@contextlib.contextmanager
def crowd(gateway, request, count):
    """So many who send `request` again and again, each on a connection of its own that it waits at."""
    ends = threading.Event()

    def insist():
        while not ends.is_set():
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", gateway.admin), timeout=1) as peer:
                peer.sendall(request)
                while not ends.is_set() and peer.recv(4096):
                    pass

    threads = [threading.Thread(target=insist) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ends.set()
        for thread in threads:
            thread.join()


def test_peers_that_send_half_a_body_over_and_over_do_not_shut_the_admin_interface(start):
    gateway = start("--shards", 1)
    with crowd(gateway, HALF_A_PUBLISH % 3, 200):
        wait_until(lambda: gateway.metric("ws_admin_connections") == 64, "every place taken")
        assert all(healthy(gateway) for _ in range(4))
        assert gateway.metric("ws_admin_connections_cut_total") > 0


@pytest.fixture
def own_redis():
    server = Redis().start()
    yield server
    server.remove()


def test_publishes_that_wait_for_a_redis_that_hangs_do_not_shut_the_admin_interface(start, own_redis):
    frozen = start("--shards", 1, redis=own_redis, REDIS_PROBE_TIMEOUT="9s")
    own_redis.process.send_signal(19)
    publish = HALF_A_PUBLISH % 1
    with contextlib.ExitStack() as stack:
        waiting = [stack.enter_context(socket.create_connection(("127.0.0.1", frozen.admin))) for _ in range(60)]
        for peer in waiting:
            peer.sendall(publish)
        wait_until(lambda: frozen.metric("ws_admin_connections") == 61, "those, and who asks")
        for _ in range(3):
            status, text = frozen.ask("POST", "/channels/c/publish", b"one too many")
            assert (status, json.loads(text)["error"]["code"]) == (503, "busy")
        with crowd(frozen, publish, 40):
            assert all(healthy(frozen) for _ in range(4))


def test_a_body_that_says_that_it_is_too_large_is_refused_at_once_and_takes_no_room(start):
    gateway = start("--shards", 1)
    head = b"POST /channels/c/publish HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999999\r\n"
    with contextlib.ExitStack() as stack:
        for expectation in (b"Expect: 100-continue\r\n\r\n", *[b"\r\nx"] * 20):
            peer = stack.enter_context(socket.create_connection(("127.0.0.1", gateway.admin), timeout=3))
            peer.sendall(head + expectation)
            assert peer.recv(1000).startswith(b"HTTP/1.1 413 "), "and not 100 Continue, and not after seconds"
        assert gateway.ask("POST", "/channels/c/publish", b"abc")[0] == 200
    # Who sends a body that is a little too large, and listens only then, hears it too; and goes on.
    with socket.create_connection(("127.0.0.1", gateway.admin), timeout=10) as peer:
        one = b"POST /channels/c/publish HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n"
        peer.sendall(one % (UPDATE_BYTES_MAX + 1) + b"x" * (UPDATE_BYTES_MAX + 1) + one % 1 + b"y")
        heard = b""
        while heard.count(b"HTTP/1.1 ") < 2:
            assert (more := peer.recv(4096)), heard
            heard += more
        assert re.findall(rb"HTTP/1.1 (\d+)", heard) == [b"413", b"200"]


def test_answers_to_pipelined_publishes_do_not_wait_for_acknowledgements(start):
    gateway = start("--shards", 1)
    times = []
    with socket.create_connection(("127.0.0.1", gateway.admin), timeout=10) as peer:
        for _ in range(20):
            began, count = time.monotonic(), 0
            peer.sendall(HALF_A_PUBLISH % 1 * 16)
            while count < 16:
                count += peer.recv(1 << 16).count(b"HTTP/1.1 200 ")
            times.append(time.monotonic() - began)
    assert statistics.median(times) < 0.03, "the kernel delays an acknowledgement by 40 ms"


def test_a_publish_on_its_way_to_a_redis_that_hangs_is_not_called_unavailable(start, own_redis):
    gateway = start("--shards", 1, redis=own_redis, REDIS_PROBE_INTERVAL="1s", REDIS_PROBE_TIMEOUT="1s")
    own_redis.process.send_signal(19)
    status, text = gateway.ask("POST", "/channels/c/publish", b"sent")
    error = json.loads(text)["error"]
    assert (status, error["code"]) == (503, "timeout") and "whether the update went out is not known" in error["message"]
    status, text = gateway.ask("POST", "/channels/c/publish", b"not sent")
    assert (status, json.loads(text)["error"]["code"]) == (503, "unavailable")


def test_a_publish_with_redis_answers_the_gateways_that_it_reached(redis, gateway, channel):
    path = f"/channels/{channel}/publish"
    assert json.loads(gateway.ask("POST", path, b"nobody")[1]) == {"channel": channel, "gateways": 0}
    with Peer.opened(gateway.port, f"/raw/{channel}") as peer, redis.client().pubsub() as other:
        other.subscribe(channel)
        assert other.get_message(timeout=5)["type"] == "subscribe"
        assert json.loads(gateway.ask("POST", path, b"\xffbytes")[1]) == {"channel": channel, "gateways": 2}
        assert peer.frame().payload == other.get_message(timeout=5)["data"] == b"\xffbytes"


def test_a_publish_without_redis_answers_the_sockets_that_it_reached(start):
    gateway = start("--shards", 2)
    path = "/channels/a%2Fb%20%C3%A9/publish"
    assert json.loads(gateway.ask("POST", path, b"")[1]) == {"channel": "a/b é", "sockets": 0}
    raw = [Peer.opened(gateway.port, "/raw/a/b%20%C3%A9") for _ in range(7)]
    with Peer.opened(gateway.port, "/ws") as enveloped:
        enveloped.command(subscribe="a/b é")
        seq = enveloped.json()["seq"]
        assert json.loads(gateway.ask("POST", path, b'{"a":1}')[1]) == {"channel": "a/b é", "sockets": 8}
        assert {peer.text() for peer in raw} == {'{"a":1}'}
        envelope = enveloped.json()
        assert (envelope["seq"], envelope["data"]) == (seq + 1, {"a": 1})
    for peer in raw:
        peer.socket.close()


def test_a_publish_that_cannot_be_is_refused_with_why(gateway):
    for path, body, status, code in [
        (f"/channels/{'x' * 201}/publish", b"1", 400, "bad_channel"),
        ("/channels/a%00/publish", b"1", 400, "bad_channel"),
        ("/channels/a%ff/publish", b"1", 400, "bad_channel"),
        ("/channels/c/publish", b"x" * (UPDATE_BYTES_MAX + 1), 413, "too_large"),
        ("/nothing", b"1", 404, "not_found"),
    ]:
        got, text = gateway.ask("POST", path, body)
        assert (got, json.loads(text)["error"]["code"]) == (status, code)
    assert gateway.ask("GET", "/channels/c/publish")[0] == 405
    assert gateway.ask("POST", "/channels/c/publish", b"x" * UPDATE_BYTES_MAX)[0] == 200
