#!/usr/bin/python3
"""The commands of README.md and docs/, run as a reader would run them.

A block that is fenced as sh holds commands. A block that is fenced as text and
follows one shows what the last of them prints: the same words and columns,
whatever the numbers are. All blocks of a page run in one shell, in their order,
in a folder that looks like the project after a build; each command must
succeed. Commands in the middle of a sentence must at least exist.
"""

import os
import pathlib
import re
import shutil
import socket
import subprocess
import tempfile
import unittest

from daemon import MMUCTL, ROOT, commands

PAGES = ["README.md", "docs/api.md", "docs/mmuctl.md", "docs/monitor.md",
         "docs/other-languages.md", "docs/runbook.md",
         "docs/writing-a-migration-controller.md"]

# What a listing of a language is a part of; tests run these programs.
SOURCES = {"cpp": "docs/examples/migrate.cc",
           "python": "docs/examples/harvest.py"}

# What bazel makes, and where a page says that it is.
BUILT = {"bazel-bin/server/mmud": "server/mmud",
         "bazel-bin/client/mmuctl": "client/mmuctl",
         "bazel-bin/docs/examples/migrate": "docs/examples/migrate",
         "deploy": "deploy", "traces": "traces", "docs": "docs",
         "proto": "proto"}

UNIT = r"(?: ?(?:[KMGT]iB|B|ns|us|ms|s|m)\b)?"


def blocks_of(text):
    """(language, lines, number of the first line) of each fenced block."""
    found = []
    language, lines, first = None, [], 0
    for number, line in enumerate(text.splitlines(), 1):
        if not line.startswith("```"):
            if language is not None:
                lines.append(line)
        elif language is None:
            language, lines, first = line[3:], [], number + 1
        else:
            found.append((language, lines, first))
            language = None
    return found


def commands_of(lines):
    """The commands of a block: lines that end in a backslash go on."""
    joined = "\n".join(lines).replace("\\\n", " ")
    return [line for line in joined.split("\n") if line.strip()]


def shape(text):
    """What of an output does not change from one run to the next."""
    lines = []
    for line in text.strip().splitlines():
        # Words with a digit in them are numbers, dates, sizes, etags.
        line = re.sub(r"[0-9][0-9,.]*" + UNIT, "#", line)
        line = re.sub(r"\S*#\S*", "#", line)
        lines.append(re.sub(r"\s+", " ", line).strip())
    # Rows of a table that differ in nothing but numbers are one.
    return [line for i, line in enumerate(lines)
            if i == 0 or line != lines[i - 1]]


class Shell:
    """bash in a folder that looks like a built project; ends what it began."""

    def __init__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(dir="/tmp"))
        for name, target in BUILT.items():
            if (ROOT / target).exists():
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
                (self.folder / name).symlink_to(ROOT / target)
        self.ports = {}
        for shown in ("9464", "9090"):
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                self.ports[shown] = free.getsockname()[1]
        self.process = subprocess.Popen(
            ["bash"], cwd=self.folder, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={"PATH": os.environ["PATH"], "HOME": str(self.folder)})

    def close(self):
        # Background jobs, the daemon above all, end before their folder goes.
        self.run("kill $(jobs -p); wait")
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()
        shutil.rmtree(self.folder)

    def here(self, command):
        """The command with paths and ports of this test's own."""
        for shown, port in self.ports.items():
            command = command.replace(f"127.0.0.1:{shown}",
                                      f"127.0.0.1:{port}")
        return command.replace("/tmp/", f"{self.folder}/")

    def run(self, command):
        """(exit code, output) of a command."""
        mark = "that was all of the output"
        self.process.stdin.write(
            f"{{ {self.here(command)}\n}} < /dev/null 2>&1\n"
            f"printf '\\n{mark}: %d\\n' $?\n")
        self.process.stdin.flush()
        output = ""
        for line in self.process.stdout:
            if line.startswith(mark):
                return int(line.split(": ")[1]), output
            output += line
        raise AssertionError(f"the shell ended at: {command}\n{output}")

    def wait_for_daemon(self):
        """A reader is slower than a daemon that starts."""
        while self.run("mmuctl --timeout 10s health")[0] != 0:
            code, jobs = self.run("jobs -r")
            if "mmud" not in jobs:
                raise AssertionError("the daemon of the page does not run")


