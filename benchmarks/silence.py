"""How long are the other threads kept waiting while one large value arrives?

    python benchmarks/silence.py [--rounds N]

A thread of pure Python looks at the clock, sleeps a millisecond, and looks again;
meanwhile the main thread executes a query for one value of 100 MB. The longest time
between two looks is the longest silence: what a user of that process would feel as a
stall. Only ``execute()`` counts. Fetching is psycopg2's own conversion, done with the
GIL held whatever the callback is, and is left out.

Needs ``pip install -e '.[binary,test,bench]'``.
"""

import argparse
import random
import sys
import threading
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rich.table import Table

from benchmarks.callbacks import BLOCKING, GREENWAIT, Contestant, contestants
from benchmarks.figures import Goal, Row, digits, goal_table, positive
from benchmarks.measure import Spread
from benchmarks.runner import chosen, connected, run
from tools.postgres import Server

_NAMES = (BLOCKING, "wait_select", GREENWAIT, "greenwait-epoll")
_STATEMENT = "select repeat('x', 100000000)"
_PAUSE = 0.001
_MOST_MS = 10.0  # above blocking psycopg2
_ROUNDS = 9


class _Ticker(threading.Thread):
    """Looks at the clock until it is stopped."""

    def __init__(self) -> None:
        super().__init__(name="ticker", daemon=True)
        self.looks: list[float] = []
        self._done = False

    def run(self) -> None:
        while not self._done:
            self.looks.append(time.perf_counter())
            time.sleep(_PAUSE)

    def stop(self) -> None:
        self._done = True
        self.join()


def _silence(entry: Contestant, dsn: str) -> tuple[float, float]:
    """Execute the query once; return the longest silence and the time it took, in ms."""
    # A new connection each time: libpq keeps the buffer that it grew for the first value.
    with connected(dsn, entry.callback) as conn:
        cur = conn.cursor()
        cur.execute("select 1")
        ticker = _Ticker()
        ticker.start()
        try:
            start = time.perf_counter()
            cur.execute(_STATEMENT)
            end = time.perf_counter()
        finally:
            ticker.stop()
    looks = [start, *(look for look in ticker.looks if start < look < end), end]
    longest = max(later - earlier for earlier, later in pairwise(looks))
    return longest * 1e3, (end - start) * 1e3


def _measure(rounds: int, entries: list[Contestant], server: Server) -> list[Table]:
    silences: dict[str, list[float]] = {entry.name: [] for entry in entries}
    times: dict[str, list[float]] = {entry.name: [] for entry in entries}
    for _ in range(rounds):
        for entry in random.sample(entries, len(entries)):
            longest, taken_ms = _silence(entry, server.dsn("unix"))
            silences[entry.name].append(longest)
            times[entry.name].append(taken_ms)
    rows = []
    for entry in entries:
        silence, taken = Spread.of(silences[entry.name]), Spread.of(times[entry.name])
        pairs = zip(silences[entry.name], silences[BLOCKING], strict=True)
        above = Spread.of([each - blocking for each, blocking in pairs]).median
        goal = Goal(f"at most {_MOST_MS:+.0f} ms", above <= _MOST_MS)
        cells = (
            f"{digits(silence.median)} ms",
            f"{digits(silence.p10)} - {digits(silence.p90)}",
            "" if entry.name == BLOCKING else f"{above:+.1f} ms",
            f"{digits(taken.median)} ms",
        )
        rows.append(Row(entry.title, cells, goal if entry.kind == "greenwait" else None))
    title = (
        f"Longest silence of a thread while 100 MB arrive, unix socket; medians of {rounds} rounds"
    )
    headings = ("silence", "10 - 90 %", "above blocking", "execute()")
    return [goal_table(title, headings, rows)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(
        description="Measure how long another thread is kept waiting while one large value arrives."
    )
    parser.add_argument(
        "--rounds", metavar="N", type=positive, default=_ROUNDS, help="default: %(default)s"
    )
    options = parser.parse_args(arguments)
    entries = contestants(chosen(parser, None, _NAMES))
    return run(lambda server: _measure(options.rounds, entries, server))


if __name__ == "__main__":
    sys.exit(main())
