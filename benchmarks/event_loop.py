"""What does an event loop notice of greenwait? How long it stops, and what it keeps.

    python benchmarks/event_loop.py [--rounds N]

- Five hundred tasks of ``pg_sleep(0.1)`` over a pool of a hundred connections.
- How long the loop is stopped while a thousand tasks connect and query, and one receives
  100 MB, in rows of 1 KB or in one value, which libpq copies at one go: the longest time
  between two turns of a task that sleeps a millisecond at a time, above that of the same
  task while another process does all this: the server's load alone stops it, too.
- What the process has grown by after a hundred thousand calls of ``aio.run()``.

Needs Linux, and ``pip install -e '.[binary,test,bench]'``.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import psycopg2
import uvloop
from rich.console import RenderableType

import greenwait
from benchmarks.figures import Goal, Row, digits, goal_table, positive, time_text
from benchmarks.machine import resident_kb
from benchmarks.measure import Spread
from benchmarks.runner import run
from greenwait import aio
from tools.postgres import Server

__all__ = ["main"]

_MOST_SECONDS = 1.0
_MOST_MS = 20.0
_MOST_KB = 256
_LARGE = {
    "rows": "select repeat('x', 1000) from generate_series(1, 100000)",
    "one value": "select repeat('x', 100000000)",
}
_CALLS = 100_000


async def _sleeps(dsn: str) -> float:
    async with await aio.create_pool(dsn, min_size=100, max_size=100) as pool:

        async def sleep() -> None:
            async with pool.connection() as conn, conn.cursor() as cur:
                await cur.execute("select pg_sleep(0.1)")

        began = time.perf_counter()
        await asyncio.gather(*[sleep() for _ in range(500)])
        return time.perf_counter() - began


async def _longest_stop(work: Coroutine[Any, Any, object]) -> float:
    """Return the longest time between two turns while it runs, in ms."""
    longest = 0.0
    task = asyncio.create_task(work)
    while not task.done():
        before = time.perf_counter()
        await asyncio.sleep(0.001)
        longest = max(longest, time.perf_counter() - before)
    await task
    return longest * 1e3


async def _load(dsn: str, large: str) -> None:
    """Connect and query a thousand times, a hundred at once, and receive 100 MB."""

    def load() -> None:
        conn = psycopg2.connect(dsn)
        # execute() only: fetching is psycopg2's conversion of 100 MB, with any callback.
        conn.cursor().execute(large)
        conn.close()

    def short(number: int) -> None:
        conn = psycopg2.connect(dsn)
        with conn, conn.cursor() as cur:
            cur.execute("select %s, pg_sleep(0.01)", (number,))
            cur.execute("select generate_series(1, 100)")
            cur.fetchall()
        conn.close()

    places = asyncio.Semaphore(100)

    async def one(number: int) -> None:
        async with places:
            await aio.run(short, number)

    await asyncio.gather(aio.run(load), *[one(number) for number in range(1000)])


async def _stop(dsn: str, what: str) -> float:
    """Return the longest stop under that load, above that by the load of another process."""
    process = await asyncio.create_subprocess_exec(sys.executable, __file__, "--load", what, dsn)
    other = await _longest_stop(process.wait())
    return await _longest_stop(_load(dsn, _LARGE[what])) - other


async def _growth_kb(dsn: str) -> float:
    conn = await aio.connect(dsn)
    conn.autocommit = True

    def ask() -> None:
        with conn.cursor() as cur:
            cur.execute("select 1")

    async def calls(count: int) -> None:
        for _ in range(count):
            await aio.run(ask)

    await calls(_CALLS // 10)
    before_kb = resident_kb()
    await calls(_CALLS)
    grown_kb = resident_kb() - before_kb
    conn.close()
    return grown_kb


def _measure(rounds: int, server: Server) -> list[RenderableType]:
    dsn = server.dsn("unix")
    tables: list[RenderableType] = []
    kinds: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
        "asyncio": asyncio.new_event_loop,
        "uvloop": uvloop.new_event_loop,
    }
    with greenwait.installed():
        for kind, new_loop in kinds.items():
            loop = new_loop()
            try:
                ask = loop.run_until_complete
                seconds = Spread.of([ask(_sleeps(dsn)) for _ in range(rounds)]).median
                stops = {
                    what: Spread.of([ask(_stop(dsn, what)) for _ in range(rounds)]).median
                    for what in _LARGE
                }
                grown_kb = ask(_growth_kb(dsn))
            finally:
                loop.close()
            rows = [
                Row(
                    "500 x pg_sleep(0.1), 100 connections",
                    (time_text(seconds),),
                    Goal(time_text(_MOST_SECONDS), seconds <= _MOST_SECONDS),
                ),
                *[
                    Row(
                        f"longest stop, 100 MB in {what}",
                        (f"{digits(above)} ms",),
                        Goal(f"{_MOST_MS:.0f} ms", above <= _MOST_MS),
                    )
                    for what, above in stops.items()
                ],
                Row(
                    f"growth over {_CALLS:,} calls",
                    (f"{grown_kb:+.0f} kB",),
                    Goal(f"{_MOST_KB} kB", grown_kb <= _MOST_KB),
                ),
            ]
            tables.append(goal_table(f"{kind}; medians of {rounds} rounds", ("",), rows))
    return tables


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description="Measure what an event loop notices.")
    parser.add_argument("--rounds", metavar="N", type=positive, default=5)
    parser.add_argument("--load", nargs=2, metavar=("WHAT", "DSN"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.load is not None:
        what, dsn = options.load
        with greenwait.installed():
            asyncio.run(_load(dsn, _LARGE[what]))
        return 0
    return run(lambda server: _measure(options.rounds, server))


if __name__ == "__main__":
    sys.exit(main())
