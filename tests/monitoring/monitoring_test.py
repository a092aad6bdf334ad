#!/usr/bin/python3
"""Debian's Prometheus beside a daemon under load: every query of every rule,
alert and panel finds data, and each graph of each console draws a line.

To renew the pictures of docs/images:
  bazel test --test_env=PICTURES=$PWD/docs/images //tests/monitoring:monitoring_test
"""

import os
import pathlib
import re
import sys
import unittest

import yaml

from loaded_daemon import LoadedDaemon
from prometheus import DEPLOY, ROOT, Prometheus, poll

sys.path[:0] = [str(ROOT / "tests/browser"), str(ROOT / "deploy/dashboards")]

import console
import description
from chromium import Browser

DASHBOARDS = description.read_all(ROOT / "deploy/dashboards")

# What alerts look at, and why it has no data in a daemon that is well.
EMPTY_BY_DESIGN = {
    'mmud_operations_total{job="mmud", code!~"OK|CANCELLED"}':
        "a code has a series from the first operation that ends with it",
}


def rules():
    return [rule for path in sorted((DEPLOY / "rules").glob("*.yml"))
            for group in yaml.safe_load(path.read_text())["groups"]
            for rule in group["rules"]]


def selectors(expr):
    """The series that an expression reads, without ranges."""
    return re.findall(r"\b(?:mmud|process|grpc_server|up|instance)\w*"
                      r"(?::\w+:\w+)?(?:\{[^}]*\})|\binstance\w*:\w+:\w+",
                      expr)


def alert_inputs():
    return {one for rule in rules() if "alert" in rule
            for one in selectors(rule["expr"])}


def panel_queries(empty):
    """The queries of panels that may be empty by design, or of the others."""
    return {console.query_of(query)["expr"].replace("$instance", ".*")
            .replace("$vm", ".*")
            for dashboard in DASHBOARDS
            for panel in description.panels(dashboard)
            for query in panel["queries"] if ("empty" in panel) == empty}


def graphs(document):
    """{panel: lengths of the lines that are drawn in its graph}."""
    parts = re.split(r'<div id="panel-(\d+)" class="graph"', document)
    return {int(number): [path.count("L") for path in
                          re.findall(r'<path class="path" d="([^"]*)"', part)]
            for number, part in zip(parts[1::2], parts[2::2])}


class MonitoringTest(unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        daemon = cls.enterClassContext(LoadedDaemon())
        cls.prometheus = cls.enterClassContext(Prometheus(daemon.target()))

    def test_every_rule_is_evaluated_without_an_error(self):
        wanted = sorted(rule.get("alert") or rule["record"]
                        for rule in rules())

        def healthy():
            found = [rule for group in self.prometheus.api("rules")["groups"]
                     for rule in group["rules"]]
            self.assertEqual([rule for rule in found if rule.get("lastError")],
                             [])
            return sorted(rule["name"] for rule in found
                          if rule["health"] == "ok") == wanted

        poll("each rule is ok", healthy)

    def test_every_recording_rule_and_every_input_of_an_alert_has_data(self):
        exprs = {rule["expr"] for rule in rules() if "record" in rule}
        inputs = alert_inputs()
        self.assertGreater(len(inputs), 20)
        self.assertLessEqual(set(EMPTY_BY_DESIGN), inputs)
        self.prometheus.wait_for_data(exprs | inputs - set(EMPTY_BY_DESIGN))
        for expr in EMPTY_BY_DESIGN:
            self.assertEqual(self.prometheus.query(expr), [])

    def test_no_critical_alert_fires_and_every_alert_can_be_asked(self):
        for rule in rules():
            if "alert" in rule:
                found = self.prometheus.query(rule["expr"])
                if rule["labels"]["severity"] == "critical":
                    self.assertEqual(found, [], rule["alert"])

    def test_every_query_of_a_panel_has_data(self):
        exprs = panel_queries(empty=False)
        self.assertGreater(len(exprs), 40)
        self.prometheus.wait_for_data(exprs)
        for expr in panel_queries(empty=True):
            self.prometheus.query(expr)  # is at least no error

    def test_each_graph_of_each_console_draws_a_line(self):
        # Rates, of which a line has two.
        self.prometheus.wait_for_data(panel_queries(empty=False))
        for dashboard in DASHBOARDS:
            # As high as the page, for its picture.
            height = 150 + 310 * len(dashboard["rows"])
            with Browser(1400, height) as browser:
                self.check_console(browser, dashboard)

    def check_console(self, browser, dashboard):
        url = (f"http://{self.prometheus.address}/consoles/"
               f"{dashboard['name']}.html?minutes=1&vm=vms/alpha")
        panels = description.panels(dashboard)
        must_draw = {number for number, panel in enumerate(panels, 1)
                     if "empty" not in panel}

        def drawn():
            document, messages = browser.visit(
                url, "--dump-dom", "--virtual-time-budget=20000")
            self.assertEqual(messages, [])
            found = graphs(document)
            self.assertEqual(sorted(found), list(range(1, len(panels) + 1)))
            return must_draw <= {number for number, lines in found.items()
                                 if any(points >= 2 for points in lines)}

        poll(f"{dashboard['name']}: each graph has a line", drawn)
        if "PICTURES" in os.environ:
            picture = pathlib.Path(os.environ["PICTURES"])
            browser.visit(url, "--virtual-time-budget=20000",
                          f"--screenshot={picture}/{dashboard['name']}.png")


if __name__ == "__main__":
    unittest.main()
