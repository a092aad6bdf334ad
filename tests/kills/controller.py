"""A controller that runs, and the phases of its job."""

import os
import re
import select
import subprocess
import time

from programs import Failure


class Controller:
    """A controller that runs, and the phases that it has reached."""

    def __init__(self, programs, daemon, vm, destination, mistake, errors):
        """`errors` is the file for its standard error."""
        words = [programs.controller, daemon.address, vm, destination]
        self.errors = errors
        self.seconds = daemon.seconds
        self.step = ""
        self.phases = [("start", 0.0)]  # (phase, seconds since the start)
        self.rest = b""
        self.began = time.monotonic()
        with open(errors, "wb") as err:
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
