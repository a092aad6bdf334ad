"""Debian's Prometheus with the rules and consoles of deploy/, for tests."""

import json
import pathlib
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

import yaml

# A test runs in the root of its runfiles.
ROOT = pathlib.Path.cwd()
DEPLOY = ROOT / "deploy/prometheus"
# A condition that should come true has this long on a slow machine.
PATIENCE = 150


def poll(what, condition):
    """Waits until condition() is true, and returns its value."""
    deadline = time.monotonic() + PATIENCE
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"in {PATIENCE} s not: {what}")
        time.sleep(0.1)
    return value


class Prometheus:
    """Scrapes the daemon at `target` (HOST:PORT) each second, by the example
    configuration; killed at the end of `with`."""

    def __init__(self, target):
        self.folder = pathlib.Path(tempfile.mkdtemp(dir="/tmp"))
        config = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": "1s",
                            "evaluation_interval": "1s"}
        config["rule_files"] = [str(DEPLOY / name)
                                for name in config["rule_files"]]
        config["scrape_configs"][0]["static_configs"] = [{"targets": [target]}]
        (self.folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        self.log = None
        self.process = None

    def __enter__(self):
        self.log = open(self.folder / "log", "w")
        self.process = subprocess.Popen(
            ["/usr/bin/prometheus",
             f"--config.file={self.folder}/prometheus.yml",
             f"--storage.tsdb.path={self.folder}/data",
             f"--web.listen-address={self.address}",
             f"--web.console.templates={DEPLOY}/consoles"],
            stdout=self.log, stderr=self.log)
        poll("Prometheus is ready", self.ready)
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.log.close()
        shutil.rmtree(self.folder)

    def ready(self):
        if self.process.poll() is not None:
            raise AssertionError("Prometheus ended:\n" +
                                 (self.folder / "log").read_text())
        try:
            urllib.request.urlopen(f"http://{self.address}/-/ready").close()
            return True
        except (urllib.error.URLError, ConnectionError):
            return False

    def api(self, path, **parameters):
        """The data that a path of the HTTP API answers."""
        url = (f"http://{self.address}/api/v1/{path}?"
               f"{urllib.parse.urlencode(parameters)}")
        try:
            with urllib.request.urlopen(url) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{path} {parameters}: "
                                 f"{error.read().decode()}") from error

    def query(self, expr):
        """[(labels, value)] of the samples that are numbers."""
        samples = [(one["metric"], float(one["value"][1]))
                   for one in self.api("query", query=expr)["result"]]
        return [sample for sample in samples if sample[1] == sample[1]]

    def wait_for_data(self, exprs):
        """Waits until each of these queries has had a number once."""
        left = set(exprs)

        def all_had():
            left.difference_update([one for one in left if self.query(one)])
            return not left

        try:
            poll("each query has data", all_had)
        except AssertionError as error:
            raise AssertionError("without data:\n" +
                                 "\n".join(sorted(left))) from error
