#!/usr/bin/env python3
"""Fails if mmu_core depends on anything but Abseil, liburcu and the system, if
anything here measures time by the wall clock, or if mmu_core or the server
makes a thread that may end the program, or has a hash table that does not
survive a lack of memory.

Looks at every #include and at every label of a BUILD file below mmu_core. What
is not on the lists below is refused, so a new library is a decision made here.
"""

import os
import pathlib
import re
import tempfile
import unittest

# @debian targets and the include prefixes that belong to them.
LIBRARIES = {"absl", "urcu"}
TEST_LIBRARIES = {"gtest", "gtest_main", "rapidcheck", "benchmark"}
INCLUDES = ("mmu_core/", "absl/", "urcu/", "urcu.h")
NOT_INCLUDES = ("absl/flags/",)
# absl::StrFormat ends the program if there is no memory. mmu_core uses
# mmu_core/base/format.h instead.
FORMAT = "absl/strings/str_format.h"
# sys/resource.h, fstream: a test may limit the memory and read its use.
# dlfcn.h: a test may replace an allocator and call the original.
TEST_INCLUDES = ("gtest/", "gmock/", "rapidcheck", "benchmark/",
                 "sys/resource.h", "dlfcn.h", "fstream")

# Headers of the system besides C++'s own: threads, futexes, anonymous memory.
# Only memory/, which makes memfds, may use the headers that open files.
SYSTEM = {"errno.h", "immintrin.h", "linux/futex.h", "linux/membarrier.h",
          "pthread.h", "sched.h", "sys/mman.h", "sys/syscall.h", "sys/types.h",
          "time.h", "unistd.h"}
SYSTEM_MEMORY = {"fcntl.h", "sys/stat.h", "linux/memfd.h"}
NOT_STANDARD = {"fstream", "filesystem"}

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.MULTILINE)
LABEL = re.compile(r'"((?:@[a-z_]+)?//[^"]*)"')
RULE = re.compile(r"^([a-z_]+)\($(.*?)^\)$", re.MULTILINE | re.DOTALL)


def is_test_file(path):
    return (path.stem.endswith(("_test", "_benchmark", "_fuzz")) or
            "testing" in path.parts)


def bad_includes(path, text):
    for quote, name in INCLUDE.findall(text):
        good = name.startswith(INCLUDES) and not name.startswith(NOT_INCLUDES)
        if not good and quote == "<":
            standard = re.fullmatch(r"[a-z_]+", name)
            good = (standard and name not in NOT_STANDARD or
                    name in SYSTEM or
                    name in SYSTEM_MEMORY and "memory" in path.parts)
        if name == FORMAT:
            good = (is_test_file(path) or "test_util" in path.name or
                    path.match("mmu_core/base/format.h"))
        if not good and is_test_file(path):
            good = (name.startswith(TEST_INCLUDES) or name in SYSTEM_MEMORY)
        if not good:
            yield "%s includes %s" % (path, name)


def bad_labels(path, text):
    text = re.sub(r"#.*", "", text)
    for rule, body in RULE.findall(text):
        if rule in ("package", "package_group"):
            continue  # These rules restrict visibility.
        for label in LABEL.findall(body):
            if label.startswith("//visibility:") or label.endswith(
                    (":__pkg__", ":__subpackages__")):
                continue
            repository, _, name = label.rpartition("//")
            if repository == "@debian":
                for_tests = rule.endswith("_test") or "testonly" in body
                good = (name[1:] in LIBRARIES or
                        for_tests and name[1:] in TEST_LIBRARIES)
            else:
                good = not repository and name.startswith("mmu_core/")
            if not good:
                yield "%s: a %s depends on %s" % (path, rule, label)


# Reads of the wall clock, its type, and waits that Abseil times by it: see
# mmu_core/base/clock.h and mmu_core/sync/timed_wait.h. Time that is only shown
# to people comes from server/base/wall_time.h, deadlines of gRPC from
# server/rpc/grpc_time.h.
MEASURING = ("bench", "client", "mmu_core", "server", "tests", "trace",
             "wire")
WALL_CLOCK = re.compile(
    r"\babsl::(?:Now|GetCurrentTimeNanos|ToChronoTime)\b|\babsl::Time\b|"
    r"\bsystem_clock\b|"
    r"\bCLOCK_REALTIME\b|\bGPR_CLOCK_REALTIME\b|\bgettimeofday\b|"
    r"\btime\((?:nullptr|NULL|0)\)|\bTIME_UTC\b|"
    r"\bunix_nanos\(\)\s*[-+<>]|"
    r"\b(?:Wait|Await|WaitForNotification|Lock\w*When)With(?:Timeout|Deadline)\b")
MAY_NAME_WALL_CLOCK = {"mmu_core/base/clock.h", "mmu_core/base/clock_test.cc",
                       "mmu_core/sync/timed_wait.h",
                       "server/base/wall_time.h",
                       "server/base/wall_time_test.cc",
                       # This library replaces the wall clock of a program under
                       # test.
                       "tests/integration/stepped_wall_clock.cc"}


