"""What every test here may ask for: namespaces, lines between them, a gateway in one of them, and a table for its figures."""

import os
from contextlib import ExitStack

import pytest

import clients
import net
from harness import Gateway, wait_until

TABLES = pytest.StashKey()


def pytest_configure(config):
    config.stash[TABLES] = []
    if net.missing() is None:
        net.favour(os.getpid())


def pytest_collection_modifyitems(items):
    if why := net.missing():
        for item in items:
            item.add_marker(pytest.mark.skip(reason=why))


def pytest_terminal_summary(terminalreporter, config):
    for title, rows in config.stash[TABLES]:
        terminalreporter.section(title)
        for row in rows:
            terminalreporter.write_line("| " + " | ".join(str(cell) for cell in row) + " |")


@pytest.fixture
def table(request):
    """Starts a table; rows that are appended to it are printed at the end."""

    def table(title, *head):
        rows = [head, ["---"] * len(head)]
        request.config.stash[TABLES].append((title, rows))
        return rows

    return table


@pytest.fixture
def closing():
    """Closes what it is given, the last first."""
    with ExitStack() as stack:

        def closing(thing):
            stack.callback(thing.close)
            return thing

        yield closing


@pytest.fixture
def server(closing):
    """The server's namespace; the test itself is in it."""
    namespace = closing(net.Namespace())
    with namespace.inside():
        yield namespace


@pytest.fixture
def start(server):
    """Starts gateways of one shard in the server's namespace, which listen on all its addresses."""
    gateways = []

    def start(**settings):
        gateway = Gateway("--shards", 1, listen="0.0.0.0:0", **settings)
        gateways.append(gateway)
        for thread in os.listdir(f"/proc/{gateway.process.pid}/task"):
            net.favour(int(thread))
        wait_until(gateway.ready, "a gateway that is ready")
        return gateway

    yield start
    for gateway in gateways:
        gateway.end()


@pytest.fixture
def publisher(closing):
    def publisher(gateway):
        return closing(clients.Publisher(gateway))

    return publisher
