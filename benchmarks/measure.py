"""Interleaved rounds of one workload, and the figures drawn from them.

Each round runs one block of queries for every contestant, in an order shuffled
anew, so that whatever the machine does meanwhile happens to all of them. Ratios
are formed within a round and only then is their median taken: a slow spell of the
machine cancels out.
"""

import contextlib
import gc
import math
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import repeat
from typing import Any

import psycopg2
from psycopg2.extensions import get_wait_callback, set_wait_callback

from benchmarks.callbacks import BLOCKING, GREENWAIT, Contestant
from benchmarks.machine import Cores
from benchmarks.workloads import Workload, busy_thread

# A block is long enough to drown the clock, short enough for many rounds.
_BLOCK_SECONDS = 0.03
# Beside a busy thread one query finds the GIL free and takes microseconds, the next
# waits 5 ms for it (sys.getswitchinterval()), and which of the two prevails changes
# with where the kernel puts the threads. No number of queries known beforehand
# makes a fair sample of that; a span of time does.
_BUSY_BLOCK_SECONDS = 0.15
_FEWEST_ROUNDS = 3

FEWEST_TO_BE_SURE = 6


@dataclass(frozen=True)
class Sample:
    """One block: how many queries, and its means in seconds per query."""

    queries: int
    seconds: float
    cpu_seconds: float


