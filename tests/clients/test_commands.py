"""The JSON face: every command has its answer, every limit its error, and nobody can fill the gateway with answers."""

import json
import socket
import time

import pytest

from harness import wait_until
from peer import BINARY, CLOSE, PING, PONG, TEXT, Peer, close_frame, frame

UPDATE_BYTES_MAX = 1 << 20


@pytest.fixture
def peer(gateway):
    with Peer.opened(gateway.port, "/ws") as peer:
        yield peer


@pytest.mark.parametrize("id", [1, 0, -7, 2**64 - 1, "a", "", "x" * 64, 'with "quotes"\u2028'])
def test_an_id_comes_back_as_it_was(peer, channel, id):
    peer.command(id=id, subscribe=channel)
    assert peer.json()["id"] == id
    peer.command(id=id, unsubscribe=channel)
    assert peer.json() == {"id": id, "unsubscribed": channel}


def test_an_answer_to_a_command_without_an_id_has_none(peer, channel):
    peer.command(subscribe=channel)
    answer = peer.json()
    assert (answer["subscribed"], "id" in answer) == (channel, False)
    assert isinstance(answer["epoch"], str) and answer["epoch"]
    assert isinstance(answer["seq"], int)


def test_a_double_subscribe_is_answered_twice_and_delivers_once(redis, peer, channel):
    peer.command(id=1, subscribe=channel)
    peer.command(id=2, subscribe=channel)
    answers = [peer.json(), peer.json()]
    assert {answer["id"] for answer in answers} == {1, 2}
    redis.publish(channel, "once")
    assert peer.json()["data"] == "once"
    peer.command(id=3, unsubscribe=channel)
    assert peer.json() == {"id": 3, "unsubscribed": channel}


def test_channels_of_the_address_are_subscribed_and_told_without_an_id(redis, gateway, channel):
    with Peer.opened(gateway.port, f"/ws?channels={channel}.a,{channel}.b,{channel}.a") as peer:
        told = [peer.json(), peer.json()]
        assert [answer["subscribed"] for answer in told] == [f"{channel}.a", f"{channel}.b"]
        assert not any("id" in answer for answer in told)
        redis.publish(f"{channel}.b", "1")
        assert peer.json()["channel"] == f"{channel}.b"


# What is sent, and the code of the error that answers it.
REFUSED = [
    ("{", "bad_json"),
    ("", "bad_json"),
    ("[]", "bad_json"),
    ("1", "bad_json"),
    ('{"subscribe":"a"}{"subscribe":"b"}', "bad_json"),
    ("[" * 60_000, "bad_json"),
    ("{}", "bad_command"),
    ('{"id":7}', "bad_command"),
    ('{"subscribe":1}', "bad_command"),
    ('{"subscribe":"a","unsubscribe":"b"}', "bad_command"),
    ('{"subscribe":"a","data":1}', "bad_command"),
    ('{"subscribe":"a","extra":1}', "bad_command"),
    ('{"publish":"a"}', "bad_command"),
    ('{"id":{},"subscribe":"a"}', "bad_id"),
    ('{"id":1.5,"subscribe":"a"}', "bad_id"),
    ('{"id":"' + "x" * 65 + '","subscribe":"a"}', "bad_id"),
    ('{"subscribe":""}', "bad_channel"),
    ('{"subscribe":"a\\u0000b"}', "bad_channel"),
    ('{"subscribe":"' + "x" * 201 + '"}', "bad_channel"),
    ('{"subscribe":"' + "é" * 100 + 'x"}', "bad_channel"),
    ('{"unsubscribe":"never.subscribed"}', "not_subscribed"),
    ('{"publish":"no.rule","data":1}', "forbidden"),
]


@pytest.mark.parametrize(("text", "code"), REFUSED, ids=[f"{code}-{text[:24]}" for text, code in REFUSED])
def test_a_wrong_command_is_refused_and_the_client_goes_on(peer, channel, text, code):
    peer.say(text)
    error = peer.json()["error"]
    assert error["code"] == code and error["message"]
    peer.command(id="next", subscribe=channel)
    assert peer.json()["id"] == "next"


def test_a_binary_command_is_refused(peer):
    peer.send(frame(BINARY, b'{"subscribe":"a"}'))
    assert peer.json()["error"]["code"] == "bad_command"


def test_the_hundred_and_first_channel_is_refused_until_one_is_left(peer):
    for number in range(100):
        peer.command(id=number, subscribe=f"hundred.{number}")
    assert {peer.json()["id"] for _ in range(100)} == set(range(100))
    peer.command(id="over", subscribe="hundred.100")
    answer = peer.json()
    assert (answer["id"], answer["error"]["code"]) == ("over", "too_many_channels")
    peer.command(id="again", subscribe="hundred.7")
    assert peer.json()["subscribed"] == "hundred.7", "one that it has is no 101st"
    peer.command(unsubscribe="hundred.7")
    peer.json()
    peer.command(id="fits", subscribe="hundred.100")
    assert peer.json()["subscribed"] == "hundred.100"


def test_a_name_of_two_hundred_bytes_is_fine_on_both_faces(redis, gateway, peer):
    name = "n" * 200
    peer.command(subscribe=name)
    assert peer.json()["subscribed"] == name
    with Peer.opened(gateway.port, f"/raw/{name}") as raw:
        redis.publish(name, "long")
        assert raw.text() == peer.json()["data"] == "long"


