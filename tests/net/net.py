"""Networks of a test's own: namespaces, delay lines, and slow links behind a router.

A namespace has no name: it lives as long as a descriptor or process holds it, and so do the devices in it. Nothing is
left over, however a test ends.
"""

import ctypes
import itertools
import json
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

CLONE_NEWNET = 0x40000000
LIBC = ctypes.CDLL(None, use_errno=True)
NETS = itertools.count(1)


def missing():
    """Why networks cannot be made here; none if they can."""
    if os.geteuid() != 0:
        return "network namespaces need root: run `make test-net` as root"
    if not os.path.exists("/dev/net/tun"):
        return "the delay line needs /dev/net/tun (modprobe tun)"
    return None


def _checked(result, what):
    if result != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{what}: {os.strerror(error)}")


def run(*command):
    """Runs a command in this thread's namespace; what it printed."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, f"{' '.join(map(str, command))}: {done.stderr}"
    return done.stdout


class Namespace:
    """A network namespace with its loopback up."""

    def __init__(self):
        with self._home():
            _checked(LIBC.unshare(CLONE_NEWNET), "unshare")
            self.fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
            run("ip", "link", "set", "lo", "up")

    def close(self):
        os.close(self.fd)

    @contextmanager
    def inside(self):
        """This thread, the sockets that it opens and the processes that it starts are in here."""
        with self._home():
            _checked(LIBC.setns(self.fd, CLONE_NEWNET), "setns")
            yield

    def run(self, *command):
        with self.inside():
            return run(*command)

    @staticmethod
    @contextmanager
    def _home():
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            yield
        finally:
            _checked(LIBC.setns(home, CLONE_NEWNET), "setns")
            os.close(home)


class DelayLine:
    """Two namespaces, a round trip apart. Addresses `10.77.n.1` and `.2`."""

    def __init__(self, near, far, round_trip_s, hiccups=False, loss=0.0, congestion=None):
        self.number = next(NETS) % 250
        self.near, self.far = f"10.77.{self.number}.1", f"10.77.{self.number}.2"
        names = [f"near{self.number}", f"far{self.number}"]
        asked = {
            "ends": [[near.fd, names[0]], [far.fd, names[1]]],
            "round_trip_s": round_trip_s,
            "hiccups": hiccups,
            "loss": loss,
            "seed": self.number,
        }
        program = Path(__file__).with_name("delay_line.py")
        self.process = subprocess.Popen(
            [sys.executable, str(program), json.dumps(asked)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[near.fd, far.fd],
        )
        favour(self.process.pid)
        assert self.process.stdout.readline() == b"ready\n"
        for namespace, name, own, peer in zip((near, far), names, (self.near, self.far), (self.far, self.near)):
            namespace.run("ip", "address", "add", own, "peer", peer, "dev", name)
            namespace.run("ip", "link", "set", name, "up")
        if congestion:
            near.run("ip", "route", "replace", self.far, "dev", names[0], "src", self.near, "congctl", congestion)

    def close(self):
        self.process.stdin.close()
        self.process.wait(10)
        self.process.stdout.close()


class SlowLink:
    """A client behind a router with a slow link and a deep queue, and a delay line before it."""

    def __init__(self, server, client, round_trip_s=0.06, rate="32kbit", latency="20s", congestion="cubic"):
        self.router = Namespace()
        self.line = DelayLine(server, self.router, round_trip_s)
        number = self.line.number
        self.near, self.far = self.line.near, f"10.78.{number}.2"
        inner = f"10.78.{number}.1"
        pair = ["ip", "link", "add", "slow", "type", "veth", "peer", "name", f"phone{number}"]
        with self.router.inside():
            # A path in /proc names the namespace for the child, which inherits the descriptor.
            os.set_inheritable(client.fd, True)
            done = subprocess.run([*pair, "netns", f"/proc/self/fd/{client.fd}"], pass_fds=[client.fd], timeout=20)
            assert done.returncode == 0
            run("ip", "address", "add", f"{inner}/24", "dev", "slow")
            run("ip", "link", "set", "slow", "up")
            run("tc", "qdisc", "add", "dev", "slow", "root", "tbf", "rate", rate, "burst", 1600, "latency", latency)
            Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        client.run("ip", "address", "add", f"{self.far}/24", "dev", f"phone{number}")
        client.run("ip", "link", "set", f"phone{number}", "up")
        client.run("ip", "route", "add", self.near, "via", inner)
        route = ["ip", "route", "add", self.far, "dev", f"near{number}", "src", self.near]
        server.run(*route, "congctl", congestion)

    def close(self):
        self.line.close()
        self.router.close()


def favour(pid):
    """A process that stands for the network, or for the time of an arrival, does not wait for the machine's other work."""
    os.sched_setscheduler(pid, os.SCHED_RR, os.sched_param(1))
