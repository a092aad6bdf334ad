#!/usr/bin/env python3
"""Fails if a folder of the server uses one that stands above it, or beside it
on its floor, if server/control/ comes to know protobuf or gRPC, or if
server/convert/ comes to work on a VM or on a file.

Looks at every #include and at every dep of a C++ target below server, those of
tests too. A folder that has no floor here is refused.
"""

import os
import pathlib
import re
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
import build_files
import floors

TOP = "server"

# From the ground up. The last one is server/ itself: main, the daemon, the
# servers.
FLOORS = (("base",), ("config", "log", "metrics", "rpc"), ("control",),
          ("convert",), ("services",), ("",))
FLOOR_OF = {folder: floor for floor, folders in enumerate(FLOORS)
            for folder in folders}

# Headers and labels that server/control/ must not use, directly or through
# other headers.
WIRE_INCLUDE = re.compile(r"\.pb\.h$|^grpc|^google/")
WIRE_LABEL = re.compile(r"^@debian//:(?:grpc|proto)|^//proto/")
WITHOUT_WIRE = "control"

# What server/convert/ does without: headers, and names that the headers of
# server/control/ bring along. A test may make the VM whose values it converts.
VM_INCLUDE = re.compile(r"^server/control/(?:managed_vm|vm_registry)\.h$|"
                        r"^mmu_core/vm/vm\.h$|^trace/|"
                        r"^(?:cstdio|filesystem|fstream)$|"
                        r"^(?:fcntl|stdio|sys/stat|unistd)\.h$")
VM_NAME = re.compile(r"\b(?:ManagedVm\b|VmUse\b|mmu::Vm\b|trace::)")
WITHOUT_VM = "convert"
COMMENT = re.compile(r"//.*")


def wrong_use(use):
    if (use.used_folder == use.folder or
            FLOOR_OF[use.used_folder] < FLOOR_OF[use.folder]):
        return []
    return ["%s uses %s" % (use.user, use.used)]


def wire_behind(root, path, seen):
    """Yields (header, what of protobuf or gRPC it includes) of `path` and of
    the server's headers that it includes, each once."""
    if path in seen:
        return
    seen.add(path)
    for name in build_files.includes_of(root, path):
        if WIRE_INCLUDE.search(name):
            yield path, name
        elif name.startswith("server/"):
            yield from wire_behind(root, pathlib.PurePosixPath(name), seen)


def wire_in_files(root):
    for path in build_files.cc_files(root):
        if path.parts[:2] != (TOP, WITHOUT_WIRE):
            continue
        for header, name in wire_behind(root, path, set()):
            by = "" if header == path else " by %s" % header
            yield "%s uses %s%s" % (path, name, by)


def wire_in_targets(root):
    for target in build_files.read_targets(root).values():
        if target.package == TOP + "/" + WITHOUT_WIRE:
            for label in target.deps:
                if WIRE_LABEL.search(label):
                    yield "%s uses %s" % (target.label, label)


def vm_in_files(root):
    for path in build_files.cc_files(root):
        if (path.parts[:2] != (TOP, WITHOUT_VM) or
                path.name.endswith("_test.cc")):
            continue
        for name in build_files.includes_of(root, path):
            if VM_INCLUDE.search(name):
                yield "%s uses %s" % (path, name)
        code = COMMENT.sub("", (root / path).read_text())
        for name in sorted(set(VM_NAME.findall(code))):
            yield "%s names %s" % (path, name)


def violations(root):
    """Returns (number of C++ files read, list of violations)."""
    files, found = floors.violations(root, TOP, FLOOR_OF, wrong_use)
    return files, found + [*wire_in_files(root), *wire_in_targets(root),
                           *vm_in_files(root)]


