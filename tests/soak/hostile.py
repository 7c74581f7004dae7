"""The jobs that have to do with a hostile server: each call ends in time, whatever that does."""

import traceback

from tests.lab.hostile_server import Plan
from tests.lab.hostile_trial import Trial

PLANS = 50  # for each context
_MARGIN = 20.0  # seconds; the others of the context and the other contexts need the CPUs as well
_INTERRUPTED = 0.3  # of all


def plans(seed, rng):
    """Return arguments of ``HostileServer.port()``. Most floods are slow: the others go on."""
    for number in range(PLANS):
        yield {"seed": f"{seed}-{number}", "pause": rng.choice([0.0, 0.002, 0.002, 0.01])}


class Hostile(Trial):
    """Such a job."""

    way, conn = "hostile", None

    def __init__(self, soak, rng, grace):
        self.plan, port = rng.choice(soak.hostile)
        super().__init__(str(rng.random()), port, grace=grace, margin=_MARGIN)
        self.soak = soak
        self.moments = []
        if rng.random() < _INTERRUPTED:
            self.moments.append(rng.choice([0.01, 0.3, 1.0]) * rng.random())
        self.was_begun = self.was_canceled = False

    def __call__(self):
        self.was_begun = True
        try:
            self.play()
        except self.soak.context.interrupts:
            self.soak.counts["interrupted at a hostile server's"] += 1
            raise
        except BaseException:
            self.problems.append(traceback.format_exc())
        finally:
            self.soak.counts["calls to a hostile server"] += len(self.outcomes)
            self.is_over = True

    def judge(self):
        """Return None if all is well, or what is wrong."""
        if self.was_begun and not self.is_over:
            self.problems.append("it has not ended")
        if not self.problems:
            return None
        plan = Plan.of(**self.plan)
        return "\n".join([f"{plan}, interrupted at {self.moments}", *self.outcomes, *self.problems])
