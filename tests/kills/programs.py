"""The programs that a run starts: the daemon, mmuctl and the controller."""

import os
import pathlib
import re
import select
import subprocess
import time


class Failure(Exception):
    """Something that must not happen, in words."""


class Programs:
    """Where the programs are. `folder` is bazel-bin, or the runfiles."""

    def __init__(self, folder):
        self.mmud = folder / "server/mmud"
        self.mmuctl = folder / "client/mmuctl/mmuctl"
        self.controller = folder / "tests/kills/controller"

    def missing(self):
        return [p for p in (self.mmud, self.mmuctl, self.controller)
                if not os.access(p, os.X_OK)]


class Daemon:
    """mmud on one socket, which it shares with the daemons before it."""

    def __init__(self, programs, folder, seconds):
        self.program = programs.mmud
        self.mmuctl = programs.mmuctl
        self.folder = folder
        self.socket = folder / "mmud.sock"
        self.address = f"unix:{self.socket}"
        self.seconds = seconds
        self.process = None

    def start(self):
        """Starts the daemon and waits until it serves."""
        ports = self.folder / "ports"
        ports.unlink(missing_ok=True)
        # The log is that of the present daemon and the one before it.
        log = self.folder / "mmud.log"
        if log.exists():
            log.rename(self.folder / "mmud.log.former")
        with open(log, "wb") as out:
            self.process = subprocess.Popen(
                [self.program, f"--listen={self.address}",
                 f"--port-file={ports}", "--metrics-address=127.0.0.1:0",
                 "--enable-debug-service"], stdout=out, stderr=out)
        end = time.monotonic() + self.seconds
        # The file is written once the daemon serves.
        while not ports.exists():
            if self.process.poll() is not None:
                raise Failure("the daemon ended at its start with "
                              f"{self.process.returncode}")
            if time.monotonic() > end:
                raise Failure("the daemon did not serve within "
                              f"{self.seconds} s")
            time.sleep(0.005)

    def kill(self):
        """SIGKILL. Fails if the daemon had ended before."""
        if self.process.poll() is not None:
            raise Failure("the daemon ended by itself with "
                          f"{self.process.returncode}")
        self.process.kill()
        self.process.wait()

    def end(self):
        if self.process is not None and self.process.poll() is None:
            self.kill()

    def run(self, *words):
        """Runs mmuctl, which must succeed. Returns what it prints."""
        try:
            result = subprocess.run(
                [self.mmuctl, *words], capture_output=True, text=True,
                timeout=self.seconds, check=False,
                env=dict(os.environ, MMUD_ADDRESS=self.address,
                         XDG_RUNTIME_DIR=str(self.folder)))
        except subprocess.TimeoutExpired as late:
            raise Failure(f"mmuctl {' '.join(words)} did not end within "
                          f"{self.seconds} s") from late
        if result.returncode != 0:
            raise Failure(f"mmuctl {' '.join(words)}: {result.returncode}\n"
                          f"{result.stdout}{result.stderr}")
        return result.stdout


class Controller:
    """A controller that runs, and the phases that it has reached."""

    def __init__(self, programs, daemon, vm, destination, mistake):
        words = [programs.controller, daemon.address, vm, str(destination)]
        self.errors = pathlib.Path(f"{destination}.stderr")
        self.seconds = daemon.seconds
        self.step = ""
        self.phases = [("start", 0.0)]  # (phase, seconds since the start)
        self.rest = b""
        self.began = time.monotonic()
        with open(self.errors, "wb") as err:
            self.process = subprocess.Popen(
                words + ([mistake] if mistake else []), stdout=subprocess.PIPE,
                stderr=err)
        self.total = None  # seconds it has run, once it has ended

    @property
    def phase(self):
        return self.phases[-1][0]

    def elapsed(self):
        return time.monotonic() - self.began

    def read_until(self, seconds, reached=lambda: False):
        """Follows the phases until `seconds` since the start, until reached()
        or until the controller has ended, which is True."""
        while not reached():
            left = seconds - self.elapsed()
            if left <= 0:
                return False
            if not select.select([self.process.stdout], [], [], left)[0]:
                return False
            part = os.read(self.process.stdout.fileno(), 65536)
            if not part:
                return True
            *lines, self.rest = (self.rest + part).split(b"\n")
            for line in lines:
                self.enter(line.decode())
        return False

    def enter(self, line):
        kind, _, words = line.partition(" ")
        if kind == "step":
            words = re.sub(r"vms/\S+", "the guest", words)
            self.step = re.sub(r"round \d+", "round", words)
            phase = self.step
        else:
            phase = f"{self.step}; pages {words}"
        self.phases.append((phase, self.elapsed()))

    def await_moment(self, moment):
        """Waits until the moment. False if the controller has ended before."""
        if moment.phase is None:
            return not self.read_until(moment.seconds)

        def reached():
            names = [phase for phase, _ in self.phases]
            return names.count(moment.phase) >= moment.occurrence

        if self.read_until(self.seconds, reached):
            return False
        if not reached():
            raise Failure(f"the controller did not reach {moment} within "
                          f"{self.seconds} s; its phase is {self.phase!r}")
        return not self.read_until(self.elapsed() + moment.seconds)

    def kill(self):
        """SIGKILL, and waits. False if the controller had ended before."""
        self.process.kill()
        return self.wait() == -9

    def wait(self):
        """Waits for the end; fails if there is none. Returns the exit code,
        -N after signal N."""
        limit = self.elapsed() + self.seconds
        if not self.read_until(limit):
            self.process.kill()
            self.process.wait()
            raise Failure("the controller did not end within "
                          f"{self.seconds} s; its phase is {self.phase!r}")
        code = self.process.wait()
        self.process.stdout.close()
        self.total = self.elapsed()
        return code

    def end(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def error(self):
        """The last line of its standard error."""
        lines = self.errors.read_text(errors="replace").splitlines()
        return lines[-1] if lines else ""
