#!/usr/bin/env python3
"""Fails if mmu_core/README.md leads its reader astray.

The sections "The life of ..." are lists of functions in the order in which they
are called:

    3. `vm/vcpu/access_loop.h`, `RunAccess()`: what happens there.
    4. `vm/vcpu/hardware_walk.cc`, `HardwareWalk()` (from 2): ...

Each file has to define its function. The file of the item before, or of the item
that "(from 2)" names, has to call it. A name without "()" is a variable, which
its file has to declare and the file of the item before has to use (`.name`,
`->name`, `&Type::name`). A list begins at 1; its first function has no caller.

Every path in README.md and LOCKING.md has to exist, and a name that follows the
path of a C++ file, as in (`tdp/tdp_fault.cc`, `InstallLeaf`), has to stand in
that file. Paths begin at mmu_core or at the root of the tree.
"""

import os
import pathlib
import re
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True

README = "mmu_core/README.md"
PAGES = (README, "mmu_core/LOCKING.md")
LIVES = ("The life of one fault", "The life of one clear",
         "The life of one metric")

SECTION = re.compile(r"^## (.*)$")
NUMBERED = re.compile(r"^(\d+)\. ")
ITEM = re.compile(r"^(\d+)\. `([^`]+)`, `(\w+)(\(\))?`(?: \(from (\d+)\))?: \S")
PATH = re.compile(r"`([\w.]+/[\w./*]*)`")
NAME_IN_FILE = re.compile(r"`([\w/]+\.(?:cc|h))`,\s+`(?:\w+::)*(\w+)(?:\(\))?`")

NOT_CODE = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"', re.DOTALL)
# Words that may precede the name in a call. Any other word before a name is its
# type.
BEFORE_CALL = {"return", "else", "case", "throw"}


def code_of(path):
    """The file without comments and strings."""
    return NOT_CODE.sub(" ", path.read_text())


def twin_of(path):
    """The header of a .cc file, the .cc file of a header."""
    return path.with_suffix(".cc" if path.suffix == ".h" else ".h")


def resolve(root, name):
    """The path that `name` stands for, or None."""
    for base in (root / "mmu_core", root):
        if "*" in name:
            for path in base.glob(name):
                return path
        elif (base / name).exists():
            return base / name
    return None


def end_of_parentheses(code, start):
    """Index after the parenthesis that closes the one at `start`."""
    depth = 0
    for i in range(start, len(code)):
        depth += {"(": 1, ")": -1}.get(code[i], 0)
        if depth == 0:
            return i + 1
    return len(code)


# The tokens that may be between a function's parameters and its body.
AFTER_PARAMETERS = re.compile(
    r"\s*(?:const|noexcept|override|final|ABSL_\w+\([^)]*\)|\s)*(?=\{)")


def uses_of_function(code, name):
    """Returns (how often `code` defines the function, how often it calls it)."""
    definitions = calls = 0
    for match in re.finditer(r"(?:\w+::)*\b%s\s*(?=\()" % name, code):
        after = end_of_parentheses(code, match.end())
        if AFTER_PARAMETERS.match(code, after):
            definitions += 1
            continue
        before = code[:match.start()].rstrip()
        word = re.search(r"\w*$", before).group()
        is_declaration = (word not in BEFORE_CALL if word else
                          before.endswith((">", "&", "*")) and
                          not before.endswith(("->", "&&")))
        if not is_declaration:
            calls += 1
    return definitions, calls


def defines(path, name, is_function):
    code = code_of(path)
    if is_function:
        return uses_of_function(code, name)[0] > 0
    return re.search(r"[\w>]\s+%s\b\s*[{;=,]" % name, code) is not None


def uses(path, name, is_function):
    """Whether the file, or its header, calls the function or uses the
    variable."""
    for file in (path, twin_of(path)):
        if not file.exists():
            continue
        code = code_of(file)
        if is_function and uses_of_function(code, name)[1] > 0:
            return True
        if not is_function and re.search(r"(\.|->|&(?:\w+::)+)%s\b" % name,
                                         code):
            return True
    return False


def lists_of(readme):
    """Returns {title: [lists]} for the sections about lives; a list is its
    lines."""
    lists = {}
    section = None
    for line in readme.splitlines():
        heading = SECTION.match(line)
        if heading:
            section = None
            if heading.group(1).startswith("The life of"):
                section = lists.setdefault(heading.group(1), [])
            continue
        number = NUMBERED.match(line)
        if section is None or not number:
            continue
        if number.group(1) == "1":
            section.append([])
        if not section:
            section.append([])
        section[-1].append(line)
    return lists


