"""A real Redis and a real gateway, each a process of the test's own, ended by its own pid."""

import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import redis as redis_client

REPOSITORY = Path(__file__).resolve().parents[2]
BINARY = Path(os.environ.get("SPILLGATE_BIN", REPOSITORY / "target/debug/spillgate"))
FULL = bool(os.environ.get("SPILLGATE_FULL"))
"""Whether outages last as long as the issue says, not as short as they can."""

START_TIMEOUT_S = 20
END_TIMEOUT_S = 20


def wait_until(holds, what, timeout_s=10.0, pause_s=0.02):
    """Waits for `holds()` to be true, and returns what it was."""
    deadline = time.monotonic() + timeout_s
    while not (value := holds()):
        assert time.monotonic() < deadline, f"waited {timeout_s} s in vain for: {what}"
        time.sleep(pause_s)
    return value


def free_port():
    """A port that nobody uses just now; the kernel chooses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Redis:
    """A `redis-server` without persistence, in a directory of its own."""

    def __init__(self):
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}"
        self.directory = tempfile.mkdtemp(prefix="spillgate-redis-")
        self.process = None

    def start(self):
        arguments = {
            "--port": [str(self.port)],
            "--bind": ["127.0.0.1"],
            "--save": [""],
            "--appendonly": ["no"],
            "--client-output-buffer-limit": ["pubsub 32mb 8mb 60"],
        }
        flat = [word for flag, values in arguments.items() for word in (flag, *values)]
        self.process = subprocess.Popen(
            ["redis-server", *flat], cwd=self.directory, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        wait_until(self._answers, f"redis-server on port {self.port}")
        return self

    def stop(self):
        """Ends it as a crash would: nobody is told."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def remove(self):
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def client(self):
        return redis_client.Redis(port=self.port)

    def publish(self, channel, payload):
        """Publishes on a connection that stays open; answers the number of gateways reached."""
        if getattr(self, "_publisher", None) is None:
            self._publisher = self.client()
        return self._publisher.publish(channel, payload)

    def cli(self, *arguments):
        """What the real redis-cli prints."""
        command = ["redis-cli", "-p", str(self.port), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=10).stdout

    def _answers(self):
        assert self.process.poll() is None, "redis-server has ended; is its port taken?"
        try:
            with self.client() as client:
                return client.ping()
        except redis_client.RedisError:
            return False


def environment(settings):
    """The environment of a gateway: nothing of ours but `settings`, named without their prefix, and `RUST_LOG`."""
    ours = {name if name == "RUST_LOG" else f"SPILLGATE_{name}": str(value) for name, value in settings.items()}
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SPILLGATE_", "RUST_LOG"))}
    return kept | ours


def run_spillgate(*arguments, **settings):
    """Runs `spillgate` to its end, which must come by itself."""
    command = [str(BINARY), *map(str, arguments)]
    return subprocess.run(command, env=environment(settings), capture_output=True, text=True, timeout=20)


class Gateway:
    """A gateway that serves. Upper-case keywords are settings: `LIMITS_REQUEST_TIMEOUT="1s"`.

    `variables` are others of its environment; `within` is a command that runs it.
    """

    def __init__(
        self,
        *arguments,
        redis=None,
        command="serve",
        listen="127.0.0.1:0",
        admin="127.0.0.1:0",
        variables=None,
        within=(),
        **settings,
    ):
        line = [*within, str(BINARY), command, "--listen", listen, "--admin", admin, *map(str, arguments)]
        if redis is not None:
            line += ["--redis", redis.url]
        self.process = subprocess.Popen(
            line,
            env=environment(settings) | (variables or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        self.log = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.exit_code = None
        try:
            self.port = self._told(r"listening on [^ ]*:(\d+)\b")
            self.admin = self._told(r"admin on [^ ]*:(\d+)\b")
        except AssertionError:
            self.process.kill()
            self.process.wait()
            raise

    def _read(self):
        for line in self.process.stderr:
            self.log.append(line.decode(errors="replace").rstrip("\n"))

    def _told(self, pattern):
        def find():
            found = next((match for line in list(self.log) if (match := re.search(pattern, line))), None)
            assert found or self.process.poll() is None, f"the gateway did not start: {self.log}"
            return found

        return int(wait_until(find, f"{pattern!r} in the gateway's log", START_TIMEOUT_S)[1])

    def uri(self, path):
        return f"ws://127.0.0.1:{self.port}{path}"

    def ask(self, method, path, body=None, **headers):
        """Status and body of an answer of the admin interface."""
        connection = http.client.HTTPConnection("127.0.0.1", self.admin, timeout=10)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def ready(self):
        return self.ask("GET", "/readyz")[0] == 200

    def metrics(self):
        """Every sample by its name, labels included."""
        status, text = self.ask("GET", "/metrics")
        assert status == 200, text
        samples = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        return {name: float(value) for name, value in samples}

    def metric(self, name):
        return self.metrics()[name]

    def rss_kib(self):
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1])

    def send_signal(self, number=signal.SIGTERM):
        self.process.send_signal(number)

    def kill(self):
        """Ends it as a crash would; there is nothing to check then."""
        self.process.kill()
        self.exit_code = self.process.wait()
        self._reader.join(5)
        self.process.stderr.close()

    def end(self, number=signal.SIGTERM):
        """Ends it in order, and checks that it went in order; a second call does nothing."""
        if self.exit_code is None:
            if self.process.poll() is None:
                self.send_signal(number)
            self.check_end()

    def kill(self):
        """Ends it out of order, if it has not ended yet."""
        self.process.kill()
        self.exit_code = self.process.wait()
        self._reader.join(5)
        self.process.stderr.close()

    def check_end(self):
        try:
            self.exit_code = self.process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.exit_code = self.process.wait()
            raise AssertionError(f"the gateway did not end; its log: {self.log}") from None
        finally:
            self._reader.join(5)
            self.process.stderr.close()
        assert not any("panicked" in line for line in self.log), f"the gateway panicked: {self.log}"
        assert self.exit_code == 0, f"exit code {self.exit_code}; log: {self.log}"
