"""Reads the BUILD.bazel files of a source tree: the targets, and the files and
deps of each. For the tests in this folder.

The syntax of BUILD files is valid Python, so this module executes them, with
functions that record their arguments in place of Bazel's rules. An unknown name,
such as glob, is a NameError: no target can be overlooked.
"""

import pathlib
import re

RULES = ("alias", "cc_binary", "cc_library", "cc_test", "exports_files",
         "filegroup", "genrule", "package", "package_group", "sh_test")
# The macros that make C++ targets.
PROTO_MACRO = "mmud_cc_proto"
TEST_MACRO = "integration_test"
CC_KINDS = {"cc_binary", "cc_library", "cc_test", PROTO_MACRO, TEST_MACRO}
TEST_KINDS = {"cc_test", TEST_MACRO}

INCLUDE = re.compile(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', re.MULTILINE)
LABEL = re.compile(r'"((?:@[a-z_]+)?//[^"]*)"')


def full_label(label, package):
    """Returns ":a", "a", "//b/a" or "//b/a:a" as "//b/a:a"."""
    if label.startswith("@"):
        return label
    if not label.startswith("//"):
        return "//%s:%s" % (package, label.lstrip(":"))
    if ":" not in label:
        return "%s:%s" % (label, label.rpartition("/")[2])
    return label


def package_of(label):
    """Returns "mmu_core/base" for "//mmu_core/base:level"."""
    return label[len("//"):].partition(":")[0]


class Target:
    """One target. Paths are relative to the root of the tree, labels are full.
    `written_deps` are the deps that the BUILD file names; `deps` are these and
    the deps that a macro adds."""

    def __init__(self, kind, package, attributes, defaults, macro_deps):
        def files(key):
            return [pathlib.PurePosixPath(package, source)
                    for source in attributes.get(key) or []
                    if not source.startswith((":", "//"))]

        self.kind = kind
        self.package = package
        self.name = attributes["name"]
        self.label = "//%s:%s" % (package, self.name)
        self.sources = files("srcs") + files("hdrs")
        # The paths as an #include names them.
        self.headers = [str(path) for path in self.sources
                        if path.suffix == ".h"]
        if kind == PROTO_MACRO:
            self.headers = [str(path.relative_to("proto").with_suffix(suffix))
                            for path in files("srcs")
                            for suffix in (".pb.h", ".grpc.pb.h")]
            self.sources = []
        elif kind == TEST_MACRO:
            self.sources = [pathlib.PurePosixPath(package, self.name + ".cc")]
        self.written_deps = [full_label(label, package)
                             for label in attributes.get("deps", [])]
        self.deps = self.written_deps + macro_deps
        self.actual = full_label(attributes.get("actual", ":"), package)
        self.visibility = attributes.get(
            "visibility", defaults.get("default_visibility", []))
        self.testonly = (kind in TEST_KINDS or attributes.get(
            "testonly", defaults.get("default_testonly", False)))

    def is_cc(self):
        return self.kind in CC_KINDS


def read_build_file(root, path):
    """Returns the targets of one BUILD file."""
    package = str(path.parent.relative_to(root))
    package = "" if package == "." else package
    calls = []
    macro_deps = {}

    def rule(kind):
        return lambda *_, **attributes: calls.append((kind, attributes))

    def load(label, *names):
        for name in names:
            names_known[name] = rule(name)
            if name == TEST_MACRO:
                bzl = full_label(label, package)[len("//"):].replace(":", "/")
                macro_deps[name] = LABEL.findall((root / bzl).read_text())

    names_known = {kind: rule(kind) for kind in RULES}
    names_known.update({"load": load, "__builtins__": {"True": True,
                                                       "False": False}})
    exec(compile(path.read_text(), str(path), "exec"), names_known)
    defaults = {}
    for kind, attributes in calls:
        if kind == "package":
            defaults.update(attributes)
    return [Target(kind, package, attributes, defaults,
                   macro_deps.get(kind, []))
            for kind, attributes in calls
            if kind != "package" and "name" in attributes]


def folders_of(root):
    """Returns the top folders of the project, without Bazel's links (bazel-*)
    and without out/, where scripts write."""
    return [folder for folder in sorted(root.iterdir())
            if folder.is_dir() and not folder.is_symlink() and
            folder.name not in ("out", ".git")]


def read_targets(root):
    """Returns all targets of the tree, by label."""
    targets = {}
    for folder in folders_of(root):
        for path in sorted(folder.rglob("BUILD.bazel")):
            for target in read_build_file(root, path):
                targets[target.label] = target
    return targets


def cc_files(root):
    """Returns the paths of all C++ files of the tree, relative to its root."""
    return [pathlib.PurePosixPath(path.relative_to(root))
            for folder in folders_of(root)
            for path in sorted(folder.rglob("*"))
            if path.suffix in (".h", ".cc")]


def includes_of(root, source):
    """Returns the names that a C++ file includes; [] if the build generates the
    file."""
    path = root / source
    if path.suffix not in (".h", ".cc") or not path.is_file():
        return []
    return INCLUDE.findall(path.read_text())
