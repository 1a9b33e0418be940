"""What the service manager hears; and that a gateway is never half dead: who hangs starves the watchdog, who panics
ends all."""

import signal
import time

import pytest

from harness import Gateway, run_spillgate, wait_until
from hijack import IS_KNOWN_HERE, cpu_ticks, panic, spin, thread_of
from manager import Manager
from peer import Peer

WATCHDOG_S = 2.0

needs_hijack = pytest.mark.skipif(not IS_KNOWN_HERE, reason="registers are known for x86_64 alone")


SAID = {
    "shard-1-2": "shard 1",
    "source": "the source",
    "watcher": "the watcher of the metrics",
    "admin": "the admin interface",
}


@pytest.fixture
def manager():
    manager = Manager(WATCHDOG_S)
    yield manager
    manager.close()


@pytest.fixture
def doomed(manager, redis):
    """A gateway with two shards that the test ends badly."""
    gateway = Gateway("--shards", 2, redis=redis, variables=manager.variables)
    try:
        wait_until(lambda: manager.said("WATCHDOG=1"), "a first sign of life")
        yield gateway
    finally:
        gateway.kill()


def test_it_says_ready_when_clients_are_served_and_stopping_with_the_time_that_it_may_take(start, manager):
    gateway = start("--shards", 2, DRAIN_TIMEOUT="40s", variables=manager.variables)
    wait_until(lambda: manager.said("READY=1"), "READY")
    with Peer.opened(gateway.port, "/raw/c"):
        wait_until(lambda: manager.beginning("STATUS=1 connections, updates flow"), "a status with the connection")
        gateway.end()
    words = [line for _, line in manager.words if not line.startswith("STATUS=")]
    assert words[0] == "READY=1" and words.count("READY=1") == words.count("STOPPING=1") == 1
    assert "EXTEND_TIMEOUT_USEC=45000000" in words[words.index("STOPPING=1") :]


def test_signs_of_life_come_twice_within_the_limit_also_while_it_drains(start, manager):
    gateway = start("--shards", 1, DRAIN_TIMEOUT="10s", DRAIN_CLOSE_TIMEOUT="3s", variables=manager.variables)
    with Peer.opened(gateway.port, "/raw/c") as stubborn:
        time.sleep(3)
        gateway.send_signal()
        assert stubborn.frame().close_code == 1001
        gateway.check_end()
    signs = manager.said("WATCHDOG=1")
    stopping = manager.said("STOPPING=1")[0]
    assert sum(at > stopping for at in signs) >= 2, "it lived while it drained"
    gaps = [later - earlier for earlier, later in zip(signs, signs[1:])]
    assert max(gaps) < WATCHDOG_S * 0.75, gaps
    assert len(signs) < 6 / (WATCHDOG_S / 4), "and not many more than it takes"


def test_without_a_service_manager_nothing_is_said_and_one_that_is_gone_harms_nobody(start):
    nowhere = {"NOTIFY_SOCKET": "/nowhere/notify", "WATCHDOG_USEC": "1000000"}
    gateway = start("--shards", 1, variables=nowhere)
    wait_until(lambda: any("the service manager cannot be told" in line for line in gateway.log), "a line")
    with Peer.opened(gateway.port, "/raw/c") as peer:
        time.sleep(1.2)
        gateway.ask("POST", "/channels/c/publish", b"1")
        assert peer.text() == "1"
    assert sum("the service manager cannot be told" in line for line in gateway.log) == 1, "once, not with each sign"
    silent = start("--shards", 1)
    assert not any("service manager" in line for line in silent.log)


@needs_hijack
@pytest.mark.parametrize("thread", SAID)
def test_a_thread_in_an_endless_turn_starves_the_watchdog_within_its_limit(doomed, manager, thread):
    said = SAID[thread]
    victim = thread_of(doomed.process.pid, thread)
    spin(doomed.process.pid, victim)
    stuck = time.monotonic()
    used = cpu_ticks(doomed.process.pid, victim)
    time.sleep(2 * WATCHDOG_S)
    assert cpu_ticks(doomed.process.pid, victim) - used > 10, "it runs, and does nothing"
    last = manager.said("WATCHDOG=1")[-1]
    assert last - stuck < WATCHDOG_S, "starved within the limit: the manager acts one limit later"
    wait_until(lambda: any(f"{said} has taken no turn" in line for line in doomed.log), "a line that names it", 5)
    assert sum("has taken no turn" in line for line in doomed.log) == 1
    assert any(f"{said} has taken no turn" in word for word in manager.beginning("STATUS="))
    # Where no manager watches, the health check does (5 s).
    if thread != "admin":
        status, text = wait_until(lambda: unhealthy(doomed), "a health check that fails")
        assert status == 503 and text.startswith(f"{said} has taken no turn for"), text
    checked = run_spillgate("healthcheck", "--admin", f"127.0.0.1:{doomed.admin}")
    heard = "no answer from the admin interface" if thread == "admin" else said
    assert checked.returncode == 1 and heard in checked.stdout, checked.stdout
    # What systemd does next: the process is gone at once, whatever its thread does.
    doomed.send_signal(signal.SIGABRT)
    assert doomed.process.wait(5) == -signal.SIGABRT


def unhealthy(gateway):
    answer = gateway.ask("GET", "/healthz")
    return answer if answer[0] != 200 else None


@pytest.mark.parametrize("limit_s", [1.0, 2.0])
def test_a_short_limit_is_kept_to_without_a_false_word(start, limit_s):
    manager = Manager(limit_s)
    try:
        gateway = start("--shards", 1, variables=manager.variables)
        time.sleep(4)
        signs = manager.said("WATCHDOG=1")
        gaps = [later - earlier for earlier, later in zip(signs, signs[1:])]
        assert len(signs) >= 4 / limit_s and max(gaps) < limit_s, gaps
        assert not any("has taken no turn" in line for line in gateway.log), gateway.log
        gateway.end()
    finally:
        manager.close()


def test_a_limit_that_nobody_could_keep_to_is_refused_at_the_start():
    manager = Manager(0.4)
    try:
        with pytest.raises(AssertionError, match="WatchdogSec= .* is 400ms, too short .* 500ms or more"):
            Gateway("--shards", 1, variables=manager.variables)
    finally:
        manager.close()


@needs_hijack
def test_a_gateway_with_a_stuck_shard_still_ends_when_it_is_told():
    gateway = Gateway("--shards", 2, DRAIN_TIMEOUT="1s")
    try:
        spin(gateway.process.pid, thread_of(gateway.process.pid, "shard-0-1"))
        gateway.end()
        assert any("left before everyone had closed" in line for line in gateway.log)
    finally:
        gateway.kill()


@needs_hijack
@pytest.mark.parametrize("thread", ["shard-0-1", "shard-1-2", "source", "admin"])
def test_a_thread_that_panics_ends_the_process_with_a_clear_message(doomed, thread):
    with Peer.opened(doomed.port, "/raw/c") as peer:
        panic(doomed.process.pid, thread_of(doomed.process.pid, thread))
        assert doomed.process.wait(5) == -signal.SIGABRT
        with pytest.raises((ConnectionError, AssertionError)):
            peer.frame()
    wait_until(lambda: any("please report it" in line for line in doomed.log), "the last line")
    last = next(line for line in doomed.log if "please report it" in line)
    assert f"thread {thread} has panicked at " in last and "the process ends" in last, doomed.log
