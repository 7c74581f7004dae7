"""A process that runs ``select 1`` on many connections at once; ``processes.py`` starts it.

    python benchmarks/clients.py CLIENT CONNECTIONS DSN

Each line on its standard input is a number of queries for each connection; each line on its
standard output says in JSON how long they took, the process's CPU time, and its memory.
"""

import argparse
import asyncio
import contextlib
import gc
import json
import resource
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from typing import Any

import psycopg2
from psycopg2.extensions import parse_dsn

__all__ = ["CLIENTS", "Client"]

_Run = Callable[[int], None]


@dataclass(frozen=True)
class Client:
    """One way to have many connections, and how to begin with it."""

    title: str
    start: Callable[[str, int], contextlib.AbstractContextManager[_Run]]
    is_greenwait: bool = False


def _connected(dsn: str) -> Any:
    conn = psycopg2.connect(dsn)
    conn.autocommit = True
    return conn


def _work(conn: Any, queries: int) -> None:
    with conn.cursor() as cur:
        for _ in repeat(None, queries):
            cur.execute("select 1")
            cur.fetchone()


@contextlib.contextmanager
def _hub(dsn: str, connections: int) -> Iterator[_Run]:
    import greenwait

    greenwait.install()
    opened = [_connected(dsn) for _ in range(connections)]
    with greenwait.Hub() as hub:

        def run(queries: int) -> None:
            for job in [hub.spawn(_work, conn, queries) for conn in opened]:
                job.result()

        yield run


def _gevent(patch: Callable[[], object], dsn: str, connections: int) -> Iterator[_Run]:
    import gevent

    patch()
    opened = [_connected(dsn) for _ in range(connections)]

    def run(queries: int) -> None:
        gevent.joinall([gevent.spawn(_work, conn, queries) for conn in opened], raise_error=True)

    yield run


@contextlib.contextmanager
def _greenwait_gevent(dsn: str, connections: int) -> Iterator[_Run]:
    from greenwait.gevent import patch_psycopg

    yield from _gevent(patch_psycopg, dsn, connections)


@contextlib.contextmanager
def _psycogreen(dsn: str, connections: int) -> Iterator[_Run]:
    from psycogreen.gevent import patch_psycopg

    yield from _gevent(patch_psycopg, dsn, connections)


def _eventlet(patch: Callable[[], object], dsn: str, connections: int) -> Iterator[_Run]:
    import eventlet

    patch()
    opened = [_connected(dsn) for _ in range(connections)]

    def run(queries: int) -> None:
        for each in [eventlet.spawn(_work, conn, queries) for conn in opened]:
            each.wait()

    yield run


@contextlib.contextmanager
def _greenwait_eventlet(dsn: str, connections: int) -> Iterator[_Run]:
    from greenwait.eventlet import patch_psycopg

    yield from _eventlet(patch_psycopg, dsn, connections)


@contextlib.contextmanager
def _psycogreen_eventlet(dsn: str, connections: int) -> Iterator[_Run]:
    from psycogreen.eventlet import patch_psycopg

    yield from _eventlet(patch_psycopg, dsn, connections)


@contextlib.contextmanager
def _threads(dsn: str, connections: int) -> Iterator[_Run]:
    opened = [_connected(dsn) for _ in range(connections)]

    def run(queries: int) -> None:
        threads = [threading.Thread(target=_work, args=(conn, queries)) for conn in opened]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    yield run


_Open = Callable[[], Awaitable[Any]]
_Query = Callable[[Any], Awaitable[object]]


def _asyncio(connections: int, open_one: _Open, query: _Query, loop: Any = None) -> Iterator[_Run]:
    async def open_all() -> list[Any]:
        return [await open_one() for _ in range(connections)]

    async def work(conn: Any, queries: int) -> None:
        for _ in repeat(None, queries):
            await query(conn)

    async def work_all(queries: int) -> None:
        await asyncio.gather(*[work(conn, queries) for conn in opened])

    with contextlib.closing(loop or asyncio.new_event_loop()) as chosen:
        opened = chosen.run_until_complete(open_all())
        yield lambda queries: chosen.run_until_complete(work_all(queries))


def _asyncpg_open(dsn: str) -> _Open:
    import asyncpg

    options = parse_dsn(dsn)
    return lambda: asyncpg.connect(
        host=options["host"],
        port=int(options["port"]),
        user=options["user"],
        database=options["dbname"],
        ssl=False,
        statement_cache_size=0 if options["dbname"] == "bouncer" else 100,
    )


