"""RFC 6455 to the letter: each breach has its close code, each liberty that a client has is granted."""

import socket
import struct
import time

import pytest

from harness import wait_until
from peer import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Frame, Peer, close_frame, frame, request

MESSAGE_BYTES_MAX = 64 << 10
SUBSCRIBE = b'{"id":1,"subscribe":"strict"}'


def start_of_message(payload=b"", opcode=TEXT):
    return frame(opcode, payload, fin=False)


# What it is called, what is sent, and the code of the close frame that answers it.
BREACHES = [
    ("unmasked text", frame(TEXT, b"{}", mask=None), 1002),
    ("unmasked ping", frame(PING, mask=None), 1002),
    ("unmasked close", frame(CLOSE, b"\x03\xe8", mask=None), 1002),
    *((f"reserved bit {bit}", frame(TEXT, SUBSCRIBE, rsv=bit), 1002) for bit in (1, 2, 4, 7)),
    ("reserved bit on a ping", frame(PING, rsv=4), 1002),
    *((f"reserved opcode {opcode}", frame(opcode, b""), 1002) for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)),
    ("continuation of nothing", frame(CONTINUATION, b"x"), 1002),
    ("last continuation twice", start_of_message() + frame(CONTINUATION, SUBSCRIBE) + frame(CONTINUATION), 1002),
    ("text inside a message", start_of_message(b"{") + frame(TEXT, b"}"), 1002),
    ("binary inside a message", start_of_message(b"{") + frame(BINARY, b"}"), 1002),
    ("fragmented ping", frame(PING, fin=False), 1002),
    ("fragmented close", frame(CLOSE, fin=False), 1002),
    ("ping of 126 bytes", frame(PING, b"x" * 126), 1002),
    ("close of 126 bytes", close_frame(1000, b"x" * 124), 1002),
    ("short length in 2 bytes", frame(TEXT, b"x", length_bytes=2), 1002),
    ("125 in 2 bytes", frame(TEXT, b"x" * 125, length_bytes=2), 1002),
    ("65,535 in 8 bytes", frame(TEXT, b"x" * 65_535, length_bytes=8), 1002),
    ("length with the top bit", frame(TEXT, length=1 << 63), 1002),
    ("close of one byte", frame(CLOSE, b"\x03"), 1002),
    *((f"close code {code}", close_frame(code), 1002) for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000)),
    ("text that is not UTF-8", frame(TEXT, b"\xff"), 1007),
    ("an overlong form", frame(TEXT, b"\xc0\xaf"), 1007),
    ("a surrogate", frame(TEXT, b"\xed\xa0\x80"), 1007),
    ("beyond the last character", frame(TEXT, b"\xf4\x90\x80\x80"), 1007),
    ("half a character at the end", frame(TEXT, b"\xe2\x82"), 1007),
    ("not UTF-8 in a fragment", start_of_message(b"ok") + frame(CONTINUATION, b"\xff", fin=False), 1007),
    ("half a character at the last fragment's end", start_of_message(b"ok\xe2") + frame(CONTINUATION, b"\x82"), 1007),
    ("a close reason that is not UTF-8", close_frame(1000, b"\xff"), 1007),
    ("a message of a byte too much", frame(TEXT, length=MESSAGE_BYTES_MAX + 1), 1009),
    ("the largest length", frame(BINARY, length=(1 << 63) - 1), 1009),
    (
        "fragments of a byte too much together",
        start_of_message(b"x" * 40_000) + frame(CONTINUATION, length=MESSAGE_BYTES_MAX - 40_000 + 1),
        1009,
    ),
]


@pytest.mark.parametrize("face", ["/ws", "/raw/strict"])
@pytest.mark.parametrize(("sent", "code"), [row[1:] for row in BREACHES], ids=[row[0] for row in BREACHES])
def test_a_breach_ends_with_its_close_code_and_harms_nobody_else(gateway, bystander, face, sent, code):
    with Peer.opened(gateway.port, face) as peer:
        peer.send(sent)
        reason = peer.expect_close(code)
        assert reason, "the reason says what was wrong"
    bystander()


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1011, 1012, 1014, 3000, 3999, 4000, 4999])
def test_a_close_is_answered_with_its_own_code(gateway, code):
    with Peer.opened(gateway.port, "/ws") as peer:
        peer.send(close_frame(code, "good bye é".encode()))
        assert peer.frame().close_code == code
        peer.expect_end()


