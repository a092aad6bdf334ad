#!/usr/bin/python3
"""The rules of Prometheus: promtool accepts them, each alert is shown firing
and silent, and each has an entry in the runbook."""

import pathlib
import re
import subprocess
import unittest

import yaml

# A test runs in the root of its runfiles.
ROOT = pathlib.Path.cwd()
PROMETHEUS = ROOT / "deploy/prometheus"
RULES = sorted((PROMETHEUS / "rules").glob("*.yml"))
CASES = sorted((PROMETHEUS / "rules_tests").glob("*.yml"))
RUNBOOK = ROOT / "docs/runbook.md"


def promtool(*words):
    """(exit code, all output) of promtool."""
    result = subprocess.run(["/usr/bin/promtool", *words], text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return result.returncode, result.stdout


def alerts():
    return [rule for path in RULES
            for group in yaml.safe_load(path.read_text())["groups"]
            for rule in group["rules"] if "alert" in rule]


def cases():
    """(alert, whether it fires) of each case of promtool test rules."""
    return [(case["alertname"], bool(case["exp_alerts"]))
            for path in CASES
            for test in yaml.safe_load(path.read_text())["tests"]
            for case in test["alert_rule_test"]]


def entries():
    """The entries of the runbook: {name: text}."""
    parts = re.split(r"^## (\S+)$", RUNBOOK.read_text(), flags=re.M)
    return dict(zip(parts[1::2], parts[2::2]))


class RulesTest(unittest.TestCase):

    def must(self, *words):
        code, output = promtool(*words)
        self.assertEqual(code, 0, output)

    def test_promtool_accepts_rules_and_configuration(self):
        self.assertEqual([path.name for path in RULES],
                         ["alerts.yml", "recording.yml"])
        self.must("check", "rules", *RULES)
        self.must("check", "config", PROMETHEUS / "prometheus.yml")

    def test_promtool_sees_each_case_come_true(self):
        self.assertGreater(len(CASES), 0)
        self.must("test", "rules", *CASES)

    def test_each_alert_has_a_case_that_fires_and_a_silent_one(self):
        names = sorted(rule["alert"] for rule in alerts())
        self.assertGreater(len(names), 20)
        self.assertEqual(len(set(names)), len(names))
        for fires in (True, False):
            self.assertEqual(
                sorted({name for name, fired in cases() if fired == fires}),
                names, f"cases that {'fire' if fires else 'are silent'}")

    def test_each_alert_says_what_a_person_needs(self):
        for rule in alerts():
            name = rule["alert"]
            self.assertIn(rule["labels"]["severity"],
                          ("critical", "warning", "info"), name)
            notes = rule["annotations"]
            self.assertEqual(set(notes),
                             {"summary", "description", "runbook_url"}, name)
            self.assertIn("{{ $labels.", notes["summary"], name)
            self.assertEqual(notes["runbook_url"],
                             f"docs/runbook.md#{name.lower()}")

    def test_the_runbook_has_an_entry_for_each_alert_and_no_other(self):
        self.assertEqual(sorted(entries()),
                         sorted(rule["alert"] for rule in alerts()))

    def test_each_entry_says_what_to_look_at_and_what_to_do(self):
        for name, text in entries().items():
            meaning, *points = re.split(r"^- ", text.strip(), flags=re.M)
            self.assertGreater(len(meaning.split()), 8, name)
            self.assertEqual([point.split()[0].rstrip(":,")
                              for point in points], ["Look", "Do"], name)
            self.assertIn("`", points[0], f"{name}: no command, no query")

    def test_rules_use_only_series_that_rules_make(self):
        made = {rule["record"] for path in RULES
                for group in yaml.safe_load(path.read_text())["groups"]
                for rule in group["rules"] if "record" in rule}
        used = set()
        for path in [*RULES, RUNBOOK]:
            used |= set(re.findall(r"\binstance\w*:\w+:\w+", path.read_text()))
        self.assertEqual(used, made)


if __name__ == "__main__":
    unittest.main()
