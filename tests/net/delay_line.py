"""A delay line: two TUN devices in two network namespaces, and packets that take their time between them.

Run as a process of its own (`DelayLine` in net.py does): the network must not wait for the test's interpreter. It ends
when its stdin does, and its devices end with it.
"""

import ctypes
import fcntl
import heapq
import json
import os
import random
import select
import struct
import sys
import time

TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
CLONE_NEWNET = 0x40000000
HICCUP_EVERY_S, HICCUP_S = 2.0, 0.3
PACKET_BYTES_MAX = 2048


def open_tun(namespace, name):
    """A new TUN device in the namespace of that descriptor."""
    if ctypes.CDLL(None, use_errno=True).setns(namespace, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    return device


def drain(device):
    """All packets that wait at a device."""
    while True:
        try:
            yield os.read(device, PACKET_BYTES_MAX)
        except BlockingIOError:
            return


def deliver(device, packet):
    try:
        os.write(device, packet)
    except OSError:
        pass  # the device is not up yet, or its queue is full: a network drops


def run(near, far, one_way_s, hiccups, loss, seed):
    """Moves packets until stdin ends."""
    other = {near: far, far: near}
    chance = random.Random(seed)
    on_the_way, count = [], 0
    while True:
        pause = max(0.0, on_the_way[0][0] - time.monotonic()) if on_the_way else None
        ready, _, _ = select.select([near, far, 0], [], [], pause)
        now = time.monotonic()
        for device in ready:
            if device == 0:
                return
            for packet in drain(device):
                if loss and chance.random() < loss:
                    continue
                due = now + one_way_s
                if hiccups and (phase := due % HICCUP_EVERY_S) < HICCUP_S:
                    due += HICCUP_S - phase
                count += 1
                heapq.heappush(on_the_way, (due, count, other[device], packet))
        while on_the_way and on_the_way[0][0] <= now:
            deliver(*heapq.heappop(on_the_way)[2:])


def main():
    asked = json.loads(sys.argv[1])
    near, far = (open_tun(namespace, name) for namespace, name in asked["ends"])
    print("ready", flush=True)
    run(near, far, asked["round_trip_s"] / 2, asked["hiccups"], asked["loss"], asked["seed"])


if __name__ == "__main__":
    main()
