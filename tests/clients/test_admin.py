"""The admin interface: health, metrics whose numbers move, and the publish API."""

import json
import re

from harness import wait_until
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
