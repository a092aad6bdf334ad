#!/usr/bin/env python3
"""Fails if mmu_core is more open than it has to be: if a target is public and
not listed below, or public without a user outside; if a program depends on
mmu_core/testing; if VmState, the mode of a VM's MMUs or the kind of one is named
outside of the few places listed below.
"""

import os
import pathlib
import re
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
import build_files

PUBLIC = "//visibility:public"

# The interface of mmu_core: the targets that the server, the client and trace/
# use, sorted. A BUILD file makes a target public; this list shows all of them at
# once. Every other target is visible to //mmu_core:internals only.
PUBLIC_TARGETS = {
    "//mmu_core/aging:aging",
    "//mmu_core/base:access",
    "//mmu_core/base:address",
    "//mmu_core/base:bits",
    "//mmu_core/base:check",
    "//mmu_core/base:clock",
    "//mmu_core/base:error",
    "//mmu_core/base:gfn_range",
    "//mmu_core/base:hooks",
    "//mmu_core/base:level",
    "//mmu_core/base:mutex",
    "//mmu_core/base:reason",
    "//mmu_core/base:thread",
    "//mmu_core/base:with_memory",
    "//mmu_core/dirty:dirty_log",
    "//mmu_core/dirty:dirty_log_calls",
    "//mmu_core/dirty:dirty_log_state",
    "//mmu_core/dirty:dirty_log_types",
    "//mmu_core/dirty:log_owner",
    "//mmu_core/dirty:log_range",
    "//mmu_core/guest:access_source",
    "//mmu_core/guest:first_touch_map",
    "//mmu_core/guest:gpa_space",
    "//mmu_core/guest:guest_access",
    "//mmu_core/guest:pattern",
    "//mmu_core/guest:pattern_spec",
    "//mmu_core/guest:random",
    "//mmu_core/guest:trace_replay",
    "//mmu_core/guest:trace_stream",
    "//mmu_core/memory:backing",
    "//mmu_core/memory:host_memory",
    "//mmu_core/memory:region_request",
    "//mmu_core/mmu:shadow_page_info",
    "//mmu_core/paging:access_rights",
    "//mmu_core/paging:page_role",
    "//mmu_core/paging:table_pool",
    "//mmu_core/stats:counter_table",
    "//mmu_core/stats:labels",
    "//mmu_core/stats:latency_histogram",
    "//mmu_core/stats:mmu_cost",
    "//mmu_core/stats:vcpu_stats",
    "//mmu_core/sync:rcu",
    "//mmu_core/sync:spin",
    "//mmu_core/sync:timed_wait",
    "//mmu_core/testing:dirty_log",
    "//mmu_core/testing:failing_allocations",
    "//mmu_core/testing:fake_clock",
    "//mmu_core/testing:fault_injection",
    "//mmu_core/testing:interleaving",
    "//mmu_core/testing:vm_builder",
    "//mmu_core/vm/core:missing_slots",
    "//mmu_core/vm/core:nx_parameters",
    "//mmu_core/vm/core:range_check",
    "//mmu_core/vm/core:stage2_leaf_sizes",
    "//mmu_core/vm/core:vm_config",
    "//mmu_core/vm/inspect:audit",
    "//mmu_core/vm/jobs:age_sweep",
    "//mmu_core/vm/jobs:generation_scan",
    "//mmu_core/vm/jobs:recover_job",
    "//mmu_core/vm/jobs:split_job",
    "//mmu_core/vm/jobs:throttle",
    "//mmu_core/vm/run:workload",
    "//mmu_core/vm:vm",
    "//mmu_core/working_set:generation_age",
    "//mmu_core/working_set:hot_ranges",
    "//mmu_core/working_set:slot_maps",
    "//mmu_core/working_set:working_set",
    "//mmu_core/working_set:working_set_snapshot",
}

# The folders of //mmu_core:internals. They need no public target.
INTERNAL_FOLDERS = ("bench", "mmu_core", "tests")

# The benchmarks start and clear dirty logs with the helpers of tests.
MAY_LINK_TESTING = {"//bench"}

# VmState holds all parts of a VM. Users of a VM include vm.h.
VM_STATE = re.compile(r"\bVmState\b|\bmmu_core/vm/vm_state\.h\b")
MAY_NAME_VM_STATE = {"mmu_core/vm/vm.cc", "mmu_core/vm/vm.h",
                     "mmu_core/vm/vm_state.cc", "mmu_core/vm/vm_state.h"}
FOLDERS_MAY_NAME_VM_STATE = ("bench/", "mmu_core/testing/", "tests/")


