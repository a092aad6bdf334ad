#!/usr/bin/env python3
"""Fails if a folder of mmu_core uses one that stands above it, or beside it on
its floor.

Reads every #include and every dep of a C++ target below mmu_core, including
those of tests. A folder without a floor in the list fails too, and so does
mmu_core/README.md if it draws other floors.
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

TOP = "mmu_core"

# The folders of mmu_core, the lowest floor first. Folders on one floor do not use
# each other. A folder that has to use a sibling gets a floor above it.
FLOORS = (
    # Addresses, errors, threads, clocks.
    ("base",),
    # Counters, their labels, the costs of one call. Nothing here locks.
    ("stats",),
    # mmu_lock, RCU, barriers.
    ("sync",),
    # Pages without memslots: dirty bitmaps and logs, ages, working sets, SPTEs and
    # tables.
    ("aging", "dirty", "paging", "working_set"),
    # The other places that hold translations: rmaps and the TLBs of vCPUs.
    ("rmap", "tlb"),
    # Memslots and the host memory behind them.
    ("memory",),
    # guest_paging: the guest's own page tables. mmu: the shared code of all MMUs.
    ("guest_paging", "mmu"),
    # shadow, stage2, tdp: the MMUs. None includes another; a further MMU joins this
    # floor. guest: programs of guests. They use no MMU, and no MMU uses them.
    ("guest", "shadow", "stage2", "tdp"),
    # A virtual machine, made of the folders above.
    ("vm",),
    # Fakes, and VMs for tests.
    ("testing",),
)

# The same for folders inside a folder. "" stands for the files directly in it.
INNER_FLOORS = {
    "guest": (
        # Patterns and traces of accesses.
        ("",),
        # A guest kernel with page tables of its own.
        ("kernel",),
        # An L1 hypervisor. Frames and memory come from kernel/.
        ("hypervisor",),
    ),
    "vm": (
        # VmCore, which all parts of a VM share. It uses no vCPU.
        ("core",),
        # slots: changes of memslots and of host memory. vcpu: a vCPU and its
        # faults. jobs: work that takes long.
        ("jobs", "slots", "vcpu"),
        # run: guests on vCPUs. logging: dirty logs. inspect: audit, listings.
        ("inspect", "logging", "run"),
        # vm.h, the interface of a VM.
        ("",),
    ),
}

# A test (*_test.cc, a cc_test) may use testing/ and these headers although they
# stand above it. The reason: many tests of an MMU need a whole VM. testing/ makes
# the VM, vm.h drives it, nx_parameters.h and pattern.h are arguments of those
# calls. A test that needs more moves to the folder of the highest header that it
# needs. All other files, also headers for tests (*_test_util.h), keep to the
# floors and therefore cannot use testing/.
GIVEN_TO_TESTS = {
    "mmu_core/vm/vm.h": "//mmu_core/vm:vm",
    "mmu_core/vm/core/nx_parameters.h": "//mmu_core/vm/core:nx_parameters",
    "mmu_core/guest/pattern.h": "//mmu_core/guest:pattern",
}


def floors_by_folder():
    """Returns {folder: (floor, floor among the folders inside)}."""
    found = {}
    for floor, folders in enumerate(FLOORS, 1):
        for folder in folders:
            for inner, parts in enumerate(INNER_FLOORS.get(folder, (("",),)),
                                          1):
                for part in parts:
                    found[folder + ("/" + part if part else "")] = (floor,
                                                                    inner)
    return found


FLOOR_OF = floors_by_folder()


# These files work on memslots and ranges for any MMUs of a VM. They use MmuSet
# (vm/core/mmu_set.h) and no single MMU.
ASK_ALL_MMUS = {"vm/jobs", "vm/logging", "vm/slots"}
MMUS = {"shadow", "tdp"}


def may_use(user, used):
    if user == used:
        return True
    if user in ASK_ALL_MMUS and used in MMUS:
        return False
    floor, inner = FLOOR_OF[user]
    used_floor, used_inner = FLOOR_OF[used]
    if used_floor == floor and used.split("/")[0] == user.split("/")[0]:
        return used_inner < inner
    return used_floor < floor


def floor_name(folder):
    """Returns "vm/core, floor 9.1", or "tdp, floor 8" for a folder without
    floors inside."""
    floor, inner = FLOOR_OF[folder]
    if folder.split("/")[0] in INNER_FLOORS:
        return "%s, floor %d.%d" % (folder, floor, inner)
    return "%s, floor %d" % (folder, floor)


def wrong_use(use):
    if may_use(use.folder, use.used_folder):
        return []
    if use.is_test and (use.used_folder == "testing" or
                        use.used in GIVEN_TO_TESTS or
                        use.used in GIVEN_TO_TESTS.values()):
        return []
    return ["%s (%s) uses %s (%s)" % (use.user, floor_name(use.folder),
                                      use.used, floor_name(use.used_folder))]


def violations(root):
    """Returns (number of C++ files read, list of violations)."""
    return floors.violations(root, TOP, FLOOR_OF, wrong_use)


# A row of the README's table of folders: " 9.1 vm/core/   ...". A row without
# a number is on the floor of the row before it.
DRAWN_FOLDER = re.compile(r"^ ?(\d+(?:\.\d)?)? +([a-z0-9_]+(?:/[a-z0-9_]+)*)/ +\S")


def drawings(readme):
    """Returns the first two drawings of the section "The folders", as lists of
    lines: all folders, and those of vm/."""
    section = readme.partition("\n## The folders\n")[2].partition("\n## ")[0]
    blocks = section.split("\n```\n")[1::2]
    return [block.splitlines() for block in blocks[:2]]


def drawn_floors(lines):
    """Returns {folder: floor} as the table of folders has them."""
    drawn = {}
    floor = None
    for line in lines:
        row = DRAWN_FOLDER.match(line)
        if row:
            floor = row.group(1) or floor
            drawn[row.group(2)] = floor
    return drawn


def drawn_rooms(lines):
    """Returns the floors of the drawing of vm/, the lowest first, as the sorted
    names of each."""
    rows = [re.findall(r"[a-z][a-z.]+", line) for line in lines]
    return [tuple(sorted(row)) for row in reversed(rows) if row]


class FloorsTest(unittest.TestCase):

    def test_what_asks_all_mmus_includes_none(self):
        self.assertFalse(may_use("vm/slots", "shadow"))
        self.assertFalse(may_use("vm/jobs", "tdp"))
        self.assertTrue(may_use("vm/core", "tdp"))
        self.assertTrue(may_use("vm/slots", "mmu"))

    def test_no_folder_uses_one_above_it(self):
        root = pathlib.Path(os.path.realpath("WORKSPACE")).parent
        files, found = violations(root)
        self.assertGreater(files, 400, "mmu_core not found in %s" % root)
        self.assertEqual(found, [])
        for folder in FLOOR_OF:
            self.assertTrue((root / "mmu_core" / folder).is_dir(), folder)

    def test_what_is_given_to_tests_is_needed(self):
        root = pathlib.Path(os.path.realpath("WORKSPACE")).parent
        needed = set()
        for path in sorted((root / "mmu_core").rglob("*_test.cc")):
            user = floors.folder_of(TOP, path.relative_to(root))
            needed.update(name for name in build_files.includes_of(root, path)
                          if name in GIVEN_TO_TESTS and
                          not may_use(user, floors.folder_of(TOP, name)))
        self.assertEqual(needed, set(GIVEN_TO_TESTS))

    def test_the_readme_draws_these_floors(self):
        root = pathlib.Path(os.path.realpath("WORKSPACE")).parent
        readme = (root / "mmu_core" / "README.md").read_text()
        folders, rooms = drawings(readme)
        self.assertEqual(drawn_floors(folders), {
            folder: floor_name(folder).rpartition(" ")[2]
            for folder in FLOOR_OF})
        self.assertEqual(drawn_rooms(rooms), [
            floor if floor != ("",) else ("vm.cc", "vm.h")
            for floor in INNER_FLOORS["vm"]])

    def test_drawings_are_read(self):
        folders, rooms = drawings(
            "## Other\n\n```\n 1 a/ b\n```\n\n## The folders\n\nText.\n\n```\n"
            "10   testing/    tests,\n                 and more\n"
            " 9.1 vm/core/    core\n     vm/jobs/    jobs\n 8   tdp/  TDP\n"
            "```\n\nText.\n\n```\n   vm.h, vm.cc\n        |\n     v     v\n"
            "   run    core\n```\n\n## Other\n\n```\nnone\n```\n")
        self.assertEqual(drawn_floors(folders), {
            "testing": "10", "vm/core": "9.1", "vm/jobs": "9.1", "tdp": "8"})
        self.assertEqual(drawn_rooms(rooms), [("core", "run"),
                                              ("vm.cc", "vm.h")])

    def violations_of(self, files):
        with tempfile.TemporaryDirectory() as root:
            for name, text in files.items():
                path = pathlib.Path(root) / "mmu_core" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
            return violations(pathlib.Path(root))[1]

    def include(self, user, used):
        return self.violations_of({user: '#include "mmu_core/%s"\n' % used})

    def dep(self, rule, package, label):
        return self.violations_of({
            package + "/BUILD.bazel":
                '%s(\n    name = "a",\n    deps = ["%s"],\n)\n' %
                (rule, label)})

    def test_includes_of_a_higher_floor_are_found(self):
        self.assertEqual(
            self.include("rmap/a.cc", "mmu/b.h"),
            ["mmu_core/rmap/a.cc (rmap, floor 5) uses mmu_core/mmu/b.h"
             " (mmu, floor 7)"])
        self.assertEqual(
            self.include("vm/core/a.h", "vm/vcpu/b.h"),
            ["mmu_core/vm/core/a.h (vm/core, floor 9.1) uses"
             " mmu_core/vm/vcpu/b.h (vm/vcpu, floor 9.2)"])
        for user, used in (("base/a.h", "stats/b.h"), ("tdp/a.cc", "vm/b.h"),
                           ("memory/a.h", "vm/core/b.h"),
                           ("vm/run/a.cc", "vm/vm.h"),
                           ("guest/a.h", "guest/kernel/b.h"),
                           ("rmap/a_test.cc", "mmu/b.h"),
                           ("rmap/a_test_util.h", "mmu/b.h")):
            self.assertEqual(len(self.include(user, used)), 1, user)

    def test_includes_of_a_sibling_are_found(self):
        for user, used in (("tdp/a.cc", "shadow/b.h"),
                           ("shadow/a.h", "tdp/b.h"),
                           ("guest/kernel/a.h", "tdp/b.h"),
                           ("tdp/a_test.cc", "guest/kernel/b.h"),
                           ("vm/slots/a.cc", "vm/vcpu/b.h"),
                           ("vm/run/a_test.cc", "vm/inspect/b.h")):
            self.assertEqual(len(self.include(user, used)), 1, user)

    def test_deps_of_a_higher_floor_or_a_sibling_are_found(self):
        self.assertEqual(
            self.dep("cc_library", "rmap", "//mmu_core/mmu"),
            ["//mmu_core/rmap:a (rmap, floor 5) uses //mmu_core/mmu:mmu"
             " (mmu, floor 7)"])
        for rule, package, label in (
                ("cc_library", "tdp", "//mmu_core/shadow:b"),
                ("cc_library", "vm/core", "//mmu_core/vm:vm"),
                ("cc_test", "tdp", "//mmu_core/vm/core:vm_core"),
                ("cc_test", "vm/jobs", "//mmu_core/vm/slots:b")):
            self.assertEqual(len(self.dep(rule, package, label)), 1, label)

    def test_only_tests_may_use_testing(self):
        for user in ("tdp/a.cc", "vm/vm.cc", "tdp/a.h", "tdp/a_test_util.h"):
            self.assertEqual(len(self.include(user, "testing/b.h")), 1, user)
        self.assertEqual(
            len(self.dep("cc_library", "vm", "//mmu_core/testing:b")), 1)
        self.assertEqual(self.include("tdp/a_test.cc", "testing/b.h"), [])
        self.assertEqual(
            self.dep("cc_test", "tdp", "//mmu_core/testing:b"), [])

    def test_only_tests_may_use_a_whole_vm(self):
        for name, label in GIVEN_TO_TESTS.items():
            name = name[len("mmu_core/"):]
            self.assertEqual(self.include("tdp/a_test.cc", name), [])
            self.assertEqual(self.dep("cc_test", "tdp", label), [])
            for user in ("tdp/a.cc", "tdp/a_test_util.h"):
                self.assertEqual(len(self.include(user, name)), 1, user)
            self.assertEqual(len(self.dep("cc_library", "tdp", label)), 1)

    def test_what_is_below_may_be_used(self):
        for user, used in (("tdp/a.h", "mmu/b.h"), ("tdp/a.h", "tdp/b.h"),
                           ("vm/core/a.cc", "tdp/b.h"),
                           ("vm/run/a.cc", "guest/hypervisor/b.h"),
                           ("vm/run/a.cc", "vm/vcpu/b.h"),
                           ("vm/a_test.cc", "vm/slots/b.h"),
                           ("testing/a.h", "vm/vm_state.h")):
            self.assertEqual(self.include(user, used), [])
        self.assertEqual(self.dep("cc_library", "tdp", ":b"), [])
        self.assertEqual(self.dep("cc_library", "tdp", "//mmu_core/mmu:b"), [])

    def test_a_folder_without_a_floor_is_found(self):
        for name in ("attic/a.h", "vm/attic/a.h"):
            self.assertEqual(
                self.violations_of({name: ""}),
                ["mmu_core/%s: the folder mmu_core/%s has no floor" %
                 (name, os.path.dirname(name))])
        self.assertEqual(len(self.include("tdp/a.h", "attic/b.h")), 1)
        self.assertEqual(
            len(self.dep("cc_library", "tdp", "//mmu_core/attic:b")), 1)


if __name__ == "__main__":
    unittest.main()