def test_a_close_without_a_code_is_answered_with_a_close(gateway):
    with Peer.opened(gateway.port, "/ws") as peer:
        peer.send(frame(CLOSE))
        got = peer.frame()
        assert (got.opcode, got.close_code) in [(CLOSE, None), (CLOSE, 1000)]
        peer.expect_end()


def test_what_comes_after_a_close_is_ignored(gateway):
    with Peer.opened(gateway.port, "/ws") as peer:
        peer.send(close_frame(1000) + frame(TEXT, SUBSCRIBE) + frame(PING) + frame(TEXT, b"\xff", mask=None))
        assert peer.frame().close_code == 1000
        peer.expect_end()


def test_answers_owed_before_a_close_come_before_it(gateway):
    with Peer.opened(gateway.port, "/ws") as peer:
        commands = [frame(TEXT, f'{{"id":{number},"unsubscribe":"x"}}'.encode()) for number in range(100)]
        peer.send(b"".join(commands) + close_frame(1000))
        assert [peer.json()["id"] for _ in range(100)] == list(range(100))
        assert peer.frame().close_code == 1000
        peer.expect_end()


def test_the_server_ends_the_connection_after_the_close_frames_though_the_client_does_not(gateway):
    with Peer.opened(gateway.port, "/ws") as peer:
        peer.send(close_frame(1000))
        assert peer.frame().close_code == 1000
        began = time.monotonic()
        peer.expect_end()
        assert time.monotonic() - began < 1


@pytest.mark.parametrize("behind", [0, 100_000, 2_000_000])
def test_no_reset_takes_the_close_frame_from_a_client_that_reads_late(gateway, behind):
    with Peer.opened(gateway.port, "/ws") as peer:
        peer.send(frame(TEXT, b"x", mask=None) + b"z" * behind)
        time.sleep(0.3)
        peer.expect_close(1002)


def test_a_client_that_never_answers_a_close_loses_its_place(start):
    gateway = start(DRAIN_CLOSE_TIMEOUT="500ms")
    with Peer.opened(gateway.port, "/ws") as peer:
        peer.send(frame(TEXT, b"x", mask=None))
        assert peer.frame().close_code == 1002
        wait_until(lambda: gateway.metric("ws_connections_active") == 0, "the place of a client that stays")


COMMAND = b'{"id":1,"unsubscribe":"never.subscribed"}'
FRAGMENTED = [
    [start_of_message(COMMAND[:5]), frame(CONTINUATION, COMMAND[5:])],
    [start_of_message(), *(frame(CONTINUATION, bytes([byte]), fin=False) for byte in COMMAND), frame(CONTINUATION)],
    [start_of_message(COMMAND), frame(CONTINUATION, fin=False), frame(CONTINUATION)],
]


@pytest.mark.parametrize("pieces", FRAGMENTED, ids=["two", "single bytes", "empty ones"])
def test_fragments_with_control_frames_between_them_are_one_message(gateway, pieces):
    with Peer.opened(gateway.port, "/ws") as peer:
        for number, piece in enumerate(pieces):
            peer.send(piece[:3])
            peer.send(piece[3:] + frame(PING, str(number).encode()) + frame(PONG, b"nobody asked"))
            if number == len(pieces) - 1:
                answer = peer.json()
                assert (answer["id"], answer["error"]["code"]) == (1, "not_subscribed")
            assert peer.frame() == Frame(PONG, str(number).encode())


def test_a_close_between_fragments_closes(gateway):
    with Peer.opened(gateway.port, "/ws") as peer:
        peer.send(start_of_message(b'{"sub') + close_frame(1001))
        assert peer.frame().close_code == 1001
        peer.expect_end()


