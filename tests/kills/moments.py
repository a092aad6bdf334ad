"""At which moment of its job a program is killed."""

from programs import Failure


class Moment:
    """`seconds` after the start of the controller, or after it has entered
    `phase` for the `occurrence`th time."""

    def __init__(self, seconds, phase=None, occurrence=0):
        self.seconds = seconds
        self.phase = phase
        self.occurrence = occurrence

    def __str__(self):
        after = (f"phase {self.phase!r} number {self.occurrence}" if self.phase
                 else "the start")
        return f"{1000 * self.seconds:.1f} ms after {after}"


class Profile:
    """The phases of a controller that was not killed, with their times."""

    def __init__(self, controller):
        self.total = controller.total
        self.phases = {}  # phase: [seconds of each occurrence]
        ends = [start for _, start in controller.phases[1:]] + [self.total]
        for (phase, start), end in zip(controller.phases, ends):
            self.phases.setdefault(phase, []).append(end - start)


def choose(random, profile, wanted):
    """Chooses a moment. Half of the moments are spread over the time of the
    job, so long phases have most of them. The other half is spread over the
    phases, and of those a quarter is right at the beginning of the phase. With
    `wanted`, only phases whose name contains it are chosen. The number of
    random numbers taken is always the same, so a job with the same seed makes
    the same choices, although its phases take other times."""
    kind, which, occurrence, early, share = (random.random() for _ in range(5))
    if kind < 0.5 and not wanted:
        return Moment(share * profile.total)
    names = [name for name in profile.phases if wanted in name]
    if not names:
        raise Failure(f"no phase has {wanted!r} in its name; the phases are "
                      f"{', '.join(map(repr, profile.phases))}")
    name = names[int(which * len(names))]
    durations = profile.phases[name]
    number = int(occurrence * len(durations))
    delay = 0.0 if early < 0.25 else share * durations[number]
    return Moment(delay, name, number + 1)
