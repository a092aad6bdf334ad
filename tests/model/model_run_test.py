#!/usr/bin/env python3
"""The programs of long model runs: counts, seeds, differences, and runs that
are killed and continue."""

import pathlib
import re
import signal
import subprocess
import tempfile
import time
import unittest

RUN = pathlib.Path("tests/model/model_run").resolve()
SHARDS = pathlib.Path("tests/model/run_shards").resolve()
SMALL = ["--block_operations=500", "--seed=7"]


def run(*args):
    """Returns (exit code, output)."""
    done = subprocess.run([str(a) for a in args], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True)
    return done.returncode, done.stdout


def numbers(state):
    """The lines of a state file that do not depend on the machine."""
    return [line for line in state.read_text().splitlines()
            if not line.startswith("cpu_seconds")]


class ModelRunTest(unittest.TestCase):

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def test_prints_counts_and_seed(self):
        code, output = run(RUN, "--operations=5000", *SMALL)
        self.assertEqual(code, 0, output)
        self.assertIn("seed 7, shard 0/1: 10 blocks, 5000 operations", output)
        self.assertRegex(output, r"all +5000\n")
        self.assertIn("all operations are done, no difference", output)

    def test_all_shards_together_do_the_blocks_of_one(self):
        whole = self.folder / "whole"
        run(RUN, "--operations=5000", "--state=%s" % whole, *SMALL)
        counts = {}
        for i in range(3):
            state = self.folder / ("shard%d" % i)
            code, output = run(RUN, "--operations=5000", "--shard=%d/3" % i,
                               "--state=%s" % state, *SMALL)
            self.assertEqual(code, 0, output)
            for line in numbers(state):
                key, value = line.split()
                if key.startswith("operations."):
                    counts[key] = counts.get(key, 0) + int(value)
        for key, value in counts.items():
            self.assertIn("%s %d" % (key, value), numbers(whole))

    def test_a_killed_run_continues_where_it_was(self):
        whole, killed = self.folder / "whole", self.folder / "killed"
        command = [RUN, "--operations=60000", *SMALL]
        self.assertEqual(run(*command, "--state=%s" % whole)[0], 0)
        kills = 0
        while True:
            process = subprocess.Popen(
                [str(a) for a in command] + ["--state=%s" % killed],
                stdout=subprocess.PIPE, text=True)
            before = killed.read_text() if killed.exists() else ""
            # At least one block per life, at most two lives cut short.
            while kills < 2 and process.poll() is None:
                if killed.exists() and killed.read_text() != before:
                    process.kill()
                    kills += 1
                    break
                time.sleep(0.001)
            process.communicate()
            if process.returncode != -signal.SIGKILL:
                break
        self.assertEqual(process.returncode, 0)
        self.assertEqual(kills, 2)
        self.assertEqual(numbers(killed), numbers(whole))

    def test_a_state_of_another_run_is_refused(self):
        state = self.folder / "state"
        run(RUN, "--operations=500", "--state=%s" % state, *SMALL)
        code, output = run(RUN, "--operations=500", "--state=%s" % state,
                           "--block_operations=500", "--seed=8")
        self.assertEqual(code, 2, output)
        self.assertIn("is of another run", output)

    def test_progress_of_another_binary_is_refused(self):
        state, other = self.folder / "state", self.folder / "model_run"
        # A byte behind the end: another file that does the same.
        other.write_bytes(RUN.read_bytes() + b"x")
        other.chmod(0o755)
        flags = ["--operations=1000", "--state=%s" % state, *SMALL]
        self.assertEqual(run(RUN, *flags)[0], 0)
        before = numbers(state)
        code, output = run(other, *flags)
        self.assertEqual(code, 2, output)
        self.assertIn("%s is of another program" % state, output)
        binary = re.search(r"^binary (\w{16})$", state.read_text(),
                           re.MULTILINE).group(1)
        digests = re.search(r"digest (\w{16}), this one has (\w{16});", output)
        self.assertEqual(digests.group(1), binary)
        self.assertNotEqual(digests.group(2), binary)
        self.assertIn("--restart", output)
        self.assertEqual(numbers(state), before)

        code, output = run(other, "--restart", *flags)
        self.assertEqual(code, 0, output)
        self.assertIn("2 blocks, 1000 operations", output)
        self.assertIn("binary " + digests.group(2), numbers(state))

    def test_progress_of_an_unknown_binary_is_refused(self):
        state = self.folder / "state"
        flags = ["--operations=500", "--state=%s" % state, *SMALL]
        run(RUN, *flags)
        state.write_text(re.sub(r"binary .*\n", "", state.read_text()))
        code, output = run(RUN, *flags)
        self.assertEqual(code, 2, output)
        self.assertIn("digest unknown", output)

    def test_wrong_flags_are_refused(self):
        for flag in ("--mmu=none", "--shard=2/2", "--shard=1",
                     "--block_operations=0", "--check_every=0"):
            self.assertEqual(run(RUN, flag)[0], 2, flag)

    def test_the_time_may_end_before_the_operations(self):
        code, output = run(RUN, "--operations=1000000000000",
                           "--minutes=0.01", *SMALL)
        self.assertEqual(code, 3, output)

    def test_a_difference_is_printed_short_and_can_be_repeated(self):
        code, output = run(RUN, "--operations=100000", "--mmu=shadow",
                           "--forget_invalidations", "--seed=7",
                           "--minimise_seconds=60")
        self.assertEqual(code, 1, output)
        steps = re.findall(r"\{Operation::Kind::\w+, \d+, \d+, \d+\},", output)
        self.assertGreater(len(steps), 0, output)
        self.assertLess(len(steps), 20, output)
        again = re.search(r"again: model_run (.*)", output).group(1).split()
        code, second = run(RUN, *again, "--forget_invalidations",
                           "--minimise_seconds=0")
        self.assertEqual(code, 1, second)
        found = re.search(r"DIFFERENCE.*\n.*", output).group(0)
        self.assertIn(found, second)
        self.assertEqual(run(RUN, *again)[0], 0)


