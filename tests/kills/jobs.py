"""The jobs: a guest is migrated, and the controller or the daemon is killed.

Each job ends with a copy that equals guest memory, or raises Failure. A job
does the same again if it has the same seed, number and options, except that
the programs' own times vary.
"""

import random
import re
import shutil

import moments
from controller import Controller
from guest import KINDS, MIB, Guest
from programs import Failure

NAME = "guest"
COMPARING = "comparing guest memory with the copy, byte by byte"
# What a controller may say of a killed daemon: no daemon; none in time; no
# guest; no log, or not this one; the guest ran in between.
ERROR = re.compile(r"(UNAVAILABLE|DEADLINE_EXCEEDED|NOT_FOUND|"
                   r"FAILED_PRECONDITION|ABORTED) ([A-Z_]+|-): ")


class Bench:
    """What all jobs share: a running daemon, what the phases of a controller
    take, and the options."""

    def __init__(self, options, programs, daemon, folder):
        self.options = options
        self.programs = programs
        self.daemon = daemon
        self.kinds = options.guests
        self.profiles = {}  # (kind, "first" or "next"): Profile
        self.controllers = []  # of the present job
        self.notes = []  # what the present job has done, for a failure
        self.job = folder / "job"  # the files of the present job

    def measure(self):
        """Migrates a guest of each kind without a kill."""
        for number, kind in enumerate(self.kinds):
            self.begin("measure", number)
            guest = self.running_guest(kind, number)
            self.migrate(guest, kind, self.new_copy("copy"), "first")
            # Until a controller has taken a log over.
            self.profiles[kind, "next"] = self.profiles[kind, "first"]
            guest.delete()

    def begin(self, target, number):
        """Begins a job in an empty folder. Returns its random numbers."""
        self.notes = []
        self.controllers = []
        shutil.rmtree(self.job, ignore_errors=True)
        self.job.mkdir()
        return random.Random(f"{self.options.seed} {target} {number}")

    def kind_of(self, number):
        return self.kinds[number % len(self.kinds)]

    def new_guest(self, kind):
        return Guest(self.daemon, NAME, kind, self.options.memory)

    def running_guest(self, kind, seed):
        guest = self.new_guest(kind)
        guest.start(seed)
        return guest

    def new_copy(self, name):
        """A file that equals no guest's memory, so a page that is never copied
        is noticed."""
        copy = self.job / name
        copy.write_bytes(b"?" * (self.options.memory * MIB))
        return copy

    def start_controller(self, copy):
        errors = self.job / f"controller{len(self.controllers)}.stderr"
        controller = Controller(self.programs, self.daemon, NAME, copy,
                                self.options.mistake, errors)
        self.controllers.append(controller)
        return controller

    def choose(self, numbers, kind, turn):
        return moments.choose(numbers, self.profiles[kind, turn],
                              self.options.phase)

    def migrate(self, guest, kind, copy, turn):
        """Runs a controller to its end. Fails unless the copy is equal."""
        controller = self.start_controller(copy)
        self.check_equal(guest, copy, controller, controller.wait())
        if controller.total is not None:
            self.profiles[kind, turn] = moments.Profile(controller)

    def check_claim(self, controller):
        """Fails unless a controller that ended with 0 has compared all of the
        guest's memory."""
        claim = controller.error()
        if f"equal: {self.options.memory * MIB} bytes" not in claim:
            raise Failure(f"the controller claims success: {claim!r}")

    def check_equal(self, guest, copy, controller, code):
        """Fails unless a controller that ended says, rightly, that the copy is
        equal."""
        if code not in (0, 1):
            raise Failure(f"the controller ended with {code} in phase "
                          f"{controller.phase!r}: {controller.error()}")
        guest.compare(copy)
        if code != 0:
            raise Failure("the controller says of an equal copy: "
                          f"{controller.error()}")
        self.check_claim(controller)
        guest.audit()

    def end(self):
        for controller in self.controllers:
            controller.end()


