"""The real daemon and the real mmuctl, for tests in Python."""

import os
import pathlib
import shutil
import subprocess
import tempfile
import time

# A test runs in the root of its runfiles.
ROOT = pathlib.Path.cwd()
MMUD = ROOT / "server/mmud"
MMUCTL = ROOT / "client/mmuctl/mmuctl"


class Daemon:
    """mmud on a socket of its own; killed at the end of `with`."""

    def __init__(self, *flags):
        self.folder = pathlib.Path(tempfile.mkdtemp(dir="/tmp"))
        self.address = f"unix:{self.folder}/mmud.sock"
        self.flags = flags
        self.log = None
        self.process = None

    def __enter__(self):
        ports = self.folder / "ports"
        self.log = open(self.folder / "mmud.log", "w+")
        self.process = subprocess.Popen(
            [MMUD, f"--listen={self.address}", f"--port-file={ports}",
             "--metrics-address=127.0.0.1:0", f"--trace-dir={ROOT}/traces",
             "--enable-debug-service", *self.flags],
            stdout=self.log, stderr=self.log)
        # The file is written once the daemon serves.
        while not ports.exists():
            if self.process.poll() is not None:
                raise AssertionError("mmud ended:\n" +
                                     (self.folder / "mmud.log").read_text())
            time.sleep(0.01)
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.log.close()
        shutil.rmtree(self.folder)

    def environment(self):
        # Owner tokens of dirty logs go where the daemon's own files are.
        return dict(os.environ, MMUD_ADDRESS=self.address,
                    XDG_RUNTIME_DIR=str(self.folder),
                    PATH=f"{MMUCTL.parent}:{os.environ['PATH']}")

    def run(self, *words, stdin="", **variables):
        """Runs mmuctl to its end, with these variables besides."""
        return subprocess.run([MMUCTL, *words],
                              env=self.environment() | variables, input=stdin,
                              capture_output=True, text=True, timeout=120)

    def must(self, *words, stdin="", **variables):
        """What mmuctl prints, where it must succeed."""
        result = self.run(*words, stdin=stdin, **variables)
        if result.returncode != 0:
            raise AssertionError(f"mmuctl {words}: {result.returncode}\n"
                                 f"{result.stdout}{result.stderr}")
        return result.stdout


def commands():
    """Every command of mmuctl, as a list of words behind "mmuctl"."""
    text = subprocess.run([MMUCTL, "help", "--all"], check=True,
                          capture_output=True, text=True).stdout
    # A table: the command, two blanks or more, what it does; lines that go on
    # begin with blanks.
    return [line.split("  ")[0].split()[1:] for line in text.splitlines()[1:]
            if not line.startswith(" ")]