# The files that may use a VM's mode: vm_config.h defines it, a configuration is
# checked against it, and MMUs, vCPUs and guests are made according to it.
# Operations do not ask for the mode, but use MmuSet, which has the MMUs.
MMU_MODE = re.compile(r"\bMmuMode::")
MAY_NAME_MMU_MODE = {"mmu_core/vm/core/mmu_mode_check.cc",
                     "mmu_core/vm/core/vm_config.h",
                     "mmu_core/vm/core/vm_config_check.cc",
                     "mmu_core/vm/core/vm_core.cc",
                     "mmu_core/vm/run/guest_system.cc",
                     "mmu_core/vm/vcpu/shadow_vcpu.cc",
                     "mmu_core/vm/vcpu/vcpu.cc"}


# Nor does the code of a VM ask which of the known MMUs the VM has, or reach for
# one of them by name, except in these files. So a further MMU needs one row in
# vm_core.cc and its own classes.
MMU_KIND = re.compile("|".join((
    # The kind itself.
    r"\bMmuKind::k", r"\bRunsOnTdp\(", r"\bHasShadowPages\(",
    r"\bRunsOnStage2\(", r"\bruns_on_tdp",
    # The member of a VM or of another object that is one of its MMUs.
    r"(?:\.|->)(?:shadow|tdp)\b(?!\()",
    r"(?:\.|->)stage2\b(?![(.])", r"\bstage2_\s*[!=]=\s*nullptr",
    # What there is only with shadow pages.
    r"\bshadow_rmaps\b", r"\bAnyIndirect",
    # Whether a pointer to the shadow MMU, or to a vCPU's part of it, is null.
    r"\bshadow(?:_|\(\))?\s*[!=]=\s*nullptr",
    r"\bnullptr\s*[!=]=\s*(?:\w+(?:\.|->))*shadow(?:_|\(\))?(?![\w.-])",
    r"(?:!|&&|\|\||\bif\s*\()\s*(?:\w+(?:\.|->))*shadow(?:_|\(\))"
    r"(?![\w.-])",
    r"\bshadow(?:_|\(\))\s*(?:\?|&&|\|\|)")))
MAY_NAME_MMU_KIND = {
    "mmu_core/vm/core/eager_split_chunk.cc": "an option of stage-2 tables",
    "mmu_core/vm/core/huge_page_sizes.cc": "says which sizes a mode means",
    "mmu_core/vm/core/shadow_hooks.cc": "the shadow MMU's call of the others",
    "mmu_core/vm/core/stage2_check.cc": "checks the options of stage 2",
    "mmu_core/vm/core/vm_config.h": "says which MMUs a mode means",
    "mmu_core/vm/core/vm_config_check.cc": "checks the options of each mode",
    "mmu_core/vm/core/vm_core.cc": "makes the MMUs",
    "mmu_core/vm/core/vm_core.h": "says which MMU the guest runs on",
    "mmu_core/vm/inspect/table_audit.cc": "counts the roots of both parts of a vCPU",
    "mmu_core/vm/run/guest_processor.cc": "a guest that needs a ShadowVcpu",
    "mmu_core/vm/run/l1_processor.cc": "a guest that needs a ShadowVcpu",
    "mmu_core/vm/vcpu/fault_handler.cc": "a fault of a vCPU on the TDP MMU",
    "mmu_core/vm/vcpu/shadow_fault.cc": "a fault of a vCPU on shadow pages",
    "mmu_core/vm/vcpu/shadow_vcpu.cc": "a vCPU on shadow pages",
    "mmu_core/vm/vcpu/stage2_fault_handler.h": "a fault of a vCPU on stage 2",
    "mmu_core/vm/vcpu/stage2_vcpu.cc": "a vCPU on stage 2",
    "mmu_core/vm/vcpu/tdp_access.cc": "an access of a vCPU on the TDP MMU",
    "mmu_core/vm/vcpu/vcpu.cc": "makes a vCPU, which has all three",
    "mmu_core/vm/vcpu/vcpu.h": "a vCPU, which has all three",
}


def askers(root, folder, question, may_ask, what):
    """Returns (number of files of `folder` read, those that match `question`
    and are not in `may_ask`). Tests are left out."""
    found = []
    files = 0
    for path in sorted((root / folder).rglob("*")):
        name = str(path.relative_to(root))
        if (path.suffix not in (".h", ".cc") or "testing" in path.parts or
                path.stem.endswith(("_test", "_test_util"))):
            continue
        files += 1
        code = re.sub(r"//.*", "", path.read_text())
        if question.search(code) and name not in may_ask:
            found.append("%s asks for the %s" % (name, what))
    return files, found


def ask_for_mode(root):
    return askers(root, "mmu_core", MMU_MODE, MAY_NAME_MMU_MODE, "MMU mode")


def ask_for_kind(root):
    return askers(root, "mmu_core/vm", MMU_KIND, MAY_NAME_MMU_KIND,
                  "kind of MMU")


def top_folder(target):
    return target.package.split("/")[0]


