"""How long does it take? Interleaved rounds, and the figures drawn from them.

Each round runs one block of queries for every contestant, in an order shuffled
anew, so that whatever the machine does meanwhile happens to all of them. Ratios
are formed within a round and only then is their median taken: a slow spell of the
machine cancels out.
"""

import contextlib
import gc
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import repeat

import psycopg2
from psycopg2.extensions import connection, get_wait_callback, set_wait_callback

from benchmarks.callbacks import BLOCKING, Contestant
from benchmarks.workloads import Workload, busy_thread

__all__ = ["Outcome", "Sample", "Spread", "measure"]

# A block: long enough to drown the clock and the switch of callbacks, short enough
# for many rounds. A busy thread makes times lumps of sys.getswitchinterval() (5 ms).
_BLOCK_SECONDS = 0.03
_BUSY_BLOCK_SECONDS = 0.15
_WARM_UP_SECONDS = 0.05


@dataclass(frozen=True)
class Sample:
    """One block's means, in seconds per query."""

    seconds: float
    cpu_seconds: float


@dataclass(frozen=True)
class Spread:
    """A median, and between which values eight of ten lie."""

    median: float
    p10: float
    p90: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Return the spread of *values*, one or more."""
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        deciles = statistics.quantiles(values, n=10, method="inclusive")
        return cls(statistics.median(values), deciles[0], deciles[-1])


@dataclass
class Outcome:
    """What one workload gave: a sample for every contestant and round."""

    workload: Workload
    contestants: list[Contestant]
    queries: int  # per block
    samples: dict[str, list[Sample]] = field(default_factory=dict)

    def seconds(self, name: str) -> Spread:
        """Time per query."""
        return Spread.of([sample.seconds for sample in self.samples[name]])

    def cpu_seconds(self, name: str) -> Spread:
        """CPU time of the client per query, user and system."""
        return Spread.of([sample.cpu_seconds for sample in self.samples[name]])

    def ratio(self, name: str, to: str = BLOCKING) -> Spread:
        """Time per query, as a multiple of what *to* took in the same round."""
        pairs = zip(self.samples[name], self.samples[to], strict=True)
        return Spread.of([sample.seconds / reference.seconds for sample, reference in pairs])

    def fastest_python(self) -> str | None:
        """Name the pure-Python callback with the lowest median; None when none took part."""
        names = [entry.name for entry in self.contestants if entry.kind == "python"]
        return min(names, key=lambda name: self.seconds(name).median, default=None)


def measure(
    workload: Workload,
    contestants: list[Contestant],
    dsn: str,
    rounds: int,
    rng: random.Random,
    *,
    pin: Callable[[connection], None],
    tick: Callable[[], None],
) -> Outcome:
    """Run *rounds* rounds of *workload*; call *pin* with each new connection, *tick* after a block.

    *tick* is called once for each block, the warm-up of each contestant being one.
    What it raises ends the measurement.

    :raises psycopg2.Error: the server, or the way to it, failed.
    :raises WrongResultError: a contestant brought a wrong answer.
    """
    before = get_wait_callback()
    with contextlib.ExitStack() as cleanup:
        cleanup.callback(set_wait_callback, before)
        entries = [_Entry(each, workload, dsn, cleanup) for each in contestants]
        for entry in entries:
            pin(entry.conn)
        if workload.busy:
            cleanup.enter_context(busy_thread())
        pace = {}
        for entry in entries:
            pace[entry.name] = entry.warm_up()
            tick()
        block = _BUSY_BLOCK_SECONDS if workload.busy else _BLOCK_SECONDS
        queries = max(1, min(workload.most_queries, round(block / pace[BLOCKING])))
        samples: dict[str, list[Sample]] = {each.name: [] for each in contestants}
        for _ in range(rounds):
            gc.collect()
            for entry in rng.sample(entries, len(entries)):
                samples[entry.name].append(entry.block(queries))
                tick()
    return Outcome(workload, contestants, queries, samples)


class _Entry:
    """A contestant with a connection of its own, opened and used under its own callback.

    Opened under it, because libpq's non-blocking mode is set when a connection is
    opened and stays (psycopg2, ``_conn_sync_connect``).
    """

    def __init__(
        self,
        contestant: Contestant,
        workload: Workload,
        dsn: str,
        cleanup: contextlib.ExitStack,
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

    def warm_up(self) -> float:
        """Check the answer, query for a moment, and return the seconds per query."""
        set_wait_callback(self._callback)
        self._cursor.execute(self._workload.statement)
        self._workload.check(self._cursor)
        queries, start = 0, time.perf_counter()
        while queries == 0 or time.perf_counter() - start < _WARM_UP_SECONDS:
            self._cursor.execute(self._workload.statement)
            queries += 1
        return (time.perf_counter() - start) / queries

    def block(self, queries: int) -> Sample:
        """Time *queries* queries. Fetching is left out: it waits for nothing."""
        statement, execute, cpu_clock = (
            self._workload.statement,
            self._cursor.execute,
            self._cpu_clock,
        )
        set_wait_callback(self._callback)
        # Unmeasured, for the caches: another contestant's block came before.
        for _ in range(min(5, queries // 10)):
            execute(statement)
        gc.disable()
        try:
            cpu_start, start = cpu_clock(), time.perf_counter()
            for _ in repeat(None, queries):
                execute(statement)
            seconds, cpu_seconds = time.perf_counter() - start, cpu_clock() - cpu_start
        finally:
            gc.enable()
        return Sample(seconds / queries, cpu_seconds / queries)
