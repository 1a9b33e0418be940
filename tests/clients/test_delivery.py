"""What is published to Redis arrives: as it was, in order, all of it, from the first moment on."""

import asyncio
import base64
import json
import time
from urllib.parse import quote

import pytest
from redis.asyncio import Redis as AsyncRedis
from websockets.asyncio.client import connect as connect_async
from websockets.sync.client import connect

from harness import wait_until
from peer import BINARY, TEXT, Peer

UPDATES, UPDATES_PER_SECOND, BATCH = 100_000, 5_000, 50


def test_redis_cli_publish_arrives_raw_and_in_the_envelope(redis, gateway):
    with (
        connect(gateway.uri("/raw/match.1")) as raw,
        connect(gateway.uri("/ws?channels=match.1")) as enveloped,
    ):
        subscribed = json.loads(enveloped.recv(timeout=5))
        before_ms = time.time() * 1000
        assert redis.cli("PUBLISH", "match.1", "hello").strip() == "1"
        assert raw.recv(timeout=5) == "hello"
        envelope = json.loads(enveloped.recv(timeout=5))
        assert list(envelope) == ["channel", "seq", "ts", "data"]
        assert (envelope["channel"], envelope["data"]) == ("match.1", "hello")
        assert envelope["seq"] == subscribed["seq"] + 1
        assert before_ms - 50 <= envelope["ts"] <= time.time() * 1000 + 50


NOT_UTF8 = b"\xff\x00\xfe"
# Payload, and what a JSON client finds under "data".
PAYLOADS = [
    (b"hello", "hello"),
    (b"", ""),
    (b'{"a": [1, 2.50, null]}', {"a": [1, 2.5, None]}),
    (b"17", 17),
    (b"true", True),
    (b'"a string"', "a string"),
    (b" [1]\n", [1]),
    ("é\u2028\u0000".encode(), "é\u2028\u0000"),
    (b"\xc3", None),
    (NOT_UTF8, None),
    (bytes(range(256)), None),
    (b"x" * 126, "x" * 126),
    (b"x" * 70_000, "x" * 70_000),
    # What tries to break out of its envelope, or to trip whoever parses it.
    (b'"}', '"}'),
    (b'1},{"channel":"other","seq":1', '1},{"channel":"other","seq":1'),
    (b'1,"seq":999', '1,"seq":999'),
    (b'"x","channel":"y"', '"x","channel":"y"'),
    (b'{"seq":999,"channel":"other","base64":true}', {"seq": 999, "channel": "other", "base64": True}),
    (b"1 2", "1 2"),
    (b"1//comment", "1//comment"),
    (b"NaN", "NaN"),
    (b"{'a':1}", "{'a':1}"),
    (b'{"a":1,}', '{"a":1,}'),
    (b"\xef\xbb\xbf1", "\ufeff1"),
    (b'"\\ud800"', "\ud800"),
    (b"</script><script>alert(1)</script>", "</script><script>alert(1)</script>"),
    (b"[" * 5000, "[" * 5000),
    (b"[" * 5000 + b"]" * 5000, "[" * 5000 + "]" * 5000),
]


def test_every_payload_stays_inside_its_envelope_and_is_what_was_published(redis, gateway, channel):
    with (
        Peer.opened(gateway.port, f"/raw/{channel}") as raw,
        Peer.opened(gateway.port, f"/ws?channels={channel}") as enveloped,
    ):
        seq = enveloped.json()["seq"]
        for payload, data in PAYLOADS:
            redis.publish(channel, payload)
            seq += 1
            got = raw.frame()
            assert got.payload == payload
            envelope = enveloped.json()
            assert envelope.pop("ts") > 1.7e12
            try:
                payload.decode()
                assert got.opcode == TEXT
                assert envelope == {"channel": channel, "seq": seq, "data": data}, payload[:50]
            except UnicodeDecodeError:
                assert got.opcode == BINARY
                encoded = base64.b64encode(payload).decode()
                assert envelope == {"channel": channel, "seq": seq, "data": encoded, "base64": True}


@pytest.mark.parametrize("name", ['a"},{"x', "a,b", "a/b?c&d", "ключ 💧", "%2F", "\\u0022", "[*]?"])
def test_a_hostile_channel_name_is_a_name_like_any_other(redis, gateway, name):
    encoded = quote(name, safe="")
    with (
        Peer.opened(gateway.port, f"/raw/{encoded}") as raw,
        Peer.opened(gateway.port, f"/ws?channels={encoded}") as enveloped,
    ):
        assert enveloped.json()["subscribed"] == name
        redis.publish(name, "1")
        assert raw.text() == "1"
        assert enveloped.json()["channel"] == name