def users_outside(targets):
    """Returns the labels of mmu_core on which targets outside of
    INTERNAL_FOLDERS depend."""
    return {label
            for target in targets.values()
            if top_folder(target) not in INTERNAL_FOLDERS
            for label in target.deps if label.startswith("//mmu_core/")}


def wrong_visibility(targets, public_targets):
    used = users_outside(targets)
    for label, target in sorted(targets.items()):
        if top_folder(target) != "mmu_core":
            continue
        public = PUBLIC in target.visibility
        if public and label not in public_targets:
            yield "%s is public and not on the list" % label
        elif public and label not in used:
            yield "%s is public and nobody outside uses it" % label
        elif not public and label in public_targets:
            yield "%s is on the list and not public" % label
    for label in sorted(public_targets - targets.keys()):
        yield "%s is on the list and does not exist" % label


def programs_with_testing(targets):
    for label, target in sorted(targets.items()):
        # floors_test.py checks mmu_core itself.
        if (target.testonly or top_folder(target) == "mmu_core" or
                "//" + top_folder(target) in MAY_LINK_TESTING):
            continue
        for dep in target.deps:
            if dep.startswith("//mmu_core/testing:"):
                yield "%s is no test and uses %s" % (label, dep)


def names_of_vm_state(root):
    """Returns (number of files read, list of violations)."""
    found = []
    files = build_files.cc_files(root)
    for path in files:
        name = str(path)
        if (name in MAY_NAME_VM_STATE or
                name.startswith(FOLDERS_MAY_NAME_VM_STATE) or
                name.startswith("mmu_core/") and name.endswith("_test.cc")):
            continue
        code = re.sub(r"//.*", "", (root / path).read_text())
        if VM_STATE.search(code):
            found.append("%s names VmState" % name)
    return len(files), found


