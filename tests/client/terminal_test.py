#!/usr/bin/python3
"""mmuctl at a terminal: the width of its progress bar, and Ctrl-C."""

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
import unittest

from daemon import MMUCTL, Daemon


class Terminal:
    """mmuctl with a terminal of `columns` as its input and output."""

    def __init__(self, daemon, columns, *words):
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ,
                    struct.pack("HHHH", 24, columns, 0, 0))
        # A session of its own, so that Ctrl-C reaches it through the terminal.
        self.process = subprocess.Popen(
            [MMUCTL, *words], stdin=slave, stdout=slave, stderr=slave,
            env=daemon.environment(), start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
        os.close(slave)
        self.text = ""

    def read_until(self, pattern):
        """Reads until `pattern` stands in what was printed, or the end."""
        deadline = time.monotonic() + 100
        while not re.search(pattern, self.text):
            if time.monotonic() > deadline:
                raise AssertionError(f"no {pattern} in {self.text!r}")
            ready, _, _ = select.select([self.master], [], [], 1)
            if not ready:
                continue
            try:
                some = os.read(self.master, 65536).decode()
            except OSError:
                break  # the other side is closed
            if not some:
                break
            self.text += some
        return self.text

    def ctrl_c(self):
        os.write(self.master, b"\x03")

    def finish(self):
        self.read_until(r"(?!)")  # matches nothing: to the end
        os.close(self.master)
        return self.process.wait(timeout=100)


def start_split(daemon, pages_per_second):
    daemon.must("vm", "create", "alpha", "--memory", "64MiB",
                "--host-page-size", "2m")
    daemon.must("workload", "start", "alpha", "--pattern", "sequential",
                "--write-fraction", "1", "--count", "16384", "--watch")
    name = json.loads(daemon.must(
        "--json", "split", "start", "alpha", "--max-pages-per-second",
        str(pages_per_second)))["name"]
    return name.split("/")[1]


class TerminalTest(unittest.TestCase):

    def test_no_line_of_the_bar_is_wider_than_the_screen(self):
        for columns in (40, 80, 120):
            with Daemon() as daemon:
                # Half a second of work, which is drawn several times.
                number = start_split(daemon, 30000)
                terminal = Terminal(daemon, columns, "op", "wait", number)
                self.assertEqual(terminal.finish(), 0, terminal.text)
            drawn = [part for line in terminal.text.split("\n")
                     for part in line.strip("\r").split("\r")
                     if part.startswith("split")]
            self.assertTrue(drawn, terminal.text)
            for part in drawn:
                self.assertLess(len(part), columns, part)

    def test_ctrl_c_says_that_the_operation_goes_on_and_how_to_end_it(self):
        with Daemon() as daemon:
            number = start_split(daemon, 1)
            terminal = Terminal(daemon, 80, "split", "watch", number)
            terminal.read_until("split")
            terminal.ctrl_c()
            text = terminal.read_until("Ctrl-C again")
            self.assertIn(f"operations/{number} continues; to end it: "
                          f"mmuctl op cancel {number}", text)
            self.assertIsNone(terminal.process.poll())
            state = json.loads(daemon.must("--json", "op", "get", number))
            self.assertFalse(state["done"])
            # The command does what was said, and the watcher sees it.
            daemon.must("op", "cancel", number)
            self.assertEqual(terminal.finish(), 8, terminal.text)

    def test_a_watched_workload_goes_on_after_ctrl_c_as_an_operation_does(self):
        with Daemon() as daemon:
            daemon.must("vm", "create", "alpha", "--memory", "1MiB")
            terminal = Terminal(daemon, 80, "workload", "start", "alpha",
                                "--pattern", "uniform", "--watch")
            terminal.read_until("accesses")
            terminal.ctrl_c()
            text = terminal.read_until("Ctrl-C again")
            self.assertRegex(text, r"vms/alpha/workloads/[-0-9a-f]{36} "
                             r"continues; to end it: "
                             r"mmuctl workload stop alpha\b")
            self.assertIsNone(terminal.process.poll())
            state = json.loads(daemon.must("--json", "workload", "status",
                                           "alpha"))
            self.assertEqual(state["state"], "WORKLOAD_STATE_RUNNING")
            # The command does what was said, and the watcher sees it.
            daemon.must("workload", "stop", "alpha")
            self.assertEqual(terminal.finish(), 0, terminal.text)
            self.assertIn("stopped", terminal.text)

    def test_a_second_ctrl_c_ends_the_client_alone(self):
        with Daemon() as daemon:
            number = start_split(daemon, 1)
            terminal = Terminal(daemon, 80, "--address", daemon.address, "op",
                                "wait", number)
            terminal.read_until("split")
            terminal.ctrl_c()
            terminal.read_until("Ctrl-C again")
            terminal.ctrl_c()
            self.assertEqual(terminal.finish(), -signal.SIGINT, terminal.text)
            state = json.loads(daemon.must("--json", "op", "get", number))
            self.assertFalse(state["done"])

    def test_the_command_to_end_it_names_a_daemon_elsewhere(self):
        with Daemon() as daemon:
            number = start_split(daemon, 1)
            environment = daemon.environment()
            del environment["MMUD_ADDRESS"]
            process = subprocess.Popen(
                [MMUCTL, "-a", daemon.address, "op", "wait", number],
                env=environment, stderr=subprocess.PIPE, text=True)
            line = process.stderr.readline()  # it watches now
            self.assertTrue(line.startswith("split"), line)
            process.send_signal(signal.SIGINT)
            while "continues" not in line:
                line = process.stderr.readline()
            process.send_signal(signal.SIGINT)
            process.communicate()
            self.assertIn(f"mmuctl --address {daemon.address} op cancel "
                          f"{number}", line)

    def test_waiting_ends_with_the_timeout_and_the_operation_goes_on(self):
        with Daemon() as daemon:
            number = start_split(daemon, 1)
            for words in (["op", "wait", number], ["split", "watch", number]):
                result = daemon.run("--timeout", "3s", *words)
                self.assertEqual(result.returncode, 7, result.stderr)
                self.assertIn(f"operations/{number} is not done after 3s; it "
                              f"continues", result.stderr)
                self.assertIn(f"mmuctl op cancel {number}", result.stderr)
            state = json.loads(daemon.must("--json", "op", "get", number))
            self.assertFalse(state["done"])

    def test_watching_a_workload_ends_with_the_timeout_and_it_goes_on(self):
        with Daemon() as daemon:
            daemon.must("vm", "create", "alpha", "--memory", "1MiB")
            daemon.must("workload", "start", "alpha", "--pattern", "uniform")
            result = daemon.run("--timeout", "1s", "workload", "status",
                                "alpha", "--watch")
            self.assertEqual(result.returncode, 7, result.stderr)
            self.assertIn("has not ended after 1s; it continues", result.stderr)
            self.assertIn("mmuctl workload stop alpha", result.stderr)
            daemon.must("workload", "stop", "alpha")


if __name__ == "__main__":
    unittest.main()
