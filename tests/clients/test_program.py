"""What the program says of itself: version, manual pages, completions, and whether a running one is well."""

import re

from harness import run_spillgate


def test_version_says_what_was_built():
    shown = run_spillgate("--version")
    assert re.fullmatch(r"spillgate \d+\.\d+\.\d+( \((debug build|[0-9a-f]{12}(-modified)?)\))?\n", shown.stdout), shown


def test_healthcheck_answers_for_the_gateway_of_its_settings(start):
    gateway = start(listen="127.0.0.1:0")
    asked = run_spillgate("healthcheck", ADMIN=f"0.0.0.0:{gateway.admin}")
    assert (asked.returncode, asked.stdout) == (0, "ok\n"), asked
    gateway.end()
    nobody = run_spillgate("healthcheck", "--admin", f"127.0.0.1:{gateway.admin}")
    assert nobody.returncode == 1 and "no answer from the admin interface" in nobody.stdout


def test_completions_and_manual_pages_are_printed(tmp_path):
    for shell in ("bash", "zsh", "fish"):
        printed = run_spillgate("completions", shell)
        assert printed.returncode == 0 and "healthcheck" in printed.stdout
    assert run_spillgate("man", tmp_path).returncode == 0
    serve = (tmp_path / "spillgate-serve.1").read_text()
    assert "\\-\\-log\\-format" in serve and "SPILLGATE_LISTEN" in serve
    assert (tmp_path / "spillgate.1").read_text().startswith(".ie")