def wall_clocks(root):
    """Returns (number of files read, where they measure by the wall clock)."""
    found = []
    files = 0
    for folder in MEASURING:
        for path in sorted((root / folder).rglob("*")):
            relative = path.relative_to(root)
            if path.suffix not in (".h", ".cc"):
                continue
            files += 1
            if str(relative) in MAY_NAME_WALL_CLOCK:
                continue
            code = re.sub(r"//.*", "", path.read_text())
            found += ["%s uses %s" % (relative, name)
                      for name in WALL_CLOCK.findall(code)]
    return files, found


# The constructor of std::thread ends the program if the host makes no more
# threads: see mmu_core/base/thread.h. Tests may use it.
MAKES_THREAD = re.compile(r"\bstd::j?thread\s*(?:\w+\s*)?[({]|"
                          r"\b\w*(?:thread|worker)\w*\(\[|"
                          r"\b\w*threads\w*\.emplace_back\(|"
                          r"\bstd::async\b|\bpthread_create\b")
MAY_MAKE_THREAD = {"mmu_core/base/thread.h", "mmu_core/base/thread.cc"}


def made_threads(root):
    """Returns (number of files read, where they make threads by themselves)."""
    found = []
    files = 0
    for folder in ("mmu_core", "server"):
        for path in sorted((root / folder).rglob("*")):
            relative = path.relative_to(root)
            if path.suffix not in (".h", ".cc") or "test" in str(relative):
                continue
            files += 1
            if str(relative) in MAY_MAKE_THREAD:
                continue
            code = re.sub(r"//.*", "", path.read_text())
            found += ["%s: %s" % (relative, match.strip())
                      for match in MAKES_THREAD.findall(code)]
    return files, found


# A hash container of Abseil that finds no memory to grow is broken from then
# on: std::bad_alloc leaves it with a capacity that it does not have. Those of
# the standard library stay as they were.
HASH_CONTAINER = re.compile(r"\babsl::(?:flat|node)_hash_(?:map|set)\b|"
                            r"absl/container/(?:flat|node)_hash_(?:map|set)\.h")


def hash_containers(root):
    """Returns (number of files read, where they have such containers)."""
    found = []
    files = 0
    for folder in ("mmu_core", "server"):
        for path in sorted((root / folder).rglob("*")):
            if path.suffix not in (".h", ".cc") or is_test_file(path):
                continue
            files += 1
            code = re.sub(r"//.*", "", path.read_text())
            found += ["%s uses %s" % (path.relative_to(root), name)
                      for name in HASH_CONTAINER.findall(code)]
    return files, found


def violations(root):
    """Returns (number of files read, what is wrong with them)."""
    found = []
    files = 0
    for path in sorted((root / "mmu_core").rglob("*")):
        relative = path.relative_to(root)
        if path.suffix in (".h", ".cc"):
            found += bad_includes(relative, path.read_text())
        elif path.name == "BUILD.bazel":
            found += bad_labels(relative, path.read_text())
        else:
            continue
        files += 1
    return files, found


