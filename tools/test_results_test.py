#!/usr/bin/env python3
"""Feeds tools/test_results.py with build events as Bazel writes them."""

import json
import os
import pathlib
import subprocess
import tempfile
import unittest

TOOL = (pathlib.Path(os.path.realpath("WORKSPACE")).parent / "tools" /
        "test_results.py")
TWO_GOOD = """<testsuites><testsuite name="A">
<testcase name="One" status="run" result="completed" classname="A"/>
<testcase name="Two" status="run" result="completed" classname="A"/>
<testcase name="DISABLED_Three" status="notrun" classname="A"/>
</testsuite></testsuites>"""
ONE_BAD = """<testsuites><testsuite name="A">
<testcase name="One" status="run" result="completed" classname="A"/>
<testcase name="Two" status="run" classname="A"><failure message="x"/></testcase>
<testcase name="Three" status="run" result="skipped" classname="A"/>
</testsuite></testsuites>"""


class TestResultsTest(unittest.TestCase):

    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = pathlib.Path(directory.name)
        self.events = []

    def add(self, label, status=None, xml=None):
        self.events.append({"id": {"targetConfigured": {"label": label}},
                            "configured": {"testSize": "SMALL"}})
        if xml is not None:
            path = self.directory / ("%d.xml" % len(self.events))
            path.write_text(xml)
            self.events.append({
                "id": {"testResult": {"label": label, "run": 1, "shard": 1}},
                "testResult": {"testActionOutput": [
                    {"name": "test.xml", "uri": path.as_uri()}]}})
        if status:
            self.events.append({"id": {"testSummary": {"label": label}},
                                "testSummary": {"overallStatus": status}})

    def report(self, exit_code, finished=True):
        if finished:
            self.events.append({"id": {"buildFinished": {}}, "finished": {}})
        path = self.directory / "events.json"
        path.write_text("".join(json.dumps(e) + "\n" for e in self.events))
        return subprocess.run(
            [str(TOOL), str(path), str(exit_code)], capture_output=True,
            text=True, check=True).stdout.splitlines()

    def test_counts_cases_and_not_targets(self):
        self.add("//a:a_test", "PASSED", TWO_GOOD)
        self.assertEqual(self.report(0), ["passed 2", "failed 0"])

    def test_names_failed_and_skipped_cases(self):
        self.add("//a:a_test", "FAILED", ONE_BAD)
        self.assertEqual(self.report(3), [
            "failure //a:a_test A.Two", "note skipped //a:a_test A.Three",
            "passed 1", "failed 1"])

    def test_crash_and_timeout_are_failures(self):
        self.add("//a:a_test", "FAILED")
        self.add("//a:b_test", "TIMEOUT", "<testsuites><tests")
        self.assertEqual(self.report(3), [
            "failure //a:a_test failed", "failure //a:b_test timeout",
            "passed 0", "failed 2"])

    def test_target_that_does_not_build_is_a_failure(self):
        self.add("//a:a_test", "PASSED", TWO_GOOD)
        self.add("//a:b_test", "NO_STATUS")
        self.add("//a:c_test")
        self.assertEqual(self.report(1), [
            "failure //a:b_test did not build",
            "failure //a:c_test did not build", "passed 2", "failed 2"])

    def test_broken_build_outside_tests_is_a_failure(self):
        self.add("//a:a_test", "PASSED", TWO_GOOD)
        self.assertEqual(self.report(1), [
            "failure the build (bazel exited with 1)", "passed 2", "failed 1"])

    def test_events_that_end_early_are_a_failure(self):
        self.add("//a:a_test", "PASSED", TWO_GOOD)
        self.assertEqual(self.report(0, finished=False)[-1], "failed 1")


if __name__ == "__main__":
    unittest.main()
