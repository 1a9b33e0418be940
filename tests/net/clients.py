"""Raw clients that answer pings as RFC 6455 says, note what arrives when, and can stall; and a publisher."""

import base64
import http.client
import json
import os
import re
import socket
import struct
import threading
import time

PING, CLOSE = 0x9, 0x8
TEXT, BINARY = 0x1, 0x2


class Client(threading.Thread):
    """One WebSocket in a namespace, read by a thread of its own."""

    def __init__(self, namespace, address, path, receive_bytes=None, reads=True):
        super().__init__(daemon=True)
        with namespace.inside():
            self.socket = socket.socket()
        if receive_bytes is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.socket.settimeout(30)
        self.socket.connect(address)
        request = (
            f"GET {path} HTTP/1.1\r\nHost: net\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        self.socket.sendall(request.encode())
        self.arrived = []
        """Updates, as (time of arrival, payload as JSON)."""
        self.pings = 0
        self.closed = None
        """Code and reason of the close frame."""
        self.ended = None
        """How the stream ended: `b""` or the error."""
        self._bytes = self._head()
        self._reads = threading.Event()
        if reads:
            self._reads.set()
        self.start()

    def _head(self):
        head = b""
        while b"\r\n\r\n" not in head:
            read = self.socket.recv(1)  # what comes behind it is the stream's
            assert read, f"no answer: {head}"
            head += read
        assert head.startswith(b"HTTP/1.1 101 "), head
        return bytearray()

    def stall(self):
        self._reads.clear()

    def resume(self):
        self._reads.set()

    def run(self):
        self.socket.settimeout(None)
        while True:
            self._reads.wait()
            try:
                read = self.socket.recv(1 << 16)
            except OSError as error:
                self.ended = error
                return
            if not read:
                self.ended = b""
                return
            self._take(read, time.monotonic())

    def _take(self, read, now):
        kept = self._bytes
        kept += read
        while (frame := self._frame(kept)) is not None:
            opcode, payload = frame
            if opcode in (TEXT, BINARY):
                self.arrived.append((now, json.loads(payload)))
            elif opcode == PING:
                self.pings += 1
                self._send(0x8A, payload)
            elif opcode == CLOSE:
                self.closed = (struct.unpack(">H", payload[:2])[0], payload[2:].decode())
                self._send(0x88, payload[:2])

    @staticmethod
    def _frame(kept):
        """Takes the first frame off, if it is whole."""
        if len(kept) < 2:
            return None
        size, start = kept[1], 2
        if size == 126:
            if len(kept) < 4:
                return None
            size, start = struct.unpack_from(">H", kept, 2)[0], 4
        elif size == 127:
            if len(kept) < 10:
                return None
            size, start = struct.unpack_from(">Q", kept, 2)[0], 10
        if len(kept) < start + size:
            return None
        frame = kept[0] & 0x0F, bytes(kept[start : start + size])
        del kept[: start + size]
        return frame

    def _send(self, first, payload):
        try:
            self.socket.sendall(bytes([first, 0x80 | len(payload), 0, 0, 0, 0]) + payload)
        except OSError:
            pass  # the reader will see the end

    def close(self):
        try:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._reads.set()
        self.join(5)
        self.socket.close()


class Publisher:
    """Publishes through the admin interface, on one connection, from this thread's namespace."""

    def __init__(self, gateway):
        self._connection = http.client.HTTPConnection("127.0.0.1", gateway.admin, timeout=10)
        self._connection.connect()
        self._connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.published = 0

    def publish(self, channel, size, **fields):
        """Publishes a payload of `size` bytes with its number and time in it."""
        fields = {"n": self.published, "t": time.monotonic(), **fields, "pad": ""}
        fields["pad"] = "p" * (size - len(json.dumps(fields)))
        self._connection.request("POST", f"/channels/{channel}/publish", json.dumps(fields).encode())
        response = self._connection.getresponse()
        body = response.read()
        assert response.status // 100 == 2, body
        self.published += 1

    def close(self):
        self._connection.close()


def pace(rate, duration_s):
    """Numbers from 0, `rate` a second; those that are late come at once."""
    start = time.monotonic()
    for number in range(int(rate * duration_s)):
        if (pause := start + number / rate - time.monotonic()) > 0:
            time.sleep(pause)
        yield number


def ages(client):
    """Seconds from publish to arrival."""
    return [at - update["t"] for at, update in client.arrived]


def quantile(values, part):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else float("nan")


def retry_ms(reason):
    """The delay that a close frame's reason names."""
    return int(re.search(r'"retry_ms":(\d+)', reason)[1])
