"""A service manager as far as the gateway sees one: a socket for sd_notify(3), and a watchdog's limit."""

import os
import socket
import tempfile
import threading
import time
from pathlib import Path


RUN = "/run" if os.access("/run", os.W_OK) else None
"""Where systemd has its socket too: a sandbox hides /tmp."""


class Manager:
    """Listens to what a service says of itself; each word has the time at which it was said."""

    def __init__(self, watchdog_s=None):
        self.directory = tempfile.TemporaryDirectory(prefix="spillgate-notify-", dir=RUN)
        Path(self.directory.name).chmod(0o755)  # a service has another user
        self.path = f"{self.directory.name}/notify"
        self.watchdog_s = watchdog_s
        self.words = []
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        Path(self.path).chmod(0o666)
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self):
        while (datagram := self.socket.recv(4096)) != b"bye":
            now = time.monotonic()
            self.words += [(now, line) for line in datagram.decode().splitlines()]

    @property
    def variables(self):
        """What it puts into a service's environment."""
        watchdog = {"WATCHDOG_USEC": str(int(self.watchdog_s * 1e6))} if self.watchdog_s else {}
        return {"NOTIFY_SOCKET": self.path} | watchdog

    def said(self, word):
        """The times at which a word was said."""
        return [at for at, line in list(self.words) if line == word]

    def beginning(self, start):
        """The words that begin so."""
        return [line for _, line in list(self.words) if line.startswith(start)]

    def close(self):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as farewell:
            farewell.sendto(b"bye", self.path)
        self._listener.join()
        self.socket.close()
        self.directory.cleanup()
