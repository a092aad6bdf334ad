"""A daemon under load: a guest that writes, a split that goes on, a dirty log
that is harvested, and an ager."""

import sys
import threading

from prometheus import ROOT

sys.path.insert(0, str(ROOT / "tests/client"))

from daemon import Daemon


class LoadedDaemon:
    """Runs until the end of `with`."""

    def __init__(self):
        self.daemon = Daemon()
        self.stopped = threading.Event()
        self.rounds = threading.Thread(target=self.harvest)

    def __enter__(self):
        self.daemon.__enter__()
        must = self.daemon.must
        must("vm", "create", "alpha", "--vcpus", "2", "--memory", "512MiB",
             "--host-page-size", "2m")
        must("workload", "start", "alpha", "--pattern", "zipf", "--rate",
             "20000")
        # 128Ki pages: this lasts longer than the test.
        must("split", "start", "alpha", "--max-pages-per-second", "300")
        must("dirty-log", "start", "alpha", "--split", "none", "--lease", "1h")
        must("ager", "alpha", "--on", "--min-interval", "100ms",
             "--max-interval", "1s")
        self.rounds.start()
        return self

    def __exit__(self, *what):
        self.stopped.set()
        self.rounds.join()
        self.daemon.__exit__(*what)

    def harvest(self):
        """Round after round, as a migration does. Pages are in flight for the
        time between two scrapes."""
        while not self.stopped.is_set():
            self.daemon.must("dirty-log", "harvest", "alpha")
            self.stopped.wait(1.5)
            self.daemon.must("dirty-log", "ack", "alpha")

    def target(self):
        """HOST:PORT of its metrics."""
        ports = dict(line.split("=") for line in
                     (self.daemon.folder / "ports").read_text().split())
        return f"127.0.0.1:{ports['metrics']}"
