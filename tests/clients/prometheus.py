"""A real Prometheus with the alerts that we ship, on a port that the kernel chose; it looks once a second."""

import json
import re
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

from harness import REPOSITORY, free_port, wait_until

ALERTS = REPOSITORY / "tuning/alerts.yml"
WAIT = re.compile(r"^( *for:) .*$", re.M)
"""How long a cause must last before its alert fires: tests do not wait for that."""


def alert_names():
    """The alerts that we ship."""
    return re.findall(r"^ *- alert: (\w+)$", ALERTS.read_text(), re.M)


def check(what, text=None):
    """Exit code and words of `promtool check …`, which is given a text, or the alerts."""
    command = ["promtool", "check", what, *([] if text else [str(ALERTS)])]
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=30)
    return done.returncode, done.stdout + done.stderr


class Prometheus:
    """It scrapes `gateways` as the job `spillgate`."""

    def __init__(self, gateways):
        self.directory = tempfile.mkdtemp(prefix="spillgate-prometheus-")
        self.url = f"http://127.0.0.1:{free_port()}"
        rules = Path(self.directory, "alerts.yml")
        rules.write_text(WAIT.sub(r"\1 0s", ALERTS.read_text()))
        settings = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(rules)],
            "scrape_configs": [
                {"job_name": "spillgate", "static_configs": [{"targets": [target(gateway) for gateway in gateways]}]}
            ],
        }
        config = Path(self.directory, "prometheus.yml")
        config.write_text(json.dumps(settings))  # JSON is YAML
        self.log = open(Path(self.directory, "log"), "wb")
        self.process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={config}",
                f"--storage.tsdb.path={self.directory}/data",
                f"--web.listen-address={self.url.removeprefix('http://')}",
            ],
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
        )

    def alerts(self):
        """What fires now, as pairs of a gateway's address and an alert's name."""
        alerts = self._ask("/api/v1/alerts")["alerts"]
        labels = (alert["labels"] for alert in alerts if alert["state"] == "firing")
        return {(labels["instance"], labels["alertname"]) for labels in labels}

    def samples(self, name):
        """The gateways' addresses, each with how many times it was asked for a metric."""
        result = self._ask(f"/api/v1/query?query=count_over_time({name}[1h])")["result"]
        return {each["metric"]["instance"]: int(each["value"][1]) for each in result}

    def wait_for_samples(self, gateways, count):
        """Waits until every gateway was scraped so many times."""

        def scraped():
            samples = self.samples("up")
            return all(samples.get(target(gateway), 0) >= count for gateway in gateways)

        wait_until(scraped, f"{count} scrapes of each gateway: {self.words()}", 30)

    def words(self):
        """The end of its log."""
        return Path(self.log.name).read_text(errors="replace")[-2000:]

    def end(self):
        self.process.terminate()
        self.process.wait(20)
        self.log.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _ask(self, path):
        assert self.process.poll() is None, f"Prometheus has ended: {self.words()}"
        try:
            with urllib.request.urlopen(self.url + path, timeout=5) as response:
                return json.load(response)["data"]
        except (urllib.error.URLError, ConnectionError):
            return {"alerts": [], "result": []}  # it is yet to listen


def target(gateway):
    """A gateway's admin interface, as Prometheus names it."""
    return f"127.0.0.1:{gateway.admin}"
