#!/usr/bin/python3
"""--json of every command is one object of one schema (docs/mmuctl.md)."""

import json
import unittest

from daemon import ROOT, Daemon, commands

# Text that may look like a number.
TEXTS = {"etag", "message", "fix", "declaration", "version", "build_mode",
         "bitmap", "data"}
# JSON's own names, where keys are not of the schema: metadata of an error.
FREE = {"metadata"}

# One line for each command that takes --json and a daemon, in an order that
# works; {split} is the name of an operation.
LINES = """
vm create alpha --memory 64MiB --host-page-size 2m
vm create beta --memory 4MiB --mmu shadow
vm get alpha
vm list
vm update beta --shadow-page-limit 100 --label owner=tests
memslot set alpha 1 --gpa 1GiB --size 1MiB --readonly
memslot list alpha
memslot get alpha 1
workload start alpha --pattern uniform --write-fraction 1
workload status alpha
workload list
vm pause alpha --for 1m
vm resume alpha
split start alpha --max-pages-per-second 1
split update {split} --max-lock-hold 50us
split pause {split}
split resume {split}
split cancel {split}
op get {split}
op list
workload stop alpha
workload start alpha --pattern uniform --write-fraction 1 --count 1000
workload status alpha --watch
split start alpha --max-pages-per-second 1
op cancel {split}
split start alpha
op wait {split}
dirty-log start alpha
workload start alpha --pattern uniform --write-fraction 1
dirty-log get alpha --count-open
dirty-log peek alpha 0 --ranges
dirty-log harvest alpha
dirty-log ack alpha
dirty-log harvest alpha 0 --ranges --ack
dirty-log rate alpha
workload stop alpha
dirty-log seal alpha
dirty-log read alpha 0
dirty-log clear alpha 0 --epoch 3 --range 0+64MiB
dirty-log acquire alpha
dirty-log stop alpha --discard
recover alpha --watch
compare --memory 4MiB
age alpha
generation alpha
workingset alpha --unit 2m
hot alpha --limit 10
ager alpha --cpu-percent 5
workingset alpha --forget
top --once --interval 100ms
stats alpha --per-vcpu
debug audit alpha
debug tables alpha
memory read alpha 0+8KiB
memory read alpha 0+8KiB --output {folder}/bytes
trace info {root}/traces/sort.trace
health
capabilities
build-info
call VmService/ListVms
call --list VmService
call --describe mmud.v1.Throttle
memslot delete alpha 1
op delete {split}
vm delete alpha
""".strip().splitlines()

# Commands whose result is no JSON, with the reason.
OTHER = {("trace", "record"): "needs valgrind; prints what trace info prints",
         ("split", "watch"): "prints what op wait prints",
         ("help",): "text", ("completion",): "a script", ("man",): "a page"}


