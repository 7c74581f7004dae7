"""Ten thousand tasks, each cancelled at a random moment; fewer in less than ten minutes.

They stand in line for a pool of few connections, which nothing else strikes: each place and each
connection must be there for the next one.
"""

import random
import time

from tests.soak.jobs import Job
from tests.soak.operations import many_numbers, nap

_AT_ONCE = 100
_MOST = 10_000


class _Cancelled(Job):
    """A task that is cancelled, if it does not end before."""

    def __init__(self, soak, rng):
        super().__init__(soak, rng)
        self.is_sound, self.way, self.is_native = True, "pool", False
        self.operations = rng.choices([nap, many_numbers], k=2)
        self.moments = [rng.random() * rng.choice([0.01, 0.1, 1.0])]


class Storm:
    """All of them, a hundred at once, spread over the run."""

    def __init__(self, soak):
        self.soak = soak
        self.count = int(_MOST * min(1.0, soak.minutes / 10))
        self.done = 0
        self.began = time.monotonic()

    @property
    def is_over(self):
        return self.done >= self.count

    def is_due(self, end):
        """Are there fewer by now than the time says? At the *end* all are."""
        now = time.monotonic()
        return self.done / self.count <= (now - self.began) / (end - self.began)

    def play(self):
        """Play the next hundred."""
        rng = self.soak.rng
        jobs = [_Cancelled(self.soak, random.Random(rng.random())) for _ in range(_AT_ONCE)]
        self.soak.context.play(jobs)
        self.soak.judge(jobs)
        self.done += len(jobs)
        self.soak.counts["tasks of the storm"] += len(jobs)
        self.soak.check_pools()