class DocsTest(unittest.TestCase):

    def run_page(self, page):
        shell = Shell()
        self.addCleanup(shell.close)
        ran, output = 0, ""
        for language, lines, number in blocks_of((ROOT / page).read_text()):
            where = f"{page}:{number}"
            if language == "text":
                self.assertEqual(shape(output), shape("\n".join(lines)),
                                 f"{where}: what is shown is not printed\n"
                                 f"{output}")
                continue
            if language != "sh":
                for line in lines:
                    self.assertFalse(line.strip().startswith("mmuctl "),
                                     f"{where}: fence commands as sh")
                continue
            for command in commands_of(lines):
                code, output = shell.run(command)
                self.assertEqual(code, 0, f"{where}: {command}\n{output}")
                ran += 1
            if any(line.endswith("&") for line in lines):
                shell.wait_for_daemon()
        return ran

    def test_the_commands_of_the_readme(self):
        self.assertGreater(self.run_page("README.md"), 6)

    def test_the_commands_of_the_walk_through_the_api(self):
        self.assertGreater(self.run_page("docs/api.md"), 30)

    def test_the_commands_of_the_page_about_mmuctl(self):
        self.assertGreater(self.run_page("docs/mmuctl.md"), 10)

    def test_the_commands_of_the_page_about_monitoring(self):
        self.assertGreater(self.run_page("docs/monitor.md"), 10)

    def test_the_commands_of_the_page_about_controllers(self):
        self.assertGreater(
            self.run_page("docs/writing-a-migration-controller.md"), 5)

    def test_listings_are_parts_of_the_examples(self):
        listings = 0
        for page in PAGES:
            for language, lines, number in blocks_of((ROOT / page).read_text()):
                if language not in SOURCES:
                    continue
                listings += 1
                source = (ROOT / SOURCES[language]).read_text()
                self.assertIn("\n" + "\n".join(lines) + "\n", "\n" + source,
                              f"{page}:{number} is not in {SOURCES[language]}")
        self.assertGreater(listings, 7)

    def test_the_commands_of_the_page_about_other_languages(self):
        self.assertGreater(self.run_page("docs/other-languages.md"), 10)

    def test_commands_in_sentences_exist(self):
        known = [" ".join(words) for words in commands()]
        groups = {words[0] for words in commands()}
        for page in PAGES:
            text = (ROOT / page).read_text()
            for fenced in re.findall(r"^```.*?^```", text, re.M | re.S):
                text = text.replace(fenced, "")
            for span in re.findall(r"`mmuctl ([^`]+)`", text):
                words = [word for word in span.split()
                         if not word.startswith("-")]
                named = [command for command in known
                         if f"{' '.join(words)} ".startswith(command + " ")]
                if not named and span.split()[0] in groups | {"COMMAND"}:
                    named = [span.split()[0]]  # a group, or a placeholder
                self.assertTrue(named or not words, f"{page}: mmuctl {span}")
                if not named or named[0] == "COMMAND":
                    continue
                help_text = subprocess.run(
                    [MMUCTL, *named[0].split(), "--help"], check=True,
                    capture_output=True, text=True).stdout
                help_text += subprocess.run(
                    [MMUCTL, "--help"], check=True, capture_output=True,
                    text=True).stdout
                for option in re.findall(r"(?<!\S)--[a-z-]+", span):
                    self.assertRegex(help_text, rf"{option}\b",
                                     f"{page}: mmuctl {span}")

    def test_shapes_tell_outputs_apart(self):
        shown = "SLOT  EPOCH  SEAL\n   0      1  749 us\n"
        self.assertEqual(shape(shown),
                         shape("SLOT  EPOCH    SEAL\n   0     12  1.3 ms\n"))
        self.assertNotEqual(shape(shown),
                            shape("SLOT  SEAL\n   0  749 us\n"))
        self.assertNotEqual(shape(shown), shape(""))


if __name__ == "__main__":
    unittest.main()
