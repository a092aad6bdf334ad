#!/usr/bin/env python3
"""Fails where a string literal names a reason of an error.

mmu_core/base/reason.cc is the one list of names; whoever makes an error names
mmu::Reason, and clients name mmud.v1.ErrorReason. Tests may compare what went
over the wire with the words themselves.
"""

import os
import pathlib
import re
import tempfile
import unittest

LIST = "mmu_core/base/reason.cc"
FOLDERS = ("bench", "client", "docs/examples", "mmu_core", "server", "trace")
# {Reason::kVmNotFound, "VM_NOT_FOUND"}
ENTRY = re.compile(r'\{Reason::(k\w*),\s*"(\w*)"\}')
COMMENT = re.compile(r"//[^\n]*")


def entries(root):
    """Returns the list: (enumerator, name) of each reason but kNone."""
    found = ENTRY.findall((root / LIST).read_text())
    return [(value, name) for value, name in found if value != "kNone"]


def literals(root, names):
    """Returns (number of files read, where a literal is one of `names`)."""
    literal = re.compile(r'"(%s)"' % "|".join(sorted(names)))
    found = []
    files = 0
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*")):
            relative = path.relative_to(root)
            if (path.suffix not in (".h", ".cc") or
                    path.stem.endswith("_test") or str(relative) == LIST):
                continue
            files += 1
            code = COMMENT.sub("", path.read_text())
            found += ["%s: %s" % (relative, name)
                      for name in literal.findall(code)]
    return files, found


class ReasonsTest(unittest.TestCase):

    def setUp(self):
        self.root = pathlib.Path(os.path.realpath("WORKSPACE")).parent

    def test_the_list_names_each_reason_as_its_enumerator(self):
        listed = entries(self.root)
        self.assertGreater(len(listed), 80)
        for value, name in listed:
            self.assertEqual(
                value, "k" + "".join(w.capitalize() for w in name.split("_")))

    def test_no_literal_names_a_reason(self):
        files, found = literals(self.root,
                                [name for _, name in entries(self.root)])
        self.assertGreater(files, 300, "no sources found in %s" % self.root)
        self.assertEqual(found, [])

    def test_literals_are_found(self):
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            for name in ("server/x.cc", "server/x_test.cc"):
                path = root / name
                path.parent.mkdir(exist_ok=True)
                path.write_text('// As "VM_EXISTS".\n'
                                'Fail("VM_NOT_FOUND", "says VM_NOT_FOUND");\n'
                                'if (reason == "VM_EXISTS") return;\n')
            self.assertEqual(
                literals(root, ["VM_EXISTS", "VM_NOT_FOUND"]),
                (1, ["server/x.cc: VM_NOT_FOUND", "server/x.cc: VM_EXISTS"]))


if __name__ == "__main__":
    unittest.main()
