#!/usr/bin/env python3
"""Fails if mmu_core/README.md leads its reader astray.

The sections "The life of ..." are lists of functions in the order in which they
are called:

    3. `vm/vcpu/access_loop.h`, `RunAccess()`: what happens there.
    4. `tdp/tdp_fault.cc`, `TdpMmu::Map()` (from 2): ...

Each file has to define its function. A function of a class is named with its
class. The file of the item before, or of the item that "(from 2)" names, has to
call the function and to include the header that declares it, directly or by one
other header. A name without "()" is a variable, which its file has to declare
and the file of the item before has to use (`.name`, `->name`, `&Type::name`). A
list begins at 1; its first function has no caller. LIVES below says where each
list begins and ends.

Every path in README.md and LOCKING.md has to exist, and a name that follows the
path of a C++ file, as in (`tdp/tdp_fault.cc`, `InstallLeaf`), has to stand in
that file. Paths begin at mmu_core or at the root of the tree.
"""

import functools
import os
import pathlib
import re
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
import build_files

README = "mmu_core/README.md"
PAGES = (README, "mmu_core/LOCKING.md")
# The sections with lists, and the first and the last name of each list.
LIVES = {
    "The life of one fault": [
        ("Vcpu::Access", "FaultAccounting::Finish"),
        ("ShadowVcpu::Access", "ShadowLinks::AddLeaf"),
        ("Vcpu::ContinueAccess", "TlbiUnit::Issue")],
    "The life of one clear": [
        ("DirtyLogServiceImpl::ClearDirtyLog", "VcpuGate::AddRequests")],
    "The life of one metric": [
        ("ClearDirtyLog", "cleared_pages"),
        ("HttpServer::Make", "MetricWriter::Add")],
}

SECTION = re.compile(r"^## (.*)$")
NUMBERED = re.compile(r"^(\d+)\. ")
ITEM = re.compile(r"^(\d+)\. `([^`]+)`, `((?:\w+::)?\w+)(\(\))?`"
                  r"(?: \(from (\d+)\))?: \S")
PATH = re.compile(r"`([\w.]+/[\w./*]*)`")
NAME_IN_FILE = re.compile(r"`([\w/]+\.(?:cc|h))`,\s+`(?:\w+::)*(\w+)(?:\(\))?`")

NOT_CODE = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"', re.DOTALL)
# Words that may precede the name in a call. Any other word before a name is its
# type.
BEFORE_CALL = {"return", "else", "case", "throw"}


@functools.lru_cache(maxsize=None)
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


def end_of_brackets(code, start):
    """Index after the bracket that closes the one at `start`."""
    opening = code[start]
    closing = {"(": ")", "{": "}"}[opening]
    depth = 0
    bracket = re.compile("[%s%s]" % (opening, closing))
    for match in bracket.finditer(code, start):
        depth += 1 if match.group() == opening else -1
        if depth == 0:
            return match.end()
    return len(code)


CLASS = re.compile(r"\b(?:class|struct)\s+(?:\[\[\w+\]\]\s*|ABSL_\w+\s+)*"
                   r"(?:\w+::)*(\w+)\b(?:\s+final)?\s*(?::([^;{(]*))?(?=\{)")
BASE = re.compile(r"\b(?:public|protected|private)\s+(?:\w+::)*(\w+)")


@functools.lru_cache(maxsize=None)
def classes_of(path):
    """Returns (name, names of the bases, start, end) of each class body."""
    code = code_of(path)
    return [(match.group(1), BASE.findall(match.group(2) or ""), match.end(),
             end_of_brackets(code, match.end()))
            for match in CLASS.finditer(code)]


# The tokens that may be between a function's parameters and its body.
AFTER_PARAMETERS = re.compile(
    r"\s*(?:const|noexcept|override|final|ABSL_\w+\([^)]*\)|\s)*(?=\{)")


class Mentions:
    """Where a file names a function before a parenthesis."""

    def __init__(self, path, function):
        code = code_of(path)
        self.definitions = set()  # the class of each, "" for a free function
        self.declarations = set()  # likewise
        self.calls = 0
        if function + "(" not in code:
            return
        classes = classes_of(path)
        for match in re.finditer(r"((?:\w+::)*)\b%s\s*(?=\()" % function, code):
            inside = [name for name, _, start, end in classes
                      if start < match.start() < end]
            owner = (match.group(1).split("::")[-2] if match.group(1) else
                     inside[-1] if inside else "")
            after = end_of_brackets(code, match.end())
            if AFTER_PARAMETERS.match(code, after):
                self.definitions.add(owner)
                self.declarations.add(owner)
                continue
            before = code[:match.start()].rstrip()
            word = re.search(r"\w*$", before).group()
            if (word not in BEFORE_CALL if word else
                    before.endswith((">", "&", "*")) and
                    not before.endswith(("->", "&&"))):
                self.declarations.add(owner)
            else:
                self.calls += 1


