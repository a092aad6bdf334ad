#!/usr/bin/env python3
"""Fails if a file includes a header of a target that its own target does not
name in `deps`.

GCC does not mind: the header is found through the dependency of a dependency.
Clang's include check does, but building everything with Clang takes long; this
test reads the BUILD files instead, and is done in a second.
"""

import builtins
import os
import pathlib
import re
import tempfile
import unittest

RULES = ("cc_library", "cc_binary", "cc_test")
INCLUDE = re.compile(r'^\s*#\s*include\s*"([^"]+)"', re.MULTILINE)


class Target:
    """A rule that compiles C++, with paths from the root of the project."""

    def __init__(self, package, name, srcs=(), hdrs=(), deps=(), **_):
        self.label = "//%s:%s" % (package, name)
        self.headers = [package + "/" + h.lstrip(":") for h in hdrs]
        self.sources = [package + "/" + s.lstrip(":") for s in srcs]
        self.deps = {absolute(package, d) for d in deps}


def absolute(package, label):
    if label.startswith(":"):
        return "//%s%s" % (package, label)
    if label.startswith("//") and ":" not in label:
        return "%s:%s" % (label, label.rpartition("/")[2])
    return label


class Anything:
    """Stands for all of Starlark that says nothing about C++."""

    def __getattr__(self, name):
        return self

    def __call__(self, *_, **__):
        return self


class BuildFile(dict):
    """The names that a BUILD file may use. BUILD files and macros are Python
    enough to be executed; the rules note what they are called with."""

    def __init__(self, root, package):
        self.root, self.package, self.targets = root, package, []
        for rule in RULES:
            self[rule] = self.note
        self["load"] = self.load

    def __missing__(self, name):
        if hasattr(builtins, name):
            raise KeyError(name)
        return Anything()

    def note(self, **attributes):
        self.targets.append(Target(self.package, **attributes))

    def note_proto(self, name, srcs, deps=(), **_):
        """Headers of protoc are included from the import root, proto/."""
        target = Target(self.package, name, deps=deps)
        folder = self.package.removeprefix("proto/")
        target.headers = [
            "%s/%s%s.h" % (folder, s.removesuffix(".proto"), kind)
            for s in srcs for kind in (".pb", ".grpc.pb")
        ]
        self.targets.append(target)

    def load(self, label, *names):
        if label.startswith("@"):
            return
        if "mmud_cc_proto" in names:
            self["mmud_cc_proto"] = self.note_proto
            return
        path = absolute(self.package, label)[2:].replace(":", "/")
        native = Anything()
        for rule in RULES:
            setattr(native, rule, self.note)
        macros = {"native": native}
        exec((self.root / path).read_text(), macros)
        for name in names:
            self[name] = macros[name]


def targets_of(root):
    for path in sorted(root.rglob("BUILD.bazel")):
        package = path.parent.relative_to(root).as_posix()
        if package.startswith(("out/", "third_party/", "bazel-")):
            continue
        build = BuildFile(root, package)
        exec(path.read_text(), build)
        yield from build.targets


def violations(root):
    """Returns (number of files read, what is wrong with them)."""
    targets = list(targets_of(root))
    owners = {}
    for target in targets:
        for header in target.headers:
            owners.setdefault(header, set()).add(target.label)
    found = []
    files = 0
    for target in targets:
        own = set(target.sources + target.headers)
        for name in target.sources + target.headers:
            path = root / name
            if path.suffix not in (".h", ".cc") or not path.exists():
                continue
            files += 1
            for header in INCLUDE.findall(path.read_text()):
                if header in own or header not in owners:
                    continue
                if not owners[header] & target.deps:
                    found.append("%s (%s) includes %s: add %s to its deps" %
                                 (name, target.label, header, " or ".join(
                                     sorted(owners[header]))))
    return files, found


class IncludeDepsTest(unittest.TestCase):

    def test_who_includes_a_header_depends_on_its_target(self):
        root = pathlib.Path(os.path.realpath("WORKSPACE")).parent
        files, found = violations(root)
        self.assertGreater(files, 100, "no sources found in %s" % root)
        self.assertEqual(found, [], "\n" + "\n".join(found))

    def found_in(self, build, source):
        with tempfile.TemporaryDirectory() as name:
            root = pathlib.Path(name)
            for package in ("a", "b"):
                (root / package).mkdir()
            (root / "a/BUILD.bazel").write_text(
                'cc_library(\n    name = "one",\n    hdrs = ["one.h"],\n)\n')
            (root / "a/one.h").write_text("")
            (root / "b/BUILD.bazel").write_text(build)
            (root / "b/two_test.cc").write_text(source)
            return violations(root)[1]

    def test_a_missing_dependency_is_found(self):
        self.assertEqual(
            self.found_in(
                'cc_test(\n    name = "two_test",\n'
                '    srcs = ["two_test.cc"],\n)\n', '#include "a/one.h"\n'),
            ["b/two_test.cc (//b:two_test) includes a/one.h: "
             "add //a:one to its deps"])

    def test_a_named_dependency_passes(self):
        self.assertEqual(
            self.found_in(
                'cc_test(\n    name = "two_test",\n'
                '    srcs = ["two_test.cc"] + [],\n'
                '    deps = ["//a:one"],\n)\n', '#include "a/one.h"\n'), [])


if __name__ == "__main__":
    unittest.main()
