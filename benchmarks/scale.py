"""What do many queries at once cost, in time and memory, and what do they save?

    python benchmarks/scale.py [--rounds N] [--connections N] [--few N]

- CPU per ``select 1`` with a thousand connections busy at once, against that with few, in
  rounds interleaved. Between them and the server stands PgBouncer, since a PostgreSQL is not
  made for a thousand clients; Debian has it as ``pgbouncer``. Without it this is left out.
- The memory that a job takes while it waits, beside that of its connection: what a process
  grows by when four hundred jobs begin to wait on connections that were used before.
- Twenty queries of 50 ms each in one call of ``greenwait.gather()``.

Needs Linux, and ``pip install -e '.[binary,test,bench]'``.
"""

import argparse
import multiprocessing
import random
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import psycopg2
from rich.console import RenderableType

import greenwait
from benchmarks.clients import CLIENTS
from benchmarks.figures import Goal, Row, goal_table, positive, time_text
from benchmarks.machine import resident_kb
from benchmarks.measure import Sample, Spread
from benchmarks.processes import ClientProcess
from benchmarks.runner import run
from tools import pgbouncer
from tools.postgres import Server

__all__ = ["main"]

_NAMES = ("hub", "gevent", "psycogreen", "asyncpg-uvloop")
_QUERIES = 64_000  # of all connections together, in one round
_MOST_RATIO = 1.2
_WAITING = 400  # jobs; the server takes 450 connections
_MOST_KB = 24.0
_TOGETHER = 20
_MOST_SECONDS = 0.09


def _many_and_few(rounds: int, many: int, few: int, dsn: str) -> RenderableType:
    """Return the table of what a query costs in both."""
    cases = [(name, connections) for name in _NAMES for connections in (few, many)]
    samples: dict[tuple[str, int], list[Sample]] = {case: [] for case in cases}
    processes: dict[tuple[str, int], ClientProcess] = {}
    try:
        for case in cases:
            processes[case] = ClientProcess(*case, dsn)
            processes[case].run(5)  # the warm-up
        for _ in range(rounds):
            for name, connections in random.sample(cases, len(cases)):
                queries = max(1, _QUERIES // connections)
                samples[name, connections].append(processes[name, connections].run(queries))
    finally:
        for each in processes.values():
            each.end()
    rows = []
    for name in _NAMES:
        cpu = {
            connections: [each.cpu_seconds for each in samples[name, connections]]
            for connections in (few, many)
        }
        ratio = Spread.of([m / f for m, f in zip(cpu[many], cpu[few], strict=True)]).median
        cells = (
            *[time_text(Spread.of(cpu[connections]).median) for connections in (few, many)],
            f"{ratio:.2f}",
        )
        goal = Goal(f"{_MOST_RATIO}", ratio <= _MOST_RATIO) if name == "hub" else None
        rows.append(Row(CLIENTS[name].title, cells, goal))
    title = f"CPU per select 1 through PgBouncer, medians of {rounds} rounds"
    return goal_table(title, (f"{few:,} connections", f"{many:,}", "ratio"), rows)


def _ask(conn: Any, seconds: float) -> None:
    with conn.cursor() as cur:
        cur.execute("select pg_sleep(%s)", (seconds,))


def _waiting_kb(dsn: str) -> float:
    """Return the memory of one job that waits; in a process of its own."""
    greenwait.install()
    conns = [psycopg2.connect(dsn) for _ in range(_WAITING)]
    with greenwait.Hub() as hub:
        hub.spawn(_ask, conns[0], 0).result()
    for conn in conns:
        _ask(conn, 0)  # libpq's buffers are the connection's
    with greenwait.Hub() as hub:
        before_kb = resident_kb()
        jobs = [hub.spawn(_ask, conn, 10) for conn in conns]
        hub.sleep(1)
        grown_kb = resident_kb() - before_kb
        for job in jobs:
            job.cancel()
    return grown_kb / _WAITING


def _memory(rounds: int, dsn: str) -> Row:
    grown = []
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as processes:
        grown = [processes.apply(_waiting_kb, (dsn,)) for _ in range(rounds)]
    median = Spread.of(grown).median
    goal = Goal(f"{_MOST_KB:.0f} KB", median <= _MOST_KB)
    return Row("memory of a waiting job", (f"{median:.1f} KB",), goal)


def _together(rounds: int, dsn: str) -> Row:
    times = []
    with greenwait.installed():
        conns = [psycopg2.connect(dsn) for _ in range(_TOGETHER)]
        for _ in range(rounds):
            started = time.perf_counter()
            greenwait.gather(*[partial(_ask, conn, 0.05) for conn in conns])
            times.append(time.perf_counter() - started)
    median = Spread.of(times).median
    goal = Goal(time_text(_MOST_SECONDS), median <= _MOST_SECONDS)
    return Row(f"{_TOGETHER} queries of 50 ms each, together", (time_text(median),), goal)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description="Measure what many queries at once cost.")
    parser.add_argument("--connections", metavar="N", type=positive, default=1000)
    parser.add_argument("--few", metavar="N", type=positive, default=32)
    parser.add_argument("--rounds", metavar="N", type=positive, default=9)
    options = parser.parse_args(arguments)

    def measure(server: Server) -> list[RenderableType]:
        found: list[RenderableType] = []
        program = pgbouncer.find_program()
        if program is None:
            how = pgbouncer.HOW_TO_INSTALL
            found.append(f"No PgBouncer here, so no thousand connections: {how}")
        else:
            with pgbouncer.pooled(program, server, "transaction") as dsn:
                found.append(_many_and_few(options.rounds, options.connections, options.few, dsn))
        dsn = server.dsn("unix")
        rows = [_memory(min(3, options.rounds), dsn), _together(options.rounds, dsn)]
        found.append(goal_table("The hub", ("median",), rows))
        return found

    return run(measure)


if __name__ == "__main__":
    sys.exit(main())