def wrong_items(root, lines):
    """Returns one line for each item of a list that is wrong."""
    found = []
    files = {}  # number of the item -> its file
    for expected, line in enumerate(lines, 1):
        item = ITEM.match(line)
        if not item or int(item.group(1)) != expected:
            found.append("expected item %d, as `file`, `Function()`: ...: %s" %
                         (expected, line))
            continue
        name, is_function = item.group(3), item.group(4) is not None
        caller = int(item.group(5) or expected - 1)
        path = resolve(root, item.group(2))
        if path is None or not path.is_file():
            found.append("%s does not exist: %s" % (item.group(2), line))
            continue
        files[expected] = path
        if not defines(path, name, is_function):
            found.append("%s does not define %s: %s" %
                         (item.group(2), name, line))
        if expected == 1:
            continue
        if caller not in files or caller >= expected:
            found.append("no item %d before it: %s" % (caller, line))
        elif not uses(files[caller], name, is_function):
            found.append("%s does not use %s: %s" %
                         (files[caller].name, name, line))
    return found


def wrong_lives(root):
    """Returns (number of items, list of what is wrong)."""
    lists = lists_of((root / README).read_text())
    found = ["no section \"%s\" with a list of two items or more" % title
             for title in LIVES
             if not any(len(lines) > 1 for lines in lists.get(title, []))]
    items = 0
    for title in lists:
        for lines in lists[title]:
            items += len(lines)
            found += wrong_items(root, lines)
    return items, found


def wrong_paths(root, page):
    """Returns (number of paths, list of what is wrong)."""
    text = (root / page).read_text()
    names = PATH.findall(text)
    found = ["%s names %s, which does not exist" % (page, name)
             for name in names if resolve(root, name) is None]
    for name, word in NAME_IN_FILE.findall(text):
        path = resolve(root, name)
        if path is None:
            continue  # found above
        files = [file for file in (path, twin_of(path)) if file.exists()]
        if not any(re.search(r"\b%s\b" % word, code_of(file))
                   for file in files):
            found.append("%s names %s in %s, which is not there" %
                         (page, word, name))
    return len(names), found


class LivesTest(unittest.TestCase):

    def setUp(self):
        self.root = pathlib.Path(os.path.realpath("WORKSPACE")).parent

    def test_each_function_is_there_and_called_by_the_one_before(self):
        items, found = wrong_lives(self.root)
        self.assertEqual(found, [])
        self.assertGreater(items, 30)

    def test_every_path_exists(self):
        for page in PAGES:
            paths, found = wrong_paths(self.root, page)
            self.assertEqual(found, [])
            self.assertGreater(paths, 40, page)


FILES = {
    "mmu_core/vm/a.h": "void Start(int n);  // calls Last()\n",
    "mmu_core/vm/a.cc": """#include "mmu_core/vm/a.h"
void Start(int n) {
  if (n > 0) Middle(n);
  const char* text = "Unused(1)";
}
""",
    "mmu_core/tdp/b.h": """int Middle(int n) const ABSL_GUARDED_BY(mu_) {
  counters.pages += n;
  return Last();
}
std::vector<int> Other(int n);
""",
    "server/c.cc": "int Class::Last() { return 0; }\nint Unused(int n) {}\n",
    "mmu_core/stats/d.h": "struct D { std::atomic<int> pages{0}; };\n",
}
ITEMS = ("`vm/a.cc`, `Start()`: begins.", "`tdp/b.h`, `Middle()`: goes on.",
         "`server/c.cc`, `Last()`: ends.",
         "`stats/d.h`, `pages` (from 2): counts.")