def kill_controllers(bench, number, tally):
    """One to three controllers are killed one after the other, each of which
    takes over from the one before. The last one must end the job, and the copy
    be equal."""
    numbers = bench.begin("controller", number)
    kind = bench.kind_of(number)
    guest = bench.running_guest(kind, number)
    copy = bench.new_copy("copy")
    phases = []
    code = None
    turn = "first"
    for _ in range(numbers.choice([1, 1, 2, 3])):
        moment = bench.choose(numbers, kind, turn)
        # A controller that dies in its last round leaves the guest paused.
        resume = numbers.random() < 0.5
        controller = bench.start_controller(copy)
        bench.notes.append(f"controller to be killed {moment}")
        controller.await_moment(moment)
        if not controller.kill():
            tally.too_late += 1
            bench.notes.append("it had ended before")
            code = controller.process.returncode
            break
        phases.append(controller.phase)
        bench.notes.append(f"killed in phase {controller.phase!r}")
        if resume:
            guest.resume()
        turn = "next"
    if code is None:
        bench.migrate(guest, kind, copy, "next")
    else:
        bench.check_equal(guest, copy, controller, code)
    guest.delete()
    for phase in phases:
        tally.kills[phase, "equal"] += 1


def kill_daemon(bench, number, tally):
    """The daemon is killed, and the guest is gone with it. The controller must
    end with an error. The next daemon gets the same socket, and a migration of
    a new guest of the same name must end with an equal copy. The next daemon is
    started after the end of the controller, or before it, with or without the
    new guest; and the new copy begins with the old one, or anew."""
    numbers = bench.begin("daemon", number)
    kind = bench.kind_of(number)
    guest = bench.running_guest(kind, number)
    copy = bench.new_copy("copy")
    restart = numbers.choice(["after the controller", "at once",
                              "at once with a guest"])
    anew = numbers.random() < 0.5
    moment = bench.choose(numbers, kind, "first")
    bench.notes.append(f"daemon to be killed {moment}, and to be started "
                       f"{restart}")
    controller = bench.start_controller(copy)
    if not controller.await_moment(moment):
        bench.check_equal(guest, copy, controller, controller.wait())
        guest.delete()
        tally.too_late += 1
        return
    bench.daemon.kill()
    # The daemon is dead: if the controller does not compare yet, it cannot end
    # with success.
    controller.read_until(controller.elapsed() + 0.001)
    phase = controller.phase
    bench.notes.append(f"killed in phase {phase!r}")
    if not bench.daemon.socket.exists():
        raise Failure("the dead daemon's socket is gone, so the start of the "
                      "next one shows nothing")
    guest = None
    if restart != "after the controller":
        bench.daemon.start()
    if restart == "at once with a guest":
        guest = bench.new_guest(kind)
    outcome = outcome_of(bench, controller, phase, guest, copy)
    if restart == "after the controller":
        bench.daemon.start()
    if guest is None:
        guest = bench.new_guest(kind)
    # The repeated call of a controller may have paused the new guest, whose
    # name is that of its own.
    guest.resume()
    guest.start(number)
    bench.notes.append(f"the controller ended: {controller.error()}; a new "
                       f"migration {'anew' if anew else 'with the same copy'}")
    if anew:
        copy = bench.new_copy("copy2")
    bench.migrate(guest, kind, copy, "first")
    guest.delete()
    if outcome is None:
        tally.too_late += 1
    else:
        tally.kills[phase, outcome] += 1


def outcome_of(bench, controller, phase, guest, copy):
    """The outcome for a controller whose daemon was killed in `phase`. `guest`
    is the one that the next daemon has, or None. Returns None if the controller
    had read all of the memory before the daemon died."""
    code = controller.wait()
    error = controller.error()
    if code == 2 and ERROR.match(error):
        return "reported " + " ".join(ERROR.match(error).groups())
    if code != 0:
        raise Failure(f"the controller ended with {code}: {error!r}")
    bench.check_claim(controller)
    if phase == COMPARING:
        return None
    if guest is None:
        raise Failure(f"the controller claims success: {error!r}")
    # Its start of the log was repeated, and so it has migrated the new guest.
    guest.compare(copy)
    return "equal"


JOBS = {"controller": kill_controllers, "daemon": kill_daemon}
GUESTS = list(KINDS)
