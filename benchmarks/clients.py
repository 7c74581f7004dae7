"""A process that runs ``select 1`` on many connections at once; ``concurrency.py`` starts it.

    python benchmarks/clients.py CLIENT CONNECTIONS DSN

The first line on its standard output says by how many kB the process grew as it first queried on
all of them, 0 where Linux does not tell. Then each line on its standard input is a number of
queries for each connection, and each on its output says in JSON how long they took, and the
process's CPU time. Nothing is closed: the process is killed when it is not needed any more.
"""

import argparse
import asyncio
import contextlib
import gc
import importlib
import json
import re
import resource
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any

import psycopg2
from psycopg2.extensions import parse_dsn

_Run = Callable[[int], object]  # so many queries on each connection


@dataclass(frozen=True)
class Client:
    """One way to have many connections, and how to begin with it."""

    title: str
    start: Callable[[str, int], _Run]
    is_greenwait: bool = False


def _open(dsn: str, connections: int) -> list[Any]:
    opened = [psycopg2.connect(dsn) for _ in range(connections)]
    for conn in opened:
        conn.autocommit = True
        _work(conn, 1)  # libpq's buffers are the connection's, and not of what waits on it
    return opened


def _work(conn: Any, queries: int) -> None:
    with conn.cursor() as cur:
        for _ in repeat(None, queries):
            cur.execute("select 1")
            cur.fetchone()


# -- Synchronous code in greenlets or threads


def _hub(dsn: str, connections: int) -> _Run:
    import greenwait

    greenwait.install()
    opened = _open(dsn, connections)
    hub = contextlib.ExitStack().enter_context(greenwait.Hub())

    def run(queries: int) -> None:
        for job in [hub.spawn(_work, conn, queries) for conn in opened]:
            job.result()

    return run


def _gevent(dsn: str, connections: int, *, patch: str) -> _Run:
    import gevent

    importlib.import_module(patch).patch_psycopg()
    opened = _open(dsn, connections)
    return lambda queries: gevent.joinall(
        [gevent.spawn(_work, conn, queries) for conn in opened], raise_error=True
    )


def _eventlet(dsn: str, connections: int, *, patch: str) -> _Run:
    import eventlet

    importlib.import_module(patch).patch_psycopg()
    opened = _open(dsn, connections)

    def run(queries: int) -> None:
        for each in [eventlet.spawn(_work, conn, queries) for conn in opened]:
            each.wait()

    return run


def _threads(dsn: str, connections: int) -> _Run:
    opened = _open(dsn, connections)

    def run(queries: int) -> None:
        threads = [threading.Thread(target=_work, args=(conn, queries)) for conn in opened]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return run


# -- Tasks of an event loop


def _tasks(
    connections: int,
    connect: Callable[[], Awaitable[Any]],
    query: Callable[[Any], Awaitable[object]],
    loop: asyncio.AbstractEventLoop,
) -> _Run:
    async def open_all() -> list[Any]:
        return [await connect() for _ in range(connections)]

    async def work(conn: Any, queries: int) -> None:
        for _ in repeat(None, queries):
            await query(conn)

    async def work_all(queries: int) -> None:
        await asyncio.gather(*[work(conn, queries) for conn in opened])

    opened = loop.run_until_complete(open_all())
    return lambda queries: loop.run_until_complete(work_all(queries))


async def _query(cur: Any) -> None:
    await cur.execute("select 1")
    await cur.fetchone()


def _new_loop(module: str) -> asyncio.AbstractEventLoop:
    loop: asyncio.AbstractEventLoop = importlib.import_module(module).new_event_loop()
    return loop


def _aio(dsn: str, connections: int, *, loop: str = "asyncio") -> _Run:
    import greenwait
    from greenwait import aio

    greenwait.install()

    async def connect() -> Any:
        conn = await aio.connect(dsn)
        conn.autocommit = True
        return conn.cursor()

    return _tasks(connections, connect, _query, _new_loop(loop))


def _aio_run(dsn: str, connections: int) -> _Run:
    import greenwait
    from greenwait import aio

    greenwait.install()
    opened = _open(dsn, connections)
    loop = asyncio.new_event_loop()

    async def work_all(queries: int) -> None:
        await asyncio.gather(*[aio.run(_work, conn, queries) for conn in opened])

    return lambda queries: loop.run_until_complete(work_all(queries))


def _aiopg(dsn: str, connections: int) -> _Run:
    import aiopg

    async def connect() -> Any:
        return await (await aiopg.connect(dsn)).cursor()

    return _tasks(connections, connect, _query, _new_loop("asyncio"))


def _asyncpg(dsn: str, connections: int, *, loop: str = "asyncio") -> _Run:
    import asyncpg

    options = parse_dsn(dsn)
    connect = partial(
        asyncpg.connect,
        host=options["host"],
        port=int(options["port"]),
        user=options["user"],
        database=options["dbname"],
        ssl=False,
        statement_cache_size=0 if options["dbname"] == "bouncer" else 100,
    )
    return _tasks(connections, connect, lambda conn: conn.fetch("select 1"), _new_loop(loop))


def _psycopg3(dsn: str, connections: int) -> _Run:
    import psycopg

    async def connect() -> Any:
        conn = await psycopg.AsyncConnection.connect(dsn, autocommit=True)
        if conn.info.dbname == "bouncer":
            conn.prepare_threshold = None
        return conn.cursor()

    return _tasks(connections, connect, _query, _new_loop("asyncio"))


#: By the name on the command line.
CLIENTS = {
    "hub": Client("greenwait's hub", _hub, True),
    "gevent": Client("greenwait, gevent", partial(_gevent, patch="greenwait.gevent"), True),
    "eventlet": Client("greenwait, eventlet", partial(_eventlet, patch="greenwait.eventlet"), True),
    "aio": Client("greenwait, asyncio", _aio, True),
    "aio-run": Client("greenwait, aio.run()", _aio_run, True),
    "aio-uvloop": Client("greenwait, uvloop", partial(_aio, loop="uvloop"), True),
    "psycogreen": Client("psycogreen, gevent", partial(_gevent, patch="psycogreen.gevent")),
    "psycogreen-eventlet": Client(
        "psycogreen, eventlet", partial(_eventlet, patch="psycogreen.eventlet")
    ),
    "threads": Client("threads, blocking", _threads),
    "asyncpg": Client("asyncpg", _asyncpg),
    "asyncpg-uvloop": Client("asyncpg, uvloop", partial(_asyncpg, loop="uvloop")),
    "aiopg": Client("aiopg", _aiopg),
    "psycopg3": Client("psycopg 3, asyncio", _psycopg3),
}


def _most_kb() -> int:
    """Return the most memory that this process has had."""
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s*(\d+)", status.read_text()) if status.exists() else None
    return int(found[1]) if found else 0


def main() -> None:
    """Connect, and do as the lines on standard input say until that ends."""
    parser = argparse.ArgumentParser(description="Query on many connections at once.")
    parser.add_argument("client", choices=CLIENTS)
    parser.add_argument("connections", type=int)
    parser.add_argument("dsn")
    options = parser.parse_args()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    run = CLIENTS[options.client].start(options.dsn, options.connections)
    before_kb = _most_kb()
    run(3)
    print(_most_kb() - before_kb, flush=True)
    for line in sys.stdin:
        gc.collect()
        gc.disable()
        cpu, start = time.process_time(), time.perf_counter()
        run(int(line))
        seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu
        gc.enable()
        print(json.dumps({"seconds": seconds, "cpu_seconds": cpu_seconds}), flush=True)


if __name__ == "__main__":
    main()