def _new_loop(kind: str) -> Any:
    if kind == "uvloop":
        import uvloop

        return uvloop.new_event_loop()
    return asyncio.new_event_loop()


@contextlib.contextmanager
def _aio(dsn: str, connections: int, kind: str = "asyncio") -> Iterator[_Run]:
    import greenwait
    from greenwait import aio

    greenwait.install()

    async def open_one() -> Any:
        conn = await aio.connect(dsn)
        conn.autocommit = True
        return conn.cursor()

    async def query(cur: Any) -> None:
        await cur.execute("select 1")
        await cur.fetchone()

    yield from _asyncio(connections, open_one, query, _new_loop(kind))


@contextlib.contextmanager
def _aio_run(dsn: str, connections: int, kind: str = "asyncio") -> Iterator[_Run]:
    import greenwait
    from greenwait import aio

    greenwait.install()
    opened = [_connected(dsn) for _ in range(connections)]

    async def work_all(queries: int) -> None:
        await asyncio.gather(*[aio.run(_work, conn, queries) for conn in opened])

    with contextlib.closing(_new_loop(kind)) as loop:
        yield lambda queries: loop.run_until_complete(work_all(queries))


@contextlib.contextmanager
def _aiopg(dsn: str, connections: int) -> Iterator[_Run]:
    import aiopg

    async def open_one() -> Any:
        return await (await aiopg.connect(dsn)).cursor()

    async def query(cur: Any) -> None:
        await cur.execute("select 1")
        await cur.fetchone()

    yield from _asyncio(connections, open_one, query)


@contextlib.contextmanager
def _asyncpg(dsn: str, connections: int) -> Iterator[_Run]:
    yield from _asyncio(connections, _asyncpg_open(dsn), lambda conn: conn.fetch("select 1"))


@contextlib.contextmanager
def _asyncpg_uvloop(dsn: str, connections: int) -> Iterator[_Run]:
    open_one = _asyncpg_open(dsn)
    loop = _new_loop("uvloop")
    yield from _asyncio(connections, open_one, lambda conn: conn.fetch("select 1"), loop)


@contextlib.contextmanager
def _psycopg3(dsn: str, connections: int) -> Iterator[_Run]:
    import psycopg

    async def open_one() -> Any:
        return (await psycopg.AsyncConnection.connect(dsn, autocommit=True)).cursor()

    async def query(cur: Any) -> None:
        await cur.execute("select 1")
        await cur.fetchone()

    yield from _asyncio(connections, open_one, query)


#: By the name on the command line.
CLIENTS = {
    "hub": Client("greenwait's hub", _hub, is_greenwait=True),
    "gevent": Client("greenwait, gevent", _greenwait_gevent, is_greenwait=True),
    "eventlet": Client("greenwait, eventlet", _greenwait_eventlet, is_greenwait=True),
    "aio": Client("greenwait, asyncio", _aio, is_greenwait=True),
    "aio-run": Client("greenwait, aio.run()", _aio_run, is_greenwait=True),
    "aio-uvloop": Client("greenwait, uvloop", partial(_aio, kind="uvloop"), is_greenwait=True),
    "psycogreen": Client("psycogreen, gevent", _psycogreen),
    "psycogreen-eventlet": Client("psycogreen, eventlet", _psycogreen_eventlet),
    "threads": Client("threads, blocking", _threads),
    "asyncpg": Client("asyncpg", _asyncpg),
    "asyncpg-uvloop": Client("asyncpg, uvloop", _asyncpg_uvloop),
    "aiopg": Client("aiopg", _aiopg),
    "psycopg3": Client("psycopg 3, asyncio", _psycopg3),
}


def main() -> None:
    """Connect, and do as the lines on standard input say until that ends."""
    parser = argparse.ArgumentParser(description="Query on many connections at once.")
    parser.add_argument("client", choices=CLIENTS)
    parser.add_argument("connections", type=int)
    parser.add_argument("dsn")
    options = parser.parse_args()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with CLIENTS[options.client].start(options.dsn, options.connections) as run:
        run(3)
        for line in sys.stdin:
            gc.collect()
            gc.disable()
            cpu, start = time.process_time(), time.perf_counter()
            run(int(line))
            figures = {
                "seconds": time.perf_counter() - start,
                "cpu_seconds": time.process_time() - cpu,
            }
            gc.enable()
            print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
