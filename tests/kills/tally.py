"""What the kills of a run have led to."""

import collections


class Tally:
    """Kills by phase and outcome."""

    def __init__(self):
        self.kills = collections.Counter()  # (phase, outcome)
        self.too_late = 0  # programs that had ended before they were killed

    @property
    def total(self):
        return sum(self.kills.values())

    def table(self):
        """Lines: phase, outcome, count; and the sums of the outcomes."""
        lines = []
        for (phase, outcome), count in sorted(self.kills.items()):
            lines.append(f"{count:6}  {phase:64}  {outcome}")
        sums = collections.Counter()
        for (_, outcome), count in self.kills.items():
            sums[outcome] += count
        lines.append("")
        for outcome, count in sorted(sums.items()):
            lines.append(f"{count:6}  {'in all':64}  {outcome}")
        return lines
