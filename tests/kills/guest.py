"""A guest that writes to its memory while it is migrated."""

import json
import pathlib

from programs import Failure

MIB = 1 << 20
PAGE = 4096

# Flags of `mmuctl vm create`, by the kind of the guest's MMU and log.
KINDS = {
    "tdp": [],
    "tdp-rings": ["--dirty-ring-entries", "4096"],
    "tdp-pml": ["--pml", "on"],
    "tdp-shadow": ["--mmu", "tdp-shadow"],
    "shadow": ["--mmu", "shadow", "--guest-large-pages"],
    "nested": ["--mmu", "nested", "--guest-large-pages"],
    "stage2": ["--mmu", "stage2", "--eager-split-chunk", "2MiB"],
    "stage2-dirty-state": ["--mmu", "stage2", "--granule", "16KiB",
                           "--hardware-access-flag", "--hardware-dirty-state"],
}


class Guest:
    """The guest vms/`name` of a daemon. It does nothing until it is started."""

    def __init__(self, daemon, name, kind, mib):
        self.daemon = daemon
        self.name = name
        self.size = mib * MIB
        daemon.run("vm", "create", name, "--vcpus", "2", "--memory",
                   f"{mib}MiB", "--host-page-size", "2m", *KINDS[kind])

    def start(self, seed):
        """Lets the guest write to all of its pages, and then go on writing
        with two vCPUs."""
        self.daemon.run("workload", "start", self.name, "--pattern",
                        "sequential", "--write-fraction", "1", "--vcpus", "1",
                        "--count", str(self.size // PAGE), "--watch")
        self.daemon.run("workload", "start", self.name, "--pattern", "zipf",
                        "--write-fraction", "1", "--rate", "50000", "--seed",
                        str(seed))

    def resume(self):
        self.daemon.run("vm", "resume", self.name)

    def compare(self, file):
        """Fails unless the file equals the memory of the paused guest."""
        whole = pathlib.Path(f"{file}.memory")
        self.daemon.run("memory", "read", self.name, f"0+{self.size}",
                        "--output", str(whole))
        memory, copy = whole.read_bytes(), pathlib.Path(file).read_bytes()
        if len(memory) != self.size or len(copy) != self.size:
            raise Failure(f"UNEQUAL: the guest has {self.size} bytes, the copy "
                          f"{len(copy)}, and {len(memory)} were read")
        if memory != copy:
            pages = [at // PAGE for at in range(0, self.size, PAGE)
                     if memory[at:at + PAGE] != copy[at:at + PAGE]]
            raise Failure(f"UNEQUAL: {len(pages)} pages of the copy differ "
                          f"from guest memory; the first are {pages[:8]}")

    def audit(self):
        """Fails if the daemon's auditor finds a broken invariant, or if the
        guest has ended or writes nothing: its copy would prove nothing."""
        self.daemon.run("debug", "audit", self.name)
        text = self.daemon.run("--json", "workload", "status", self.name)
        workload = json.loads(text)
        writes = int(workload["statistics"]["write_count"])
        if workload["state"] != "WORKLOAD_STATE_RUNNING" or writes == 0:
            raise Failure(f"the guest did not write all the time: {text}")

    def delete(self):
        self.daemon.run("workload", "stop", self.name)
        self.daemon.run("vm", "delete", self.name)
