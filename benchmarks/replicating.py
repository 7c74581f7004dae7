"""How many messages of a replication stream are read per second?

    python benchmarks/replicating.py [--rounds N] [--messages N]

A logical slot has small messages, of one transaction, which every contestant reads once in each
round and does not confirm: blocking psycopg2's ``consume_stream()``, and greenwait's in a plain
thread, in asyncio and in uvloop, there by ``async for``. The contestants alternate. The server
decodes the messages meanwhile, on a core of its own if there is one.
"""

import argparse
import asyncio
import contextlib
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import psycopg2
import psycopg2.extras
import uvloop
from psycopg2.extensions import set_wait_callback
from rich.table import Table

import greenwait
from benchmarks.figures import goal, positive, ratio_text, table_of
from benchmarks.measure import Spread
from benchmarks.runner import run
from benchmarks.workloads import WrongResultError
from greenwait import aio
from tests.lab.postgres import Server

__all__ = ["main"]

_SLOT = "benchmark"
_LEAST_RATIO = 0.9
_BLOCKING = "blocking psycopg2"


class _Counter:
    """A consumer that counts the messages, and stops after the last one."""

    def __init__(self, count: int) -> None:
        self.left = count

    def consume(self, message: Any) -> None:
        self.left -= 1
        if self.left == 0:
            raise psycopg2.extras.StopReplication


def _consume(cur: Any, count: int) -> float:
    """Return the seconds from the first message to the last one."""
    cur.start_replication(_SLOT)
    counter = _Counter(count)
    began = time.perf_counter()
    with contextlib.suppress(psycopg2.extras.StopReplication):
        cur.consume_stream(counter.consume)
    return time.perf_counter() - began


def _by(factory: Any, callback: Any) -> Callable[[str, int], float]:
    def measure(dsn: str, count: int) -> float:
        set_wait_callback(callback)
        with contextlib.closing(psycopg2.connect(dsn, connection_factory=factory)) as conn:
            return _consume(conn.cursor(), count)

    return measure


def _on(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> Callable[[str, int], float]:
    async def read(dsn: str, count: int) -> float:
        conn: Any = await aio.connect(dsn, connection_factory=aio.AsyncLogicalReplicationConnection)
        cur = conn.cursor()
        await cur.start_replication(_SLOT)
        began = time.perf_counter()
        async for _ in cur:
            count -= 1
            if count == 0:
                break
        seconds = time.perf_counter() - began
        await conn.close()
        return seconds

    def measure(dsn: str, count: int) -> float:
        set_wait_callback(greenwait.wait)
        loop = new_loop()
        try:
            return loop.run_until_complete(read(dsn, count))
        finally:
            loop.close()

    return measure


_CONTESTANTS: dict[str, Callable[[str, int], float]] = {
    _BLOCKING: _by(psycopg2.extras.LogicalReplicationConnection, None),
    "greenwait, plain thread": _by(greenwait.LogicalReplicationConnection, greenwait.wait),
    "greenwait, asyncio": _on(asyncio.new_event_loop),
    "greenwait, uvloop": _on(uvloop.new_event_loop),
}


def _write(dsn: str, count: int) -> None:
    """Make the slot, and write as many messages, between BEGIN and COMMIT."""
    with contextlib.closing(psycopg2.connect(dsn)) as conn:
        conn.autocommit = True
        cur = conn.cursor()
        cur.execute("select pg_create_logical_replication_slot(%s, 'test_decoding')", (_SLOT,))
        cur.execute(
            "select count(pg_logical_emit_message(true, 'words', g::text))"
            " from generate_series(1, %s) g",
            (count - 2,),
        )
        if cur.fetchall() != [(count - 2,)]:
            raise WrongResultError("the messages were not written")


def _wait_until_free(dsn: str) -> None:
    with contextlib.closing(psycopg2.connect(dsn)) as conn:
        conn.autocommit = True
        cur = conn.cursor()
        cur.execute(
            "select pg_terminate_backend(active_pid, 5000) from pg_replication_slots where active"
        )


def _measure(rounds: int, count: int, server: Server) -> list[Table]:
    dsn = server.dsn("unix")
    _write(dsn, count)
    seconds: dict[str, list[float]] = {name: [] for name in _CONTESTANTS}
    for _ in range(rounds):
        for name, measure in _CONTESTANTS.items():
            seconds[name].append(measure(dsn, count))
            set_wait_callback(None)
            _wait_until_free(dsn)
    ratios = {
        name: Spread.of([b / own for b, own in zip(seconds[_BLOCKING], each, strict=True)]).median
        for name, each in seconds.items()
    }
    rows = [
        (
            name,
            f"{count / Spread.of(each).median:,.0f}",
            ratio_text(ratios[name]),
            goal(f"{_LEAST_RATIO}", ratios[name] >= _LEAST_RATIO) if name != _BLOCKING else "",
        )
        for name, each in seconds.items()
    ]
    title = f"{count:,} messages; medians of {rounds} rounds"
    return [table_of(title, ("messages/s", "ratio", "goal"), rows)]


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Measure how fast messages are read.")
    parser.add_argument("--rounds", metavar="N", type=positive, default=9)
    parser.add_argument("--messages", metavar="N", type=positive, default=10_000)
    options = parser.parse_args()
    run(lambda server: _measure(options.rounds, options.messages, server))


if __name__ == "__main__":
    main()
