"""`benches/flood`, by which docs/measurements.md repeats what clients cost that send all the time, does what it says."""

import re
import subprocess
import sys

import pytest

from harness import BINARY, REPOSITORY

FLOOD = [sys.executable, str(REPOSITORY / "benches/flood")]


@pytest.mark.parametrize("kind", ["refused", "fragments"])
def test_whoever_listens_is_served_beside_clients_that_write_all_the_time(kind):
    line = [*FLOOD, "--program", str(BINARY), "--sockets", "2", "--rate", "500", "--seconds", "1", kind]
    ended = subprocess.run(line, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    said = re.search(rf"^{kind} .*p99 [\d.]+ ms; received 500 of 500; written (\d+) MB, 0 closed$", ended.stdout, re.MULTILINE)
    assert said and int(said[1]) > 0, ended.stdout


@pytest.mark.parametrize("wrong", [["--rate", "7"], ["--sockets", "0"], ["nothing"], ["--program", "/nothing"]])
def test_what_makes_no_sense_is_refused_with_a_sentence(wrong):
    ended = subprocess.run([*FLOOD, "--program", str(BINARY), *wrong], capture_output=True, text=True, timeout=20)
    assert ended.returncode == 2 and "error: " in ended.stderr and "Traceback" not in ended.stderr, ended.stderr
