"""The log in its three forms: which one when, one line an event, no flood, no payload."""

import json
import os
import re
import subprocess
import time

import pytest

from harness import BINARY, environment, run_spillgate, wait_until
from peer import Peer

TEXT = re.compile(r"^\d{4}-\d\d-\d\dT[\d:.]+Z +(INFO|WARN|ERROR) \S.*$")
JOURNALD = re.compile(r"^<[3467]>\S.*$")
SECRET = "nobody's business"


def eventful(start, redis, **settings):
    """The log of a gateway to which something of every kind has happened."""
    limits = {"LIMITS_CONNECTIONS_PER_SHARD_MAX": 3, "LIMITS_UPDATE_BYTES_MAX": 100}
    gateway = start("--shards", 1, redis=redis, **limits, **settings)
    port = gateway.port
    with Peer.opened(port, "/ws?channels=c"), Peer.opened(port, "/raw/c"), Peer.opened(port, "/raw/d"):
        for _ in range(20):
            with Peer(port) as refused:
                refused.send(b"GET /raw/c HTTP/1.1\r\n\r\n")
                assert b" 503 " in refused.socket.recv(1000)
        gateway.ask("POST", "/channels/c/publish", SECRET.encode())
        for _ in range(20):
            gateway.ask("POST", "/channels/c/publish", SECRET.encode() * 10)
            redis.publish("c", SECRET * 10)
        for part in ("clients were refused", "limits.update_bytes_max"):
            wait_until(lambda: any(part in line for line in gateway.log), part)
    gateway.end()
    assert not any(SECRET in line for line in gateway.log), gateway.log
    assert sum("clients were refused" in line for line in gateway.log) == 1, "one line, however many"
    assert sum("limits.update_bytes_max" in line for line in gateway.log) == 1
    return gateway.log


def test_on_a_pipe_lines_are_text(start, redis):
    log = eventful(start, redis)
    assert all(TEXT.match(line) for line in log), log
    assert any(re.search(r"Z  INFO listening on 127\.0\.0\.1:\d+$", line) for line in log)
    assert any(re.search(r'Z  INFO leaving signal="SIGTERM" connections=\d$', line) for line in log)


def test_json_lines_are_objects_with_their_values(start, redis):
    objects = [json.loads(line) for line in eventful(start, redis, LOG_FORMAT="json", ready=False)]
    assert all({"timestamp", "level", "message"} <= set(entry) for entry in objects)
    refused = next(entry for entry in objects if "clients were refused" in entry["message"])
    assert refused["level"] == "WARN" and refused["count"] >= 1
    assert next(entry for entry in objects if entry["message"] == "leaving")["signal"] == "SIGTERM"


def with_journal(*command, is_ours=True, **settings):
    """Runs a program whose stderr is, as JOURNAL_STREAM says, the journal's (or somebody else's); its lines."""
    reading, writing = os.pipe()
    stream = os.fstat(writing)
    named = f"{stream.st_dev}:{stream.st_ino if is_ours else stream.st_ino + 1}"
    process = subprocess.Popen(
        [str(BINARY), *map(str, command)],
        env=environment(settings) | {"JOURNAL_STREAM": named},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=writing,
    )
    os.close(writing)
    try:
        time.sleep(1)
        process.terminate()
        process.wait(10)
    finally:
        process.kill()
        process.wait()
    with open(reading) as lines:
        return lines.read().splitlines()


SERVE = ("serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0")


@pytest.mark.parametrize(
    ("is_ours", "arguments", "form"),
    [
        (True, (), JOURNALD),
        (False, (), TEXT),
        (True, ("--log-format", "text"), TEXT),
        (False, ("--log-format", "journald"), JOURNALD),
    ],
)
def test_journald_is_seen_and_a_flag_goes_before_it(is_ours, arguments, form):
    lines = with_journal(*SERVE, *arguments, is_ours=is_ours)
    assert len(lines) >= 4 and all(form.match(line) for line in lines), lines


def test_a_refusal_to_start_is_an_error_in_the_journal_too():
    lines = with_journal(*SERVE, SHARDS="many", LISTN="x")
    assert len(lines) == 2 and all(line.startswith("<3>SPILLGATE_") for line in lines), lines
    taken = with_journal("serve", "--listen", "127.0.0.1:0", "--admin", "192.0.2.1:1")
    assert taken[-1].startswith("<3>cannot listen on 192.0.2.1:1"), taken


def test_a_form_that_there_is_not_is_refused():
    flag = run_spillgate(*SERVE, "--log-format", "xml")
    assert flag.returncode == 2 and "xml" in flag.stderr and "journald" in flag.stderr
    variable = run_spillgate(*SERVE, LOG_FORMAT="xml")
    assert variable.returncode == 1 and "SPILLGATE_LOG_FORMAT" in variable.stderr


def test_on_a_terminal_lines_are_text_in_colour():
    master, terminal = os.openpty()
    process = subprocess.Popen(
        [str(BINARY), *SERVE], env=environment({}), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=terminal
    )
    os.close(terminal)
    try:
        text = b""
        while b"admin on" not in text:
            text += os.read(master, 4096)
    finally:
        process.terminate()
        process.wait(10)
        os.close(master)
    assert b"\x1b[32m INFO\x1b[0m" in text, text
    plain = re.sub(r"\x1b\[[\d;]*m", "", text.decode()).splitlines()
    assert all(TEXT.match(line) for line in plain if "admin on" not in line), plain
