"""Clients behind a slow link with a deep queue: what they see is as fresh as the link allows."""

import threading
import time

from clients import Client, pace, quantile
from net import Namespace, SlowLink

DURATION_S = 60
"""As the issue says: it is the age after a minute that is asked for."""
RULES = (
    '[{"match":"keys","key":"/key"},'
    '{"match":"match","critical":{"pointer":"/type","values":["goal","suspended"]}}]'
)
ONE_BYTES, ONE_RATE, ONE_MEDIAN_S = 200, 20, 0.3
KEYS, KEYS_BYTES, KEYS_RATE, KEYS_MEDIAN_S, KEYS_OLDEST_S = 200, 100, 100, 6, 15
TICKS, GOALS, TICK_BYTES, GOAL_AGE_S = 6000, 20, 100, 2
CONGESTION = ("bbr", "cubic")


def publish(source, channel, rate, size, fields):
    for number in pace(rate, DURATION_S):
        source.publish(channel, size, **fields(number))


def test_what_a_slow_client_sees_is_fresh(server, start, publisher, closing, table):
    """Six slow links at once: one key, 200 keys, and goals among ticks, each with bbr and with cubic."""
    gateway = start(CHANNEL=RULES)
    rows = table("32 kbit/s, deep queue, 60 ms", "what", "congestion control", "updates", "median age", "oldest")
    watchers = {}
    for congestion in CONGESTION:
        for channel in ("one", "keys", "match"):
            phone = closing(Namespace())
            link = closing(SlowLink(server, phone, congestion=congestion))
            client = Client(phone, (link.near, gateway.port), f"/raw/{channel}")
            watchers[congestion, channel] = closing(client)
    goal_every = TICKS // GOALS
    jobs = [
        ("one", ONE_RATE, ONE_BYTES, lambda number: {}),
        ("keys", KEYS_RATE, KEYS_BYTES, lambda number: {"key": number % KEYS}),
        (
            *("match", TICKS / DURATION_S, TICK_BYTES),
            lambda number: {"type": "goal" if number % goal_every == goal_every - 1 else "tick"},
        ),
    ]
    threads = [threading.Thread(target=publish, args=(publisher(gateway), *job)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    end = time.monotonic()
    snapshots = {watcher: list(client.arrived) for watcher, client in watchers.items()}
    time.sleep(GOAL_AGE_S + 1)

    missed = []
    for congestion in CONGESTION:
        one = [at - update["t"] for at, update in snapshots[congestion, "one"]]
        median = quantile(one, 0.5)
        rows.append((f"one key of {ONE_BYTES} B", congestion, len(one), f"{median:.2f} s", f"{max(one):.2f} s"))
        if median > ONE_MEDIAN_S:
            missed.append(rows[-1])

        newest = {update["key"]: update["t"] for _, update in snapshots[congestion, "keys"]}
        held = [end - at for at in newest.values()]
        held += [end - DURATION_S] * (KEYS - len(held))
        cells = (f"{quantile(held, 0.5):.2f} s", f"{max(held):.2f} s")
        rows.append((f"{KEYS} keys of {KEYS_BYTES} B", congestion, len(snapshots[congestion, "keys"]), *cells))
        if quantile(held, 0.5) > KEYS_MEDIAN_S or max(held) > KEYS_OLDEST_S:
            missed.append(rows[-1])

        goals = [(at, update) for at, update in watchers[congestion, "match"].arrived if update["type"] == "goal"]
        numbers = [update["n"] for _, update in goals]
        aged = [at - update["t"] for at, update in goals]
        cells = (f"{quantile(aged, 0.5):.2f} s", f"{max(aged, default=0):.2f} s")
        rows.append((f"{GOALS} goals among {TICKS} ticks", congestion, len(goals), *cells))
        expected = list(range(goal_every - 1, TICKS, goal_every))
        if numbers != expected or max(aged) > GOAL_AGE_S:
            missed.append(rows[-1])
    assert not missed, missed
