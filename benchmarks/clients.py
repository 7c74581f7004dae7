"""A process that queries on many connections at once; ``concurrency.py`` starts it.

    python benchmarks/clients.py CLIENT CONNECTIONS DSN [STATEMENT]

The first line on its standard output says by how many kB the process grew as it first queried on
all of them, 0 where Linux does not tell. Then each line on its standard input is a number of
queries for each connection, and each on its output says in JSON how long they took, and the
process's CPU time. Nothing is closed: the process is killed when it is not needed any more.

Each client does the same work in the way its documentation shows, with each type decoded to
Python's. Those with a pool borrow a connection for each query, and there is one for every two
borrowers: each waits its turn, as in a busy program.
"""

import argparse
import asyncio
import contextlib
import gc
import importlib.util
import json
import re
import resource
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import psycopg2
from psycopg2.extensions import parse_dsn

from benchmarks.statements import STATEMENTS, Statement

_Run = Callable[[int], object]  # so many queries on each connection
_Ask = Callable[[Any], Awaitable[Any]]


@dataclass(frozen=True)
class Client:
    """One way to have many connections, and how to begin with it."""

    title: str
    begin: Callable[[str, int, Statement], _Run]
    is_greenwait: bool = False
    is_pooled: bool = False
    needs: str = ""  # a module that is not everywhere

    @property
    def is_here(self) -> bool:
        """Whether what it needs is installed."""
        return not self.needs or importlib.util.find_spec(self.needs) is not None

    def start(self, dsn: str, connections: int, statement: str = "select-1") -> _Run:
        """Connect, and return what runs so many queries on each connection.

        :raises WrongResultError: the first answer is wrong.
        """
        return self.begin(dsn, connections, STATEMENTS[statement])


def _open(dsn: str, connections: int, statement: Statement) -> list[Any]:
    opened = [psycopg2.connect(dsn) for _ in range(connections)]
    for conn in opened:
        conn.autocommit = True
        with conn.cursor() as cur:
            # libpq's buffers are the connection's, and not of what waits on it.
            cur.execute(statement.text)
            statement.check(cur.fetchall())
    return opened


def _work(conn: Any, statement: Statement, queries: int) -> None:
    text, is_single = statement.text, statement.is_single
    with conn.cursor() as cur:
        for _ in repeat(None, queries):
            cur.execute(text)
            if is_single:
                cur.fetchone()
            else:
                cur.fetchall()


# -- Synchronous code in greenlets or threads


def _new_hub() -> Any:
    import greenwait

    greenwait.install()
    return contextlib.ExitStack().enter_context(greenwait.Hub())


def _hub(dsn: str, connections: int, statement: Statement) -> _Run:
    hub = _new_hub()
    opened = _open(dsn, connections, statement)

    def run(queries: int) -> None:
        for job in [hub.spawn(_work, conn, statement, queries) for conn in opened]:
            job.result()

    return run


def _gevent(dsn: str, connections: int, statement: Statement, *, patch: str) -> _Run:
    import gevent

    importlib.import_module(patch).patch_psycopg()
    opened = _open(dsn, connections, statement)
    return lambda queries: gevent.joinall(
        [gevent.spawn(_work, conn, statement, queries) for conn in opened], raise_error=True
    )


def _eventlet(dsn: str, connections: int, statement: Statement, *, patch: str) -> _Run:
    import eventlet

    importlib.import_module(patch).patch_psycopg()
    opened = _open(dsn, connections, statement)

    def run(queries: int) -> None:
        for each in [eventlet.spawn(_work, conn, statement, queries) for conn in opened]:
            each.wait()

    return run


