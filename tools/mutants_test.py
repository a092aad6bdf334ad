#!/usr/bin/env python3
"""Runs tools/mutants on a small tree, and checks this one's list."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(os.path.realpath("WORKSPACE")).parent
sys.path.insert(0, str(ROOT / "tools"))
sys.dont_write_bytecode = True

import mutant_list  # pylint: disable=wrong-import-position
import mutant_tree  # pylint: disable=wrong-import-position

SOURCE = """int Twice(int x) {
  // one; two;
  one( x );
  two(x);  // last
  return x + x;
}
"""
ENTRY = """mutant %s
  file       mmu_core/base/a.cc
  rule       AA-01: twice is twice
  %s
  becomes    %s
  %s
"""
BUILD = """cc_library(
    name = "a",
    srcs = ["a.cc"],
    deps = [
        ":b",
    ],
)

cc_test(
    name = "a_test",
    srcs = ["a_test.cc"],
)
"""
# Stands for Bazel: "builds" a program that does what its filter and the
# mutant's number say. `broken` is what a test does that runs the broken code.
BAZEL = """#!/bin/sh
echo "$@" >> calls
case "$1" in info) echo "$PWD/out"; exit;; esac
mkdir -p out/mmu_core/base
cat > out/mmu_core/base/a_test <<'END'
#!/bin/sh
broken() { : > "$MMU_MUTANT_TRACE"; }
case "$MMU_MUTANT $1" in
  %(caught)d*Start*) broken; exit 1;;
esac
echo '[ RUN      ] ATest.One'
case "$MMU_MUTANT $1" in
  %(caught)d*Passes*) broken;;
  %(caught)d*Hangs*) broken; exec sleep 100;;
  %(caught)d*Dies*) broken; kill -SEGV $$;;
  %(caught)d*Elsewhere*) echo '[  FAILED  ] ATest.One (0 ms)'; exit 1;;
  %(caught)d*) broken; echo '[  FAILED  ] ATest.One (0 ms)'; exit 1;;
  *Bad*) exit 1;;
  *None*) exit 0;;
