"""Every alert that we ship fires when its cause is provoked at a real gateway, under a real Prometheus; a gateway that is
well raises none. As root: causes are provoked through the kernel."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time

import pytest

import kernel
from harness import Gateway, Redis, wait_until
from peer import Peer, frame, request
from prometheus import Prometheus, alert_names, check, target

WITHIN_S = 60
"""Time in which all alerts must have fired."""
QUIET_CLIENTS = 10
SLOW_CLIENTS = 150


FLOOD = """
import sys, time, redis
client = redis.Redis(port=int(sys.argv[1]))
while True:
    pipeline = client.pipeline(transaction=False)
    for channel in sys.argv[2:]:
        pipeline.publish(channel, b"x" * 100)
    pipeline.execute()
    time.sleep(0.05)
"""
"""Publishes to a Redis, for ever: a process of its own, because the test's threads wait for each other."""


class Causes:
    """One gateway for each group of causes, what is done to it, and the alerts that must follow."""

    def __init__(self, stack):
        self.stack = stack
        self.gateways = {}
        self.expected = set()
        self.steps = []
        """What provokes, done once every gateway has been scraped in peace."""
        self.again = []
        """What is done again and again until the alerts fire."""

    def gateway(self, name, *arguments, expects=(), **settings):
        gateway = Gateway("--shards", 1, *arguments, SERVER_ID=name, **settings)
        self.stack.callback(gateway.end)
        self.gateways[name] = gateway
        self.expected |= {(target(gateway), alert) for alert in expects}
        return gateway

    def redis(self):
        redis = Redis()
        self.stack.callback(redis.remove)
        return redis.start()

    def peer(self, gateway, path, **options):
        peer = Peer.opened(gateway.port, path, **options)
        self.stack.callback(peer.socket.close)
        return peer

    def reader(self, gateway, path):
        """A client that reads, and answers pings, on a thread of its own."""
        peer = Peer.opened(gateway.port, path, timeout_s=120)

        def read():
            with contextlib.suppress(AssertionError, OSError):
                while True:
                    peer.frame()

        thread = threading.Thread(target=read)
        thread.start()

        def end():
            with contextlib.suppress(OSError):
                peer.socket.shutdown(socket.SHUT_RDWR)
            thread.join()
            peer.socket.close()

        self.stack.callback(end)

    def publish(self, gateway, channel, payload):
        assert gateway.ask("POST", f"/channels/{channel}/publish", payload)[0] == 200


def quiet(causes):
    """Clients that read what is published."""
    gateway = causes.gateway("quiet")
    for _ in range(QUIET_CLIENTS):
        causes.reader(gateway, "/raw/news")
    causes.again.append(lambda: causes.publish(gateway, "news", b"x" * 500))
    return gateway


def full(causes):
    """More clients than places, first a few, then all."""
    alerts = ["NearCapacity", "FullSoon", "Refusing", "ConnectionStorm"]
    gateway = causes.gateway("full", expects=alerts, LIMITS_CONNECTIONS_PER_SHARD_MAX=20)

    def come():
        for _ in range(12):
            causes.peer(gateway, "/raw/c")
        yield
        for _ in range(8):
            causes.peer(gateway, "/raw/c")
        yield
        with Peer(gateway.port) as late:
            late.send(request("/raw/c"))
            assert late.response()[0] == 503

    causes.steps.append(come)