class BrokenListsTest(unittest.TestCase):

    def wrong(self, items, files=None, numbers=None):
        """What is wrong with a README whose lists are all `items`."""
        lines = ["%d. %s" % (number, item)
                 for number, item in zip(numbers or range(1, 99), items)]
        page = "\n".join("## %s\n\n%s\n" % (title, "\n".join(lines))
                         for title in LIVES)
        with tempfile.TemporaryDirectory() as name:
            root = pathlib.Path(name)
            for path, text in {**FILES, **(files or {}), README: page}.items():
                (root / path).parent.mkdir(parents=True, exist_ok=True)
                (root / path).write_text(text)
            items_read, found = wrong_lives(root)
        self.assertEqual(items_read, 3 * len(items))
        # The items of the three sections are the same.
        return found[:len(found) // 3]

    def assert_wrong(self, number, item, reason):
        """With `item` in place of the item `number` the list is wrong."""
        items = list(ITEMS)
        items[number - 1] = item
        self.assertEqual(self.wrong(items), [
            "%s: %d. %s" % (reason, number, item)])

    def test_a_right_list_is_right(self):
        self.assertEqual(self.wrong(ITEMS), [])

    def test_a_file_that_is_not_there_is_found(self):
        self.assert_wrong(4, "`stats/e.h`, `pages` (from 2): counts.",
                          "stats/e.h does not exist")
        self.assert_wrong(4, "`stats`, `pages` (from 2): counts.",
                          "stats does not exist")

    def test_a_function_that_is_not_there_is_found(self):
        self.assert_wrong(1, "`vm/a.cc`, `Begin()`: begins.",
                          "vm/a.cc does not define Begin")
        # Declared, called or mentioned only.
        for item in ("`vm/a.h`, `Start()`: begins.",
                     "`tdp/b.h`, `Other()`: begins.",
                     "`tdp/b.h`, `Last()`: begins."):
            file, name = re.match(r"`(.*)`, `(\w+)", item).groups()
            self.assertIn("%s does not define %s: 1. %s" % (file, name, item),
                          self.wrong([item, ITEMS[1]]))

    def test_a_variable_that_is_not_there_is_found(self):
        self.assertIn(
            "stats/d.h does not define bytes: 4. `stats/d.h`, `bytes`"
            " (from 2): counts.",
            self.wrong(ITEMS[:3] + ("`stats/d.h`, `bytes` (from 2): counts.",)))

    def test_a_function_that_nobody_calls_is_found(self):
        # In a comment, in a string, declared, defined.
        self.assert_wrong(3, "`server/c.cc`, `Last()` (from 1): ends.",
                          "a.cc does not use Last")
        self.assert_wrong(3, "`server/c.cc`, `Unused()` (from 1): ends.",
                          "a.cc does not use Unused")
        self.assertEqual(
            self.wrong(ITEMS[:1] + ("`server/c.cc`, `Last()`: ends.",)),
            ["a.cc does not use Last: 2. `server/c.cc`, `Last()`: ends."])
        other = {"mmu_core/vm/e.cc": "std::vector<int> Other(int n) {}\n"}
        self.assertEqual(
            self.wrong(ITEMS[:2] + ("`vm/e.cc`, `Other()`: ends.",), other),
            ["b.h does not use Other: 3. `vm/e.cc`, `Other()`: ends."])
        self.assertEqual(
            self.wrong(ITEMS[:1] + ("`vm/a.cc`, `Start()`: again.",)),
            ["a.cc does not use Start: 2. `vm/a.cc`, `Start()`: again."])

    def test_a_variable_that_nobody_uses_is_found(self):
        self.assert_wrong(4, "`stats/d.h`, `pages` (from 3): counts.",
                          "c.cc does not use pages")
        # A pointer to the member is a use, another name of the type is none.
        item = ("`stats/d.h`, `pages` (from 3): counts.",)
        for code, found in (
                ("int Last() { return Get(&D::pages); }", []),
                ("int Last() { return D::pages; }",
                 ["c.cc does not use pages: 4. " + item[0]])):
            self.assertEqual(
                self.wrong(ITEMS[:3] + item, {"server/c.cc": code}), found)

    def test_an_item_that_is_called_by_none_before_it_is_found(self):
        for caller in (0, 4, 9):
            self.assert_wrong(
                3, "`server/c.cc`, `Last()` (from %d): ends." % caller,
                "no item %d before it" % caller)

    def test_items_that_name_no_function_or_are_out_of_order_are_found(self):
        for item in ("`stats/d.h`: counts.", "The pages are counted.",
                     "`stats/d.h`, `pages`", "`stats/d.h`, pages: counts."):
            self.assert_wrong(4, item,
                              "expected item 4, as `file`, `Function()`: ...")
        found = self.wrong(ITEMS, numbers=(1, 2, 4, 5))
        self.assertEqual(len(found), 2)

    def test_a_life_without_a_list_is_found(self):
        found = self.wrong(ITEMS[:1])
        self.assertEqual(found, ["no section \"%s\" with a list of two items"
                                 " or more" % LIVES[0]])

    def test_wrong_paths_are_found(self):
        with tempfile.TemporaryDirectory() as name:
            root = pathlib.Path(name)
            for path, text in {
                    **FILES, README:
                        "`tdp/b.h` `server/c.cc` `vm/` `tdp/*.h` `None::kOne`"
                        " `vm/x.h` `tdp/x.*` (`vm/a.cc`, `Start`)"
                        " (`tdp/b.h`,\n`Middle`) (`server/c.cc`, `D::Middle`)"
            }.items():
                (root / path).parent.mkdir(parents=True, exist_ok=True)
                (root / path).write_text(text)
            self.assertEqual(wrong_paths(root, README), (9, [
                README + " names vm/x.h, which does not exist",
                README + " names tdp/x.*, which does not exist",
                README + " names Middle in server/c.cc, which is not there",
            ]))


if __name__ == "__main__":
    unittest.main()
