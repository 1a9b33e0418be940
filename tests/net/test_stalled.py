"""Clients that stop reading: what they get when they read again, and how they are closed."""

import subprocess
import time

import pytest
from clients import Client, pace, retry_ms
from harness import FULL, wait_until

RATE, SIZE = 50, 1024
STALL_S = 30 if FULL else 10
OLDER_BYTES_MAX = 64 << 10


@pytest.mark.parametrize("receive_bytes", [4096, None], ids=["small_buffer", "default_buffer"])
def test_a_client_that_stalls_and_reads_again_sees_the_newest_at_once(
    receive_bytes, server, start, publisher, closing, table
):
    gateway = start(LIMITS_STALL_TIMEOUT="0s")
    client = closing(Client(server, ("127.0.0.1", gateway.port), "/raw/state", receive_bytes=receive_bytes))
    source = publisher(gateway)
    for _ in pace(RATE, 2):
        source.publish("state", SIZE)
    client.stall()
    for _ in pace(RATE, STALL_S):
        source.publish("state", SIZE)
    resumed_at = time.monotonic()
    client.resume()
    for _ in pace(RATE, 2):
        source.publish("state", SIZE)
    wait_until(lambda: client.arrived[-1][1]["n"] == source.published - 1, "the newest update")
    numbers = [update["n"] for _, update in client.arrived]
    assert numbers == sorted(set(numbers)), "never out of order"
    # What was published before it read again, besides the newest of then.
    after = [update for at, update in client.arrived if at >= resumed_at]
    older = [update for update in after if update["t"] < resumed_at][:-1]
    fresh_at = next(at for at, update in client.arrived if update["t"] >= resumed_at - 2 / RATE)
    rows = table(f"Stalled for {STALL_S} s", "receive buffer", "older updates", "bytes of them", "newest after")
    rows.append((receive_bytes or "default", len(older), len(older) * SIZE, f"{fresh_at - resumed_at:.3f} s"))
    assert len(older) * SIZE <= OLDER_BYTES_MAX


def kernel_sockets(port):
    """Sockets of that port in any state but listening, in this namespace."""
    listed = subprocess.run(["ss", "-Htan", "sport", "=", f":{port}"], capture_output=True, text=True, check=True)
    return [line for line in listed.stdout.splitlines() if not line.startswith(("LISTEN", "TIME-WAIT"))]


def test_stalled_clients_are_closed_and_leave_nothing_behind(server, start, publisher, closing, table):
    """They stall for good, some with a small receive buffer; those with the default one read again after it happened."""
    each = 40
    gateway = start(LIMITS_STALL_TIMEOUT="5s")
    address = ("127.0.0.1", gateway.port)
    small = [closing(Client(server, address, "/raw/state", 4096, reads=False)) for _ in range(each)]
    default = [closing(Client(server, address, "/raw/state", reads=False)) for _ in range(each)]
    healthy = [closing(Client(server, address, "/raw/state")) for _ in range(5)]
    source = publisher(gateway)
    started, closed_at, last = time.monotonic(), None, 0
    for number in pace(RATE, 14):
        source.publish("state", SIZE)
        if closed_at is None and number % 10 == 0:
            closed = gateway.metric("ws_slow_consumers_closed_total")
            if closed >= 2 * each:
                closed_at = time.monotonic() - started
    closed = gateway.metric("ws_slow_consumers_closed_total")
    for client in default:
        client.resume()
    wait_until(lambda: all(client.ended is not None for client in default), "the end of those who read again")
    told = [retry_ms(client.closed[1]) for client in default if client.closed]
    codes = {client.closed[0] for client in default if client.closed}
    time.sleep(60 if FULL else 5)
    left = kernel_sockets(gateway.port)
    rows = table('`stall_timeout = "5s"`', "stalled", "closed", "all closed after", "told retry_ms", "sockets left")
    rows.append((2 * each, int(closed), f"{closed_at:.1f} s", f"{len(told)}, {len(set(told))} of them distinct", len(left) - 5))
    assert closed == 2 * each and closed_at <= 7
    assert len(told) == each and codes == {1013} and len(set(told)) > each * 0.9
    assert len(left) == len(healthy), left
    assert all(client.ended is None for client in healthy)