def stalled(causes):
    """Many clients that never read, on channels that would rather drop than conflate, where TCP has little memory."""
    show, prefix = causes.stack.enter_context(kernel.tcp_mem_shown())

    def allow(pressure):
        show([pressure // 2, pressure, pressure + 100_000])

    allow(kernel.tcp_memory_pages() * 100 + 100_000)
    rules = json.dumps([{"match": "*", "policy": "drop_newest"}])
    settings = {"LIMITS_STALL_TIMEOUT": "0s", "LIMITS_OUTBOX_MESSAGES_MAX": 4, "CHANNEL": rules}
    alerts = ["ManyBehind", "Dropping", "TcpMemory", "KernelUnsentGrowing"]
    gateway = causes.gateway("stalled", expects=alerts, within=prefix, **settings)

    def come():
        for _ in range(SLOW_CLIENTS):
            causes.peer(gateway, "/raw/c", receive_buffer=4096)
        yield
        # All of the host's sockets count: what these clients hold is much of what there is now, whoever else has some.
        causes.again.append(lambda: allow(kernel.tcp_memory_pages() * 11 // 10))
        yield

    causes.steps.append(come)
    causes.again.append(lambda: causes.publish(gateway, "c", b"x" * 8192))


def hopeless(causes):
    """Clients that make no progress at all, and are closed for it."""
    gateway = causes.gateway("hopeless", expects=["SlowConsumersClosed"], LIMITS_STALL_TIMEOUT="1s")

    def come():
        for _ in range(10):
            causes.peer(gateway, "/raw/c", receive_buffer=4096)
        yield

    causes.steps.append(come)
    causes.again.append(lambda: causes.publish(gateway, "c", b"x" * 8192))


def owed_much(causes):
    """Clients that do not read, each on a channel of its own, so that nothing that waits is shared."""
    settings = {
        "LIMITS_STALL_TIMEOUT": "0s",
        "LIMITS_UPDATE_BYTES_MAX": 64 << 10,
        "LIMITS_OUTBOX_BYTES_MAX": 128 << 10,
        "LIMITS_OUTBOX_BYTES_PER_SHARD_MAX": 512 << 10,
        "CHANNEL": json.dumps([{"match": "*", "policy": "drop_oldest"}]),
    }
    gateway = causes.gateway("owed_much", expects=["OutboxBudget"], **settings)

    def come():
        for number in range(12):
            causes.peer(gateway, f"/raw/own.{number}", receive_buffer=4096)
        yield

    def publish():
        for number in range(12):
            causes.publish(gateway, f"own.{number}", b"x" * (16 << 10))

    causes.steps.append(come)
    causes.again.append(publish)


def owed_critical(causes):
    """A client that does not read, and more critical updates than may wait for it."""
    settings = {"LIMITS_STALL_TIMEOUT": "0s", "LIMITS_CRITICAL_MESSAGES_MAX": 2}
    rules = json.dumps([{"match": "*", "critical": True}])
    gateway = causes.gateway("owed_critical", expects=["CriticalTooSlow"], CHANNEL=rules, **settings)

    def come():
        causes.peer(gateway, "/raw/c", receive_buffer=4096)
        yield

    causes.steps.append(come)
    causes.again.append(lambda: causes.publish(gateway, "c", b"x" * 8192))


def starved(causes):
    """A shard that gets next to no time, because somebody else has its core, while updates go on."""
    alerts = ["EventLoopLag", "LatencyHigh", "InboxFilling", "UpdatesLost"]
    settings = {"LIMITS_INBOX_MESSAGES_MAX": 160, "LIMITS_INBOX_CRITICAL_MAX": 4}
    rules = json.dumps([{"match": "goal", "critical": True}])
    redis = causes.redis()
    gateway = causes.gateway("starved", expects=alerts, redis=redis, CHANNEL=rules, **settings)
    wait_until(gateway.ready, "a gateway that is ready")
    channels = [f"c.{number}" for number in range(60)]
    for _ in range(30):
        causes.reader(gateway, "/ws?channels=" + ",".join(channels))
    causes.reader(gateway, "/raw/goal")

    def starve():
        # Entered last, so that it ends first: a starved shard does not leave in time.
        causes.stack.enter_context(kernel.starved(kernel.shard_thread(gateway)))
        flood = [sys.executable, "-c", FLOOD, str(redis.port), *channels, *["goal"] * 20]
        flood = subprocess.Popen(flood)
        causes.stack.callback(flood.wait)
        causes.stack.callback(flood.kill)
        yield

    causes.steps.append(starve)


def hanging(causes):
    """A shard that hangs, and clients that come to it."""
    gateway = causes.gateway("hanging", expects=["ShardHangs", "AcceptQueueFilling"])

    def hang():
        causes.stack.enter_context(kernel.stopped(kernel.shard_thread(gateway)))
        with kernel.listener(gateway) as listener:
            listener.listen(64)  # the kernel takes the new length of the queue
        for _ in range(50):
            waiting = socket.socket()
            causes.stack.callback(waiting.close)
            waiting.setblocking(False)
            waiting.connect_ex(("127.0.0.1", gateway.port))
        yield

    causes.steps.append(hang)


def deaf(causes):
    """A listener that accepts nothing any more."""
    gateway = causes.gateway("deaf", expects=["AcceptErrors"])

    def break_it():
        with kernel.listener(gateway) as listener:
            listener.shutdown(socket.SHUT_RDWR)
        yield

    causes.steps.append(break_it)


def forbidden(causes):
    """A Redis that does not permit a channel, and somebody who publishes what is too large."""
    redis = causes.redis()
    redis.cli("ACL", "SETUSER", "default", "resetchannels", "&spillgate:probe:*", "&allowed")
    alerts = ["ChannelsUnconfirmed", "UpdatesTooLarge"]
    gateway = causes.gateway("forbidden", expects=alerts, redis=redis, LIMITS_UPDATE_BYTES_MAX=1000)
    wait_until(gateway.ready, "a gateway that is ready")
    causes.peer(gateway, "/raw/allowed")

    def ask():
        causes.peer(gateway, "/ws?channels=forbidden")
        redis.publish("allowed", b"x" * 2000)
        yield

    causes.steps.append(ask)


def away(causes):
    """A Redis that ends."""
    redis = causes.redis()
    gateway = causes.gateway("away", expects=["RedisAway"], redis=redis)
    wait_until(gateway.ready, "a gateway that is ready")

    def end():
        redis.stop()
        yield

    causes.steps.append(end)


def short_of_memory(causes):
    """Clients that send ever more of messages that they do not finish, in a control group with a limit."""
    prefix = causes.stack.enter_context(kernel.memory_limit(96 << 20))
    settings = {"LIMITS_MESSAGE_BYTES_MAX": 4 << 20, "LIMITS_PARTIAL_BYTES_PER_SHARD_MAX": 1 << 30}
    gateway = causes.gateway("short_of_memory", expects=["Memory"], within=prefix, **settings)

    def share():
        metrics = gateway.metrics()
        used, most = (metrics[f'ws_cgroup_memory{what}_bytes{{server_id="short_of_memory"}}'] for what in ("", "_max"))
        return used / most

    # The start of a message of 2 MiB, and half of it; a mask of zeros leaves it as it is.
    half = frame(1, mask=bytes(4), length=2 << 20) + b"x" * (1 << 20)

    def grow():
        while share() < 0.88:
            time.sleep(0.05)  # a rendering may be as old as that, and a few too many are the end of the gateway
            causes.peer(gateway, "/ws").send(half)
        yield

    causes.steps.append(grow)


def gone(causes):
    """A process that was killed."""
    gateway = causes.gateway("gone", expects=["Down"])

    def kill():
        gateway.kill()
        yield

    causes.steps.append(kill)


def crashing(causes):
    """A gateway that is killed again and again, and started again each time."""
    first = causes.gateway("crashing", expects=["Restarted"])

    def crash():
        running = first
        for _ in range(6):
            running.kill()
            running = Gateway("--shards", 1, admin=target(first), SERVER_ID="crashing")
            causes.stack.callback(running.end)
            yield

    causes.steps.append(crash)


CAUSES = [
    crashing,
    full,
    stalled,
    hopeless,
    owed_much,
    owed_critical,
    hanging,
    deaf,
    forbidden,
    away,
    short_of_memory,
    gone,
    starved,
]


@pytest.fixture(scope="module")
def raised():
    """What fired, by the name of its gateway; and whatever the quiet gateway ever raised."""
    if os.geteuid() != 0:
        pytest.skip("causes are provoked through the kernel, which takes root")
    with contextlib.ExitStack() as stack:
        causes = Causes(stack)
        well = target(quiet(causes))
        for cause in CAUSES:
            cause(causes)
        prometheus = Prometheus(causes.gateways.values())
        stack.callback(prometheus.end)
        prometheus.wait_for_samples(causes.gateways.values(), 2)
        assert not prometheus.alerts(), "nothing was provoked yet"
        running = [step() for step in causes.steps]
        fired, deadline = set(), time.monotonic() + WITHIN_S
        # What has fired once has fired: a cause may end while others are yet to show.
        while (missing := expected(causes) - fired) and time.monotonic() < deadline:
            running = [step for step in running if next(step, step) is not step]
            until = time.monotonic() + 1.5
            while time.monotonic() < until:
                for again in causes.again:
                    again()
                time.sleep(0.1)
            fired |= prometheus.alerts()
        names = {target(gateway): name for name, gateway in causes.gateways.items()}
        by_gateway = {name: {alert for at, alert in fired if names[at] == name} for name in names.values()}
        yield {"fired": by_gateway, "quiet": {alert for at, alert in fired if at == well}, "missing": missing}


def expected(causes):
    return {(at, f"Spillgate{alert}") for at, alert in causes.expected}


@pytest.mark.timeout(180)
def test_a_gateway_that_is_well_raises_no_alert(raised):
    assert raised["quiet"] == set()


@pytest.mark.timeout(180)
@pytest.mark.parametrize("alert", alert_names())
def test_the_alert_fires_when_its_cause_is_provoked(raised, alert):
    assert any(alert in alerts for alerts in raised["fired"].values()), raised


@pytest.mark.timeout(180)
def test_every_alert_fires_where_its_cause_was_provoked(raised):
    assert raised["missing"] == set(), raised["fired"]


def test_promtool_finds_nothing_wrong_with_alerts_and_metrics(start):
    assert check("rules")[0] == 0, check("rules")
    gateway = start("--shards", 2, SERVER_ID="gateway-1")
    status, text = gateway.ask("GET", "/metrics")
    assert status == 200
    assert check("metrics", text) == (0, "")
