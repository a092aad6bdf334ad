#!/usr/bin/env python3
"""Fails if a C++ target depends on a library of this project that none of its
sources includes, or includes a header of one that it does not depend on; and
if a source is of no target.

Clang's layering_check finds only a missing dependency. Dependencies on libraries
of Debian are not checked.
"""

import os
import pathlib
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
import build_files

# Libraries without headers. A target depends on them for the functions that they
# define.
LINKED_FOR_EFFECT = {
    # The same source is compiled for each of liburcu's flavours.
    "//bench:rcu_flavour_bp",
    "//bench:rcu_flavour_mb",
    "//bench:rcu_flavour_memb",
    "//bench:rcu_flavour_qsbr",
    "//bench:rcu_flavour_signal",
    # Commands of mmuctl. All of them are declared in commands.h.
    "//client/mmuctl:ager_command",
    "//client/mmuctl:aging_commands",
    "//client/mmuctl:call_commands",
    "//client/mmuctl:compare_command",
    "//client/mmuctl:daemon_commands",
    "//client/mmuctl:debug_commands",
    "//client/mmuctl:debug_tables",
    "//client/mmuctl:dirty_log_commands",
    "//client/mmuctl:dirty_page_commands",
    "//client/mmuctl:generation_command",
    "//client/mmuctl:hot_command",
    "//client/mmuctl:memory_commands",
    "//client/mmuctl:memslot_commands",
    "//client/mmuctl:operation_commands",
    "//client/mmuctl:shell_commands",
    "//client/mmuctl:split_commands",
    "//client/mmuctl:stats_commands",
    "//client/mmuctl:top_command",
    "//client/mmuctl:trace_commands",
    "//client/mmuctl:vm_commands",
    "//client/mmuctl:working_set_command",
    "//client/mmuctl:workload_commands",
    # Replaces malloc.
    "//server:allocator",
}

# (target, dep) where the dep has headers and no source includes one.
NOT_INCLUDED = {
    # The test finds all messages by reflection.
    ("//tests/fuzz:malformed_requests_test",
     "//proto/google/rpc:rpc_cc_proto"),
    ("//tests/fuzz:malformed_requests_test",
     "//proto/mmud/lab/v1:mmud_lab_cc_proto"),
    ("//tests/fuzz:malformed_requests_test",
     "//proto/mmud/v1:mmud_cc_proto"),
    # Tests link hold_clock through these libraries. hold_clock replaces the
    # real clock if the environment requests that, and every walk then yields
    # whenever it may.
    ("//mmu_core/testing:shadow_test_util", "//mmu_core/testing:hold_clock"),
    ("//mmu_core/testing:tdp_test_util", "//mmu_core/testing:hold_clock"),
    ("//mmu_core/testing:vm_builder", "//mmu_core/testing:hold_clock"),
}


def real_label(targets, label):
    """Returns the label, or that of the target behind an alias."""
    target = targets.get(label)
    if target is not None and target.kind == "alias":
        return real_label(targets, target.actual)
    return label


def unused_deps(target, included, targets):
    """Yields (label, reason) for each unused dep. `included` are the headers
    that the sources of the target include."""
    for label in target.written_deps:
        if label.startswith("@"):
            continue
        library = targets.get(real_label(targets, label))
        if library is None:
            yield label, "does not exist"
        elif not library.headers:
            if library.label not in LINKED_FOR_EFFECT:
                yield label, "has no headers"
        elif (not included.intersection(library.headers) and
              (target.label, label) not in NOT_INCLUDED):
            yield label, "is not included"


def missing_deps(target, included, targets, owners):
    """Yields (header, labels of its targets) for each header of `included` of
    whose targets none is a dep."""
    deps = {real_label(targets, label) for label in target.deps}
    for name in sorted(included):
        if name in target.headers:
            continue
        if name in owners and not deps.intersection(owners[name]):
            yield name, owners[name]


def owners_of_headers(targets):
    owners = {}
    for target in targets.values():
        if target.is_cc():
            for name in target.headers:
                owners.setdefault(name, []).append(target.label)
    return owners


def sources_of_nobody(root, targets):
    """Returns a line for each C++ file that no target compiles or offers."""
    owned = {source for target in targets.values()
             for source in target.sources}
    return ["%s is of no target" % path
            for path in build_files.cc_files(root) if path not in owned]


def violations(root):
    """Returns (number of targets read, list of violations)."""
    targets = build_files.read_targets(root)
    owners = owners_of_headers(targets)
    found = sources_of_nobody(root, targets)
    looked_at = 0
    for target in targets.values():
        # A target without sources gives several libraries one name.
        if not target.is_cc() or not target.sources:
            continue
        looked_at += 1
        included = {name for source in target.sources
                    for name in build_files.includes_of(root, source)}
        for label, why in unused_deps(target, included, targets):
            found.append("%s depends on %s, which %s" %
                         (target.label, label, why))
        for name, labels in missing_deps(target, included, targets, owners):
            found.append("%s includes %s without a dep on %s" %
                         (target.label, name, " or ".join(labels)))
    return looked_at, found


