"""What every test may ask for: a Redis and a gateway of its module, and gateways of its own."""

import time

import pytest

from harness import Gateway, Redis, wait_until
from peer import Peer


@pytest.fixture(scope="module")
def redis():
    server = Redis()
    try:
        yield server.start()
    finally:
        server.remove()


@pytest.fixture(scope="module")
def gateway(redis):
    """Two shards over the module's Redis; clients may publish to `chat:…`."""
    rule = '[{"match":"chat:*","client_publish":true}]'
    gateway = Gateway("--shards", 2, redis=redis, CHANNEL=rule)
    try:
        wait_until(gateway.ready, "a gateway that is ready")
        yield gateway
    finally:
        gateway.end()


@pytest.fixture(scope="module")
def bystander(redis, gateway):
    """A client that does nothing wrong: calling it fails unless it is served as ever, whatever the others do."""

    def is_served():
        redis.publish("bystander", "unharmed")
        assert peer.text() == "unharmed"

    with Peer.opened(gateway.port, "/raw/bystander") as peer:
        yield is_served


@pytest.fixture
def start():
    """Starts gateways as [`Gateway`] does; each is ended, and its end checked, after the test."""
    gateways = []

    def start(*arguments, ready=True, **settings):
        gateways.append(Gateway(*arguments, **settings))
        if ready:
            wait_until(gateways[-1].ready, "a gateway that is ready")
        return gateways[-1]

    yield start
    troubles = []
    for gateway in gateways:
        try:
            gateway.end()
        except AssertionError as trouble:
            troubles.append(str(trouble))
    assert not troubles, troubles


@pytest.fixture
def channel(request):
    """A channel that no other test uses."""
    return f"{request.node.originalname}.{time.monotonic_ns()}"
