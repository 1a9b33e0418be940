"""Redis goes and comes back: no client is dropped, and nothing has to be done by hand."""

import time

import pytest

from harness import FULL, Redis, wait_until
from peer import Peer

OUTAGE_S = 10 if FULL else 3


@pytest.fixture
def own_redis():
    server = Redis()
    yield server
    server.remove()


def until_published(gateway, redis, channel, payload):
    """Publishes as soon as the gateway is subscribed again."""
    wait_until(gateway.ready, "a gateway that is ready again")
    with redis.client() as client:
        wait_until(lambda: client.publish(channel, payload), "a gateway that is subscribed again")


def test_an_outage_of_redis_drops_no_client_and_delivery_goes_on_by_itself(start, own_redis):
    own_redis.start()
    gateway = start("--shards", 2, redis=own_redis, CHANNEL='[{"match":"*","client_publish":true}]')
    raw = [Peer.opened(gateway.port, "/raw/c") for _ in range(20)]
    enveloped = Peer.opened(gateway.port, "/ws?channels=c,d", timeout_s=OUTAGE_S + 10)
    epochs = {told["subscribed"]: told["epoch"] for told in (enveloped.json(), enveloped.json())}
    with own_redis.client() as client:
        client.publish("c", "before")
    assert {peer.text() for peer in raw} == {"before"}
    assert enveloped.json()["data"] == "before"

    own_redis.stop()
    away_since = time.monotonic()
    status, text = wait_until(
        lambda: (answer := gateway.ask("GET", "/readyz"))[0] == 503 and answer, "a readyz that says so"
    )
    assert "Redis is away" in text
    assert gateway.ask("GET", "/healthz")[0] == 200, "a restart would not help"
    assert gateway.metric("ws_source_connected") == 0

    enveloped.command(id=1, publish="c", data="lost")
    answer = enveloped.json()
    assert (answer["id"], answer["error"]["code"]) == (1, "unavailable")
    assert gateway.ask("POST", "/channels/c/publish", b"lost")[0] == 503
    raw.append(Peer.opened(gateway.port, "/raw/c"))
    enveloped.command(id=2, subscribe="e")
    told = enveloped.json()
    assert (told["id"], told["subscribed"]) == (2, "e")
    epochs["e"] = told["epoch"]
    while time.monotonic() - away_since < OUTAGE_S:
        assert not gateway.ready()
        time.sleep(0.1)

    own_redis.start()
    until_published(gateway, own_redis, "c", "after")
    assert {peer.text() for peer in raw} == {"after"}
    told = [enveloped.json() for _ in range(4)]
    update = next(message for message in told if "data" in message)
    notices = [message for message in told if "subscribed" in message]
    assert (update["channel"], update["data"]) == ("c", "after")
    assert {notice["subscribed"] for notice in notices} == set(epochs)
    assert all(notice["epoch"] != epochs[notice["subscribed"]] and "id" not in notice for notice in notices)
    positions = {notice["subscribed"]: notice["seq"] for notice in notices}
    assert update["seq"] == positions["c"] + 1
    assert gateway.metric("ws_source_connected") == 1
    assert gateway.metric("ws_source_lost_total") >= 1
    with own_redis.client() as client:
        client.publish("e", "1")
    assert enveloped.json()["channel"] == "e", "what was subscribed meanwhile is there too"
    for peer in [*raw, enveloped]:
        peer.socket.close()


def test_a_gateway_starts_while_redis_is_away_and_becomes_ready_when_it_comes(start, own_redis):
    gateway = start(redis=own_redis, ready=False)
    status, text = gateway.ask("GET", "/readyz")
    assert (status, "Redis is away" in text) == (503, True)
    assert gateway.ask("GET", "/healthz") == (200, "ok\n")
    with Peer.opened(gateway.port, "/raw/early") as early:
        own_redis.start()
        until_published(gateway, own_redis, "early", "at last")
        assert early.text() == "at last"


def test_a_redis_that_hangs_is_noticed_and_forgiven(start, own_redis):
    own_redis.start()
    settings = {"REDIS_PROBE_INTERVAL": "100ms", "REDIS_PROBE_TIMEOUT": "500ms"}
    gateway = start(redis=own_redis, **settings)
    with Peer.opened(gateway.port, "/raw/c") as peer:
        own_redis.process.send_signal(19)  # SIGSTOP: the connection stays open, and nothing comes
        wait_until(lambda: not gateway.ready(), "a readyz that is not fooled by an open connection")
        own_redis.process.send_signal(18)
        until_published(gateway, own_redis, "c", "awake")
        assert peer.text() == "awake"


def test_a_channel_is_subscribed_on_demand_and_let_go_a_little_after_its_last_client(start, own_redis):
    own_redis.start()
    gateway = start(redis=own_redis, REDIS_UNSUBSCRIBE_AFTER="500ms")
    with own_redis.client() as client:

        def subscribers():
            return dict(client.pubsub_numsub("c"))[b"c"]

        assert subscribers() == 0
        with Peer.opened(gateway.port, "/raw/c"), Peer.opened(gateway.port, "/ws?channels=c"):
            assert subscribers() == 1, "one subscription for the gateway, not one for each client"
        assert subscribers() == 1, "clients that come right back find it there"
        wait_until(lambda: subscribers() == 0, "the end of the subscription")


def test_a_subscriber_connection_that_redis_kills_comes_back(start, own_redis):
    own_redis.start()
    gateway = start(redis=own_redis)
    with Peer.opened(gateway.port, "/ws?channels=c") as peer, own_redis.client() as client:
        epoch = peer.json()["epoch"]
        assert client.client_kill_filter(_type="pubsub", skipme=True) >= 1
        told = peer.json()
        assert told["subscribed"] == "c" and told["epoch"] != epoch
        until_published(gateway, own_redis, "c", "1")
        assert peer.json()["seq"] == told["seq"] + 1