class LayeringTest(unittest.TestCase):

    def test_mmu_core_depends_on_nothing_above_it(self):
        root = pathlib.Path(os.path.realpath("WORKSPACE")).parent
        files, found = violations(root)
        self.assertGreater(files, 10, "mmu_core not found in %s" % root)
        self.assertEqual(found, [])

    def test_nothing_is_measured_by_the_wall_clock(self):
        root = pathlib.Path(os.path.realpath("WORKSPACE")).parent
        files, found = wall_clocks(root)
        self.assertGreater(files, 10, "no sources found in %s" % root)
        self.assertEqual(found, [])
        for folder in MEASURING:
            self.assertTrue((root / folder).is_dir(), folder)
        for name in MAY_NAME_WALL_CLOCK:
            self.assertTrue((root / name).is_file(), name)

    def test_who_makes_threads_can_do_without(self):
        root = pathlib.Path(os.path.realpath("WORKSPACE")).parent
        files, found = made_threads(root)
        self.assertGreater(files, 10, "no sources found in %s" % root)
        self.assertEqual(found, [])

    def test_hash_tables_survive_a_lack_of_memory(self):
        root = pathlib.Path(os.path.realpath("WORKSPACE")).parent
        files, found = hash_containers(root)
        self.assertGreater(files, 10, "no sources found in %s" % root)
        self.assertEqual(found, [])

    def test_hash_containers_are_found(self):
        for folder in ("mmu_core", "server"):
            for line in ('#include "absl/container/flat_hash_map.h"',
                         "absl::flat_hash_set<int> a;",
                         "absl::node_hash_map<int, int> a;"):
                with tempfile.TemporaryDirectory() as root:
                    path = pathlib.Path(root) / folder / "x.cc"
                    path.parent.mkdir(parents=True)
                    path.write_text(line)
                    self.assertEqual(
                        len(hash_containers(pathlib.Path(root))[1]), 1, line)
                    path.write_text("std::unordered_map<int, int> a;  // no " +
                                    "absl::flat_hash_map")
                    self.assertEqual(hash_containers(pathlib.Path(root))[1],
                                     [])

    def test_made_threads_are_found(self):
        for line in ("thread_ = std::thread([this] { Run(); });",
                     "std::thread worker([&] { x(); });",
                     "std::thread worker{f};",
                     "std::jthread worker(f);",
                     "A::A() : thread_([this] { Run(); }) {}",
                     "threads_.emplace_back([this] { Run(); });",
                     "auto later = std::async(f);",
                     "pthread_create(&t, nullptr, f, nullptr);"):
            with tempfile.TemporaryDirectory() as root:
                path = pathlib.Path(root) / "server" / "x.cc"
                path.parent.mkdir(parents=True)
                path.write_text(line)
                self.assertEqual(len(made_threads(pathlib.Path(root))[1]), 1,
                                 line)
                path.write_text("std::thread thread_;  // std::thread(f)")
                self.assertEqual(made_threads(pathlib.Path(root))[1], [])

    def test_wall_clocks_are_found(self):
        for folder in MEASURING:
            self.wall_clocks_are_found_in(folder)

    def wall_clocks_are_found_in(self, folder):
        for line, name in (
                ("absl::Time t = x;", "absl::Time"),
                ("auto t = absl::Now();", "absl::Now"),
                ("std::chrono::system_clock::now();", "system_clock"),
                ("Wait(absl::ToChronoTime(end));", "absl::ToChronoTime"),
                ("clock_gettime(CLOCK_REALTIME, &t);", "CLOCK_REALTIME"),
                ("seed(time(nullptr));", "time(nullptr)"),
                ("to.unix_nanos() - from.unix_nanos();", "unix_nanos() -"),
                ("cv.WaitWithTimeout(&mu, d);", "WaitWithTimeout"),
                ("mu.AwaitWithDeadline(c, t);", "AwaitWithDeadline"),
                ("done.WaitForNotificationWithTimeout(d);",
                 "WaitForNotificationWithTimeout")):
            with tempfile.TemporaryDirectory() as root:
                path = pathlib.Path(root) / folder / "x.cc"
                path.parent.mkdir(parents=True)
                path.write_text(line + "\n")
                self.assertEqual(wall_clocks(pathlib.Path(root))[1],
                                 ["%s/x.cc uses %s" % (folder, name)])

    def test_durations_and_comments_are_no_wall_clock(self):
        with tempfile.TemporaryDirectory() as root:
            path = pathlib.Path(root) / "mmu_core" / "x.cc"
            path.parent.mkdir(parents=True)
            path.write_text("absl::Duration d;  // not absl::Time\n"
                            "changed.Wait(mu);\n")
            self.assertEqual(wall_clocks(pathlib.Path(root))[1], [])

    def violations_of(self, name, text):
        with tempfile.TemporaryDirectory() as root:
            path = pathlib.Path(root) / "mmu_core" / name
            path.parent.mkdir(parents=True)
            path.write_text(text)
            return violations(pathlib.Path(root))[1]

    def test_forbidden_includes_are_found(self):
        for name in ("grpcpp/grpcpp.h", "google/protobuf/message.h",
                     "prometheus/counter.h", "absl/flags/flag.h", "zstd.h",
                     "nlohmann/json.hpp", "fstream", "server/registry.h",
                     "gtest/gtest.h", "fcntl.h",
                     "absl/strings/str_format.h"):
            self.assertEqual(
                self.violations_of("vm/vm.cc", "#include <%s>\n" % name),
                ["mmu_core/vm/vm.cc includes %s" % name])

    def test_allowed_includes_pass(self):
        self.assertEqual(
            self.violations_of(
                "memory/backing_test.cc",
                "#include <sys/mman.h>\n#include <vector>\n"
                "#include <gtest/gtest.h>\n#include <urcu/urcu-memb.h>\n"
                '#include "absl/status/status.h"\n'
                '#include "mmu_core/base/level.h"\n'), [])

    def test_forbidden_labels_are_found(self):
        for label in ("@debian//:grpcpp", "@debian//:zstd", "//server:vm",
                      "@debian//:gtest", "//proto/mmud/v1:mmud_cc_proto"):
            self.assertEqual(
                self.violations_of(
                    "vm/BUILD.bazel",
                    'cc_library(\n    name = "vm",\n    deps = ["%s"],\n)\n' %
                    label),
                ["mmu_core/vm/BUILD.bazel: a cc_library depends on " + label])

    def test_who_may_see_a_target_is_no_dependency(self):
        self.assertEqual(
            self.violations_of(
                "BUILD.bazel",
                'package_group(\n    name = "internals",\n'
                '    packages = ["//bench/..."],\n)\n'), [])

    def test_tests_may_use_test_libraries(self):
        self.assertEqual(
            self.violations_of(
                "vm/BUILD.bazel",
                'cc_test(\n    name = "vm_test",\n    deps = [\n'
                '        ":vm",\n        "//mmu_core/base:level",\n'
                '        "@debian//:gtest_main",\n    ],\n)\n'), [])


if __name__ == "__main__":
    unittest.main()