@functools.lru_cache(maxsize=None)
def mentions(path, function):
    return Mentions(path, function)


def split_name(name):
    """Returns ("Class", "Function"), or ("", "Function")."""
    owner, _, function = name.rpartition("::")
    return owner, function


def declares_variable(code, name):
    return re.search(r"[\w>]\s+%s\b\s*[{;=,]" % name, code) is not None


def defines(path, name, is_function):
    owner, word = split_name(name)
    if is_function:
        return owner in mentions(path, word).definitions
    return not owner and declares_variable(code_of(path), word)


def uses(path, name, is_function):
    """Whether the file, or its header, calls the function or uses the
    variable."""
    word = split_name(name)[1]
    for file in (path, twin_of(path)):
        if not file.exists():
            continue
        if is_function and mentions(file, word).calls > 0:
            return True
        if not is_function and re.search(r"(\.|->|&(?:\w+::)+)%s\b" % word,
                                         code_of(file)):
            return True
    return False


@functools.lru_cache(maxsize=None)
def includes_of(file):
    return (build_files.INCLUDE.findall(file.read_text()) if file.exists()
            else [])


def included_by(root, files):
    """The paths of the headers that the files include directly. Those of
    libraries do not exist."""
    return {root / name for file in files for name in includes_of(file)}


def with_twin(path):
    return {file for file in (path, twin_of(path)) if file.exists()}


@functools.lru_cache(maxsize=None)
def declared_in(root, path, name, is_function):
    """The headers by which others know the function or variable that `path`
    defines: those that declare it, as its class or as a base of the class."""
    owner, word = split_name(name)
    files = with_twin(path) | included_by(root, with_twin(path))
    ours = {file for file in files if file.exists()}
    owners = {owner}
    for file in ours:
        for class_name, bases, _, _ in classes_of(file):
            if class_name == owner:
                owners.update(bases)
    headers = {file for file in ours if file.suffix == ".h" and
               (owners & mentions(file, word).declarations if is_function else
                declares_variable(code_of(file), word))}
    # A base of a library has a header of the same name.
    return headers | {file for file in files - ours
                      if file.stem in {base.lower() for base in owners}}


def knows(root, caller, path, name, is_function):
    """Whether `caller`, or its header, includes a header that declares what
    `path` defines, directly or by one other header."""
    own = with_twin(caller)
    if path in own:
        return True
    direct = own | included_by(root, own)
    reached = direct | included_by(
        root, [file for file in direct if file.suffix == ".h"])
    return bool(reached & declared_in(root, path, name, is_function))


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
        defined = defines(path, name, is_function)
        if not defined:
            found.append("%s does not define %s: %s" %
                         (item.group(2), name, line))
        if expected == 1:
            continue
        if caller not in files or caller >= expected:
            found.append("no item %d before it: %s" % (caller, line))
        elif not uses(files[caller], name, is_function):
            found.append("%s does not use %s: %s" %
                         (files[caller].name, name, line))
        elif defined and not knows(root, files[caller], path, name,
                                   is_function):
            found.append("%s includes no header with %s of %s: %s" %
                         (files[caller].name, name, item.group(2), line))
    return found


def ends_of(lines):
    """Returns the first and the last name of a list."""
    items = [ITEM.match(line) for line in (lines[0], lines[-1])]
    return tuple(item.group(3) if item else None for item in items)


