#!/usr/bin/env python3
"""Runs tools/sizes, and tools/tidy --sizes, on headers and functions of known
length."""

import os
import pathlib
import subprocess
import tempfile
import unittest

ROOT = pathlib.Path(os.path.realpath("WORKSPACE")).parent


def body(lines):
    """Returns the body of a function of so many lines, the first included."""
    return "{\n" + "  F();\n" * (lines - 2) + "}\n"


class SizesTest(unittest.TestCase):

    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = pathlib.Path(directory.name)

    def run_tool(self, files, *tool):
        names = []
        for name, text in files.items():
            path = self.directory / name
            path.write_text(text)
            names.append(str(path))
        result = subprocess.run([*tool, *names], capture_output=True,
                                text=True, check=True)
        return result.stdout.replace(str(self.directory) + "/", "")

    def sizes(self, files):
        return self.run_tool(files, str(ROOT / "tools" / "sizes"))

    def functions(self, text):
        """Returns the long functions of a file, as "lines file:line name"."""
        lines = self.sizes({"a.cc": text}).splitlines()
        self.assertEqual(lines[0], "headers of more than 200 lines: 0")
        self.assertEqual(lines[1], "functions of more than 80 lines: %d" %
                         (len(lines) - 2))
        return [" ".join(line.split()) for line in lines[2:]]

    def test_what_is_longest_comes_first(self):
        self.assertEqual(
            self.sizes({"a.h": "\n" * 201, "b.h": "\n" * 300, "c.h": "\n" * 200,
                        "d.cc": "void F() " + body(81) + "void G() " + body(90),
                        "e.cc": "int a;\n\nvoid H() " + body(85) +
                                "void I() " + body(80)}),
            "headers of more than 200 lines: 2\n"
            "   300  b.h\n"
            "   201  a.h\n"
            "functions of more than 80 lines: 3\n"
            "    90  d.cc:82 G\n"
            "    85  e.cc:3 H\n"
            "    81  d.cc:1 F\n")

    def test_names_of_functions(self):
        for head, name in (
                ("absl::StatusOr<int> Vm::Start(int a, int b) const ",
                 "Vm::Start"),
                ("template <typename Fn>\nvoid Each(Fn fn) ", "Each"),
                ("bool operator==(const A& a, const A& b) ", "operator=="),
                ("int A::operator()(int a) ", "A::operator()"),
                ("A::~A() ", "A::~A"),
                ("A::A(int a)\n    : a_(a), b_{a}, c_(F({1, 2})) ", "A::A"),
                ("auto f = [](int a) ", "f"),
                ("TEST_F(ATest,\n       Works) ", "TEST_F(ATest, Works)")):
            lines = head.count("\n")
            self.assertEqual(self.functions(head + body(90)),
                             ["%d a.cc:1 %s" % (90 + lines, name)])

    def test_functions_in_classes_and_namespaces(self):
        self.assertEqual(
            self.functions("namespace a {\nclass B : public C<void()> {\n"
                           " public:\n  int F() { return 1; }\n\n"
                           "  // What it does.\n  int G() " + body(81) +
                           "  int h_ = 1;\n};\n}  // namespace a\n" +
                           "enum class D { kE };\nint I() " + body(82)),
            ["82 a.cc:92 I", "81 a.cc:7 G"])

    def test_what_only_looks_like_a_brace(self):
        for line in ('  F("}");', "  F('}');", "  // }", "  /* }\n } */",
                     '  F(R"(}\n}")");', "#define A }", "  F(1'000, '}');",
                     "  F([] { return A{1}; });", '  F("\\"}");'):
            text = "void F() " + body(80)[:-2] + line + "\n}\nint a = 1;\n"
            self.assertEqual(
                self.functions(text),
                ["%d a.cc:1 F" % (81 + line.count("\n"))], line)

    def test_initializers_and_classes_are_no_functions(self):
        rows = "{\n" + "    {1, F(2)},\n" * 90 + "}"
        for text in ("const int kRows[] = %s;\n", "const A kA(%s);\n",
                     "const A kA = Make(%s);\n", "std::vector<int> a_%s;\n",
                     "int a_ ABSL_GUARDED_BY(mu)%s;\n"):
            self.assertEqual(self.functions(text % rows), [])
        for scope in ("class A", "struct A : B<int()>", "namespace a",
                      "template <typename T>\nclass A", "enum A", 'extern "C"'):
            self.assertEqual(
                self.functions(scope + " {\n" + "int a();\n" * 90 + "};\n"), [])

    def test_tidy_shows_the_same_list(self):
        files = {"a.h": "\n" * 201, "a.cc": "void F() " + body(81)}
        tidy = str(ROOT / "tools" / "tidy")
        self.assertEqual(self.run_tool(files, tidy, "--sizes"),
                         self.sizes(files))
        self.assertIn("--sizes", self.run_tool({}, tidy, "--help"))


if __name__ == "__main__":
    unittest.main()
