"""A copy of the tree in which every mutant waits for its run-time switch.

`statement` becomes `if (Active(n)) { new } else { statement }`, and an
expression becomes `(Active(n) ? (new) : (expression))`. Active(n) is true in a
process whose environment has MMU_MUTANT=n. So one build serves all mutants. The
first time that it is true it makes the file named by MMU_MUTANT_TRACE: the tests
have reached the mutant. Each source that has a switch begins with the code of
Active, so no BUILD file differs.
"""

import os
import pathlib
import re
import subprocess

import mutant_list

SWITCH = """// Made by tools/mutants.

#ifndef MMU_MUTANTS_SWITCH_
#define MMU_MUTANTS_SWITCH_

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <optional>  // for mutants that leave out a scope's guard

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

#endif  // MMU_MUTANTS_SWITCH_

"""


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
    return SWITCH + render(sites_of(mutants, text), text, 0, len(text))


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
    """The folder of the file's package; None if it is in none."""
    folder = pathlib.PurePath(name).parent
    while not (root / folder / "BUILD.bazel").is_file():
        if folder == folder.parent:
            return None
        folder = folder.parent
    return folder


def woven_sources(root, mutants):
    """The text of each source of `mutants`, with their switches."""
    of_file = {}
    for mutant in mutants:
        if not mutant.equivalent:
            of_file.setdefault(mutant.get("file"), []).append(mutant)
    return {name: weave(its, (root / name).read_text())
            for name, its in of_file.items()}


def make_copy(root, tree, mutants):
    """Makes or refreshes a copy of the project in `tree`, with `mutants`."""
    make(root, tree, files_of(root), woven_sources(root, mutants))


def make_packages(root, tree, mutants):
    """Makes or refreshes in `tree` the packages that `mutants` break, only.
    Bazel takes them instead of the project's own with --package_path."""
    woven = woven_sources(root, mutants)
    packages = {package_of(root, name) for name in woven}
    make(root, tree, [name for name in files_of(root)
                      if package_of(root, name) in packages], woven)


def make(root, tree, names, woven):
    """Makes `tree` hold the files `names`. Writes only what has changed."""
    for name in names:
        write(root / name, tree / name, woven.get(name))
    kept = set(names)
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
    os.chmod(target, source.stat().st_mode)
