"""Finds uses of folders that stand above, or beside on the same floor, below one
top folder of the source tree. For the tests in this folder that name the floors.
"""

import collections
import pathlib

import build_files

# A C++ file or target `user` of the folder `folder` uses the header or target
# `used` of the folder `used_folder`.
Use = collections.namedtuple("Use", "user folder used used_folder is_test")


def folder_of(top, path):
    """Of "mmu_core/vm/core/vm_core.h" and of "mmu_core/vm/core": "vm/core"; of
    "server/daemon.h" and of "server": ""."""
    path = pathlib.PurePosixPath(path)
    folder = (path.parent if path.suffix else path).relative_to(top)
    return "" if folder == pathlib.PurePosixPath() else str(folder)


def no_floor(top, name, folder):
    return ["%s: the folder %s has no floor" %
            (name, "%s/%s" % (top, folder) if folder else top)]


def uses_of_files(root, top, files):
    for path in files:
        for name in build_files.includes_of(root, path):
            if name.startswith(top + "/"):
                yield Use(str(path), folder_of(top, path), name,
                          folder_of(top, name),
                          path.name.endswith("_test.cc"))


def uses_of_targets(root, top):
    for target in build_files.read_targets(root).values():
        if not target.is_cc() or not is_below(top, target.package):
            continue
        for label in target.deps:
            if label.startswith("//") and is_below(
                    top, build_files.package_of(label)):
                yield Use(target.label, folder_of(top, target.package), label,
                          folder_of(top, build_files.package_of(label)),
                          target.kind in build_files.TEST_KINDS)


def is_below(top, package):
    return package == top or package.startswith(top + "/")


def violations(root, top, floors, wrong_use):
    """`floors`: the folders that have a floor. `wrong_use` takes a Use of two of
    them and returns [] if it is allowed, else one line that says why not.
    Returns (number of C++ files read, list of violations)."""
    files = [path for path in build_files.cc_files(root)
             if path.parts[0] == top]
    found = []
    for path in files:
        if folder_of(top, path) not in floors:
            found += no_floor(top, path, folder_of(top, path))
    for use in (*uses_of_files(root, top, files), *uses_of_targets(root, top)):
        if use.folder not in floors:
            # Said above, unless the folder has no C++ file.
            found += [line for line in no_floor(top, use.user, use.folder)
                      if line not in found]
        elif use.used_folder not in floors:
            found += no_floor(top, use.used, use.used_folder)
        else:
            found += wrong_use(use)
    return len(files), found