class JsonTest(unittest.TestCase):

    def setUp(self):
        # Of each key, wherever it stands: its types, each with a command.
        self.types = {}

    def note(self, line, key, value):
        if isinstance(value, bool) or isinstance(value, str):
            kind = type(value).__name__
        elif isinstance(value, (int, float)):
            kind = "number"
        else:
            return
        self.types.setdefault(key, {}).setdefault(kind, line)
        if kind == "str" and key not in TEXTS:
            self.assertNotRegex(value, r"^-?[0-9]+(\.[0-9]+)?$",
                                f"{line}: {key} is a number in a string")

    def walk(self, line, value):
        if isinstance(value, dict):
            for key, inner in value.items():
                if not key.startswith("@") and key not in FREE:
                    self.note(line, key, inner)
                self.walk(line, inner)
        elif isinstance(value, list):
            for inner in value:
                self.walk(line, inner)

    def one_object(self, line, text):
        try:
            value = json.loads(text)
        except json.JSONDecodeError as error:
            self.fail(f"{line}: {error}\n{text}")
        self.assertIsInstance(value, dict, line)
        self.walk(line, value)
        return value

    def test_every_command_prints_one_object_of_one_schema(self):
        names = {"root": ROOT}
        seen = set()
        with Daemon() as daemon:
            names["folder"] = daemon.folder
            for template in LINES:
                line = template.format(**names)
                if line.startswith("dirty-log rate"):
                    # It needs two looks at the counters, a second apart.
                    while "INSUFFICIENT_HISTORY" in daemon.run(
                            *line.split()).stderr:
                        pass
                value = self.one_object(
                    line, daemon.must("--json", *line.split()))
                if line.startswith("split start"):
                    names["split"] = value["name"]
                if " cancel " in line:
                    daemon.run("op", "wait", names["split"])
                seen.add(line)
        for key, types in self.types.items():
            self.assertEqual(len(types), 1, f"{key} is of several types: "
                             f"{types}")
        missing = [words for words in commands()
                   if tuple(words) not in OTHER
                   and not any(line.split()[:len(words)] == words
                               for line in seen)]
        self.assertEqual(missing, [], "commands that this test leaves out")

    def test_harvest_keeps_times_and_costs(self):
        with Daemon() as daemon:
            daemon.must("vm", "create", "a", "--memory", "4MiB")
            daemon.must("dirty-log", "start", "a")
            harvest = json.loads(
                daemon.must("--json", "dirty-log", "harvest", "a"))
        for key in ("seal_time", "clear_time"):
            self.assertRegex(harvest[key], r"^[0-9.]+s$")
        for key in ("lock_wait", "max_lock_hold", "wall_time"):
            self.assertRegex(harvest["cost"][key], r"^[0-9.]+s$")
        for key in ("tlb_flush_count", "vcpus_kicked_count",
                    "sptes_visited_count"):
            self.assertIsInstance(harvest["cost"][key], int)

    def test_errors_are_objects_on_standard_error(self):
        lines = {"vm get nobody": (4, "VM_NOT_FOUND"),
                 "vm create A --memory 1MiB": (3, "INVALID_NAME"),
                 "vm create a --memory 3XB": (2, ""),
                 "vm": (2, ""),
                 "nonsense": (2, ""),
                 "split update 1": (2, ""),
                 "-a localhost vm list": (2, ""),
                 "-a unix:/nonexistent/s --timeout 1s vm list": (6, ""),
                 "trace info /nonexistent": (4, ""),
                 "op wait 99": (4, ""),
                 "op wait 3f0d7c52-7f41-4b7e-8d35-6a0c9d1e2f3b":
                 (4, "OPERATION_NOT_FOUND")}
        with Daemon() as daemon:
            for line, (code, reason) in lines.items():
                for words in (["--json", *line.split()],
                              [*line.split(), "--json"]):
                    result = daemon.run(*words)
                    self.assertEqual(result.returncode, code, result.stderr)
                    self.assertEqual(result.stdout, "")
                    error = self.one_object(line, result.stderr)["error"]
                    self.assertEqual(error["exit_code"], code)
                    self.assertEqual(error["reason"], reason)
                    self.assertTrue(error["message"])

    def test_what_is_watched_leaves_standard_error_to_the_error(self):
        with Daemon() as daemon:
            daemon.must("vm", "create", "a", "--memory", "64MiB",
                        "--host-page-size", "2m", "--backing", "metadata-only")
            daemon.must("workload", "start", "a", "--pattern", "sequential",
                        "--count", "20000", "--watch")
            daemon.must("split", "start", "a", "--min-pause", "10s")
            daemon.must("workload", "start", "a", "--pattern", "uniform")
            for line in ("--timeout 1s op wait a", "--timeout 1s split watch a",
                         "--timeout 1s workload status a --watch"):
                result = daemon.run("--json", *line.split())
                self.assertEqual((result.returncode, result.stdout), (7, ""))
                error = self.one_object(line, result.stderr)["error"]
                self.assertEqual(error["code"], "DEADLINE_EXCEEDED")

    def test_a_harvest_takes_nothing_that_it_does_not_show(self):
        with Daemon() as daemon:
            daemon.must("vm", "create", "a", "--memslot", "0:0+4MiB",
                        "1:1GiB+4MiB")
            daemon.must("dirty-log", "start", "a", "0", "--initially-set")
            result = daemon.run("--json", "dirty-log", "harvest", "a", "0", "1")
            self.assertEqual(result.returncode, 5, result.stderr)
            self.assertIn("vms/a/memslots/1", result.stderr)
            slots = json.loads(daemon.must(
                "--json", "dirty-log", "harvest", "a", "0", "--ranges"))["slots"]
            self.assertEqual(slots[0]["page_count"], 1024)


if __name__ == "__main__":
    unittest.main()
