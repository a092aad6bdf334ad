"""A copy of the tree in which every mutant waits for its run-time switch.

`statement` becomes `if (Active(n)) { new } else { statement }`, and an
expression becomes `(Active(n) ? (new) : (expression))`. Active(n) is true in a
process whose environment has MMU_MUTANT=n. So one build serves all mutants. The
first time that it is true it makes the file named by MMU_MUTANT_TRACE: the tests
have reached the mutant.
"""

import os
import pathlib
import re
import subprocess

import mutant_list

SWITCH_PATH = "mmu_core/base/mutant_switch.h"
SWITCH = """// Made by tools/mutants.

#ifndef MMU_CORE_BASE_MUTANT_SWITCH_H_
#define MMU_CORE_BASE_MUTANT_SWITCH_H_

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdlib>

#ifdef __clang__
#pragma clang diagnostic ignored "-Weverything"
#endif

namespace mmu_mutants {

inline unsigned long ReadActive() {
  const char* const number = std::getenv("MMU_MUTANT");
  return number == nullptr ? 0 : std::strtoul(number, nullptr, 10);
}
inline const unsigned long active = ReadActive();
inline const char* const trace = std::getenv("MMU_MUTANT_TRACE");
inline std::atomic<bool> traced = false;

// May run in a signal handler and under any lock. System calls, since TSan takes
// a file that several threads open for an order between them.
inline void LeaveTrace() {
  if (traced.exchange(true, std::memory_order_relaxed)) return;
  const int kept = errno;
  const long fd = trace == nullptr ? -1
                                   : syscall(SYS_openat, AT_FDCWD, trace,
                                             O_CREAT | O_WRONLY | O_CLOEXEC,
                                             0600);
  if (fd >= 0) syscall(SYS_close, fd);
  errno = kept;
}

inline bool Active(unsigned long number) {
  if (__builtin_expect(active != number, 1)) return false;
  if (!traced.load(std::memory_order_relaxed)) LeaveTrace();
  return true;
}

}  // namespace mmu_mutants

#endif  // MMU_CORE_BASE_MUTANT_SWITCH_H_
"""
SWITCH_RULE = """
cc_library(
    name = "mutant_switch",
    hdrs = ["mutant_switch.h"],
    visibility = ["//visibility:public"],
)
"""
RULE = re.compile(r"^cc_\w+\($.*?^\)$", re.MULTILINE | re.DOTALL)


class Site:
    """One text of a source, the mutants of it, and the sites within it."""

    def __init__(self, start, end):
        self.start = start
        self.end = end
        self.mutants = []
        self.inner = []


def sites_of(mutants, text):
    """The outermost sites of `mutants`, all of one source, in order."""
    code = mutant_list.without_comments(text)
    by_place = {}
    for mutant in mutants:
        place = mutant_list.place_of(mutant, code)
        by_place.setdefault(place, Site(*place)).mutants.append(mutant)
    top = []
    open_sites = []
    for place in sorted(by_place, key=lambda p: (p[0], -p[1])):
        site = by_place[place]
        while open_sites and open_sites[-1].end <= site.start:
            open_sites.pop()
        if open_sites and site.end > open_sites[-1].end:
            raise mutant_list.ListError(
                "%s and %s break overlapping texts; let one contain the other"
                % (open_sites[-1].mutants[0].name, site.mutants[0].name))
        kinds = {mutant.kind for mutant in site.mutants}
        if len(kinds) > 1:
            raise mutant_list.ListError(
                "%s: the same text as a statement and as an expression" %
                site.mutants[0].where)
        (open_sites[-1].inner if open_sites else top).append(site)
        open_sites.append(site)
    return top


def weave(mutants, text):
    """The source `text` with the switches of `mutants`, which are all of it."""
    woven = render(sites_of(mutants, text), text, 0, len(text))
    return '#include "%s"\n%s' % (SWITCH_PATH, woven)


def render(sites, text, start, end):
    parts = []
    for site in sites:
        parts.append(text[start:site.start])
        old = render(site.inner, text, site.start, site.end)
        alone = site.mutants[0].kind == "text"
        if alone and (site.inner or len(site.mutants) > 1):
            raise mutant_list.ListError(
                "%s: a text can be broken in one way only" %
                site.mutants[0].where)
        for mutant in site.mutants:
            active = "::mmu_mutants::Active(%dul)" % mutant.number
            if mutant.kind == "text":
                old = re.sub(r"\bACTIVE\b", active, mutant.new)
            elif mutant.kind == "expression":
                old = "(%s ? (%s) : (%s))" % (active, mutant.new, old)
            else:
                old = "{ if (%s) { %s } else { %s\n} }" % (active, mutant.new,
                                                          old)
        parts.append(old)
        start = site.end
    return "".join(parts) + text[start:end]


def add_dependency(build, sources):
    """The BUILD file in which the rules of `sources` may use the switch."""
    def edit(match):
        rule = match.group(0)
        if not any('"%s"' % source in rule for source in sources):
            return rule
        label = '"//mmu_core/base:mutant_switch",'
        edited, found = re.subn(r"^(    deps = \[)", r"\1\n        " + label,
                                rule, count=1, flags=re.MULTILINE)
        if not found:
            edited = rule[:-1] + "    deps = [%s],\n)" % label
        return edited
    return RULE.sub(edit, build)


def files_of(root):
    """The project's files; for a tree without git, all files."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "-c", "-o", "--exclude-standard"], cwd=root,
        capture_output=True, check=False)
    if listed.returncode == 0:
        names = listed.stdout.decode().split("\0")
        return [name for name in names if name and (root / name).is_file()]
    return [str(path.relative_to(root)) for path in sorted(root.rglob("*"))
            if path.is_file()]


def package_of(root, name):
    folder = pathlib.PurePath(name).parent
    while not (root / folder / "BUILD.bazel").is_file():
        if folder == folder.parent:
            raise mutant_list.ListError("%s is in no package" % name)
        folder = folder.parent
    return folder


def make(root, tree, mutants):
    """Makes or refreshes the copy in `tree`. Writes only what has changed."""
    of_file = {}
    for mutant in mutants:
        if not mutant.equivalent:
            of_file.setdefault(mutant.get("file"), []).append(mutant)
    changed = {SWITCH_PATH: SWITCH}
    sources = {pathlib.PurePath("mmu_core/base"): []}
    for name, its in of_file.items():
        changed[name] = weave(its, (root / name).read_text())
        folder = package_of(root, name)
        sources.setdefault(folder, []).append(
            str(pathlib.PurePath(name).relative_to(folder)))
    for folder, names in sources.items():
        build = add_dependency((root / folder / "BUILD.bazel").read_text(),
                               names)
        if folder == pathlib.PurePath("mmu_core/base"):
            build += SWITCH_RULE
        changed[str(folder / "BUILD.bazel")] = build
    kept = set(files_of(root)) | set(changed)
    for name in kept:
        write(root / name, tree / name, changed.get(name))
    for path in sorted(tree.rglob("*"), reverse=True):
        name = str(path.relative_to(tree))
        if name.startswith("bazel-"):
            continue
        if (path.is_file() or path.is_symlink()) and name not in kept:
            path.unlink()


def write(source, target, text):
    """Makes `target` equal to `text`, or to `source` if that is None."""
    content = source.read_bytes() if text is None else text.encode()
    if target.is_file() and target.read_bytes() == content:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)
    if source.is_file():
        os.chmod(target, source.stat().st_mode)
