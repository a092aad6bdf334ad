#!/usr/bin/env python3
"""Runs tools/behaviours on small trees, and on this one."""

import os
import pathlib
import subprocess
import tempfile
import unittest

ROOT = pathlib.Path(os.path.realpath("WORKSPACE")).parent
BUILD = """
cc_test(
    name = "%s",
    srcs = ["%s.cc"],%s
)
"""


class BehavioursTest(unittest.TestCase):

    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.root = pathlib.Path(directory.name)
        self.write("tools/behaviours.d/ids.tsv",
                   "1.1\tAlpha / one\tAA-01\tfirst\n"
                   "1.2\tAlpha / two\tAA-02\tsecond\n"
                   "2\tBeta\tBB-01\tthird\n"
                   "2\tBeta\tBB-02\tfourth\n")
        self.write("tools/behaviours.d/not-applicable.tsv",
                   "BB-02\tneeds hardware\n")
        self.write("tools/behaviours.d/open.tsv", "")

    def write(self, name, text):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def write_test(self, source, name="a_test", attributes=""):
        self.write("pkg/BUILD.bazel", BUILD % (name, name, attributes))
        self.write("pkg/%s.cc" % name, source)

    def run_tool(self, *args, root=None):
        return subprocess.run(
            [str(ROOT / "tools" / "behaviours"), "--root",
             str(root or self.root), *args],
            capture_output=True, text=True, check=False)

    def totals(self):
        result = self.run_tool()
        self.assertEqual(result.stderr, "")
        self.assertEqual(result.returncode, 0)
        return result.stdout.splitlines()[-1].split()

    def test_counts_each_section_and_the_total(self):
        self.write_test("// Covers: AA-02, BB-01\nTEST(A, B) {}\n")
        lines = self.run_tool().stdout.splitlines()
        self.assertEqual([line.split() for line in lines], [
            ["section", "covered", "not-applicable", "open", "total"],
            ["1", "Alpha", "1", "0", "1", "2"],
            ["2", "Beta", "1", "1", "0", "2"],
            ["total", "2", "1", "1", "4"],
        ])

    def test_a_claim_may_go_on_in_the_next_line(self):
        self.write_test("// Covers: AA-01,\n//   AA-02\nTEST(A, B) {}\n")
        self.assertEqual(self.totals(), ["total", "2", "1", "1", "4"])

    def test_tests_that_do_not_run_do_not_count(self):
        claim = "// Covers: AA-01\nTEST(A, %s) {}\n"
        self.write_test(claim % "B", attributes='\n    tags = ["manual"],')
        self.assertEqual(self.totals()[1], "0")
        self.write_test(claim % "DISABLED_B")
        self.assertEqual(self.totals()[1], "0")
        self.write("pkg/not_in_a_build_file_test.cc", claim % "B")
        self.assertEqual(self.totals()[1], "0")
        self.write_test(claim % "B")
        self.assertEqual(self.totals()[1], "1")

    def test_a_rule_without_sources_has_a_source_of_its_name(self):
        self.write("pkg/a_test.cc", "// Covers: AA-01\nTEST(A, B) {}\n")
        for rule in ('some_test(\n    name = "a_test",\n)\n',
                     'some_test(name = "a_test")\n'):
            self.write("pkg/BUILD.bazel", rule)
            self.assertEqual(self.totals()[1], "1")

    def test_a_claim_in_the_middle_of_a_line_is_an_error(self):
        self.write_test("// It ends. Covers: AA-01\nTEST(A, B) {}\n")
        result = self.run_tool()
        self.assertEqual(result.returncode, 1)
        self.assertEqual(result.stderr,
                         "error: pkg/a_test.cc:1: Covers: begins in the middle "
                         "of a line; put an empty comment line before it\n")

    def test_unknown_behaviour_is_an_error(self):
        self.write_test("\n// Covers: AA-99\nTEST(A, B) {}\n")
        result = self.run_tool()
        self.assertEqual(result.returncode, 1)
        self.assertEqual(result.stderr,
                         "error: pkg/a_test.cc:2: unknown behaviour AA-99\n")

    def test_covered_and_not_applicable_is_an_error(self):
        self.write_test("// Covers: BB-02\nTEST(A, B) {}\n")
        result = self.run_tool()
        self.assertEqual(result.returncode, 1)
        self.assertIn("BB-02 is covered here", result.stderr)

    def test_covered_and_open_is_an_error(self):
        self.write("tools/behaviours.d/open.tsv", "AA-01..AA-02\tnot built\n")
        self.write_test("// Covers: AA-02\nTEST(A, B) {}\n")
        result = self.run_tool()
        self.assertEqual(result.returncode, 1)
        self.assertEqual(result.stderr,
                         "error: pkg/a_test.cc:1: AA-02 is covered here, but "
                         "is listed as open\n")

    def test_unknown_behaviour_in_a_list_is_an_error(self):
        self.write("tools/behaviours.d/open.tsv", "ZZ-01\tnot built\n")
        self.assertEqual(self.run_tool().returncode, 1)

    def test_lists_name_the_reason_and_obey_the_section(self):
        self.write("tools/behaviours.d/open.tsv", "AA-01..AA-02\tnot built\n")
        self.assertEqual(
            self.run_tool("--open", "1.2").stdout.split(),
            "1.2 Alpha / two AA-02 second not built".split())
        self.assertIn("no test names it yet",
                      self.run_tool("--open", "2").stdout)
        self.assertEqual(self.run_tool("--na").stdout.split(),
                         "2 Beta BB-02 fourth needs hardware".split())

    def test_the_lists_and_claims_of_this_project_agree(self):
        result = self.run_tool(root=ROOT)
        self.assertEqual(result.stderr, "")
        self.assertEqual(result.returncode, 0)


if __name__ == "__main__":
    unittest.main()
