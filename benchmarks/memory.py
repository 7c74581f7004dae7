"""Measure the memory that a job of a hub takes while it waits, beside that of its connection.

    python benchmarks/memory.py [--rounds N]

That is what a process grows by when four hundred jobs begin to wait on connections that were used
before, divided by their number. Needs Linux, and ``pip install -e '.[binary,test,bench]'``.
"""

import argparse
import multiprocessing
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import psycopg2
from rich.table import Table

import greenwait
from benchmarks.figures import goal, positive, table_of
from benchmarks.machine import resident_kb
from benchmarks.runner import run
from tools.postgres import Server

_WAITING = 400  # jobs; the server takes 450 connections
_MOST_KB = 24.0


def _ask(conn: Any, seconds: float) -> None:
    with conn.cursor() as cur:
        cur.execute("select pg_sleep(%s)", (seconds,))


def waiting_kb(dsn: str) -> float:
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


def _measure(rounds: int, server: Server) -> list[Table]:
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as processes:
        kb = median(processes.apply(waiting_kb, (server.dsn("unix"),)) for _ in range(rounds))
    row = ("memory of a waiting job", f"{kb:.1f} KB", goal(f"{_MOST_KB:.0f} KB", kb <= _MOST_KB))
    return [table_of(f"The hub; medians of {rounds} rounds", ("", "goal"), [row])]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description="Measure the memory of a waiting job.")
    parser.add_argument("--rounds", metavar="N", type=positive, default=3)
    options = parser.parse_args(arguments)
    return run(lambda server: _measure(options.rounds, server))


if __name__ == "__main__":
    sys.exit(main())