def test_a_client_publishes_where_a_rule_allows_it_what_it_wrote_byte_for_byte(gateway, peer):
    data = '{"a":  [1.50,"\\u00e9"]}'
    with Peer.opened(gateway.port, "/raw/chat:1") as raw:
        peer.say('{"id":3,"publish":"chat:1","data":' + data + "}")
        assert peer.json() == {"id": 3, "published": "chat:1"}
        assert raw.text() == data
    peer.command(id=4, publish="chat", data=1)
    assert peer.json()["error"]["code"] == "forbidden"


def test_an_update_over_a_mebibyte_from_redis_is_dropped_counted_and_shows_as_a_gap(redis, gateway, channel):
    with (
        Peer.opened(gateway.port, f"/raw/{channel}") as raw,
        Peer.opened(gateway.port, f"/ws?channels={channel}") as enveloped,
    ):
        seq = enveloped.json()["seq"]
        before = gateway.metric("ws_updates_too_large_total")
        redis.publish(channel, b"x" * UPDATE_BYTES_MAX)
        assert len(raw.frame().payload) == UPDATE_BYTES_MAX
        assert len(enveloped.json()["data"]) == UPDATE_BYTES_MAX
        redis.publish(channel, b"x" * (UPDATE_BYTES_MAX + 1))
        redis.publish(channel, b"small")
        assert raw.text() == "small"
        envelope = enveloped.json()
        assert (envelope["data"], envelope["seq"]) == ("small", seq + 3)
        wait_until(lambda: gateway.metric("ws_updates_too_large_total") == before + 1, "the count of it")


def test_commands_on_the_raw_face_mean_nothing_and_harm_nothing(redis, gateway, channel):
    with Peer.opened(gateway.port, f"/raw/{channel}") as raw:
        raw.command(subscribe="other")
        raw.send(frame(BINARY, b"\xff") + frame(PING, b"?"))
        assert raw.frame().opcode == PONG
        redis.publish(channel, "still here")
        assert raw.text() == "still here"


def test_whoever_does_not_read_its_answers_is_not_read_and_loses_none(redis, gateway, channel):
    name = "b" * 200  # what is refused is long, and so are the answers
    with (
        Peer.opened(gateway.port, "/ws", receive_buffer=4096, send_buffer=4096) as deaf,
        Peer.opened(gateway.port, f"/raw/{channel}") as other,
    ):
        before_kib = gateway.rss_kib()
        deaf.socket.settimeout(1)
        sent, rest = 0, b""
        while not rest:
            assert sent < 1_000_000, "the gateway reads on, though nobody reads its answers"
            command = frame(TEXT, json.dumps({"id": sent, "unsubscribe": name}).encode())
            sent += 1
            done = 0
            try:
                while done < len(command):
                    done += deaf.socket.send(command[done:])
            except TimeoutError:
                rest = command[done:]
        assert gateway.rss_kib() - before_kib < 8192
        redis.publish(channel, "served")
        assert other.text() == "served"

        deaf.socket.settimeout(10)
        received = gateway.metric("ws_messages_received_total")
        time.sleep(0.3)
        assert gateway.metric("ws_messages_received_total") == received, "it is still read"
        for number in range(sent - 1):
            assert deaf.json()["id"] == number
        deaf.send(rest)
        assert deaf.json()["id"] == sent - 1
        deaf.send(close_frame(1000))
        deaf.expect_close(1000)


def test_a_flood_of_pings_is_answered_in_order_as_fast_as_the_client_reads(gateway):
    with Peer.opened(gateway.port, "/ws") as peer:
        peer.send(b"".join(frame(PING, str(number).encode()) for number in range(5000)))
        for number in range(5000):
            got = peer.frame()
            assert (got.opcode, got.payload) == (PONG, str(number).encode())


def test_a_client_that_leaves_while_its_answers_wait_gives_its_place_back(gateway):
    before = gateway.metric("ws_connections_active")
    for _ in range(20):
        peer = Peer.opened(gateway.port, "/ws", receive_buffer=4096)
        peer.send(b"".join(frame(TEXT, b'{"unsubscribe":"x"}') for _ in range(5000)))
        peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        peer.socket.close()
    wait_until(lambda: gateway.metric("ws_connections_active") <= before, "the places of those who left")


def test_what_a_slow_client_cannot_take_is_conflated_counted_and_the_newest_comes(redis, gateway, channel):
    conflated = "ws_messages_conflated_total"
    with (
        Peer.opened(gateway.port, f"/ws?channels={channel}", receive_buffer=4096) as slow,
        Peer.opened(gateway.port, f"/raw/{channel}") as quick,
    ):
        slow.json()
        before = gateway.metric(conflated)
        payload = b"x" * 10_000
        for _ in range(1000):
            redis.publish(channel, payload)
            assert quick.frame().payload == payload
        redis.publish(channel, "newest")
        assert quick.text() == "newest"
        assert gateway.metric(conflated) > before
        last, got = 0, 0
        while True:
            envelope = slow.json()
            assert envelope["seq"] > last
            last, got = envelope["seq"], got + 1
            if envelope["data"] == "newest":
                break
        assert got < 1001
        slow.send(close_frame(1000))
        assert slow.frame().opcode == CLOSE
