"""What does a statement cost in SQLAlchemy, on each driver for asyncio?

    python benchmarks/sessions.py [--tasks N] [--statements N] [--rounds N] [--loop asyncio|uvloop]

So many tasks on one event loop, each with a connection, ask ``select 1``: each time in a new
``AsyncSession`` (BEGIN, the statement, ROLLBACK), or on an ``AsyncConnection`` in AUTOCOMMIT mode
(the statement alone). greenwait's other dialect does the first in synchronous ``Session``s, in
functions below ``greenwait.aio.run()``.

CPU is that of this process, the client's, by process_time(). A round has each contestant once, in
turns; ratios are formed within a round, and medians told. Over TCP, without TLS.

Needs ``pip install -e '.[binary,test,bench]'``.
"""

import argparse
import asyncio
import contextlib
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import sqlalchemy
import uvloop
from psycopg2.extensions import parse_dsn
from rich.table import Table
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session

import greenwait
import greenwait.aio
from benchmarks.figures import positive, ratio_text, table_of, time_text
from benchmarks.runner import run
from tests.lab.postgres import Server

__all__ = ["main"]

_QUERY = text("select 1")
_PEERS = ("asyncpg", "psycopg")
_WITHOUT_TLS: dict[str, dict[str, Any]] = {"asyncpg": {"ssl": False}}

_Work = Callable[[], Awaitable[Any]]


async def _sessions(engine: AsyncEngine, statements: int) -> None:
    for _ in range(statements):
        async with AsyncSession(engine) as session:
            (await session.execute(_QUERY)).scalar()


async def _statements(engine: AsyncEngine, statements: int) -> None:
    async with engine.connect() as conn:
        for _ in range(statements):
            (await conn.execute(_QUERY)).scalar()


def _synchronous(engine: sqlalchemy.Engine, statements: int) -> None:
    for _ in range(statements):
        with Session(engine) as session:
            session.execute(_QUERY).scalar()


def _contestants(options: argparse.Namespace, dsn: str) -> dict[str, dict[str, _Work]]:
    """Return what is to be called, by its name, for each kind of work."""
    given = parse_dsn(dsn)

    def url(driver: str) -> sqlalchemy.URL:
        return sqlalchemy.URL.create(
            f"postgresql+{driver}",
            given["user"],
            host=given["host"],
            port=int(given["port"]),
            database=given["dbname"],
        )

    def engine(driver: str, **more: Any) -> AsyncEngine:
        arguments = _WITHOUT_TLS.get(driver, {"sslmode": "disable"})
        sizes = {"pool_size": options.tasks, "max_overflow": 0}
        return create_async_engine(url(driver), connect_args=arguments, **sizes, **more)

    sync_engine = sqlalchemy.create_engine(
        url("greenwait"),
        connect_args={"sslmode": "disable"},
        pool_size=options.tasks,
        max_overflow=0,
    )
    drivers = ("greenwait_async", *_PEERS)
    transactions = {driver: engine(driver) for driver in drivers}
    autocommit = {driver: engine(driver, isolation_level="AUTOCOMMIT") for driver in drivers}
    sessions: dict[str, _Work] = {
        driver: partial(_sessions, chosen, options.statements)
        for driver, chosen in transactions.items()
    }

    async def synchronous() -> None:
        await greenwait.aio.run(_synchronous, sync_engine, options.statements)

    sessions["Session below aio.run()"] = synchronous
    statements: dict[str, _Work] = {
        driver: partial(_statements, chosen, options.statements)
        for driver, chosen in autocommit.items()
    }
    return {"in a session each": sessions, "alone": statements}


async def _measure(options: argparse.Namespace, dsn: str) -> dict[str, dict[str, list[float]]]:
    """Return the CPU seconds per statement of each contestant, of each round."""
    kinds = _contestants(options, dsn)
    found = {kind: {name: list[float]() for name in works} for kind, works in kinds.items()}
    for number in range(options.rounds + 1):
        for kind, works in kinds.items():
            for name, work in works.items():
                began = time.process_time()
                await asyncio.gather(*[work() for _ in range(options.tasks)])
                took = time.process_time() - began
                if number > 0:  # the first one has connected
                    found[kind][name].append(took / options.tasks / options.statements)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="SQLAlchemy's drivers for asyncio, compared")
    parser.add_argument("--tasks", type=positive, default=32)
    parser.add_argument("--statements", type=positive, default=40, help="of each task, in a round")
    parser.add_argument("--rounds", type=positive, default=15)
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), default="asyncio")
    options = parser.parse_args()
    greenwait.install()
    run(partial(_tables, options))


def _tables(options: argparse.Namespace, server: Server) -> list[Table]:
    new_loop = uvloop.new_event_loop if options.loop == "uvloop" else asyncio.new_event_loop
    with contextlib.closing(new_loop()) as loop:
        found = loop.run_until_complete(_measure(options, server.dsn("tcp")))
    tables = []
    for kind, figures in found.items():
        rows = [
            [
                name,
                time_text(median(took)),
                *[
                    ratio_text(median(a / b for a, b in zip(took, figures[peer], strict=True)))
                    for peer in _PEERS
                ],
            ]
            for name, took in figures.items()
        ]
        headings = ["CPU", *[f"x {peer}" for peer in _PEERS]]
        tables.append(table_of(f"a statement {kind}", headings, rows, options.loop))
    return tables


if __name__ == "__main__":
    main()
