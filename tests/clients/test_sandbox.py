"""The unit's sandbox holds, and the gateway works in it; where one refuses io_uring, the start says what to do."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from websockets.sync.client import connect

import sandbox
from harness import BINARY, REPOSITORY, environment, wait_until
from manager import Manager
from peer import Peer

PROFILE = REPOSITORY / "tuning/seccomp.json"
UNIT = REPOSITORY / "tuning/spillgate.service"
EXPOSURE_MAX = 2.5

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces and another user take root")


def within_unit(configuration):
    return [sys.executable, sandbox.__file__, "unit", str(UNIT), str(configuration)]


def without(call, code):
    return [sys.executable, sandbox.__file__, "refuse", f"{call}={code}"]


@pytest.fixture(scope="module", autouse=True)
def nothing_left():
    yield
    if sandbox.HOME.exists():
        sandbox.HOME.rmdir()  # where a sandbox's own file system lay


@pytest.fixture
def configuration(tmp_path):
    path = tmp_path / "spillgate.toml"
    path.write_text("shards = 2\n[[channel]]\nmatch = 'chat:*'\nclient_publish = true\n")
    return path


def test_the_unit_has_nothing_that_systemd_does_not_know(tmp_path):
    # A root of its own, with the units that ours names and the program where it will be.
    (tmp_path / "usr/lib/systemd").mkdir(parents=True)
    (tmp_path / "usr/bin").mkdir()
    shutil.copy(BINARY, tmp_path / "usr/bin/spillgate")
    shutil.copytree("/usr/lib/systemd/system", tmp_path / "usr/lib/systemd/system", symlinks=True)
    (tmp_path / "lib").symlink_to("usr/lib")
    unit = Path(shutil.copy(UNIT, tmp_path / "usr/lib/systemd/system"))

    def verify():
        line = ["systemd-analyze", "verify", "--recursive-errors=yes", f"--root={tmp_path}", str(unit)]
        return subprocess.run(line, capture_output=True, text=True, timeout=60)

    clean = verify()
    assert (clean.returncode, clean.stdout, clean.stderr) == (0, "", "")
    drop_ins = unit.with_name(unit.name + ".d")
    drop_ins.mkdir()
    for example in UNIT.with_name(UNIT.name + ".d").glob("*.conf.example"):
        shutil.copy(example, drop_ins / example.stem)
    assert len(list(drop_ins.iterdir())) >= 3
    with_drop_ins = verify()
    assert (with_drop_ins.returncode, with_drop_ins.stderr) == (0, "")
    unit.write_text(unit.read_text().replace("UMask=", "UMsk="))
    assert verify().returncode != 0, "the check sees a mistake"


def test_the_unit_is_hardly_exposed():
    line = ["systemd-analyze", "security", "--offline=yes", f"--threshold={EXPOSURE_MAX * 10:.0f}", str(UNIT)]
    judged = subprocess.run(line, capture_output=True, text=True, timeout=60)
    exposure = re.search(r"Overall exposure level for \S+: ([\d.]+)", judged.stdout)
    assert judged.returncode == 0 and float(exposure[1]) <= EXPOSURE_MAX, judged.stdout[-200:]


def test_the_unit_gives_the_program_what_it_takes():
    asked = sandbox.settings(UNIT)
    program, *arguments = asked["ExecStart"][0].split()
    assert program == "/usr/bin/spillgate"
    assert arguments == ["serve", "--config", "/etc/spillgate/spillgate.toml"]
    assert asked["Type"] == ["notify"] and asked["WatchdogSec"] == ["10s"]
    calls = sandbox.calls_of(asked["SystemCallFilter"])
    assert {"io_uring_setup", "io_uring_enter", "io_uring_register", "sched_setaffinity", "setrlimit"} <= calls
    assert not {"mount", "ptrace", "bpf", "setuid", "chroot", "reboot", "keyctl", "sched_setscheduler"} & calls


@needs_root
def test_the_gateway_works_in_the_sandbox_of_its_unit(start, redis, configuration):
    manager = Manager(watchdog_s=2.0)
    by_name = redis.url.replace("127.0.0.1", "localhost")
    config = ["--config", str(sandbox.HOME / "spillgate.toml")]
    gateway = start(
        *config, REDIS_URL=by_name, within=within_unit(configuration), variables=manager.variables, DRAIN_TIMEOUT="3s"
    )
    status = Path(f"/proc/{gateway.process.pid}/status").read_text()
    for line in ["Uid:\t65534\t65534", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1"]:
        assert line in status, status
    assert "Seccomp:\t2" in status
    root = next(line.split() for line in mounts(gateway) if line.split()[4] == "/")
    assert "ro" in root[5].split(","), root
    assert os.readlink(f"/proc/{gateway.process.pid}/exe") == str(sandbox.HOME / BINARY.name)

    with (
        connect(gateway.uri("/ws?channels=news,chat:1")) as client,
        Peer.opened(gateway.port, "/raw/flood", receive_buffer=4096) as stalled,
    ):
        told = {client.recv(timeout=5), client.recv(timeout=5)}
        assert all('"subscribed"' in text for text in told)
        assert redis.publish("news", "through Redis") == 1
        assert "through Redis" in client.recv(timeout=5)
        client.send('{"id":1,"publish":"chat:1","data":"through us"}')
        answers = [client.recv(timeout=5), client.recv(timeout=5)]  # the update and the reply, in either order
        assert any("through us" in answer for answer in answers), answers
        for _ in range(200):
            redis.publish("flood", "x" * 10_000)
        wait_until(lambda: gateway.metric("ws_sockets_behind") > 0, "a client that is behind")
        assert gateway.ask("POST", "/channels/news/publish", b"by the admin interface")[0] == 200
        assert "by the admin interface" in client.recv(timeout=5)
        assert gateway.ask("GET", "/healthz") == (200, "ok\n")
        wait_until(lambda: len(manager.said("WATCHDOG=1")) > 2, "signs of life")
        gateway.send_signal()
        gateway.check_end()  # exit code 0: a system call outside of the filter would have killed it (SIGSYS)
        assert stalled.socket.fileno() >= 0
    assert manager.said("READY=1") and manager.said("STOPPING=1")
    manager.close()


def mounts(gateway):
    return Path(f"/proc/{gateway.process.pid}/mountinfo").read_text().splitlines()


@needs_root
@pytest.mark.parametrize(
    ("command", "outcome"),
    [
        (["/usr/bin/touch", "/usr/bin/x"], "Read-only file system"),
        (["/usr/bin/touch", "/etc/x"], "Read-only file system"),
        (["/usr/bin/ls", "/root/.cargo"], "No such file"),
        (["/usr/bin/cat", "/etc/shadow"], "Permission denied"),
        (["/usr/bin/unshare", "--user", "/bin/true"], -signal.SIGSYS),
        (["/usr/sbin/chroot", "/", "/bin/true"], -signal.SIGSYS),
        (["/usr/bin/chrt", "--fifo", "1", "/bin/true"], -signal.SIGSYS),
        (["/usr/bin/setarch", "--addr-no-randomize", "/bin/true"], -signal.SIGSYS),
        (["/usr/bin/true"], 0),
    ],
    ids=lambda value: value[0].rsplit("/", 1)[1] if isinstance(value, list) else None,
)
def test_the_sandbox_bites(configuration, command, outcome):
    # A copy of the program runs, as the gateway's does.
    ended = subprocess.run([*within_unit(configuration), *command], capture_output=True, text=True, timeout=20)
    if isinstance(outcome, int):
        assert ended.returncode == outcome, ended.stderr
    else:
        assert ended.returncode > 0 and outcome in ended.stderr, ended


def test_the_gateway_works_under_the_profile_for_containers_and_not_under_the_default_one(start, tmp_path):
    engine = [sys.executable, sandbox.__file__, "engine"]
    gateway = start("--shards", 1, within=[*engine, str(PROFILE)])
    with Peer.opened(gateway.port, "/raw/c") as peer:
        gateway.ask("POST", "/channels/c/publish", b"1")
        assert peer.text() == "1"
    profile = json.loads(PROFILE.read_text())
    assert profile["syscalls"].pop()["names"] == ["io_uring_enter", "io_uring_register", "io_uring_setup"]
    default = tmp_path / "default.json"
    default.write_text(json.dumps(profile))
    line = [*engine, str(default), str(BINARY), "serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
    refused = subprocess.run(line, env=environment({}), capture_output=True, text=True, timeout=20)
    assert refused.returncode == 1
    assert "io_uring is refused (io_uring_setup: " in refused.stderr, refused.stderr
    assert "--security-opt seccomp=tuning/seccomp.json" in refused.stderr


@pytest.mark.parametrize("call", ["io_uring_setup", "io_uring_register", "io_uring_enter"])
@pytest.mark.parametrize(("code", "text"), [("EPERM", "not permitted"), ("ENOSYS", "not implemented")])
def test_where_a_filter_refuses_io_uring_the_start_says_so_in_one_sentence_with_the_mend(call, code, text):
    line = [*without(call, code), str(BINARY), "serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
    refused = subprocess.run(line, env=environment({}), capture_output=True, text=True, timeout=20)
    assert refused.returncode == 1, refused.stderr
    errors = [line for line in refused.stderr.splitlines() if "ERROR" in line]
    assert len(errors) == 1 and "panicked" not in refused.stderr
    assert f"io_uring is refused ({call}: " in errors[0] and text in errors[0], errors
    assert "--security-opt seccomp=tuning/seccomp.json" in errors[0]
    assert ". " not in errors[0].partition("ERROR")[2], "one sentence"


def test_too_little_locked_memory_is_said_with_the_mend():
    serve = [str(BINARY), "serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
    line = ["prlimit", "--memlock=65536", "--", *serve]
    refused = subprocess.run(line, env=environment({}), capture_output=True, text=True, timeout=20)
    assert refused.returncode == 1
    assert "RLIMIT_MEMLOCK is 65536 bytes" in refused.stderr and "LimitMEMLOCK=" in refused.stderr, refused.stderr