@dataclass(frozen=True)
class Spread:
    """A median; between which values eight of ten lie; and how sure the median is.

    ``low`` to ``high`` is its 95 % confidence interval, from the order of the values
    alone (a sign test), since nothing here is normally distributed. Of fewer than
    ``FEWEST_TO_BE_SURE`` values even the whole range is less sure than that.
    """

    median: float
    p10: float
    p90: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Return the spread of *values*, one or more."""
        if len(values) == 1:
            return cls(*[values[0]] * 5)
        deciles = statistics.quantiles(values, n=10, method="inclusive")
        ranked = sorted(values)
        rank = max(0, math.floor((len(values) - 1.96 * math.sqrt(len(values))) / 2))
        return cls(
            statistics.median(values), deciles[0], deciles[-1], ranked[rank], ranked[-1 - rank]
        )


_Samples = dict[str, list[Sample]]


def _ratio(samples: _Samples, name: str, to: str) -> dict[str, float]:
    """Time per query, as a multiple of what *to* took in the same round."""
    pairs = zip(samples[name], samples[to], strict=True)
    return asdict(Spread.of([sample.seconds / reference.seconds for sample, reference in pairs]))


def _document(
    workload: Workload, contestants: list[Contestant], block: str, samples: _Samples
) -> dict[str, Any]:
    """Return every figure and every sample. Times are in seconds, per query."""
    entries: dict[str, dict[str, Any]] = {
        entry.name: {
            "title": entry.title,
            "kind": entry.kind,
            "seconds": asdict(Spread.of([each.seconds for each in samples[entry.name]])),
            "cpu_seconds": asdict(Spread.of([each.cpu_seconds for each in samples[entry.name]])),
            "ratio_to_blocking": _ratio(samples, entry.name, BLOCKING),
            "samples": [asdict(each) for each in samples[entry.name]],
        }
        for entry in contestants
    }
    medians = {
        entry.name: entries[entry.name]["seconds"]["median"]
        for entry in contestants
        if entry.kind == "python"
    }
    fastest = min(medians, key=medians.__getitem__, default="")
    is_compared = fastest and GREENWAIT in samples
    return {
        "name": workload.name,
        "title": workload.title,
        "transport": workload.transport,
        "busy_thread": workload.busy,
        "block": block,
        "rounds": len(samples[BLOCKING]),
        "contestants": entries,
        "fastest_python": fastest or None,
        "greenwait_to_fastest_python": _ratio(samples, GREENWAIT, fastest) if is_compared else None,
    }


def measure(
    workload: Workload,
    contestants: list[Contestant],
    dsn: str,
    rounds: int,
    rng: random.Random,
    *,
    most_seconds: float,
    cores: Cores,
    told: Callable[[int, int], object] = lambda done, of: None,
) -> dict[str, Any]:
    """Run *rounds* rounds of *workload*; return what ``compare.py --json`` says of it.

    After *most_seconds* no round is begun that the figures can do without. *told* is called after
    each round with their number, and with that of all.

    :raises psycopg2.Error: the server, or the way to it, failed.
    :raises WrongResultError: a contestant brought a wrong answer.
    """
    before = get_wait_callback()
    enough = time.monotonic() + most_seconds
    with contextlib.ExitStack() as cleanup:
        cleanup.callback(set_wait_callback, before)
        cleanup.callback(cores.release_client)
        cores.place_client()  # before the busy thread starts, which stays where this one is
        entries = [_Entry(each, workload, dsn, cleanup) for each in contestants]
        for entry in entries:
            cores.pin_server(entry.conn)
            entry.check()
        if workload.busy:
            cleanup.enter_context(busy_thread())
        # Ends the warm-up: a moment of querying, which also tells how long a query takes.
        pace = {entry.name: entry.block(1, _BLOCK_SECONDS).seconds for entry in entries}
        if workload.busy:
            queries, seconds, block = 1, _BUSY_BLOCK_SECONDS, f"{_BUSY_BLOCK_SECONDS} s"
        else:
            fitting = max(1, round(_BLOCK_SECONDS / pace[BLOCKING]))
            queries, seconds = min(workload.most_queries, fitting), 0.0
            block = "1 query" if queries == 1 else f"{queries} queries"
        samples: _Samples = {each.name: [] for each in contestants}
        for done in range(rounds):
            if done >= _FEWEST_ROUNDS and time.monotonic() > enough:
                break
            gc.collect()
            for entry in rng.sample(entries, len(entries)):
                cores.place_client()
                samples[entry.name].append(entry.block(queries, seconds))
            told(done + 1, rounds)
    return _document(workload, contestants, block, samples)


class _Entry:
    """A contestant with a connection of its own, opened and used under its own callback.

    Opened under it, because libpq's non-blocking mode is set when a connection is
    opened and stays (psycopg2, ``_conn_sync_connect``).
    """

    def __init__(
        self, contestant: Contestant, workload: Workload, dsn: str, cleanup: contextlib.ExitStack
    ) -> None:
        self.name = contestant.name
        self._callback = contestant.callback
        self._workload = workload
        # With a busy thread, the process's time is mostly that thread's.
        self._cpu_clock = time.thread_time if workload.busy else time.process_time
        set_wait_callback(self._callback)
        self.conn = psycopg2.connect(dsn, application_name="greenwait benchmark")
        cleanup.callback(self.conn.close)
        self.conn.autocommit = True  # no BEGIN: an execute() is one wait
        self._cursor = self.conn.cursor()

    def check(self) -> None:
        """Begin the warm-up: query once, and raise WrongResultError if the answer is wrong."""
        set_wait_callback(self._callback)
        self._cursor.execute(self._workload.statement)
        self._workload.check(self._cursor)

    def block(self, queries: int, seconds: float) -> Sample:
        """Time *queries* queries, and as many again until *seconds* have passed.

        Fetching is left out: it waits for nothing.
        """
        statement, execute = self._workload.statement, self._cursor.execute
        clock, cpu_clock = time.perf_counter, self._cpu_clock
        set_wait_callback(self._callback)
        # Unmeasured, for the caches: another contestant's block came before.
        for _ in range(min(5, queries // 10)):
            execute(statement)
        gc.disable()
        try:
            done, cpu_start, start = 0, cpu_clock(), clock()
            while True:
                for _ in repeat(None, queries):
                    execute(statement)
                done += queries
                elapsed = clock() - start
                if elapsed >= seconds:
                    break
            cpu_elapsed = cpu_clock() - cpu_start
        finally:
            gc.enable()
        return Sample(done, elapsed / done, cpu_elapsed / done)
