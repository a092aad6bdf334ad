#!/usr/bin/env python3
"""Fails if a function of server/services/ has more than 30 lines.

An adapter converts a request, calls server/control/ or mmu_core, and converts
the answer. A longer one holds a rule that belongs below it. Functions are found
and counted as tools/sizes does.
"""

import importlib.machinery
import importlib.util
import os
import pathlib
import sys
import unittest

ROOT = pathlib.Path(os.path.realpath("WORKSPACE")).parent
MAX_LINES = 30


def load_sizes():
    """Returns tools/sizes, a script without a suffix, as a module."""
    sys.dont_write_bytecode = True
    loader = importlib.machinery.SourceFileLoader(
        "sizes", str(ROOT / "tools" / "sizes"))
    module = importlib.util.module_from_spec(
        importlib.util.spec_from_loader("sizes", loader))
    loader.exec_module(module)
    return module


SIZES = load_sizes()


def long_functions(name, text):
    return ["%s:%d %s has %d lines" % (name, first, function, lines)
            for function, first, lines in SIZES.functions(text)
            if lines > MAX_LINES]


class AdapterSizesTest(unittest.TestCase):

    def test_no_adapter_is_long(self):
        found = []
        functions = 0
        for path in sorted((ROOT / "server" / "services").glob("*")):
            if path.suffix in (".h", ".cc"):
                text = path.read_text()
                functions += len(list(SIZES.functions(text)))
                found += long_functions(str(path.relative_to(ROOT)), text)
        self.assertGreater(functions, 100, "no adapters found in %s" % ROOT)
        self.assertEqual(found, [])

    def test_a_long_one_is_found(self):
        def method(lines):
            return ("grpc::Status AImpl::Get() {\n" + "  F();\n" * (lines - 2) +
                    "}\n")
        self.assertEqual(long_functions("a.cc", method(30)), [])
        self.assertEqual(long_functions("a.cc", "int a;\n" + method(31)),
                         ["a.cc:2 AImpl::Get has 31 lines"])


if __name__ == "__main__":
    unittest.main()