class VisibilityTest(unittest.TestCase):

    def test_what_is_public_is_listed_and_used(self):
        root = pathlib.Path(os.path.realpath("WORKSPACE")).parent
        targets = build_files.read_targets(root)
        self.assertGreater(len(targets), 500, "no targets found in %s" % root)
        self.assertEqual(list(wrong_visibility(targets, PUBLIC_TARGETS)), [])

    def test_no_program_has_what_is_for_tests(self):
        root = pathlib.Path(os.path.realpath("WORKSPACE")).parent
        targets = build_files.read_targets(root)
        self.assertEqual(list(programs_with_testing(targets)), [])

    def test_the_insides_of_a_vm_are_named_by_few(self):
        root = pathlib.Path(os.path.realpath("WORKSPACE")).parent
        files, found = names_of_vm_state(root)
        self.assertGreater(files, 500, "no sources found in %s" % root)
        self.assertEqual(found, [])
        for name in MAY_NAME_VM_STATE:
            self.assertTrue((root / name).is_file(), name)

    def test_no_operation_asks_for_the_mode_or_the_kind(self):
        root = pathlib.Path(os.path.realpath("WORKSPACE")).parent
        for ask, least in ((ask_for_mode, 200), (ask_for_kind, 80)):
            files, found = ask(root)
            self.assertGreater(files, least, "no sources found in %s" % root)
            self.assertEqual(found, [])

    def test_those_that_may_ask_do(self):
        root = pathlib.Path(os.path.realpath("WORKSPACE")).parent
        for question, names in ((MMU_MODE, MAY_NAME_MMU_MODE),
                                (MMU_KIND, MAY_NAME_MMU_KIND)):
            for name in names:
                code = re.sub(r"//.*", "", (root / name).read_text())
                self.assertRegex(code, question, name)

    def test_a_question_for_the_mode_or_the_kind_is_found(self):
        for ask, what, questions in (
                (ask_for_mode, "MMU mode", ("config.mmu == MmuMode::kTdp",)),
                (ask_for_kind, "kind of MMU",
                 ("RunsOnTdp(config)", "HasShadowPages(config)",
                  "vcpu.runs_on_tdp()", "mmu.kind() == MmuKind::kShadow",
                  "vm.shadow == nullptr", "vcpu.shadow() != nullptr",
                  "shadow_ != nullptr", "vm_.shadow->pages().limit() > 0",
                  "*vm.shadow", "vm.tdp.format().has_ad()",
                  "vm->shadow", "state_->shadow", "state_->tdp",
                  "state.shadow", "core.tdp", "core().shadow",
                  "!shadow_", "shadow_", "vcpu.shadow()", "!vcpu->shadow()",
                  "a && shadow_", "shadow_ && a", "shadow_ ? a : b",
                  "nullptr != shadow_", "nullptr == vcpu.shadow()",
                  "slot.shadow_rmaps() == nullptr",
                  "slot->shadow_rmaps() != nullptr", "slot.shadow_rmaps()",
                  "tracking.AnyIndirectPages()"))):
            for name in ("mmu_core/vm/x.cc", "mmu_core/vm/jobs/x.h"):
                for question in questions:
                    self.assertEqual(
                        self.in_tree({name: "if (%s) {}\n" % question}, ask),
                        (1, ["%s asks for the %s" % (name, what)]), question)
                    self.assertEqual(
                        self.in_tree({name: "// not %s\n" % question}, ask),
                        (1, []))
            for name in ("mmu_core/vm/x_test.cc", "server/x.cc"):
                self.assertEqual(self.in_tree({name: questions[0]}, ask),
                                 (0, []))
        for code in ("vm.shadow_roots", "ShadowPageLimit(vm)", "std::tdp",
                     "vcpu_.shadow()->InvalidateAll()", "shadow_(shadow)",
                     "!shadow_.roots().MakeAvailable(lock)", "report.tdp()",
                     "if (shadow_.roots_.table() != nullptr)"):
            self.assertEqual(
                self.in_tree({"mmu_core/vm/x.cc": code}, ask_for_kind),
                (1, []), code)

    def in_tree(self, files, look):
        with tempfile.TemporaryDirectory() as root:
            for name, text in files.items():
                path = pathlib.Path(root) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
            return look(pathlib.Path(root))

    def wrong_visibility_of(self, library, user, public_targets):
        files = {"mmu_core/a/BUILD.bazel":
                     'package(default_visibility = ["//mmu_core:internals"])\n'
                     'cc_library(\n    name = "a",\n%s)\n' % library,
                 user + "/BUILD.bazel":
                     'cc_library(\n    name = "u",\n'
                     '    deps = ["//mmu_core/a"],\n)\n'}
        return self.in_tree(files, lambda root: list(wrong_visibility(
            build_files.read_targets(root), public_targets)))

    def test_wrong_visibility_is_found(self):
        public = '    visibility = ["//visibility:public"],\n'
        label = "//mmu_core/a:a"
        self.assertEqual(self.wrong_visibility_of(public, "server", {label}),
                         [])
        self.assertEqual(self.wrong_visibility_of("", "bench", set()), [])
        self.assertEqual(self.wrong_visibility_of(public, "server", set()),
                         [label + " is public and not on the list"])
        for user in INTERNAL_FOLDERS:
            self.assertEqual(
                self.wrong_visibility_of(public, user, {label}),
                [label + " is public and nobody outside uses it"])
        self.assertEqual(self.wrong_visibility_of("", "server", {label}),
                         [label + " is on the list and not public"])
        self.assertEqual(
            self.wrong_visibility_of("", "bench", {"//mmu_core/a:gone"}),
            ["//mmu_core/a:gone is on the list and does not exist"])

    def test_a_whole_package_that_is_public_is_found(self):
        text = ('package(default_visibility = ["//visibility:public"])\n'
                'cc_library(\n    name = "a",\n)\n')
        self.assertEqual(
            self.in_tree({"mmu_core/a/BUILD.bazel": text},
                         lambda root: list(wrong_visibility(
                             build_files.read_targets(root), set()))),
            ["//mmu_core/a:a is public and not on the list"])

    def test_a_program_with_what_is_for_tests_is_found(self):
        def found(folder, rule, attribute=""):
            text = ('%s(\n    name = "p",%s\n'
                    '    deps = ["//mmu_core/testing:a"],\n)\n' %
                    (rule, attribute))
            return self.in_tree({folder + "/BUILD.bazel": text},
                                lambda root: list(programs_with_testing(
                                    build_files.read_targets(root))))

        self.assertEqual(
            found("server", "cc_library"),
            ["//server:p is no test and uses //mmu_core/testing:a"])
        self.assertEqual(len(found("trace", "cc_binary")), 1)
        self.assertEqual(found("server", "cc_test"), [])
        self.assertEqual(found("server", "cc_library", "testonly = True,"), [])
        self.assertEqual(found("bench", "cc_library"), [])

    def test_names_of_vm_state_are_found(self):
        def found(name, text):
            return self.in_tree({name: text}, names_of_vm_state)[1]

        for name in ("server/a.cc", "server/a_test.cc", "mmu_core/tdp/a.cc",
                     "mmu_core/vm/run/a.h", "mmu_core/tdp/a_test_util.h"):
            for text in ("void F(VmState& vm);\n",
                         '#include "mmu_core/vm/vm_state.h"\n'):
                self.assertEqual(found(name, text), [name + " names VmState"])
            self.assertEqual(found(name, "int MyVmStates;  // VmState\n"), [])
        for name in ("bench/a.cc", "tests/a/b.h", "mmu_core/testing/a.h",
                     "mmu_core/tdp/a_test.cc", "mmu_core/vm/vm.cc"):
            self.assertEqual(found(name, "VmState& vm;\n"), [])


if __name__ == "__main__":
    unittest.main()
