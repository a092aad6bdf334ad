#!/usr/bin/python3
"""A short form of tests/kills/run, and broken controllers that it notices."""

import pathlib
import re
import subprocess
import sys
import unittest

# A test runs in the root of its runfiles.
ROOT = pathlib.Path.cwd()


def command(*options):
    return [sys.executable, ROOT / "tests/kills/run", f"--programs={ROOT}",
            "--memory=16", *options]


def run(*options):
    """Returns the exit code and what is printed."""
    result = subprocess.run(command(*options), stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True, check=False)
    return result.returncode, result.stdout


class KillsTest(unittest.TestCase):

    def assert_fails(self, words, *options):
        """The run fails with these words, says how to repeat it, and keeps the
        logs, which are then removed."""
        code, text = run("--guests=tdp", *options)
        folder = re.search(r"logs and copies: (\S+)", text)
        self.assertIsNotNone(folder, text)
        logs = pathlib.Path(folder.group(1))
        self.assertTrue((logs / "mmud.log").is_file(), text)
        self.assertTrue((logs / "job/controller0.stderr").is_file(), text)
        subprocess.run(["rm", "-r", logs], check=True)
        self.assertEqual(code, 1, text)
        self.assertRegex(text, "FAILED: " + words)
        self.assertIn("repeat it with:\n  tests/kills/run --target=", text)
        return text

    def test_every_kill_ends_equal_or_reported(self):
        code, text = run("--kills=20")
        print(text)
        self.assertEqual(code, 0, text)
        for target in ("controller", "daemon"):
            kills = re.search(rf"^{target}: (\d+) kills,", text, re.MULTILINE)
            self.assertGreaterEqual(int(kills.group(1)), 10, text)
        self.assertIn("all equal or reported", text)

    def test_pages_acknowledged_before_they_are_copied_are_noticed(self):
        self.assert_fails(r"UNEQUAL: \d+ pages of the copy differ",
                          "--target=controller", "--phase=in flight",
                          "--kills=20", "--mistake=acknowledge-first")

    def test_success_claimed_without_a_daemon_is_noticed(self):
        self.assert_fails("the controller claims success: '[A-Z_]+ ",
                          "--target=daemon", "--phase=in flight", "--kills=20",
                          "--mistake=claim-success")

    def test_a_hang_is_noticed(self):
        text = self.assert_fails(
            "the controller did not end within 20 s", "--target=daemon",
            "--kills=20", "--deadline=20", "--mistake=hang", "--from=7")
        job = int(re.search(r"^daemon, job (\d+), ", text,
                            re.MULTILINE).group(1))
        self.assertGreaterEqual(job, 7, text)
        self.assertIn(f"--target=daemon --only={job} ", text)

    def test_an_interrupted_run_says_how_to_go_on(self):
        process = subprocess.Popen(
            command("--kills=20", "--target=controller", "--from=3",
                    "--guests=tdp,shadow"),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        # The first line is printed when the run has begun.
        first = process.stdout.readline()
        process.terminate()
        text = first + process.communicate()[0]
        self.assertEqual(process.returncode, 1, text)
        self.assertIn(
            "interrupted; go on with:\n"
            "  tests/kills/run --target=controller --kills=20 --from=3 "
            "--seed=1 --guests=tdp,shadow --memory=16\n", text)


if __name__ == "__main__":
    unittest.main(verbosity=2)
