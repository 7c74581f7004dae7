"""A program of one context's that has to do with a hostile server.

    python -m tests.programs.hostile_client CONTEXT TRIALS

TRIALS are in JSON: seeds, and the ports at which they are played. It says in JSON what is wrong
with each, if anything is; it ends with exit status 1 where one hangs.
"""

import contextlib
import faulthandler
import json
import os
import random
import sys
import time
from typing import Any

from tests.lab.bounds import bound
from tests.lab.hostile_trial import GRACE, Trial
from tests.soak.contexts import CONTEXTS
from tests.soak.growth import MARGINS, Sample

AT_ONCE = 6
_HANGS = bound(50)  # seconds
_MAY_GROW_KB = 128 * 1024


def _descriptors() -> list[str]:
    found = []
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.append(f"{number}: {os.readlink(f'/proc/self/fd/{number}')}")
    return found


def main() -> None:
    kind, seeds = sys.argv[1], json.loads(sys.argv[2])
    faulthandler.dump_traceback_later(_HANGS, exit=True)
    context: Any = CONTEXTS[kind](random.Random(kind))
    context.install(cancel_grace=GRACE)
    trials = [Trial(seed, port) for seed, port in seeds]
    # What makes descriptors or needs memory once, the first makes.
    context.play(trials[:1])
    before = Sample.take()
    for first in range(1, len(trials), AT_ONCE):
        context.play(trials[first : first + AT_ONCE])
    context.end()
    told: dict[str, Any] = {
        trial.seed: trial.problems + trial.outcomes if trial.problems or not trial.is_over else []
        for trial in trials
    }
    told["outcomes"] = {trial.seed: trial.outcomes for trial in trials}
    give_up = time.monotonic() + 5
    while True:
        context.pause(0.1)
        after = Sample.take()
        if (
            after.descriptors <= before.descriptors + MARGINS.descriptors
            and after.threads <= before.threads + MARGINS.threads
        ):
            break
        if time.monotonic() > give_up:
            told["left"] = [f"{before} before, {after} after", *_descriptors()]
            break
    if after.resident_kb > before.resident_kb + _MAY_GROW_KB:
        told["memory"] = [f"{before} before, {after} after"]
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
