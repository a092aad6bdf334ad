#!/usr/bin/env python3
"""Fails if a folder of the server uses one that stands above it, or beside it
on its floor, or if server/control/ comes to know protobuf or gRPC.

Looks at every #include and at every label of a BUILD file below server, those
of tests too. A folder that has no floor here is refused.
"""

import os
import pathlib
import re
import tempfile
import unittest

# From the ground up. The last one is server/ itself: main, the daemon, the
# servers.
FLOORS = (("base",), ("config", "log", "metrics", "rpc"), ("control",),
          ("convert",), ("services",), ("",))
FLOOR_OF = {folder: floor for floor, folders in enumerate(FLOORS)
            for folder in folders}

# What server/control/ does without, also by way of other headers.
WIRE_INCLUDE = re.compile(r"\.pb\.h$|^grpc|^google/")
WIRE_LABEL = re.compile(r"^@debian//:(?:grpc|proto)|^//proto/")
WITHOUT_WIRE = "control"

INCLUDE = re.compile(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', re.MULTILINE)
LABEL = re.compile(r'"((?:@[a-z_]+)?//[^"]*)"')
SERVER_LABEL = re.compile(r"^//server(?:/([^:]*))?(?::.*)?$")


def folder_of_file(name):
    """Of "server/base/errors.h": "base"; of "server/daemon.h": ""."""
    return str(pathlib.PurePosixPath(name).parent)[len("server/"):]


def may_use(user, used):
    return used == user or FLOOR_OF[used] < FLOOR_OF[user]


def labels_of(text):
    """Those of dependencies, without who may see what."""
    text = re.sub(r"#.*", "", text)
    text = re.sub(r"visibility = \[[^\]]*\]", "", text)
    return LABEL.findall(text)


def wrong_floors(path, text):
    user = folder_of_file(str(path))
    if user not in FLOOR_OF:
        yield "%s: server/%s has no floor" % (path, user)
        return
    if path.name == "BUILD.bazel":
        used = [(label, match.group(1) or "") for label in labels_of(text)
                for match in [SERVER_LABEL.match(label)] if match]
    else:
        used = [(name, folder_of_file(name)) for name in INCLUDE.findall(text)
                if name.startswith("server/")]
    for name, folder in used:
        if folder not in FLOOR_OF or not may_use(user, folder):
            yield "%s uses %s" % (path, name)


def wire_behind(root, path, seen):
    """Yields (header, what of protobuf or gRPC it includes) of `path` and of
    the server's headers that it includes, each once."""
    if path in seen or not (root / path).is_file():
        return
    seen.add(path)
    for name in INCLUDE.findall((root / path).read_text()):
        if WIRE_INCLUDE.search(name):
            yield path, name
        elif name.startswith("server/"):
            yield from wire_behind(root, name, seen)


def wire_in(root, path, text):
    if path.name == "BUILD.bazel":
        for label in labels_of(text):
            if WIRE_LABEL.search(label):
                yield "%s uses %s" % (path, label)
        return
    for header, name in wire_behind(root, str(path), set()):
        if header == str(path):
            yield "%s uses %s" % (path, name)
        else:
            yield "%s uses %s by %s" % (path, name, header)


def violations(root):
    """Returns (number of files read, what is wrong with them)."""
    found = []
    files = 0
    for path in sorted((root / "server").rglob("*")):
        relative = path.relative_to(root)
        if path.suffix not in (".h", ".cc") and path.name != "BUILD.bazel":
            continue
        files += 1
        text = path.read_text()
        found += wrong_floors(relative, text)
        if folder_of_file(str(relative)) == WITHOUT_WIRE:
            found += wire_in(root, relative, text)
    return files, found


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
                           ("services/a.cc", "server/daemon.h"),
                           ("services/a.cc", "server/nowhere/b.h")):
            self.assertEqual(
                self.violations_of({user: '#include "%s"\n' % used}),
                ["server/%s uses %s" % (user, used)])

    def test_labels_of_a_higher_floor_are_found(self):
        for folder, label in (("base", "//server/log:b"),
                              ("control", "//server/convert:b"),
                              ("services", "//server:daemon"),
                              ("rpc", "//server/config")):
            name = folder + "/BUILD.bazel"
            text = 'cc_test(\n    deps = ["%s"],\n)\n' % label
            self.assertEqual(self.violations_of({name: text}),
                             ["server/%s uses %s" % (name, label)])

    def test_what_is_below_may_be_used(self):
        self.assertEqual(
            self.violations_of({
                "daemon.cc": '#include "server/services/a.h"\n',
                "services/a.h": '#include "server/convert/b.h"\n',
                "services/BUILD.bazel":
                    'visibility = ["//server:__subpackages__"],\n'
                    'deps = ["//server/convert:b"],  # not //server:daemon\n',
                "convert/b.h": '#include "server/control/c.h"\n'
                               '#include "mmud/v1/common.pb.h"\n',
                "control/c.h": '#include "server/control/d.h"\n'
                               '#include "server/log/e.h"\n'
                               '#include "mmu_core/vm/vm.h"\n'}), [])

    def test_a_folder_without_a_floor_is_found(self):
        self.assertEqual(self.violations_of({"attic/a.h": ""}),
                         ["server/attic/a.h: server/attic has no floor"])

    def test_control_knows_no_protobuf_and_no_grpc(self):
        for name in ("mmud/v1/common.pb.h", "google/protobuf/any.h",
                     "grpcpp/support/status.h", "grpc/grpc.h"):
            self.assertEqual(
                self.violations_of({"control/a_test.cc":
                                    "#include <%s>\n" % name}),
                ["server/control/a_test.cc uses " + name])
        for label in ("//proto/mmud/v1:mmud_cc_proto", "@debian//:grpcpp",
                      "@debian//:protobuf"):
            self.assertEqual(
                self.violations_of({"control/BUILD.bazel":
                                    'deps = ["%s"],\n' % label}),
                ["server/control/BUILD.bazel uses " + label])

    def test_control_knows_them_not_by_other_headers_either(self):
        self.assertEqual(
            self.violations_of({
                "control/a.cc": '#include "server/control/b.h"\n',
                "control/b.h": '#include "server/base/c.h"\n',
                "base/c.h": '#include "google/rpc/status.pb.h"\n'}),
            ["server/control/%s uses google/rpc/status.pb.h by server/base/c.h"
             % user for user in ("a.cc", "b.h")])


if __name__ == "__main__":
    unittest.main()
