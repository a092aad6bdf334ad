#!/usr/bin/env python3
"""Fails if two files define a type of one name in one namespace.

If both files are in one program, the linker keeps the inline functions of one
of the types, its constructors and destructor for example, for both. Neither the
compiler nor the linker says so; the program fails, or not, as the compiler
inlines. Types of a .cc file alone belong in an unnamed namespace.
"""

import collections
import os
import pathlib
import re
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
import build_files

# A comment or literal, the head of a named namespace, the head of a type's
# definition, or a brace.
TOKEN = re.compile(
    r"""(?P<skip>//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"
               |(?<=[0-9a-fA-F])'(?=[0-9a-fA-F])|'(?:\\.|[^'\\\n])*')
    |\bnamespace\s*(?P<namespace>[\w:]*)\s*\{
    |\b(?:enum\s+class|enum\s+struct|enum|class|struct|union)\s+
     (?:(?:alignas\([^)]*\)|[A-Z]\w*\([^)]*\)|\[\[\w+\]\])\s*)*
     (?P<type>\w+)(?:\s+final)?\s*(?::[^:;{}()][^;{}()]*)?\{
    |[{}]""", re.DOTALL | re.VERBOSE)


def types_of(text):
    """The qualified names of the types that `text` defines at the level of a
    namespace, but not in an unnamed one."""
    names = []
    scopes = []  # the names of namespaces; None for any other brace
    for match in TOKEN.finditer(text):
        if match.group("skip"):
            continue
        if match.group() == "}":
            if scopes:
                scopes.pop()
        elif match.group("namespace") is not None:
            scopes.append(match.group("namespace"))
        else:
            name = match.group("type")
            if name and all(scopes):
                names.append("::".join([*scopes, name]))
            scopes.append(None)
    return names


def definitions(root):
    """The files of each type, by its qualified name."""
    files = collections.defaultdict(set)
    for path in build_files.cc_files(root):
        for name in types_of((root / path).read_text()):
            files[name].add(str(path))
    return files


class OneDefinitionTest(unittest.TestCase):
    def test_types_at_the_level_of_a_namespace_are_found(self):
        self.assertEqual(types_of("""
            struct Global { int a; };
            namespace a::b {
            class Declared;
            // class Comment {
            const char* text = "struct Text {";
            constexpr int kMany = 10'000; struct Many { char c = '{'; };
            class alignas(64) Aligned final : public Base<int> {
              struct Inner { int x; };
              void F() { struct Local {}; }
            };
            enum class Color : int { kRed };
            template <typename T> struct Of { T t; };
            void G(struct Declared* argument) {}
            namespace { struct Hidden {}; }
            namespace c { union U { int i; }; }
            }  // namespace a::b
            """), ["Global", "a::b::Many", "a::b::Aligned", "a::b::Color",
                   "a::b::Of", "a::b::c::U"])

    def test_a_second_definition_is_found(self):
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            (root / "p").mkdir()
            for name, text in {
                    "BUILD.bazel": "",
                    "a.h": "namespace n { struct S { int a; }; }\n",
                    "b.cc": "namespace n { struct S { long b; }; }\n"
                            "namespace m { struct S { int c; }; }\n"}.items():
                (root / "p" / name).write_text(text)
            self.assertEqual(dict(definitions(root)),
                             {"n::S": {"p/a.h", "p/b.cc"}, "m::S": {"p/b.cc"}})

    def test_no_type_of_the_tree_has_two_definitions(self):
        root = pathlib.Path(os.path.realpath("WORKSPACE")).parent
        files = definitions(root)
        self.assertGreater(len(files), 500)
        self.assertEqual({name: sorted(where) for name, where in files.items()
                          if len(where) > 1}, {})


if __name__ == "__main__":
    unittest.main()
