"""The daemon, and mmuctl for its guests."""

import os
import subprocess
import time

from programs import Failure


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
