"""A crowd of which one in five never reads: what those cost, in the gateway and in the host, and what the others see."""

import http.client
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import net
from clients import pace
from crowd import payload
from harness import FULL

SOCKETS, PROCESSES, STALLED_EVERY = 4000, 2, 5
RATE, SIZE = 20, 1024
DURATION_S = 60 if FULL else 40
FLAT_FROM_S = 20
RSS_KIB, HOST_KIB, P99_TIMES = 1, 24, 1.3
"""Per stalled socket, and against the same run without stalled ones."""
FLAT_KIB = 0.5
"""What counts as flat, per stalled socket."""


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


def host_kib():
    """What the host has left, and what TCP holds of it."""
    fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    tcp = next(line for line in Path("/proc/net/sockstat").read_text().splitlines() if line.startswith("TCP:"))
    pages = int(tcp.split()[tcp.split().index("mem") + 1])
    return int(fields["MemAvailable"].split()[0]), pages * resource.getpagesize() // 1024


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
            samples.append((gateway.rss_kib(), *host_kib()))
        publish(number)
    time.sleep(1)
    samples.append((gateway.rss_kib(), *host_kib()))
    reports, metrics = crowd.report(), gateway.metrics()
    crowd.close()
    api.close()
    gateway.end()
    return samples, reports, metrics


def test_stalled_sockets_cost_a_constant_and_nobody_else_notices(start, closing, table):
    resource.setrlimit(resource.RLIMIT_NOFILE, (20_000, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    base, base_reports, _ = run(start, closing, 0)
    samples, reports, metrics = run(start, closing, STALLED_EVERY)
    stalled = sum(report["stalled"] for report in reports)
    updates = RATE * DURATION_S

    def growth(which, since=0, until=-1):
        return (samples[until][which] - samples[since][which]) / stalled

    def p99(all_reports):
        return max(report["p99"] for report in all_reports)

    rows = table(f"{SOCKETS} sockets, {stalled} stalled, {RATE} updates of {SIZE} B a second for {DURATION_S} s", "what", "measured")
    rows.append(("gateway RSS per stalled socket", f"{growth(0):.2f} KiB ({growth(0, FLAT_FROM_S):.2f} from second {FLAT_FROM_S})"))
    rows.append(("the same run with none stalled", f"{(base[-1][0] - base[0][0]) / stalled:.2f} KiB"))
    rows.append(("MemAvailable per stalled socket", f"{-growth(1):.2f} KiB ({-growth(1, FLAT_FROM_S):.2f} from then)"))
    rows.append(("TCP's memory per stalled socket", f"{growth(2):.2f} KiB ({growth(2, FLAT_FROM_S):.2f} from then)"))
    rows.append(("the healthy missed", sum(report["missed"] for report in reports)))
    for name, each in (("none stalled", base_reports), ("one in five", reports)):
        rows.append((f"median and p99 of the healthy, {name}", f"{max(r['median'] for r in each) * 1000:.1f}, {p99(each) * 1000:.1f} ms"))
    assert sum(report["received"] for report in reports) == (SOCKETS - stalled) * updates
    assert sum(report["missed"] + report["ended"] for report in reports) == 0
    assert metrics["ws_slow_consumers_closed_total"] == 0 and metrics["ws_connections_active"] == SOCKETS
    assert growth(0) <= RSS_KIB and growth(0, FLAT_FROM_S) <= FLAT_KIB
    assert growth(2, FLAT_FROM_S) <= FLAT_KIB
    assert -growth(1) <= HOST_KIB
    assert p99(reports) <= P99_TIMES * p99(base_reports)