def wrong_lives(root, lives):
    """Returns (number of items, list of what is wrong)."""
    lists = lists_of((root / README).read_text())
    found = []
    for title in sorted(lives.keys() | lists.keys()):
        ends = [ends_of(lines) for lines in lists.get(title, [])]
        if ends != lives.get(title, []):
            found.append("the lists of \"%s\" begin and end with %s, not %s" %
                         (title, ends, lives.get(title, [])))
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
        items, found = wrong_lives(self.root, LIVES)
        self.assertEqual(found, [])
        self.assertGreater(items, 30)

    def test_no_other_file_fits_an_item(self):
        """Puts each file that defines a function of the same name, as a free
        function or in any class, in the place of an item's file."""
        files = [path for path in build_files.cc_files(self.root)
                 if not path.stem.endswith(("_test", "_test_util"))]
        swaps = 0
        for lists in lists_of((self.root / README).read_text()).values():
            for lines in lists:
                for number, line in enumerate(lines):
                    swaps += self.swap_files(lines, number, line, files)
        self.assertGreater(swaps, 50)

    def swap_files(self, lines, number, line, files):
        item = ITEM.match(line)
        right = resolve(self.root, item.group(2))
        name = item.group(3)
        swaps = 0
        for path in files:
            if (not item.group(4) or self.root / path in with_twin(right) or
                    not mentions(self.root / path,
                                 split_name(name)[1]).definitions):
                continue
            swaps += 1
            wrong = line.replace(item.group(2), str(path), 1)
            self.assertNotEqual(
                wrong_items(self.root,
                            lines[:number] + [wrong] + lines[number + 1:]),
                [], wrong)
        return swaps

    def test_every_path_exists(self):
        for page in PAGES:
            paths, found = wrong_paths(self.root, page)
            self.assertEqual(found, [])
            self.assertGreater(paths, 40, page)


FILES = {
    "mmu_core/vm/a.h": "void Start(int n);  // calls Last()\n",
    "mmu_core/vm/a.cc": """#include "mmu_core/vm/a.h"
#include "mmu_core/tdp/b.h"
void Start(int n) {
  if (n > 0) object.Middle(n);
  const char* text = "Unused(1)";
}
""",
    "mmu_core/tdp/b.h": """#include "server/all.h"
#include "mmu_core/stats/d.h"
class [[nodiscard]] B {
  int Middle(int n) const ABSL_GUARDED_BY(mu_) {
    counters.pages += n;
    return base->Last();
  }
};
std::vector<int> Other(int n);
""",
    "server/all.h": '#include "server/base.h"\n',
    "server/base.h": "class Base { virtual int Last() = 0; };\n",
    "server/c.h": '#include "server/base.h"\n'
                  "class C final : public Base { int Last() override; };\n",
    "server/c.cc": '#include "server/c.h"\n#include "mmu_core/stats/d.h"\n'
                   "int C::Last() { return 0; }\nint Unused(int n) {}\n",
    "mmu_core/stats/d.h": "struct D { std::atomic<int> pages{0}; };\n",
}
ITEMS = ("`vm/a.cc`, `Start()`: begins.", "`tdp/b.h`, `B::Middle()`: goes on.",
         "`server/c.cc`, `C::Last()`: ends.",
         "`stats/d.h`, `pages` (from 2): counts.")


