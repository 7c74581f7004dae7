"""Measure how long everybody else is kept waiting while much is done.

    python benchmarks/stalls.py [--rounds N]

- Threads: one looks at the clock a millisecond at a time; meanwhile the main thread executes a
  query for one value of 100 MB. Only ``execute()`` counts: fetching is psycopg2's own conversion,
  done with the GIL held whatever the callback is.
- Event loops: a task does the same; meanwhile a thousand tasks connect and query, and one receives
  100 MB, in rows of 1 KB or in one value, which libpq copies at one go. Given is how much longer
  the loop stops than while another process does all this: the server's load alone stops it, too.

The longest time between two looks is what a user of that process would feel as a stall.
The event loops need Linux; all needs ``pip install -e '.[binary,test,bench]'``.
"""

import argparse
import asyncio
import contextlib
import random
import sys
import threading
import time
from collections.abc import Coroutine
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import psycopg2
from rich.table import Table

import greenwait
from benchmarks.callbacks import BLOCKING, GREENWAIT, Contestant, contestants
from benchmarks.figures import digits, goal, positive, table_of
from benchmarks.measure import Spread
from benchmarks.runner import connected, run
from greenwait import aio
from tests.lab.postgres import Server

_NAMES = (BLOCKING, "wait_select", GREENWAIT, "greenwait-epoll")
_LARGE = {
    "one value": "select repeat('x', 100000000)",
    "rows": "select repeat('x', 1000) from generate_series(1, 100000)",
}
_PAUSE = 0.001
_MOST_MS = 10.0  # of a thread, above blocking psycopg2
_MOST_LOOP_MS = 20.0


# -- Threads


def _silence_ms(entry: Contestant, dsn: str) -> float:
    """Execute the query once; return the longest silence of another thread."""
    looks: list[float] = []
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            looks.append(time.perf_counter())
            time.sleep(_PAUSE)

    ticker = threading.Thread(target=look, daemon=True)
    # A new connection each time: libpq keeps the buffer that it grew for the first value.
    with connected(dsn, entry.callback) as conn:
        cur = conn.cursor()
        cur.execute("select 1")
        ticker.start()
        try:
            start = time.perf_counter()
            cur.execute(_LARGE["one value"])
            end = time.perf_counter()
        finally:
            done.set()
            ticker.join()
    between = [start, *(each for each in looks if start < each < end), end]
    return max(later - earlier for earlier, later in pairwise(between)) * 1e3


def _threads(rounds: int, dsn: str) -> Table:
    entries = contestants(_NAMES)
    silences: dict[str, list[float]] = {entry.name: [] for entry in entries}
    for _ in range(rounds):
        for entry in random.sample(entries, len(entries)):
            silences[entry.name].append(_silence_ms(entry, dsn))
    rows = []
    for entry in entries:
        silence = Spread.of(silences[entry.name])
        pairs = zip(silences[entry.name], silences[BLOCKING], strict=True)
        above = median(each - blocking for each, blocking in pairs)
        reached = goal(f"at most {_MOST_MS:+.0f} ms", above <= _MOST_MS)
        rows.append(
            (
                entry.title,
                f"{digits(silence.median)} ms",
                f"{digits(silence.p10)} - {digits(silence.p90)}",
                "" if entry.name == BLOCKING else f"{above:+.1f} ms",
                reached if entry.kind == "greenwait" else "",
            )
        )
    title = f"Longest silence of a thread while 100 MB arrive; medians of {rounds} rounds"
    return table_of(title, ("silence", "10 - 90 %", "above blocking", "goal"), rows)


# -- Event loops


async def _load(dsn: str, large: str) -> None:
    """Connect and query a thousand times, a hundred at once, and receive 100 MB."""

    def load() -> None:
        with contextlib.closing(psycopg2.connect(dsn)) as conn:
            conn.cursor().execute(large)

    def short(number: int) -> None:
        with contextlib.closing(psycopg2.connect(dsn)) as conn, conn, conn.cursor() as cur:
            cur.execute("select %s, pg_sleep(0.01)", (number,))
            cur.execute("select generate_series(1, 100)")
            cur.fetchall()

    places = asyncio.Semaphore(100)

    async def one(number: int) -> None:
        async with places:
            await aio.run(short, number)

    await asyncio.gather(aio.run(load), *[one(number) for number in range(1000)])


async def _longest_stop(work: Coroutine[Any, Any, object]) -> float:
    """Return the longest time between two turns while it runs, in ms."""
    longest = 0.0
    task = asyncio.create_task(work)
    while not task.done():
        before = time.perf_counter()
        await asyncio.sleep(_PAUSE)
        longest = max(longest, time.perf_counter() - before)
    await task
    return longest * 1e3


async def _stop_ms(dsn: str, what: str) -> float:
    """Return the longest stop under that load, above that by the load of another process."""
    process = await asyncio.create_subprocess_exec(sys.executable, __file__, "--load", what, dsn)
    other = await _longest_stop(process.wait())
    return await _longest_stop(_load(dsn, _LARGE[what])) - other


def _event_loops(rounds: int, dsn: str) -> Table:
    import uvloop

    rows = []
    with greenwait.installed():
        for module in (asyncio, uvloop):
            with contextlib.closing(module.new_event_loop()) as loop:
                for what in _LARGE:
                    stops = [loop.run_until_complete(_stop_ms(dsn, what)) for _ in range(rounds)]
                    above = median(stops)
                    reached = goal(f"at most {_MOST_LOOP_MS:+.0f} ms", above <= _MOST_LOOP_MS)
                    title = f"{module.__name__}, 100 MB in {what}"
                    rows.append((title, f"{above:+.1f} ms", reached))
    title = f"Longest stop of an event loop under load; medians of {rounds} rounds"
    return table_of(title, ("above another process", "goal"), rows)


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", metavar="N", type=positive, default=5)
    parser.add_argument("--load", nargs=2, metavar=("WHAT", "DSN"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.load is not None:
        what, dsn = options.load
        with greenwait.installed():
            asyncio.run(_load(dsn, _LARGE[what]))
        return

    def measure(server: Server) -> list[Table]:
        tables = [_threads(options.rounds, server.dsn("unix"))]
        if sys.platform == "linux":
            tables.append(_event_loops(options.rounds, server.dsn("unix")))
        return tables

    run(measure)


if __name__ == "__main__":
    main()
