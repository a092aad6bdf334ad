"""Where the programs are that a run starts."""

import os


class Failure(Exception):
    """Something that must not happen, in words."""


class Programs:
    """The programs in `folder`, which is bazel-bin, or the runfiles."""

    def __init__(self, folder):
        self.mmud = folder / "server/mmud"
        self.mmuctl = folder / "client/mmuctl/mmuctl"
        self.controller = folder / "tests/kills/controller"

    def missing(self):
        return [p for p in (self.mmud, self.mmuctl, self.controller)
                if not os.access(p, os.X_OK)]
