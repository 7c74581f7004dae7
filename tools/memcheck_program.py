"""What valgrind watches: each way through the C once, and many waits.

python -m tools.memcheck_program DSN WAITS
python -m tools.memcheck_program planted
"""

import asyncio
import contextlib
import faulthandler
import functools
import importlib
import os
import sys
import threading
from typing import Any

import psycopg2
from psycopg2.extensions import set_wait_callback

import greenwait
import greenwait.aio

_TOO_LONG = 500.0  # seconds, after which the stacks are dumped; valgrind is twenty times slower


def waits(dsn: str, number: int) -> None:
    """Wait *number* times for a small result."""
    with contextlib.closing(psycopg2.connect(dsn)) as conn:
        cur = conn.cursor()
        for expected in range(number):
            cur.execute("select %s", (expected,))
            assert cur.fetchone() == (expected,)


def connecting(dsn: str) -> None:
    """Connect, over both ways of ours, and fail to."""
    for connect in (psycopg2.connect, greenwait.connect):
        connect(dsn).close()
        with contextlib.suppress(psycopg2.OperationalError):
            connect(dsn, dbname="there_is_none")
        with contextlib.suppress(psycopg2.OperationalError):
            connect(dsn, host="127.0.0.1", port=1)
    with contextlib.suppress(psycopg2.ProgrammingError):
        greenwait.connect("'")


def queries(dsn: str) -> None:
    """Send and receive what one packet does not hold; fail; notify."""
    with contextlib.closing(greenwait.connect(dsn)) as conn:
        cur = conn.cursor()
        cur.execute("select %s, g from generate_series(1, 500) g", ("x" * 2000,))
        assert len(cur.fetchall()) == 500
        cur.execute("select length(%s)", ("x" * 3_000_000,))
        assert cur.fetchone() == (3_000_000,)
        with contextlib.suppress(psycopg2.DataError):
            cur.execute("select 1 / 0")
        conn.rollback()
        cur.execute("listen here; notify here, 'x'")
        conn.commit()
        assert next(greenwait.notifies(conn, timeout=5)).payload == "x"


def interrupted(dsn: str) -> None:
    """Run out of time, and be cancelled by another thread."""
    with contextlib.closing(greenwait.connect(dsn)) as conn:
        for _ in range(5):
            try:
                with greenwait.timeout(0.1):
                    conn.cursor().execute("select pg_sleep(100)")
            except greenwait.QueryTimeout:
                conn.rollback()
            else:
                raise AssertionError("it did not run out of time")
        other = threading.Timer(0.5, greenwait.cancel, [conn])
        other.start()
        with contextlib.suppress(psycopg2.errors.QueryCanceled):
            conn.cursor().execute("select pg_sleep(100)")
        other.join()
        conn.rollback()


def copies(dsn: str) -> None:
    """Leave a COPY open, in each direction, and end it."""
    with contextlib.closing(psycopg2.connect(dsn)) as conn:
        conn.autocommit = True
        conn.cursor().execute("create temp table taken (number int)")
        for copy in (
            "copy pg_temp.taken from stdin",
            "copy (select g, repeat('x', 100) from generate_series(1, 2000) g) to stdout",
            "select generate_series(1, 2000); copy (select 1) to stdout",
        ):
            with contextlib.suppress(psycopg2.ProgrammingError):
                conn.cursor().execute(copy)
            conn.rollback()
            conn.cursor().execute("select 1")


def broken(dsn: str) -> None:
    """Lose the connection while a query waits."""
    with contextlib.closing(psycopg2.connect(dsn)) as conn:
        with contextlib.suppress(psycopg2.OperationalError):
            conn.cursor().execute("select pg_terminate_backend(pg_backend_pid()), pg_sleep(5)")
        assert conn.closed


def _one(dsn: str, number: int) -> int:
    with contextlib.closing(greenwait.connect(dsn)) as conn:
        cur = conn.cursor()
        cur.execute("select %s from pg_sleep(0.02)", (number,))
        return int(cur.fetchall()[0][0])


def hub(dsn: str) -> None:
    """Wait for many at once, give some up, borrow from a pool."""
    jobs = [functools.partial(_one, dsn, number) for number in range(8)]
    assert greenwait.gather(*jobs) == list(range(8))
    with greenwait.Hub() as here:
        job = here.spawn(_one, dsn, 1)
        sleeper = here.spawn(here.sleep, 100)
        here.sleep(0.3)
        sleeper.cancel()
        assert job.result() == 1
    with greenwait.Pool(dsn, min_size=1, max_size=2) as pool:

        def borrow() -> None:
            with pool.connection(timeout=60) as conn:
                conn.cursor().execute("select pg_sleep(0.02)")

        greenwait.gather(*[borrow] * 6)


def event_loop(dsn: str) -> None:
    """Do the same on asyncio, with a task that is cancelled."""

    async def work() -> None:
        assert await greenwait.aio.run(_one, dsn, 3) == 3
        conn: Any = await greenwait.aio.connect(dsn)
        async with conn.cursor() as cur:
            await cur.execute("select generate_series(1, 100)")
            assert len(await cur.fetchall()) == 100
            task = asyncio.ensure_future(cur.execute("select pg_sleep(100)"))
            await asyncio.sleep(0.5)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await conn.rollback()
        await conn.close()
        await asyncio.gather(*(greenwait.aio.run(_one, dsn, number) for number in range(5)))

    asyncio.run(work())


def planted() -> None:
    """Do what must be found."""
    _planted_defect: Any = importlib.import_module("greenwait._planted_defect")

    _planted_defect.read_beyond(64)
    _planted_defect.depend_on_nothing(64)
    _planted_defect.lose(64, 100)


def main(arguments: list[str]) -> None:
    """Go each way under each callback."""
    faulthandler.dump_traceback_later(_TOO_LONG, exit=True)
    if arguments == ["planted"]:
        planted()
        return
    dsn, number = arguments[0], int(arguments[1])
    for callback in (greenwait.wait, greenwait.EpollWaitCallback):
        set_wait_callback(callback)
        waits(dsn, number // 2)
        is_epoll = callback is greenwait.EpollWaitCallback
        # Valgrind takes its time.
        greenwait.install(poller="epoll" if is_epoll else "poll", cancel_grace=30)
        for way in (connecting, queries, interrupted, copies, broken, hub, event_loop):
            print(f"{os.times().elapsed:.0f} {way.__name__}", flush=True)
            way(dsn)


if __name__ == "__main__":
    main(sys.argv[1:])