class ServerFloorsTest(unittest.TestCase):

    def test_no_folder_uses_one_above_it(self):
        root = pathlib.Path(os.path.realpath("WORKSPACE")).parent
        files, found = violations(root)
        self.assertGreater(files, 100, "server not found in %s" % root)
        self.assertEqual(found, [])
        for folder in FLOOR_OF:
            self.assertTrue((root / "server" / folder).is_dir(), folder)

    def violations_of(self, files):
        with tempfile.TemporaryDirectory() as root:
            for name, text in files.items():
                path = pathlib.Path(root) / "server" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
            return violations(pathlib.Path(root))[1]

    def test_includes_of_a_higher_floor_are_found(self):
        for user, used in (("base/a.h", "server/log/b.h"),
                           ("log/a.cc", "server/control/b.h"),
                           ("log/a.cc", "server/metrics/b.h"),
                           ("metrics/a.cc", "server/services/b.h"),
                           ("control/a.h", "server/convert/b.h"),
                           ("control/a_test.cc", "server/convert/b.h"),
                           ("convert/a.cc", "server/services/b.h"),
                           ("services/a.cc", "server/daemon.h")):
            self.assertEqual(
                self.violations_of({user: '#include "%s"\n' % used}),
                ["server/%s uses %s" % (user, used)])

    def dep(self, folder, label):
        return self.violations_of({
            folder + "/BUILD.bazel":
                'cc_test(\n    name = "a",\n    deps = ["%s"],\n)\n' % label})

    def test_deps_of_a_higher_floor_are_found(self):
        for folder, label in (("base", "//server/log:b"),
                              ("control", "//server/convert:b"),
                              ("services", "//server:daemon"),
                              ("rpc", "//server/config:config")):
            self.assertEqual(self.dep(folder, label),
                             ["//server/%s:a uses %s" % (folder, label)])

    def test_what_is_below_may_be_used(self):
        self.assertEqual(
            self.violations_of({
                "daemon.cc": '#include "server/services/a.h"\n',
                "services/a.h": '#include "server/convert/b.h"\n',
                "services/BUILD.bazel":
                    'cc_library(\n    name = "a",\n'
                    '    visibility = ["//server:__subpackages__"],\n'
                    '    deps = ["//server/convert:b"],\n)\n',
                "convert/b.h": '#include "server/control/c.h"\n'
                               '#include "mmud/v1/common.pb.h"\n',
                "control/c.h": '#include "server/control/d.h"\n'
                               '#include "server/log/e.h"\n'
                               '#include "mmu_core/vm/vm.h"\n'}), [])

    def test_a_folder_without_a_floor_is_found(self):
        self.assertEqual(self.violations_of({"attic/a.h": ""}),
                         ["server/attic/a.h: the folder server/attic has no"
                          " floor"])
        self.assertEqual(
            self.violations_of({
                "services/a.cc": '#include "server/nowhere/b.h"\n'}),
            ["server/nowhere/b.h: the folder server/nowhere has no floor"])

    def test_control_knows_no_protobuf_and_no_grpc(self):
        for name in ("mmud/v1/common.pb.h", "google/protobuf/any.h",
                     "grpcpp/support/status.h", "grpc/grpc.h"):
            self.assertEqual(
                self.violations_of({"control/a_test.cc":
                                    "#include <%s>\n" % name}),
                ["server/control/a_test.cc uses " + name])
        for label in ("//proto/mmud/v1:mmud_cc_proto", "@debian//:grpcpp",
                      "@debian//:protobuf"):
            self.assertEqual(self.dep("control", label),
                             ["//server/control:a uses " + label])

    def test_control_knows_them_not_by_other_headers_either(self):
        self.assertEqual(
            self.violations_of({
                "control/a.cc": '#include "server/control/b.h"\n',
                "control/b.h": '#include "server/base/c.h"\n',
                "base/c.h": '#include "google/rpc/status.pb.h"\n'}),
            ["server/control/%s uses google/rpc/status.pb.h by server/base/c.h"
             % user for user in ("a.cc", "b.h")])

    def test_convert_works_on_no_vm_and_no_file(self):
        for name in ("server/control/managed_vm.h",
                     "server/control/vm_registry.h", "mmu_core/vm/vm.h",
                     "trace/trace_reader.h", "cstdio", "fcntl.h",
                     "filesystem", "fstream", "stdio.h", "sys/stat.h",
                     "unistd.h"):
            self.assertEqual(
                self.violations_of({"convert/a.h": "#include <%s>\n" % name}),
                ["server/convert/a.h uses " + name])
        for name in ("ManagedVm", "VmUse", "mmu::Vm"):
            self.assertEqual(
                self.violations_of({"convert/a.cc": "int F(%s& a);\n" % name}),
                ["server/convert/a.cc names " + name])
        self.assertEqual(
            self.violations_of({"convert/a.cc": "trace::Reader reader;\n"}),
            ["server/convert/a.cc names trace::"])

    def test_convert_may_use_the_values_of_control(self):
        self.assertEqual(
            self.violations_of({
                "convert/a.h": '#include "server/control/shown_vm.h"\n'
                               "// Not of a ManagedVm.\n"
                               "#include <sys/types.h>\n"
                               "int F(mmu::VmConfig a, ShownVm b);\n"
                               "int G(mytrace::Trace a);\n",
                "convert/a_test.cc": '#include "mmu_core/vm/vm.h"\n'
                                     "ManagedVm vm;\n",
                "services/a.h": '#include "server/control/managed_vm.h"\n'}),
            [])


if __name__ == "__main__":
    unittest.main()
