"""A crowd of which one in five never reads: what those cost, in the gateway and in the host, and what the others see."""

import http.client
import json
import re
import resource
import subprocess
import sys
import time
from pathlib import Path

from clients import pace
from crowd import payload
from harness import FULL

SOCKETS, PROCESSES, STALLED_EVERY = 4000, 2, 5
RATE, SIZE = 20, 1024
DURATION_S = 60 if FULL else 40
FLAT_FROM_S = 20
RSS_KIB, HOST_KIB, P99_TIMES = 1, 24, 1.3
"""Per stalled socket, and against the same run without stalled ones."""
FLAT_KIB, FLAT_HOST_KIB = 0.5, 4
"""What counts as flat, per stalled socket."""
NOISE_KIB_MAX = 4096
"""Where others move the host's memory by more, what TCP is charged for is asserted alone."""


class Crowd:
    def __init__(self, gateway, stalled_every):
        job = json.dumps([gateway.port, "/raw/crowd", SOCKETS // PROCESSES, stalled_every])
        command = [sys.executable, str(Path(__file__).with_name("crowd.py")), job]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.processes = [subprocess.Popen(command, **pipes) for _ in range(PROCESSES)]
        for process in self.processes:
            assert process.stdout.readline() == b"ready\n"

    def report(self):
        for process in self.processes:
            process.stdin.write(b"report\n")
            process.stdin.flush()
        return [json.loads(process.stdout.readline()) for process in self.processes]

    def close(self):
        for process in self.processes:
            process.stdin.close()
        for process in self.processes:
            process.wait(10)
            process.stdout.close()


def available_kib():
    """What the host has left: MemAvailable, but with all of the page cache, which the kernel takes and gives back as it
    likes, so that it moves MemAvailable by tens of megabytes."""
    kib = {name: int(value) for name, value in re.findall(r"(\w+): +(\d+) kB", Path("/proc/meminfo").read_text())}
    return sum(kib[name] for name in ("MemFree", "Buffers", "Cached", "SReclaimable"))


def tcp_kib():
    """What TCP is charged for, in all namespaces."""
    pages = int(re.search(r"TCP: .* mem (\d+)", Path("/proc/net/sockstat").read_text())[1])
    return pages * resource.getpagesize() // 1024


def noise_kib():
    """By how much other processes move what the host has left."""
    seen = []
    for _ in range(20):
        seen.append(available_kib())
        time.sleep(0.25)
    return max(seen) - min(seen)


def run(start, closing, stalled_every):
    """Memory at each second, what the readers saw, and the gateway's metrics at the end."""
    gateway = start(LIMITS_STALL_TIMEOUT="0s")
    crowd = closing(Crowd(gateway, stalled_every))
    api = http.client.HTTPConnection("127.0.0.1", gateway.admin, timeout=10)

    def publish(number):
        api.request("POST", "/channels/crowd/publish", payload(number, SIZE))
        response = api.getresponse()
        assert response.status // 100 == 2, response.read()
        response.read()

    time.sleep(2)
    samples = []
    for number in pace(RATE, DURATION_S):
        if number % RATE == 0:
            samples.append((gateway.rss_kib(), tcp_kib(), available_kib()))
        publish(number)
    time.sleep(1)
    samples.append((gateway.rss_kib(), tcp_kib(), available_kib()))
    reports, metrics = crowd.report(), gateway.metrics()
    crowd.close()
    api.close()
    gateway.end()
    return samples, reports, metrics


def test_stalled_sockets_cost_a_constant_and_nobody_else_notices(start, closing, table):
    resource.setrlimit(resource.RLIMIT_NOFILE, (20_000, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    noise = noise_kib()
    quiet = noise <= NOISE_KIB_MAX
    base, base_reports, _ = run(start, closing, 0)
    samples, reports, metrics = run(start, closing, STALLED_EVERY)
    stalled = sum(report["stalled"] for report in reports)
    updates = RATE * DURATION_S

    def growth(which, since=0, of=samples):
        return (of[-1][which] - of[since][which]) / stalled

    def own(since=0):
        """What the gateway grew by, over what it grew by with none stalled."""
        return growth(0, since) - growth(0, since, base)

    def host(since=0):
        """What the host lost, over what it lost with none stalled."""
        return growth(2, since, base) - growth(2, since)

    def p99(all_reports):
        return max(report["p99"] for report in all_reports)

    rows = table(f"{SOCKETS} sockets, {stalled} stalled, {RATE} updates of {SIZE} B a second for {DURATION_S} s", "what", "measured")
    then = f"from second {FLAT_FROM_S}"
    rows.append(("gateway RSS per stalled socket, over the run with none", f"{own():.2f} KiB ({own(FLAT_FROM_S):.2f} {then})"))
    rows.append(("gateway RSS with none stalled, all in all", f"{base[-1][0] - base[0][0]} KiB"))
    rows.append(("TCP's memory per stalled socket", f"{growth(1):.2f} KiB ({growth(1, FLAT_FROM_S):.2f} {then})"))
    lost = f"{host():.2f} KiB ({host(FLAT_FROM_S):.2f} {then}; {-growth(2):.2f} all in all)"
    lost = lost if quiet else f"{lost}: not asserted, others move it by {noise} KiB"
    rows.append(("the host's memory per stalled socket, over the run with none", lost))
    rows.append(("the healthy missed", sum(report["missed"] for report in reports)))
    for name, each in (("none stalled", base_reports), ("one in five", reports)):
        rows.append((f"median and p99 of the healthy, {name}", f"{max(r['median'] for r in each) * 1000:.1f}, {p99(each) * 1000:.1f} ms"))
    assert sum(report["received"] for report in reports) == (SOCKETS - stalled) * updates
    assert sum(report["missed"] + report["ended"] for report in reports) == 0
    assert metrics["ws_slow_consumers_closed_total"] == 0 and metrics["ws_connections_active"] == SOCKETS
    assert own() <= RSS_KIB and own(FLAT_FROM_S) <= FLAT_KIB
    assert growth(1) <= HOST_KIB and growth(1, FLAT_FROM_S) <= FLAT_HOST_KIB
    assert not quiet or (host() <= HOST_KIB and host(FLAT_FROM_S) <= FLAT_HOST_KIB)
    assert p99(reports) <= P99_TIMES * p99(base_reports)
