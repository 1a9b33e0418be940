"""A crowd of WebSocket clients in one process, some of which never read; run by test_crowd.py, told by lines on stdin.

Every payload begins with its number and time (`payload` makes them), so that one look at fixed places says both.
"""

import json
import select
import socket
import struct
import sys
import time

HEAD = struct.Struct(">Qd")
SMALL_RECEIVE_BYTES = 4096
REQUEST = (
    "GET {path} HTTP/1.1\r\nHost: crowd\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
AT_ONCE = 200
AGES_PER_S, AGE_MAX = 10_000, 100_000
"""Resolution of an age, and the longest that is told apart."""


def payload(number, size):
    """A binary payload with its number and the time."""
    return HEAD.pack(number, time.monotonic()) + b"p" * (size - HEAD.size)


class Crowd:
    def __init__(self, port, path, sockets, stalled_every):
        self.address, self.request = ("127.0.0.1", port), REQUEST.format(path=path).encode()
        self.readers, self.stalled, self.ended = {}, [], 0
        self.poll = select.epoll()
        self.next, self.late = {}, {}
        # By tenths of a millisecond: a list of all would grow by 100 MB, which the host's memory would show.
        self.ages, self.missed, self.received = [0] * (AGE_MAX + 1), 0, 0
        opening = []
        for at in range(sockets):
            stalls = bool(stalled_every) and at % stalled_every == 0
            opening.append((self.connect(stalls), stalls))
            if len(opening) == AT_ONCE or at == sockets - 1:
                for client, stalls in opening:
                    self.open(client, stalls)
                opening = []

    def connect(self, stalls):
        client = socket.socket()
        if stalls:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_RECEIVE_BYTES)
        client.connect(self.address)
        client.sendall(self.request)
        return client

    def open(self, client, stalls):
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += client.recv(1024)
        assert head.startswith(b"HTTP/1.1 101 "), head
        if stalls:
            self.stalled.append(client)
            return
        client.setblocking(False)
        self.readers[client.fileno()] = client
        self.next[client.fileno()] = None
        self.poll.register(client.fileno(), select.EPOLLIN)

    def live(self):
        buffer = bytearray(1 << 16)
        view = memoryview(buffer)
        orders = sys.stdin.fileno()
        self.poll.register(orders, select.EPOLLIN)
        readers = self.readers
        while True:
            for fd, _ in self.poll.poll():
                if fd == orders:
                    if not sys.stdin.readline():
                        return
                    print(json.dumps(self.report()), flush=True)
                    continue
                try:
                    size = readers[fd].recv_into(buffer)
                except BlockingIOError:
                    continue
                except OSError:
                    size = 0
                if size == 0:
                    self.end(fd)
                    continue
                self.take(fd, view[:size])

    def take(self, fd, read):
        if fd in self.late:
            read = memoryview(self.late.pop(fd) + bytes(read))
        now, at, size = time.monotonic(), 0, len(read)
        while at < size:
            if size - at < 2:
                break
            length, start = read[at + 1], at + 2
            if length == 126:
                if size - at < 4:
                    break
                length, start = read[at + 2] << 8 | read[at + 3], at + 4
            if size - start < length:
                break
            kind = read[at]
            if kind == 0x89:
                pong = bytes([0x8A, 0x80 | length, 0, 0, 0, 0]) + bytes(read[start : start + length])
                try:
                    self.readers[fd].send(pong)
                except OSError:
                    pass
            elif kind in (0x81, 0x82):
                number, sent = HEAD.unpack_from(read, start)
                expected = self.next[fd]
                if expected is not None:
                    self.missed += abs(number - expected)
                self.next[fd] = number + 1
                self.received += 1
                self.ages[min(int((now - sent) * AGES_PER_S), AGE_MAX)] += 1
            at = start + length
        if at < size:
            self.late[fd] = bytes(read[at:])

    def end(self, fd):
        self.poll.unregister(fd)
        self.readers.pop(fd).close()
        self.ended += 1

    def age(self, part):
        """The age, in seconds, that this part of the updates was below."""
        below = int(sum(self.ages) * part)
        for age, updates in enumerate(self.ages):
            below -= updates
            if below < 0:
                return age / AGES_PER_S
        return None

    def report(self):
        """What came since the last report."""
        p99, median = self.age(0.99), self.age(0.5)
        self.ages = [0] * (AGE_MAX + 1)
        last = {number for number in self.next.values()}
        report = {"received": self.received, "missed": self.missed, "ended": self.ended, "p99": p99, "median": median}
        self.received = 0
        return report | {"readers": len(self.readers), "stalled": len(self.stalled), "next": sorted(last, key=str)}


def main():
    import gc

    gc.disable()
    crowd = Crowd(*json.loads(sys.argv[1]))
    print("ready", flush=True)
    crowd.live()


if __name__ == "__main__":
    main()
