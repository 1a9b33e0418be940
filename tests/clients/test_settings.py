"""What is set wrong is refused by name, with its line, before anything starts."""

import pytest

from harness import run_spillgate


@pytest.fixture
def file(tmp_path):
    def write(text):
        path = tmp_path / "spillgate.toml"
        path.write_text(text)
        return path

    return write


# What is in the file, and what the refusal names besides it.
MISTAKES = [
    ("listn = ['127.0.0.1:1']", [":1:", "listn", "`listen`"]),
    ("shards = 1\n[limits]\nupdate_byte_max = 1", [":3:", "limits.update_byte_max"]),
    ("\n\nshards = 'two'", [":3:", "shards"]),
    ("shards = -1", [":1:", "shards"]),
    ("listen = ['localhost']", [":1:", "listen"]),
    ("[redis]\nurl = 'http://h'", [":2:", "redis.url"]),
    ("[heartbeat]\nping_after = '25 parsecs'", [":2:", "heartbeat.ping_after"]),
    ("[heartbeat]\n\nping_after = 25", [":3:", "heartbeat.ping_after"]),
    ("[[channel]]\nclient_publish = true", ["channel", "match"]),
    ("shards = 1\nshards = 2", [":2:", "duplicate key"]),
    ("shards = ", [":1:"]),
    ("\x00", [":1:"]),
]


@pytest.mark.parametrize("command", [("config", "check"), ("serve", "--config")], ids=["check", "serve"])
@pytest.mark.parametrize(("text", "named"), MISTAKES, ids=[" ".join(row[1]) for row in MISTAKES])
def test_a_mistake_in_the_file_is_refused_by_name_with_its_line(file, command, text, named):
    path = file(text)
    refused = run_spillgate(*command, path)
    assert refused.returncode == 1
    assert all(part in refused.stderr for part in [str(path), *named]), refused.stderr
    assert "panicked" not in refused.stderr


@pytest.mark.parametrize("command", [("serve",), ("demo",), ("config", "print")])
@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"LISTN": "127.0.0.1:1"}, ["SPILLGATE_LISTN", "SPILLGATE_LISTEN"]),
        ({"SHARDS": "many"}, ["SPILLGATE_SHARDS"]),
        ({"LIMITS_REQUEST_TIMEOUT": "-1s"}, ["SPILLGATE_LIMITS_REQUEST_TIMEOUT"]),
        ({"CHANNEL": "[{"}, ["SPILLGATE_CHANNEL"]),
    ],
)
def test_a_mistake_in_the_environment_is_refused_by_name(command, settings, named):
    refused = run_spillgate(*command, **settings)
    assert refused.returncode == 1
    assert all(part in refused.stderr for part in named), refused.stderr
    assert "panicked" not in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["serve", "--listn", "127.0.0.1:1"], "--listn"),
        (["serve", "--listen", ":8080"], ":8080"),
        (["serve", "--shards", "two"], "two"),
        (["demo", "--redis", "redis://h"], "--redis"),
        (["server"], "server"),
        ([], "Usage"),
        (["config", "check"], "FILE"),
        (["config", "check", "/nowhere/at/all.toml"], "/nowhere/at/all.toml"),
        (["serve", "--config", "/nowhere/at/all.toml"], "/nowhere/at/all.toml"),
    ],
)
def test_a_wrong_command_line_is_refused_by_name(arguments, named):
    refused = run_spillgate(*arguments)
    assert refused.returncode in (1, 2)
    assert named in refused.stderr and "panicked" not in refused.stderr


def test_what_is_printed_is_read_back_as_the_same_settings(file):
    settings = {
        "SHARDS": 3,
        "LISTEN": "127.0.0.1:7001,[::1]:7002",
        "HEARTBEAT_PING_AFTER": "1m 30s",
        "REDIS_URL": "redis://127.0.0.1:7003/0",
        "CHANNEL": '[{"match":"chat:*","client_publish":true}]',
    }
    printed = run_spillgate("config", "print", **settings)
    assert printed.returncode == 0, printed.stderr
    path = file(printed.stdout)
    checked = run_spillgate("config", "check", path)
    assert (checked.returncode, checked.stderr) == (0, "")
    assert "ok" in checked.stdout
    again = run_spillgate("config", "print", "--config", path)
    assert again.stdout == printed.stdout
    plain = run_spillgate("config", "print")
    assert plain.stdout != printed.stdout
    assert run_spillgate("config", "print", "--config", file(plain.stdout)).stdout == plain.stdout


def test_a_flag_goes_before_a_variable_before_the_file(start, file):
    path = file("listen = ['127.0.0.1:1']\nshards = 1\n[limits]\nupdate_bytes_max = 10\nchannel_name_bytes_max = 5\n")
    gateway = start("--config", path, "--shards", 3, SHARDS=2, LIMITS_UPDATE_BYTES_MAX=20)
    assert 'ws_turns_total{shard="2"}' in gateway.metrics(), "the flag"
    assert gateway.ask("POST", "/channels/c/publish", b"x" * 20)[0] == 200, "the variable"
    assert gateway.ask("POST", "/channels/c/publish", b"x" * 21)[0] == 413
    assert gateway.ask("POST", "/channels/longer/publish", b"x")[0] == 400, "the file"


@pytest.mark.parametrize("arguments", [["--help"], ["serve", "--help"], ["--version"]])
def test_help_is_there_and_exits_0(arguments):
    helped = run_spillgate(*arguments)
    assert helped.returncode == 0 and "spillgate" in helped.stdout


def test_what_kubernetes_announces_is_told_and_stops_nothing(start):
    gateway = start(listen="127.0.0.1:0", PORT="tcp://10.0.0.11:8080", SERVICE_HOST="10.0.0.11")
    told = [line for line in gateway.log if "announce" in line]
    assert len(told) == 1 and "SPILLGATE_PORT, SPILLGATE_SERVICE_HOST" in told[0] and "INFO" in told[0], told
