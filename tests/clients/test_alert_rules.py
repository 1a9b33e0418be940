"""The alerts at Prometheus's usual pace, a scrape every 15 s, with their real waiting times: each fires while its cause goes
on, or has just ended, and what looks alike and is harmless does not make it fire. By `promtool test rules`."""

import json
import re
import subprocess

import pytest

from prometheus import ALERTS, alert_names

STEP_S = 15
LABELS = 'job="spillgate",instance="g"'
PRESSURE = {"ws_host_tcp_memory_pressure_bytes": "1000x200"}
MAX = {"ws_connections_max": "1000x200"}

# For each alert its series (what promtool calls `values`: `v+dxN` is v and N more, each by d more), the second at which it
# must fire, and one at which it must not.
ROWS = [
    ("Down", {"up": "1x3 0x20"}, 120, 75),
    ("Restarted", {"process_start_time_seconds": "100x8 220x8 340x8 460x8"}, 450, 300),
    # One scrape has seen it; the next is that of the process that the watchdog has made room for.
    ("ShardHangs", {'ws_shard_last_turn_age_seconds{shard="0"}': "0.1x7 2.5 0.1x20"}, 120, 105),
    ("ShardHangs", {'ws_shard_last_turn_age_seconds{shard="0"}': "0.1x7 9 _x2 0.1x20"}, 165, 195),
    ("RedisAway", {"ws_source_connected": "1x3 0x20"}, 90, 60),
    (
        "ChannelsUnconfirmed",
        {"ws_channels_wanted": "9x30", "ws_channels_confirmed": "9x3 8x30", "ws_source_connected": "1x30"},
        180,
        120,
    ),
    ("NearCapacity", {"ws_shard_connections": "86x60", "ws_shard_connections_max": "100x60"}, 300, 285),
    # Three a scrape, from half full on; and 600 clients who come back within a minute after a restart, and stay.
    ("FullSoon", {"ws_connections_active": "500+3x200"} | MAX, 900, 300),
    ("FullSoon", {"ws_connections_active": "0+150x4 600x196"} | MAX, None, [60, 300, 600, 660, 900, 1200]),
    ("Refusing", {'ws_connections_refused_total{reason="full"}': "0x8 1x30"}, 135, 105),
    ("ConnectionStorm", {"ws_connections_accepted_total": "0x8 0+100x20"} | MAX, 240, 120),
    ("ConnectionStorm", {"ws_connections_accepted_total": "0+40x30"} | MAX, None, [120, 300, 450]),
    ("AcceptQueueFilling", {"ws_accept_queue": "0x3 60x20", "ws_accept_queue_max": "100x30"}, 75, 45),
    ("AcceptErrors", {"ws_accept_errors_total": "0x8 1x30"}, 135, 105),
    ("EventLoopLag", {'ws_shard_turn_seconds{stat="p99"}': "0.1x3 0.3x20"}, 180, 120),
    (
        "LatencyHigh",
        {
            'ws_message_latency_seconds_bucket{le="0.5"}': "0+90x60",
            'ws_message_latency_seconds_bucket{le="1.0"}': "0+100x60",
            'ws_message_latency_seconds_bucket{le="+Inf"}': "0+100x60",
        },
        330,
        240,
    ),
    ("InboxFilling", {"ws_inbox_depth": "60x20", "ws_inbox_depth_max": "100x20"}, 30, 15),
    ("InboxFilling", {"ws_updates_held": "0x3 1x20"}, 90, 75),
    ("UpdatesLost", {"ws_updates_overrun_total": "0x8 1x30"}, 135, 105),
    ("UpdatesTooLarge", {"ws_updates_too_large_total": "0x8 1x30"}, 135, 105),
    ("ManyBehind", {"ws_sockets_behind": "30x60", "ws_websockets_active": "120x60"}, 300, 285),
    ("SlowConsumersClosed", {"ws_slow_consumers_closed_total": "0x8 5x30", "ws_websockets_active": "200x60"}, 135, 105),
    ("CriticalTooSlow", {"ws_critical_overflows_total": "0x8 1x30"}, 135, 105),
    (
        "Dropping",
        {
            'ws_messages_dropped_total{reason="outbox_full"}': "0x8 0+3x60",
            'ws_messages_dropped_total{reason="closed"}': "0+30x60",
            "ws_messages_due_total": "0+1000x60",
        },
        570,
        390,
    ),
    ("OutboxBudget", {"ws_shard_outbox_bytes": "0x3 80x20", "ws_shard_outbox_bytes_max": "100x30"}, 120, 90),
    ("KernelUnsentGrowing", {"ws_kernel_unsent_bytes": "0+3x200"} | PRESSURE, 900, 540),
    ("KernelUnsentGrowing", {"ws_kernel_unsent_bytes": "1x40 100x160"} | PRESSURE, None, [630, 900, 1200, 1500]),
    ("TcpMemory", {"ws_host_tcp_memory_bytes": "0x3 900x40"} | PRESSURE, 120, 90),
    ("Memory", {"ws_cgroup_memory_bytes": "90x40", "ws_cgroup_memory_max_bytes": "100x40"}, 120, 105),
    ("Memory", {"ws_host_memory_available_bytes": "5x40", "ws_host_memory_bytes": "100x40"}, 120, 105),
]


def labelled(series):
    """A series with the labels of a scrape beside its own."""
    name, _, own = series.rstrip("}").partition("{")
    return f"{name}{{{LABELS}{',' if own else ''}{own}}}"


def case(alert, series, fires_at, quiet_at):
    expression = f'count(ALERTS{{alertname="Spillgate{alert}",alertstate="firing"}})'
    moments = [(at, []) for at in (quiet_at if isinstance(quiet_at, list) else [quiet_at])]
    moments += [] if fires_at is None else [(fires_at, [{"labels": "{}", "value": 1}])]
    return {
        "interval": f"{STEP_S}s",
        "input_series": [{"series": labelled(name), "values": values} for name, values in series.items()],
        "promql_expr_test": [{"expr": expression, "eval_time": f"{at}s", "exp_samples": found} for at, found in moments],
    }


@pytest.mark.parametrize("row", ROWS, ids=[f"{number}-{row[0]}" for number, row in enumerate(ROWS)])
def test_at_a_scrape_every_15_s_the_alert_fires_in_time_and_not_before(tmp_path, row):
    file = tmp_path / "test.yml"
    tests = {"rule_files": [str(ALERTS)], "evaluation_interval": f"{STEP_S}s", "tests": [case(*row)]}
    file.write_text(json.dumps(tests))  # JSON is YAML
    done = subprocess.run(["promtool", "test", "rules", str(file)], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_among_them():
    assert {f"Spillgate{alert}" for alert, _, fires_at, _ in ROWS if fires_at is not None} == set(alert_names())


def test_no_alert_looks_at_fewer_than_four_scrapes():
    windows = re.findall(r"\[(\d+)m\]", re.sub("#.*", "", ALERTS.read_text()))
    assert windows and all(int(minutes) * 60 >= 4 * STEP_S for minutes in windows)
