"""A program of one context's that has to do with a hostile server.

    python -m tests.hostile_client CONTEXT TRIALS

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
import traceback
from typing import Any

import psycopg2

import greenwait
from tests.hostile_server import dsn
from tests.soak.contexts import CONTEXTS
from tests.soak.growth import MARGINS, Sample

LIMIT = GRACE = 0.3  # seconds
MARGIN = 4.0  # for a busy machine, and for the others of the thread, whose parsing holds the GIL
AT_ONCE = 6
_HANGS = 50  # seconds
_MAY_GROW_KB = 128 * 1024
#: What psycopg2 raises of its own accord where a server sends what can't be decoded.
_OF_PSYCOPG2 = (psycopg2.Error, ValueError)


class _OwnPoll(psycopg2.extensions.connection):
    def poll(self):
        return super().poll()


class Trial:
    """A few calls, each with a time limit of its own."""

    def __init__(
        self, seed: str, port: int, *, grace: float = GRACE, margin: float = MARGIN
    ) -> None:
        self.seed = seed
        self.problems: list[str] = []
        self.outcomes: list[str] = []
        self._longest = LIMIT + grace + margin
        self._rng = random.Random(f"{seed}-client")
        self._dsn = dsn(port, sslmode=self._rng.choice(["disable", "prefer", "prefer"]))
        self._conn: Any = None

    moments: Any = ()  # as a job of the soak's has them
    is_native = is_over = False

    def __call__(self) -> None:
        try:
            self.play()
        except BaseException:
            self.problems.append(traceback.format_exc())
        self.is_over = True

    def play(self) -> None:
        try:
            self._play()
        finally:
            if self._conn is not None:
                self._do("close", self._conn.close)
            self._conn = None  # and with it all that it was notified of

    def _play(self) -> None:
        kind = self._rng.choice(["plain", "plain", "shared", "own poll", "async", "pool"])
        if kind == "pool":
            self._borrow()
            return
        if not self._do(f"connect {kind}", lambda: self._connect(kind)):
            return
        steps = [self._query, self._copy, self._listen, self._cancel, self._end]
        if kind == "async":
            steps = [self._ask_async, self._listen, self._cancel]
        for step in self._rng.choices(steps, k=4):
            if self._conn.closed:
                break
            self._do(step.__name__, step)

    def _do(self, what: str, function: Any) -> bool:
        """Do it within the limit. Returns whether that was possible."""
        outcome = "done"
        began = time.monotonic()
        try:
            with greenwait.timeout(LIMIT):
                function()
        except _OF_PSYCOPG2 as exc:
            outcome = type(exc).__name__
        seconds = time.monotonic() - began
        self.outcomes.append(f"{what}: {outcome} after {seconds:.2f} s")
        if seconds > self._longest:
            self.problems.append(f"{what} took {seconds:.1f} s")
        return outcome == "done"

    def _connect(self, kind: str) -> None:
        if kind == "async":
            self._conn = psycopg2.connect(self._dsn, async_=1)
            greenwait.wait(self._conn)
        elif kind == "own poll":
            self._conn = psycopg2.connect(self._dsn, connection_factory=_OwnPoll)
        elif kind == "shared":
            self._conn = greenwait.connect(self._dsn)
        else:
            self._conn = psycopg2.connect(self._dsn)

    def _query(self) -> None:
        with self._conn.cursor() as cur:
            cur.execute("select 1")
            cur.fetchall()

    def _ask_async(self) -> None:
        cur = self._conn.cursor()
        cur.execute("select 1")
        greenwait.wait(self._conn)
        cur.fetchall()

    def _copy(self) -> None:
        with self._conn.cursor() as cur:
            cur.execute("copy t to stdout")

    def _listen(self) -> None:
        for _ in greenwait.notifies(self._conn, timeout=0.05):
            pass

    def _cancel(self) -> None:
        greenwait.cancel(self._conn, timeout=LIMIT)

    def _end(self) -> None:
        self._conn.commit() if self._rng.random() < 0.5 else self._conn.rollback()

    def _borrow(self) -> None:
        pool = greenwait.Pool(self._dsn, max_size=1, timeout=LIMIT)

        def use() -> None:
            with pool.connection() as self._conn:
                self._query()

        for _ in range(3):
            self._do("borrow", use)
        self._do("close the pool", lambda: pool.close(timeout=0))


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
