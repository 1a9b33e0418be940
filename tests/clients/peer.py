"""A WebSocket client on a bare socket, which can also do what no client should."""

import base64
import json
import os
import socket
import struct
from dataclasses import dataclass

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


@dataclass(frozen=True)
class Frame:
    opcode: int
    payload: bytes

    @property
    def close_code(self):
        return struct.unpack("!H", self.payload[:2])[0] if len(self.payload) >= 2 else None


def frame(opcode, payload=b"", *, fin=True, rsv=0, mask=b"\x37\xfa\x21\x3d", length=None, length_bytes=None):
    """A client's frame; `length` lies about the payload, `length_bytes` (0, 2 or 8) chooses the form of the length."""
    length = len(payload) if length is None else length
    if length_bytes is None:
        length_bytes = 0 if length < 126 else 2 if length < 1 << 16 else 8
    marker = {0: length, 2: 126, 8: 127}[length_bytes]
    head = bytes([fin << 7 | rsv << 4 | opcode, (0x80 if mask else 0) | marker])
    if length_bytes:
        head += length.to_bytes(length_bytes, "big")
    if not mask:
        return head + payload
    return head + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


def close_frame(code, reason=b""):
    return frame(CLOSE, struct.pack("!H", code) + reason)


def request(path, *lines, method="GET", host="h"):
    """A request's head that asks for a WebSocket, with further lines."""
    key = base64.b64encode(os.urandom(16)).decode()
    head = [
        f"{method} {path} HTTP/1.1",
        f"Host: {host}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {key}",
        *lines,
    ]
    return "\r\n".join([*head, "", ""]).encode()


class Peer:
    """One connection. Reading takes `timeout_s` at most."""

    def __init__(self, port, *, timeout_s=10.0, receive_buffer=None, send_buffer=None):
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        if send_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.settimeout(timeout_s)
        self.socket.connect(("127.0.0.1", port))
        self.buffer = bytearray()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    @classmethod
    def opened(cls, port, path, **options):
        """A client whose WebSocket is open."""
        peer = cls(port, **options)
        peer.send(request(path))
        peer.expect_open()
        return peer

    def send(self, data):
        self.socket.sendall(data)

    def send_bytewise(self, data):
        for at in range(len(data)):
            self.socket.sendall(data[at : at + 1])

    def say(self, text):
        self.send(frame(TEXT, text if isinstance(text, bytes) else text.encode()))

    def command(self, **command):
        self.say(json.dumps(command))

    def _fill(self):
        data = self.socket.recv(65536)
        self.buffer += data
        return bool(data)

    def _take(self, count):
        while len(self.buffer) < count:
            assert self._fill(), f"the connection ended inside {bytes(self.buffer)!r}"
        taken = bytes(self.buffer[:count])
        del self.buffer[:count]
        return taken

    def response(self):
        """Status, headers by lower-case name, and body of an HTTP answer."""
        while b"\r\n\r\n" not in self.buffer:
            assert self._fill(), f"the connection ended inside {bytes(self.buffer)!r}"
        head = self._take(self.buffer.index(b"\r\n\r\n") + 4).decode()
        status, *lines = head.rstrip().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        return int(status.split(" ")[1]), headers, self._take(int(headers.get("content-length", 0)))

    def expect_open(self):
        status, headers, body = self.response()
        assert status == 101, (status, headers, body)
        return headers

    def frame(self):
        """The next frame that is no ping; pings are answered, as every client does."""
        while (got := self.any_frame()).opcode == PING:
            self.send(frame(PONG, got.payload))
        return got

    def any_frame(self):
        """The next frame, which must be one that a server may send: whole, unmasked, its length in the shortest form."""
        first, second = self._take(2)
        assert first & 0xF0 == 0x80, f"not final, or a reserved bit: {first:#x}"
        assert second < 0x80, "a server masks nothing"
        length = second
        if second >= 126:
            length = int.from_bytes(self._take(2 if second == 126 else 8), "big")
            assert length >= (126 if second == 126 else 1 << 16)
        return Frame(first & 0x0F, self._take(length))

    def text(self):
        """The next message, which must be text."""
        got = self.frame()
        assert got.opcode == TEXT, got
        return got.payload.decode()

    def json(self):
        return json.loads(self.text())

    def expect_close(self, code):
        """A close frame with this code comes next, and after it nothing but the end of the connection."""
        got = self.frame()
        assert (got.opcode, got.close_code) == (CLOSE, code), got
        self.send(frame(CLOSE, got.payload[:2]))
        self.expect_end()
        return got.payload[2:].decode()

    def expect_end(self):
        """The server closes in order: the end of the stream, not a reset."""
        assert not self.buffer and not self._fill(), f"more came: {bytes(self.buffer)!r}"