class DepsTest(unittest.TestCase):

    def test_deps_are_what_sources_include(self):
        root = pathlib.Path(os.path.realpath("WORKSPACE")).parent
        looked_at, found = violations(root)
        self.assertGreater(looked_at, 500, "no targets found in %s" % root)
        self.assertEqual(found, [])

    def test_the_exceptions_are_needed(self):
        root = pathlib.Path(os.path.realpath("WORKSPACE")).parent
        targets = build_files.read_targets(root)
        deps = {(target.label, real_label(targets, label))
                for target in targets.values()
                for label in target.written_deps}
        for label in LINKED_FOR_EFFECT:
            self.assertIn(label, targets)
            self.assertEqual(targets[label].headers, [], label)
            self.assertIn(label, {dep for _, dep in deps})
        self.assertLessEqual(NOT_INCLUDED, deps)

    def violations_of(self, files):
        with tempfile.TemporaryDirectory() as root:
            for name, text in files.items():
                path = pathlib.Path(root) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
            return violations(pathlib.Path(root))[1]

    # A program of folder a, and a library of folder b that may be included.
    def tree(self, include, dep, program='srcs = ["p.cc"]',
             library='hdrs = ["l.h"]'):
        return {
            "a/BUILD.bazel": 'cc_binary(\n    name = "p",\n    %s,\n'
                             '    deps = [%s"@debian//:absl"],\n)\n' %
                             (program, dep and '"%s", ' % dep),
            "a/p.cc": "#include <vector>\n" + include,
            "b/BUILD.bazel": 'cc_library(\n    name = "b",\n    %s,\n)\n' %
                             library,
            "b/l.h": ""}

    INCLUDE = '#include "b/l.h"\n'

    def test_what_is_included_and_named_is_right(self):
        for dep in ("//b", "//b:b"):
            self.assertEqual(self.violations_of(self.tree(self.INCLUDE, dep)),
                             [])
        self.assertEqual(self.violations_of(self.tree("", "")), [])

    def test_an_unused_dep_is_found(self):
        self.assertEqual(
            self.violations_of(self.tree("", "//b")),
            ["//a:p depends on //b:b, which is not included"])
        self.assertEqual(
            self.violations_of(self.tree('// #include "b/l.h"\n', "//b")),
            ["//a:p depends on //b:b, which is not included"])

    def test_a_library_without_headers_that_is_not_listed_is_found(self):
        self.assertEqual(
            self.violations_of(self.tree("", "//b",
                                         library='data = ["l.h"]')),
            ["b/l.h is of no target",
             "//a:p depends on //b:b, which has no headers"])

    def test_a_dep_that_does_not_exist_is_found(self):
        self.assertEqual(
            self.violations_of(self.tree(self.INCLUDE, "//c:c")),
            ["//a:p depends on //c:c, which does not exist",
             "//a:p includes b/l.h without a dep on //b:b"])

    def test_a_missing_dep_is_found(self):
        self.assertEqual(
            self.violations_of(self.tree(self.INCLUDE, "")),
            ["//a:p includes b/l.h without a dep on //b:b"])

    def test_a_source_of_no_target_is_found(self):
        files = self.tree(self.INCLUDE, "", library='srcs = ["b.cc"]')
        files["b/c/d.cc"] = ""
        self.assertEqual(self.violations_of(files),
                         ["b/c/d.cc is of no target", "b/l.h is of no target"])

    def test_headers_in_srcs_and_by_alias_count(self):
        files = self.tree(self.INCLUDE + '#include "a/own.h"\n', ":other",
                          program='srcs = ["own.h", "p.cc"]')
        files["a/own.h"] = ""
        files["a/BUILD.bazel"] += ('alias(\n    name = "other",\n'
                                   '    actual = "//b",\n)\n')
        self.assertEqual(self.violations_of(files), [])

    def test_messages_are_headers_of_their_target(self):
        files = {
            "a/BUILD.bazel": 'cc_test(\n    name = "t",\n'
                             '    srcs = ["t.cc"],\n'
                             '    deps = ["//proto/x:x_cc_proto"],\n)\n',
            "a/t.cc": '#include "x/y.grpc.pb.h"\n',
            "proto/x/BUILD.bazel":
                'load("//proto:cc_proto.bzl", "mmud_cc_proto")\n'
                'SOURCES = ["y.proto"]\n'
                'mmud_cc_proto(\n    name = "x_cc_proto",\n'
                '    srcs = SOURCES,\n)\n'}
        self.assertEqual(self.violations_of(files), [])
        files["a/t.cc"] = ""
        self.assertEqual(
            self.violations_of(files),
            ["//a:t depends on //proto/x:x_cc_proto, which is not included"])

    def test_a_macro_adds_deps_that_need_not_be_used(self):
        files = {
            "a/BUILD.bazel": 'load(":integration_test.bzl",'
                             ' "integration_test")\n'
                             'integration_test(\n    name = "t",\n'
                             '    deps = ["//c"],\n)\n',
            "a/integration_test.bzl": 'deps + ["//b:b"]\n',
            "a/t.cc": self.INCLUDE,
            "b/BUILD.bazel": 'cc_library(\n    name = "b",\n'
                             '    hdrs = ["l.h"],\n)\n',
            "c/BUILD.bazel": 'cc_library(\n    name = "c",\n'
                             '    hdrs = ["c.h"],\n)\n'}
        self.assertEqual(self.violations_of(files),
                         ["//a:t depends on //c:c, which is not included"])
        files["a/t.cc"] = '#include "c/c.h"\n'
        self.assertEqual(self.violations_of(files), [])

    def test_a_build_file_that_cannot_be_read_is_an_error(self):
        with self.assertRaises(NameError):
            self.violations_of({"a/BUILD.bazel":
                                'cc_library(name = "a", srcs = glob(["*"]))'})


if __name__ == "__main__":
    unittest.main()
