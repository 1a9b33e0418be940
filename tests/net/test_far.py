"""Clients that are far away and read everything: they are not slow, and get every update."""

import time

import pytest
from clients import Client, ages, pace, quantile
from harness import FULL
from net import DelayLine, Namespace

RATE, SIZE = 200, 1024
DURATION_S = 60 if FULL else 20
LINES = {
    "clean": {},
    "300 ms hiccup every 2 s": {"hiccups": True},
    "1 % loss": {"loss": 0.01},
}
BOUNDS = {"clean": 1.0, "300 ms hiccup every 2 s": 0.98, "1 % loss": 0.0}


@pytest.mark.parametrize("send_buffer", [0, 16384], ids=["default", "capped"])
def test_far_and_healthy_clients_get_every_update(send_buffer, server, start, publisher, closing, table):
    """All at once, on lines of their own. A capped send buffer is measured for the table only."""
    gateway = start(LIMITS_SEND_BUFFER_BYTES=send_buffer)
    rows = table(
        f"Far and healthy, {RATE} updates of {SIZE} B a second, send buffer {send_buffer or 'default'}",
        *("round trip", "line", "whole", "median age", "p99 age", "longest age"),
    )
    listeners = []
    for round_trip_ms in (60, 150):
        for name, options in LINES.items():
            far = closing(Namespace())
            line = closing(DelayLine(server, far, round_trip_ms / 1000, **options))
            client = closing(Client(far, (line.near, gateway.port), "/raw/far"))
            listeners.append((round_trip_ms, name, client))
    source = publisher(gateway)
    for _ in pace(RATE, DURATION_S):
        source.publish("far", SIZE)
    time.sleep(2)
    missed = []
    for round_trip_ms, name, client in listeners:
        numbers = [update["n"] for _, update in client.arrived]
        assert numbers == sorted(set(numbers)), "in order, and each once"
        assert numbers[-1] == source.published - 1, "the newest arrives"
        share = len(numbers) / source.published
        aged = ages(client)
        times = (f"{seconds * 1000:.0f} ms" for seconds in (quantile(aged, 0.5), quantile(aged, 0.99), max(aged)))
        rows.append((f"{round_trip_ms} ms", name, f"{share:.2%}", *times))
        if share < BOUNDS[name]:
            missed.append((round_trip_ms, name, share))
    assert send_buffer or not missed, missed