def _threads(dsn: str, connections: int, statement: Statement) -> _Run:
    opened = _open(dsn, connections, statement)

    def run(queries: int) -> None:
        threads = [
            threading.Thread(target=_work, args=(conn, statement, queries)) for conn in opened
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return run


# -- Tasks of an event loop


def _run_tasks(
    each: Sequence[Any], ask: _Ask, loop: asyncio.AbstractEventLoop, statement: Statement
) -> _Run:
    """Return what runs a task for *each*; *ask* brings it the rows."""

    async def work(conn: Any, queries: int) -> None:
        for _ in repeat(None, queries):
            await ask(conn)

    async def work_all(queries: int) -> None:
        await asyncio.gather(*[work(conn, queries) for conn in each])

    async def check() -> None:
        statement.check(await ask(each[0]))

    loop.run_until_complete(check())
    return lambda queries: loop.run_until_complete(work_all(queries))


def _tasks(
    connections: int,
    connect: Callable[[], Awaitable[Any]],
    ask: _Ask,
    loop: asyncio.AbstractEventLoop,
    statement: Statement,
) -> _Run:
    async def open_all() -> list[Any]:
        return [await connect() for _ in range(connections)]

    return _run_tasks(loop.run_until_complete(open_all()), ask, loop, statement)


def _by_cursor(statement: Statement) -> _Ask:
    text = statement.text

    async def ask_one(cur: Any) -> Any:
        await cur.execute(text)
        return await cur.fetchone()

    async def ask(cur: Any) -> Any:
        await cur.execute(text)
        return await cur.fetchall()

    return ask_one if statement.is_single else ask


def _new_loop(module: str) -> asyncio.AbstractEventLoop:
    loop: asyncio.AbstractEventLoop = importlib.import_module(module).new_event_loop()
    return loop


def _aio(dsn: str, connections: int, statement: Statement, *, loop: str = "asyncio") -> _Run:
    import greenwait
    from greenwait import aio

    greenwait.install()

    async def connect() -> Any:
        conn = await aio.connect(dsn)
        conn.autocommit = True
        return conn.cursor()

    return _tasks(connections, connect, _by_cursor(statement), _new_loop(loop), statement)


def _aio_run(dsn: str, connections: int, statement: Statement) -> _Run:
    import greenwait
    from greenwait import aio

    greenwait.install()
    opened = _open(dsn, connections, statement)
    loop = asyncio.new_event_loop()

    async def work_all(queries: int) -> None:
        await asyncio.gather(*[aio.run(_work, conn, statement, queries) for conn in opened])

    return lambda queries: loop.run_until_complete(work_all(queries))


def _aiopg(dsn: str, connections: int, statement: Statement) -> _Run:
    import aiopg

    async def connect() -> Any:
        return await (await aiopg.connect(dsn)).cursor()

    loop = _new_loop("asyncio")
    return _tasks(connections, connect, _by_cursor(statement), loop, statement)


def _asyncpg_options(dsn: str) -> dict[str, Any]:
    options = parse_dsn(dsn)
    return {
        "host": options["host"],
        "port": int(options["port"]),
        "user": options["user"],
        "database": options["dbname"],
        "ssl": False,
        "statement_cache_size": 0 if options["dbname"] == "bouncer" else 100,
    }


async def _decode_jsonb(conn: Any) -> None:
    # asyncpg returns it as text unless it is told how to decode it.
    await conn.set_type_codec("jsonb", schema="pg_catalog", encoder=json.dumps, decoder=json.loads)


def _asyncpg(dsn: str, connections: int, statement: Statement, *, loop: str = "asyncio") -> _Run:
    import asyncpg

    options, text = _asyncpg_options(dsn), statement.text

    async def connect() -> Any:
        conn = await asyncpg.connect(**options)
        await _decode_jsonb(conn)
        return conn

    return _tasks(connections, connect, lambda conn: conn.fetch(text), _new_loop(loop), statement)


def _psycopg3(dsn: str, connections: int, statement: Statement) -> _Run:
    import psycopg

    async def connect() -> Any:
        conn = await psycopg.AsyncConnection.connect(dsn, autocommit=True)
        if conn.info.dbname == "bouncer":
            conn.prepare_threshold = None
        return conn.cursor()

    loop = _new_loop("asyncio")
    return _tasks(connections, connect, _by_cursor(statement), loop, statement)


def _psqlpy_pool(dsn: str, size: int) -> Any:
    import psqlpy

    options = parse_dsn(dsn)
    return psqlpy.ConnectionPool(
        host=options["host"],
        port=int(options["port"]),
        username=options["user"],
        db_name=options["dbname"],
        max_db_pool_size=size,
    )


def _psqlpy(dsn: str, connections: int, statement: Statement) -> _Run:
    text = statement.text

    async def ask(conn: Any) -> Any:
        return (await conn.fetch(text)).result(as_tuple=True)

    connect = _psqlpy_pool(dsn, connections).connection
    return _tasks(connections, connect, ask, _new_loop("uvloop"), statement)


# -- A connection borrowed for each query


def _size(connections: int) -> int:
    """Return how many connections the pool of so many borrowers has."""
    return max(1, connections // 2)


def _set_autocommit(conn: Any) -> None:
    conn.autocommit = True


def _hub_pool(dsn: str, connections: int, statement: Statement) -> _Run:
    import greenwait

    hub, size, text = _new_hub(), _size(connections), statement.text
    pool: Any = greenwait.Pool(dsn, min_size=size, max_size=size, configure=_set_autocommit)

    def ask() -> Any:
        with pool.connection() as conn, conn.cursor() as cur:
            cur.execute(text)
            return cur.fetchone() if statement.is_single else cur.fetchall()

    def work(queries: int) -> None:
        for _ in repeat(None, queries):
            ask()

    def run(queries: int) -> None:
        for job in [hub.spawn(work, queries) for _ in range(connections)]:
            job.result()

    statement.check(ask())
    return run


def _pool_tasks(
    connections: int,
    connect: Callable[[int], Awaitable[Any]],
    ask: _Ask,
    loop: asyncio.AbstractEventLoop,
    statement: Statement,
) -> _Run:
    async def make() -> Any:
        return await connect(_size(connections))

    pool = loop.run_until_complete(make())
    return _run_tasks([pool] * connections, ask, loop, statement)


def _aio_pool(dsn: str, connections: int, statement: Statement, *, loop: str = "asyncio") -> _Run:
    import greenwait
    from greenwait import aio

    greenwait.install()
    ask_cursor = _by_cursor(statement)

    async def connect(size: int) -> Any:
        return await aio.create_pool(dsn, min_size=size, max_size=size, configure=_set_autocommit)

    async def ask(pool: Any) -> Any:
        async with pool.connection() as conn, conn.cursor() as cur:
            return await ask_cursor(cur)

    return _pool_tasks(connections, connect, ask, _new_loop(loop), statement)


def _asyncpg_pool(
    dsn: str, connections: int, statement: Statement, *, loop: str = "asyncio"
) -> _Run:
    import asyncpg

    text = statement.text

    async def connect(size: int) -> Any:
        return await asyncpg.create_pool(
            **_asyncpg_options(dsn), min_size=size, max_size=size, init=_decode_jsonb
        )

    async def ask(pool: Any) -> Any:
        async with pool.acquire() as conn:
            return await conn.fetch(text)

    return _pool_tasks(connections, connect, ask, _new_loop(loop), statement)


def _psycopg3_pool(dsn: str, connections: int, statement: Statement) -> _Run:
    import psycopg_pool

    ask_cursor = _by_cursor(statement)

    async def connect(size: int) -> Any:
        pool = psycopg_pool.AsyncConnectionPool(
            dsn, min_size=size, max_size=size, kwargs={"autocommit": True}, open=False
        )
        await pool.open(wait=True)
        return pool

    async def ask(pool: Any) -> Any:
        async with pool.connection() as conn, conn.cursor() as cur:
            return await ask_cursor(cur)

    return _pool_tasks(connections, connect, ask, _new_loop("asyncio"), statement)


def _psqlpy_borrow(dsn: str, connections: int, statement: Statement) -> _Run:
    text = statement.text

    async def connect(size: int) -> Any:
        return _psqlpy_pool(dsn, size)

    async def ask(pool: Any) -> Any:
        async with pool.acquire() as conn:
            return (await conn.fetch(text)).result(as_tuple=True)

    return _pool_tasks(connections, connect, ask, _new_loop("uvloop"), statement)


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
    "psqlpy": Client("psqlpy, uvloop", _psqlpy, needs="psqlpy"),
    "hub-pool": Client("greenwait's Pool, hub", _hub_pool, True, True),
    "aio-pool": Client("greenwait's AsyncPool", _aio_pool, True, True),
    "aio-pool-uvloop": Client(
        "greenwait's AsyncPool, uvloop", partial(_aio_pool, loop="uvloop"), True, True
    ),
    "asyncpg-pool": Client("asyncpg's pool", _asyncpg_pool, False, True),
    "asyncpg-pool-uvloop": Client(
        "asyncpg's pool, uvloop", partial(_asyncpg_pool, loop="uvloop"), False, True
    ),
    "psycopg3-pool": Client(
        "psycopg_pool, asyncio", _psycopg3_pool, False, True, needs="psycopg_pool"
    ),
    "psqlpy-pool": Client("psqlpy's pool, uvloop", _psqlpy_borrow, False, True, needs="psqlpy"),
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
    parser.add_argument("statement", nargs="?", default="select-1", choices=STATEMENTS)
    options = parser.parse_args()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    run = CLIENTS[options.client].start(options.dsn, options.connections, options.statement)
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
