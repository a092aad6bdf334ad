#!/usr/bin/python3
"""What completion offers, and that bash takes it; the manual page."""

import json
import os
import subprocess
import unittest

from daemon import MMUCTL, Daemon, commands


def complete(*words, environment=None):
    """The candidates for the last word."""
    result = subprocess.run([MMUCTL, "__complete", "--", *words], check=True,
                            capture_output=True, text=True, env=environment)
    return [line.split("\t")[0] for line in result.stdout.splitlines()]


class CompletionTest(unittest.TestCase):

    def test_every_command_is_reached_word_by_word(self):
        self.assertGreater(len(commands()), 40)
        for words in commands():
            for i, word in enumerate(words):
                self.assertIn(word, complete(*words[:i], ""))
                self.assertIn(word, complete(*words[:i], word[:1]))

    def test_every_option_of_every_command_is_offered(self):
        for words in commands():
            text = subprocess.run([MMUCTL, *words, "--help"], check=True,
                                  capture_output=True, text=True).stdout
            options = complete(*words, "--")
            for line in text.splitlines():
                for word in line.replace(",", " ").split()[:2]:
                    if line.startswith("  -") and word.startswith("--"):
                        self.assertIn(word, options, words)
            self.assertIn("--address", options)

    def test_choices_and_files(self):
        self.assertEqual(complete("vm", "create", "a", "--backing", ""),
                         ["anonymous", "memfd", "metadata-only"])
        self.assertEqual(complete("vm", "create", "a", "--backing", "me"),
                         ["memfd", "metadata-only"])
        self.assertEqual(complete("vm", "create", "a", "--backing=mem"),
                         ["--backing=memfd"])
        self.assertEqual(complete("trace", "info", ""), [":files"])
        self.assertEqual(complete("memory", "read", "a", "0+1M", "-o", ""),
                         [":files"])
        self.assertEqual(complete("completion", ""), ["bash", "fish", "zsh"])
        self.assertIn("create", complete("help", "vm", ""))
        self.assertEqual(complete("help", "vm", "create", ""), [])

    def test_names_come_from_the_daemon(self):
        with Daemon() as daemon:
            environment = daemon.environment()
            daemon.must("vm", "create", "alpha", "--memory", "1MiB")
            daemon.must("vm", "create", "beta", "--memslot", "0:0+1MiB",
                        "7:1GiB+1MiB")
            daemon.must("split", "start", "alpha", "--watch")
            operation = json.loads(daemon.must(
                "--json", "op", "list"))["operations"][0]["name"]
            self.assertEqual(
                complete("vm", "get", "", environment=environment),
                ["alpha", "beta"])
            self.assertEqual(
                complete("memslot", "delete", "beta", "",
                         environment=environment), ["0", "7"])
            self.assertEqual(
                complete("dirty-log", "start", "beta", "0", "",
                         environment=environment), ["0", "7"])
            self.assertEqual(
                complete("op", "get", "", environment=environment),
                [operation.split("/")[1]])
            self.assertIn(
                "mmud.v1.VmService/GetVm",
                complete("call", "mmud.v1.Vm", environment=environment))
            # The address that is typed wins over the environment.
            environment["MMUD_ADDRESS"] = "unix:/nonexistent/mmud.sock"
            self.assertEqual(
                complete("--address", daemon.address, "vm", "get", "a",
                         environment=environment), ["alpha"])
        self.assertEqual(complete("vm", "get", "", environment=environment),
                         [])

    def test_bash_offers_what_mmuctl_says(self):
        # As readline does it: the line, the cursor, and the words between
        # COMP_WORDBREAKS.
        script = r'''
source <(mmuctl completion bash)
offer() {
  COMP_LINE="$1"; COMP_POINT=${#1}; shift
  COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
  _mmuctl mmuctl; echo "${COMPREPLY[*]}"
}
offer "mmuctl split pa" mmuctl split pa
offer "mmuctl vm create a --backing=me" mmuctl vm create a --backing = me
offer "mmuctl vm create a --backing " mmuctl vm create a --backing ""
complete -p mmuctl
'''
        with Daemon() as daemon:
            result = subprocess.run(["bash", "-c", script], check=True,
                                    env=daemon.environment(),
                                    capture_output=True, text=True)
        self.assertEqual(result.stderr, "")
        self.assertEqual(result.stdout.splitlines(), [
            "pause", "memfd metadata-only", "anonymous memfd metadata-only",
            "complete -F _mmuctl mmuctl"])

    def test_scripts_are_of_their_shells_languages(self):
        for shell in ("bash", "zsh", "fish"):
            script = subprocess.run([MMUCTL, "completion", shell], check=True,
                                    capture_output=True, text=True).stdout
            self.assertIn("mmuctl __complete --", script)
            checked = subprocess.run([shell, "-n"], input=script, text=True,
                                     capture_output=True)
            self.assertEqual((checked.returncode, checked.stderr), (0, ""))

    def test_fish_offers_what_mmuctl_says(self):
        script = r'''
mmuctl completion fish | source
complete -C "mmuctl split pa"
complete -C "mmuctl vm create a --backing me"
'''
        with Daemon() as daemon:
            result = subprocess.run(["fish", "--no-config", "-c", script],
                                    check=True, env=daemon.environment(),
                                    capture_output=True, text=True)
        self.assertEqual(result.stderr, "")
        self.assertEqual([line.split("\t")[0]
                          for line in result.stdout.splitlines()],
                         ["pause", "memfd", "metadata-only"])

    def test_zsh_offers_what_mmuctl_says(self):
        # Outside of a line editor there is nobody to give the words to: these
        # stand for zsh's functions and note what they are given.
        script = r'''
compdef() { echo "compdef $*"; }
compadd() { while [[ $1 == -* && $1 != -- ]]; do shift; done; echo "$@"; }
_describe() { print -l -- "$@"; eval 'print -l -- "${'$argv[-1]'[@]}"'; }
_files() { echo files; }
source <(mmuctl completion zsh)
words=(mmuctl split pa); CURRENT=3; _mmuctl
'''
        with Daemon() as daemon:
            result = subprocess.run(["zsh", "-f", "-c", script], check=True,
                                    env=daemon.environment(),
                                    capture_output=True, text=True)
        self.assertEqual(result.stderr, "")
        self.assertIn("compdef _mmuctl mmuctl", result.stdout)
        self.assertRegex(result.stdout, r"(?m)^pause")

    def test_the_manual_page_names_every_command_and_man_takes_it(self):
        page = subprocess.run([MMUCTL, "man"], check=True, capture_output=True,
                              text=True).stdout
        plain = page.replace("\\-", "-")
        for words in commands():
            self.assertIn(f'.SS "mmuctl {" ".join(words)}"', plain)
        for part in (".SH \"EXIT STATUS\"", "MMUD_ADDRESS", "--json"):
            self.assertIn(part, plain)
        for width in ("80", "100"):
            checked = subprocess.run(
                ["man", "--warnings", "-l", "-"], input=page, text=True,
                capture_output=True,
                env={**os.environ, "MANWIDTH": width, "MANROFFOPT": "-c",
                     "LC_ALL": "C.UTF-8", "MANPAGER": "cat"})
            self.assertEqual((checked.returncode, checked.stderr), (0, ""))
            self.assertIn("MMUCTL(1)", checked.stdout)


if __name__ == "__main__":
    unittest.main()