def test_a_character_may_be_cut_between_fragments_anywhere(gateway):
    text = '{"id":"é€💧","unsubscribe":"x"}'.encode()
    with Peer.opened(gateway.port, "/ws") as peer:
        for cut in range(len(text) + 1):
            peer.send(start_of_message(text[:cut]) + frame(CONTINUATION, text[cut:]))
            assert peer.json()["id"] == "é€💧"


def test_not_utf8_is_refused_at_the_fragment_that_proves_it_not_at_the_end(gateway):
    with Peer.opened(gateway.port, "/ws") as peer:
        peer.send(start_of_message(b"\xe2") + frame(CONTINUATION, b"\x28", fin=False))
        peer.expect_close(1007)


@pytest.mark.parametrize("length", [0, 1, 125, 126, 127, 65_535, 65_536])
def test_every_form_of_length_is_read(gateway, length):
    with Peer.opened(gateway.port, "/ws") as peer:
        peer.send(frame(TEXT, b" " * length) + frame(PING, b"after"))
        assert peer.json()["error"]["code"] == "bad_json"
        assert peer.frame().payload == b"after"


@pytest.mark.parametrize("payload", [b"", b"p", b"\x00\xff" * 62, b"x" * 125])
def test_a_ping_is_answered_with_its_own_payload(gateway, payload):
    with Peer.opened(gateway.port, "/raw/strict") as peer:
        peer.send(frame(PING, payload))
        got = peer.frame()
        assert (got.opcode, got.payload) == (PONG, payload)


@pytest.mark.parametrize("mask", [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\1\2\3\4"])
def test_any_mask_is_fine(gateway, mask):
    with Peer.opened(gateway.port, "/ws") as peer:
        peer.send(frame(TEXT, SUBSCRIBE, mask=mask))
        assert peer.json()["subscribed"] == "strict"


def test_bytes_that_arrive_one_by_one_are_the_same_bytes(gateway, redis):
    with Peer(gateway.port) as peer:
        peer.send_bytewise(request("/ws"))
        peer.expect_open()
        peer.send_bytewise(start_of_message(SUBSCRIBE[:9]) + frame(PING, b"?") + frame(CONTINUATION, SUBSCRIBE[9:]))
        assert peer.frame().opcode == PONG
        assert peer.json()["subscribed"] == "strict"
        peer.send_bytewise(frame(TEXT, b'{"id":2,"unsubscribe":"' + b"x" * 200 + b'"}'))
        assert peer.json()["id"] == 2
        peer.send_bytewise(close_frame(4321))
        assert peer.frame().close_code == 4321
        peer.expect_end()


@pytest.mark.parametrize("face", ["/ws", "/raw/early"])
def test_frames_in_the_packet_of_the_request_are_not_lost(gateway, face):
    with Peer(gateway.port) as peer:
        peer.send(request(face) + frame(PING, b"early") + frame(PING, b"too")[:4])
        peer.expect_open()
        assert peer.frame().payload == b"early"
        peer.send(frame(PING, b"too")[4:])
        assert peer.frame().payload == b"too"


def test_commands_and_a_close_in_the_packet_of_the_request_find_its_channels_subscribed(gateway):
    with Peer(gateway.port) as peer:
        leave = frame(TEXT, b'{"id":1,"unsubscribe":"early.a"}')
        peer.send(request("/ws?channels=early.a,early.b") + leave + close_frame(1000))
        peer.expect_open()
        assert peer.json() == {"id": 1, "unsubscribed": "early.a"}
        peer.expect_close(1000)


def test_a_client_that_vanishes_in_the_middle_of_anything_gives_its_place_back(gateway):
    before = gateway.metric("ws_connections_active")
    heads = [b"", b"GET", request("/ws")[:-2], request("/ws"), request("/raw/gone"), request("/ws?channels=gone")]
    parts = [b"", b"\x81", frame(TEXT, SUBSCRIBE)[:9], start_of_message(SUBSCRIBE), close_frame(1000)]
    for reset in (False, True):
        for head in heads:
            for part in parts:
                peer = Peer(gateway.port)
                peer.send(head + part)
                if reset:
                    peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                peer.socket.close()
    wait_until(lambda: gateway.metric("ws_connections_active") <= before, "the places of those who vanished")
    assert gateway.metric("ws_partial_bytes") == 0