class RunShardsTest(unittest.TestCase):

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def command(self, operations, *more):
        return [SHARDS, "--operations=%s" % operations, "--seed=7",
                "--dir=%s" % self.folder, "--processes=2",
                "--block_operations=500", "--binary=%s" % RUN, *more]

    def test_adds_the_shards_up(self):
        code, output = run(*self.command("1e4"))
        self.assertEqual(code, 0, output)
        self.assertRegex(output, r"all +10000\n")
        self.assertIn("seed 7\n", output)

    def test_continues_when_it_is_started_again(self):
        code, output = run(*self.command("1e12", "--minutes=0.02"))
        self.assertEqual(code, 3, output)
        done = int(re.findall(r"all +(\d+)", output)[-1])
        code, output = run(*self.command("1e12", "--minutes=0.02"))
        self.assertEqual(code, 3, output)
        self.assertGreater(int(re.findall(r"all +(\d+)", output)[-1]), done)

    def test_begins_anew_when_it_is_told_to(self):
        other = self.folder / "model_run"
        other.write_bytes(RUN.read_bytes() + b"x")
        other.chmod(0o755)
        self.assertEqual(run(*self.command("1e4"))[0], 0)
        new = ["--binary=%s" % other]
        code, output = run(*self.command("1e4", *new))
        self.assertEqual(code, 2, output)
        self.assertIn("is of another program", output)
        code, output = run(*self.command("1e4", *new, "--restart"))
        self.assertEqual(code, 0, output)
        self.assertRegex(output, r"all +10000\n")

    def test_starts_a_killed_process_again(self):
        process = subprocess.Popen(
            [str(a) for a in self.command("3e4")], stdout=subprocess.PIPE,
            text=True)
        killed = False
        while not killed and process.poll() is None:
            children = pathlib.Path(
                "/proc/%d/task/%d/children" % (process.pid, process.pid))
            for child in children.read_text().split():
                try:
                    subprocess.run(["kill", "-KILL", child], check=True)
                    killed = True
                    break
                except subprocess.CalledProcessError:
                    pass  # it has ended
        output = process.communicate()[0]
        self.assertTrue(killed)
        self.assertEqual(process.returncode, 0, output)
        self.assertIn("killed by signal 9, started again", output)
        self.assertRegex(output, r"all +30000\n")

    def test_reports_a_wrong_use_of_a_process(self):
        self.assertEqual(run(*self.command("1e4"))[0], 0)
        # The same folder, but another size of the blocks.
        code, output = run(*self.command("1e4", "--block_operations=400"))
        self.assertEqual(code, 2, output)
        self.assertIn("is of another run", output)


if __name__ == "__main__":
    unittest.main()