async def publish_steadily(redis, channel):
    """All updates at their rate; the number that each carries is its place."""
    async with AsyncRedis(port=redis.port) as client:
        start = time.monotonic()
        for first in range(0, UPDATES, BATCH):
            pipeline = client.pipeline(transaction=False)
            for number in range(first, first + BATCH):
                pipeline.publish(channel, number)
            assert set(await pipeline.execute()) == {1}, "Redis has cut the gateway off"
            ahead_s = start + (first + BATCH) / UPDATES_PER_SECOND - time.monotonic()
            if ahead_s > 0:
                await asyncio.sleep(ahead_s)


async def read_raw(client):
    for number in range(UPDATES):
        assert await client.recv() == str(number)


async def read_json(client):
    seq = json.loads(await client.recv())["seq"]
    for number in range(UPDATES):
        envelope = json.loads(await client.recv())
        assert (envelope["data"], envelope["seq"]) == (number, seq + 1 + number)


def test_a_hundred_thousand_updates_arrive_in_order_and_complete(redis, gateway, channel):
    async def run():
        async with (
            connect_async(gateway.uri(f"/raw/{channel}")) as raw,
            connect_async(gateway.uri(f"/ws?channels={channel}")) as enveloped,
        ):
            await asyncio.gather(publish_steadily(redis, channel), read_raw(raw), read_json(enveloped))

    before = gateway.metrics()
    asyncio.run(asyncio.wait_for(run(), 80))
    delivered = before["ws_messages_delivered_total"] + 2 * UPDATES
    wait_until(lambda: gateway.metric("ws_messages_delivered_total") == delivered, "the count of the last deliveries")
    after = gateway.metrics()
    assert not {name for name in before if "dropped" in name and before[name] != after[name]}


def test_a_thousand_times_what_is_published_at_the_moment_of_subscribed_arrives(redis, gateway):
    with Peer.opened(gateway.port, "/ws") as peer:
        for number in range(1000):
            name = f"moment.json.{number}"
            peer.command(id=number, subscribe=name)
            assert peer.json()["subscribed"] == name
            redis.publish(name, number)
            envelope = peer.json()
            assert (envelope["channel"], envelope["data"]) == (name, number)
            peer.command(unsubscribe=name)
            assert peer.json() == {"unsubscribed": name}


def test_a_thousand_times_what_is_published_at_the_moment_of_the_101_arrives(redis, gateway):
    for number in range(1000):
        with Peer.opened(gateway.port, f"/raw/moment.raw.{number}") as peer:
            redis.publish(f"moment.raw.{number}", number)
            assert peer.text() == str(number)


def test_one_update_reaches_clients_of_both_shards(redis, gateway, channel):
    peers = [Peer.opened(gateway.port, f"/raw/{channel}") for _ in range(64)]
    try:
        on_shards = [gateway.metric(f'ws_shard_connections{{shard="{shard}"}}') for shard in (0, 1)]
        assert all(on_shards), f"64 clients sit on {on_shards}"
        for number in range(10):
            redis.publish(channel, number)
        for peer in peers:
            assert [peer.text() for _ in range(10)] == [str(number) for number in range(10)]
    finally:
        for peer in peers:
            peer.socket.close()


def test_more_shards_than_cores_serve(start, redis, channel):
    gateway = start("--shards", 5, redis=redis)
    peers = [Peer.opened(gateway.port, f"/raw/{channel}") for _ in range(100)]
    try:
        shown = gateway.metrics()
        on_shards = [shown[f'ws_shard_connections{{shard="{shard}"}}'] for shard in range(5)]
        assert all(on_shards), f"100 clients sit on {on_shards}"
        assert redis.publish(channel, "all") == 1
        assert {peer.text() for peer in peers} == {"all"}
    finally:
        for peer in peers:
            peer.socket.close()


def test_a_client_without_a_subscription_left_is_sent_nothing(redis, gateway, channel):
    with Peer.opened(gateway.port, f"/ws?channels={channel}") as peer:
        peer.json()
        peer.command(id=1, unsubscribe=channel)
        assert peer.json() == {"id": 1, "unsubscribed": channel}
        redis.publish(channel, "nobody")
        peer.command(id=2, subscribe=channel)
        assert peer.json()["subscribed"] == channel, "what was published in between is not its"