class BrokenListsTest(unittest.TestCase):

    TITLE = "The life of a test"

    def wrong(self, items, files=None, numbers=None, lives=None):
        """What is wrong with a README whose only list is `items`."""
        lines = ["%d. %s" % (number, item)
                 for number, item in zip(numbers or range(1, 99), items)]
        page = "## %s\n\n%s\n" % (self.TITLE, "\n".join(lines))
        if lives is None:
            lives = {self.TITLE: [ends_of(lines)]}
        with tempfile.TemporaryDirectory() as name:
            root = pathlib.Path(name)
            for path, text in {**FILES, **(files or {}), README: page}.items():
                (root / path).parent.mkdir(parents=True, exist_ok=True)
                (root / path).write_text(text)
            items_read, found = wrong_lives(root, lives)
        self.assertEqual(items_read, len(items))
        return found

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
                     "`tdp/b.h`, `B::Last()`: begins.",
                     "`tdp/b.h`, `Last()`: begins."):
            file, name = re.match(r"`(.*)`, `([\w:]+)", item).groups()
            self.assertIn("%s does not define %s: 1. %s" % (file, name, item),
                          self.wrong([item, ITEMS[1]]))

    def test_a_function_of_another_class_or_without_its_class_is_found(self):
        for name in ("Middle", "C::Middle"):
            self.assert_wrong(
                2, "`tdp/b.h`, `%s()`: goes on." % name,
                "tdp/b.h does not define " + name)
        for name in ("Last", "Base::Last", "B::Last"):
            self.assert_wrong(3, "`server/c.cc`, `%s()`: ends." % name,
                              "server/c.cc does not define " + name)
        self.assert_wrong(1, "`vm/a.cc`, `A::Start()`: begins.",
                          "vm/a.cc does not define A::Start")

    def test_a_file_whose_header_the_caller_does_not_include_is_found(self):
        # e.h has a function of the same name, which the caller cannot call.
        for header in ("class E { int Last(); };\n",
                       '#include "mmu_core/rmap/f.h"\n'
                       "class E : public F { int Last(); };\n"):
            files = {"mmu_core/rmap/e.h": header,
                     "mmu_core/rmap/e.cc": '#include "mmu_core/rmap/e.h"\n'
                                           "int E::Last() { return 0; }\n",
                     "mmu_core/rmap/f.h":
                         "class F { virtual int Last(); };\n"}
            item = "3. `rmap/e.cc`, `E::Last()`: ends."
            no_header = ["b.h includes no header with E::Last of rmap/e.cc: " +
                         item]
            items = ITEMS[:2] + (item[3:],)
            self.assertEqual(self.wrong(items, files), no_header)
            # By one header, not by two.
            files["server/all.h"] = '#include "mmu_core/rmap/e.h"\n'
            self.assertEqual(self.wrong(items, files), [])
            files["server/all.h"] = '#include "server/more.h"\n'
            files["server/more.h"] = '#include "mmu_core/rmap/e.h"\n'
            self.assertEqual(self.wrong(items, files), no_header)

    def test_a_header_that_declares_something_else_is_not_enough(self):
        self.assertEqual(
            self.wrong(ITEMS[:3],
                       {"server/base.h": "class Base { int a; };\n"}),
            ["b.h includes no header with C::Last of server/c.cc: 3. " +
             ITEMS[2]])

    def test_the_header_of_a_base_may_be_a_librarys(self):
        derived = {"server/c.h": '#include "library/base.h"\n'
                                 "class C final : public library::Base {\n"
                                 "  int Last() override;\n};\n"}
        self.assertEqual(
            self.wrong(ITEMS[:3], derived),
            ["b.h includes no header with C::Last of server/c.cc: 3. " +
             ITEMS[2]])
        derived["server/all.h"] = '#include "library/base.h"\n'
        self.assertEqual(self.wrong(ITEMS[:3], derived), [])

    def test_a_variable_that_is_not_there_is_found(self):
        self.assertIn(
            "stats/d.h does not define bytes: 4. `stats/d.h`, `bytes`"
            " (from 2): counts.",
            self.wrong(ITEMS[:3] + ("`stats/d.h`, `bytes` (from 2): counts.",)))

    def test_a_function_that_nobody_calls_is_found(self):
        # In a comment, in a string, declared, defined.
        self.assert_wrong(3, "`server/c.cc`, `C::Last()` (from 1): ends.",
                          "a.cc does not use C::Last")
        self.assert_wrong(3, "`server/c.cc`, `Unused()` (from 1): ends.",
                          "a.cc does not use Unused")
        self.assertEqual(
            self.wrong(ITEMS[:1] + ("`server/c.cc`, `C::Last()`: ends.",)),
            ["a.cc does not use C::Last: 2. `server/c.cc`, `C::Last()`: ends."])
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
                ("int C::Last() { return Get(&D::pages); }", []),
                ("int C::Last() { return D::pages; }",
                 ["c.cc does not use pages: 4. " + item[0]])):
            self.assertEqual(
                self.wrong(ITEMS[:3] + item, {
                    "server/c.cc": '#include "server/c.h"\n'
                                   '#include "mmu_core/stats/d.h"\n' + code}),
                found)

    def test_an_item_that_is_called_by_none_before_it_is_found(self):
        for caller in (0, 4, 9):
            self.assert_wrong(
                3, "`server/c.cc`, `C::Last()` (from %d): ends." % caller,
                "no item %d before it" % caller)

    def test_items_that_name_no_function_or_are_out_of_order_are_found(self):
        for item in ("`stats/d.h`: counts.", "The pages are counted.",
                     "`stats/d.h`, `pages`", "`stats/d.h`, pages: counts."):
            self.assert_wrong(4, item,
                              "expected item 4, as `file`, `Function()`: ...")
        found = self.wrong(ITEMS, numbers=(1, 2, 4, 5))
        self.assertEqual(len(found), 2)

    def test_lists_that_are_missing_or_cut_off_are_found(self):
        ends = ("Start", "pages")
        self.assertEqual(self.wrong(ITEMS, lives={self.TITLE: [ends]}), [])
        for items, lives in (
                (ITEMS[:3], {self.TITLE: [ends]}),
                (ITEMS[1:2], {self.TITLE: [ends]}),
                (ITEMS, {self.TITLE: [ends, ends]}),
                (ITEMS, {self.TITLE: [ends], "The life of another": [ends]}),
                (ITEMS, {})):
            found = self.wrong(items, lives=lives)
            self.assertEqual(len(found), 1, found)
            self.assertIn("begin and end with", found[0])

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