esac
echo '[       OK ] ATest.One (0 ms)'
END
chmod +x out/mmu_core/base/a_test
"""
TEST = "test       //mmu_core/base:a_test *"
PLACE = "statement  two(x);"


def mutant_of(fields, name="m"):
    (mutant,) = mutant_list.parse(ENTRY % ((name,) + fields), "g", "g.txt")
    return mutant


class ListTest(unittest.TestCase):

    def place(self, *broken):
        mutant = mutant_of(("\n  ".join(broken), "y", TEST))
        start, end = mutant_list.place_of(
            mutant, mutant_list.without_comments(SOURCE))
        return SOURCE[start:end]

    def test_text_is_compared_by_tokens_without_comments(self):
        self.assertEqual(self.place("statement  one(x);\n    two(x);"),
                         "one( x );\n  two(x);")

    def test_words_are_not_cut(self):
        with self.assertRaisesRegex(mutant_list.ListError, "0 times"):
            self.place("expression wo")

    def test_a_text_that_occurs_twice_needs_the_one_before_it(self):
        with self.assertRaisesRegex(mutant_list.ListError, "5 times"):
            self.place("expression x")
        self.assertEqual(self.place("after      return x +", "expression x"),
                         "x")

    def test_an_anchor_has_to_be_the_only_one(self):
        with self.assertRaisesRegex(mutant_list.ListError, '"after" occurs 0'):
            self.place("after      three", "expression x")

    def test_each_entry_has_all_its_fields_once(self):
        for fields, error in (
                (("rule       again", "y", TEST), "a second rule"),
                (("nothing    here", "y", TEST), "neither an entry"),
                (("statement  a;\n  expression b", "y", TEST), "exactly one"),
                (("statement  a;", "y", "hang       caught"), "neither or"),
                (("statement  a;", "y", TEST + "\n  equivalent so"), "or both"),
                (("text       a;", "b;", TEST), "without ACTIVE"),
                (("statement  a;", "", TEST), "no becomes")):
            with self.assertRaisesRegex(mutant_list.ListError, error):
                mutant_of(fields).check()


class TreeTest(unittest.TestCase):

    def weave(self, *mutants):
        return mutant_tree.weave(list(mutants), SOURCE)

    def test_a_statement_and_an_expression_get_a_switch(self):
        statement = mutant_of(("statement  two(x);", "nothing", TEST))
        expression = mutant_of(("expression x + x", "x", TEST))
        woven = self.weave(statement, expression)
        self.assertIn("{ if (::mmu_mutants::Active(%dul)) {  } else { two(x);"
                      % statement.number, woven)
        self.assertIn("return (::mmu_mutants::Active(%dul) ? (x) : (x + x));"
                      % expression.number, woven)
        self.assertTrue(woven.startswith(mutant_tree.SWITCH))

    def test_a_text_within_a_text_and_one_text_twice_are_nested(self):
        outer = mutant_of(("statement  one(x); two(x);", "o();", TEST), "o")
        inner = mutant_of(("statement  two(x);", "i();", TEST), "i")
        again = mutant_of(("statement  two(x);", "j();", TEST), "j")
        woven = self.weave(outer, inner, again)
        self.assertEqual([woven.index(text) for text in
                          ("o();", "one( x )", "j();", "i();", "two(x);")],
                         sorted(woven.index(text) for text in
                                ("o();", "one( x )", "j();", "i();",
                                 "two(x);")))

    def test_texts_that_overlap_are_refused(self):
        with self.assertRaisesRegex(mutant_list.ListError, "overlapping"):
            self.weave(mutant_of(("statement  one(x); two(x);", "a;", TEST)),
                       mutant_of(("statement  two(x); return x", "b", TEST)))

    def test_a_text_says_itself_what_is_broken(self):
        text = mutant_of(("text       one(x);", "if (!ACTIVE) one(x);", TEST))
        woven = self.weave(text)
        self.assertIn("  if (!::mmu_mutants::Active(%dul)) one(x);\n"
                      % text.number, woven)
        with self.assertRaisesRegex(mutant_list.ListError, "one way only"):
            self.weave(text, mutant_of(("text       one(x);", "ACTIVE;", TEST)))


class RunTest(unittest.TestCase):

    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.root = pathlib.Path(directory.name) / "root"
        self.scratch = pathlib.Path(directory.name) / "scratch"
        self.write("mmu_core/LOCKING.md", "RACE-1\n")
        self.write("tools/behaviours.d/ids.tsv", "1\tA\tAA-01\tfirst\n")
        self.write("mmu_core/base/a.cc", SOURCE)
        self.write("mmu_core/base/BUILD.bazel", BUILD)
        self.caught = self.entry("caught", "nothing", TEST)
        bazel = pathlib.Path(directory.name) / "bazel"
        bazel.write_text(BAZEL % {"caught": mutant_of((PLACE, "b;", TEST),
                                                      "caught").number})
        bazel.chmod(0o755)
        self.bazel = str(bazel)

    def write(self, name, text):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def entry(self, name, becomes, test):
        return ENTRY % (name, PLACE, becomes, test)

    def tool(self, entries, *options):
        self.write("tools/mutants.d/group.txt", "\n".join(entries))
        return subprocess.run(
            [str(ROOT / "tools" / "mutants"), "--root", str(self.root),
             "--scratch", str(self.scratch), "--bazel", self.bazel, *options],
            capture_output=True, text=True, check=False)

    def test_what_a_test_notices_is_caught_by_it(self):
        result = self.tool([self.caught], "--run")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertRegex(result.stdout, "caught +caught by ATest.One\n1 caught")
        woven = (self.scratch / "tree/mmu_core/base/a.cc").read_text()
        self.assertIn("mmu_mutants::Active", woven)

    def run_of(self, *name_and_more):
        """Runs "caught" with the tests that are named, none kept before."""
        (self.scratch / "results.json").unlink(missing_ok=True)
        tests = [TEST[:-1] + text for text in name_and_more]
        return self.tool([self.entry("caught", "x;", "\n  ".join(tests))],
                         "--run", "--least-seconds", "1")

    def kept(self):
        path = self.scratch / "results.json"
        return json.loads(path.read_text()).get("caught")

    def test_a_failure_that_did_not_reach_the_mutant_is_no_verdict(self):
        result = self.run_of("Elsewhere")
        self.assertEqual(result.returncode, 2)
        self.assertRegex(result.stdout, "caught +NOT RUN: .* failed without "
                         "reaching the mutant: ATest.One\n0 caught")
        self.assertIsNone(self.kept())

    def test_a_failure_before_any_test_is_no_verdict(self):
        result = self.run_of("Start")
        self.assertEqual(result.returncode, 2)
        self.assertRegex(result.stdout, "caught +NOT RUN: .* failed before a "
                         "test began: the program's start, exit code 1")
        self.assertIsNone(self.kept())

    def test_a_test_that_does_not_end_is_no_verdict(self):
        result = self.run_of("Hangs")
        self.assertEqual(result.returncode, 2)
        self.assertRegex(result.stdout, "caught +NOT RUN: .* did not end")
        self.assertIsNone(self.kept())

    def test_a_test_that_does_not_end_may_be_a_failure(self):
        result = self.run_of("Hangs\n  hang       caught")
        self.assertEqual(result.returncode, 0, result.stdout)
        self.assertRegex(result.stdout, "caught +caught by ATest.One, which "
                         "did not end")
        self.assertTrue(self.kept()["caught"])

    def test_a_death_by_a_signal_is_a_failure(self):
        result = self.run_of("Dies")
        self.assertEqual(result.returncode, 0, result.stdout)
        self.assertRegex(result.stdout,
                         "caught +caught by ATest.One, signal 11")

    def test_each_test_that_is_named_has_to_fail(self):
        result = self.run_of("One", "Passes")
        self.assertEqual(result.returncode, 1)
        self.assertRegex(result.stdout, "caught +SURVIVED: //mmu_core/base:"
                         "a_test Passes passed, 1 tests\n0 caught")
        result = self.run_of("One", "Dies")
        self.assertRegex(result.stdout, "caught by ATest.One and ATest.One, s")

    def test_a_test_that_passes_without_reaching_the_mutant_is_named(self):
        result = self.tool([self.entry("other", "x;", TEST)], "--run")
        self.assertEqual(result.returncode, 1)
        self.assertIn("passed, 1 tests, none of which reached it",
                      result.stdout)

    def test_a_spoilt_file_of_results_is_ignored(self):
        self.scratch.mkdir()
        for spoilt in ('{"caught": {"sta', "[]", ""):
            (self.scratch / "results.json").write_text(spoilt)
            result = self.tool([self.caught], "--run")
            self.assertEqual(result.returncode, 0, result.stderr)
            self.assertTrue(self.kept()["caught"])

    def test_an_error_of_the_tool_does_not_look_like_a_survivor(self):
        self.scratch.write_text("no folder")
        result = self.tool([self.caught], "--run")
        self.assertEqual(result.returncode, 2)
        self.assertRegex(result.stderr, "^error: FileExistsError: .*\n$")

    def test_what_no_test_notices_survives(self):
        result = self.tool([self.caught, self.entry("other", "x;", TEST)],
                           "--run")
        self.assertEqual(result.returncode, 1)
        self.assertRegex(result.stdout, "other +SURVIVED: //mmu_core/base:")
        self.assertIn("1 caught, 1 survived", result.stdout)

    def test_an_equivalent_mutant_is_neither(self):
        result = self.tool([self.entry("same", "x;", "equivalent it is")],
                           "--run")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("0 caught, 0 survived, 1 equivalent", result.stdout)
        self.assertRegex(result.stdout, "same +equivalent: it is")

    def test_a_test_that_fails_by_itself_or_is_none_judges_nothing(self):
        for name, why in (("Bad", "fails without a mutant"),
                          ("None", "has no test that runs")):
            result = self.tool(
                [self.entry("m", "x;", TEST[:-1] + name)], "--run")
            self.assertEqual(result.returncode, 2)
            self.assertRegex(result.stdout, "m +NOT RUN: .*" + why)

    def test_results_are_kept_until_something_changes(self):
        self.tool([self.caught], "--run")
        kept = (self.scratch / "results.json").read_text()
        result = self.tool([self.caught], "--run")
        self.assertIn("1 caught", result.stdout)
        self.assertEqual((self.scratch / "results.json").read_text(), kept)
        self.tool([self.entry("caught", "x;", TEST)], "--run")
        self.assertNotEqual((self.scratch / "results.json").read_text(), kept)

    def test_a_sample_says_its_seed_and_is_the_same_for_it(self):
        entries = [self.entry("m%d" % i, "x;", TEST) for i in range(20)]
        lists = [self.tool(entries, "--list", "--sample", "3", "--seed",
                           seed).stdout for seed in ("7", "7", "8")]
        self.assertIn("a sample of 3 of 20 mutants, seed 7", lists[0])
        self.assertEqual(lists[0], lists[1])
        self.assertNotEqual(lists[0].splitlines()[1:],
                            lists[2].splitlines()[1:])

    def test_a_sample_breaks_its_packages_in_the_projects_own_build(self):
        self.write("tools/BUILD.bazel", "")
        for seed in "1", "2":  # the second finds the folder of the first
            result = self.tool([self.caught], "--run", "--sample", "1",
                               "--seed", seed)
            self.assertEqual(result.returncode, 0, result.stderr)
            self.assertIn("1 caught", result.stdout)
        overlay = self.scratch / "overlay"
        self.assertEqual(
            sorted(str(path.relative_to(overlay)) for path in
                   overlay.rglob("*") if path.is_file()),
            ["mmu_core/base/BUILD.bazel", "mmu_core/base/a.cc"])
        self.assertIn("mmu_mutants::Active",
                      (overlay / "mmu_core/base/a.cc").read_text())
        self.assertEqual((self.root / "mmu_core/base/a.cc").read_text(), SOURCE)
        calls = (self.root / "calls").read_text()
        flags = ("--package_path=%s:%%workspace%% "
                 "--experimental_convenience_symlinks=ignore " % overlay)
        self.assertIn("build " + flags + "//mmu_core/base:a_test", calls)
        self.assertIn("info " + flags + "bazel-bin", calls)
        # Samples and runs of all do not spoil each other's results.
        self.assertFalse((self.scratch / "results.json").exists())

    def test_each_read_section_of_the_core_needs_an_entry(self):
        self.write("mmu_core/base/a.cc", SOURCE + "void R() {\n  RcuReadGuard "
                   "rcu;  // RcuReadGuard is in a comment, too\n}\n")
        self.write("mmu_core/base/a_test.cc", "RcuReadGuard rcu;")
        self.write("mmu_core/testing/a.h", "RcuReadGuard rcu;")
        result = self.tool([self.caught], "--check")
        self.assertEqual(result.returncode, 2)
        self.assertEqual(result.stderr, "error: mmu_core/base/a.cc:8: no mutant "
                         "leaves out this read section\n")
        broken = self.entry("section", "if (!ACTIVE) x;", TEST)
        broken = broken.replace(PLACE, "text       RcuReadGuard rcu;")
        result = self.tool([self.caught, broken], "--check")
        self.assertEqual(result.returncode, 0, result.stderr)

    def test_a_wrong_entry_is_refused(self):
        self.write("c.cc", SOURCE)
        for old, new, error in (("two(x);", "two(y);", "occurs 0 times"),
                                ("AA-01", "AA-02", "there is no AA-02"),
                                ("a.cc", "b.cc", "no file"),
                                ("mmu_core/base/a.cc", "c.cc", "no package"),
                                (":a_test", ":b_test", "no target")):
            result = self.tool([self.caught.replace(old, new)], "--check")
            self.assertEqual(result.returncode, 2, error)
            self.assertIn(error, result.stderr)

    def test_an_unknown_name_or_group_is_refused(self):
        for options in (("--show", "x"), ("--run", "--only", "x"),
                        ("--list", "--group", "x")):
            result = self.tool([self.caught], *options)
            self.assertEqual(result.returncode, 2)
            self.assertRegex(result.stderr, "no (mutant|group) x")


class ThisTreeTest(unittest.TestCase):

    def test_every_entry_has_its_place_and_every_group_fifteen(self):
        result = subprocess.run([str(ROOT / "tools" / "mutants"), "--check"],
                                capture_output=True, text=True, check=False)
        self.assertEqual(result.stderr, "")
        self.assertEqual(result.returncode, 0)
        counts = {}
        for mutant in mutant_list.load(ROOT):
            counts[mutant.group] = counts.get(mutant.group, 0) + 1
        self.assertGreaterEqual(sum(counts.values()), 120)
        self.assertEqual({g: n for g, n in counts.items() if n < 15}, {})


if __name__ == "__main__":
    unittest.main()
