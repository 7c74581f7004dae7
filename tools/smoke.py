"""Go each way through an installed greenwait once, with nothing but psycopg2.

    python tools/smoke.py [DSN | --no-server] [--waits N]

Run by path, so that the greenwait that is imported is the installed one. Without a DSN it starts
a PostgreSQL of its own (``tests/lab/postgres.py``); ``--no-server`` is for where there is none:
then everything is imported, and no more. ``make memcheck`` runs this under valgrind.
"""

import argparse
import asyncio
import contextlib
import faulthandler
import functools
import importlib
import importlib.machinery
import io
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg2
import psycopg2.extensions

import greenwait
import greenwait.aio
from greenwait._sleep import POLLERS

_TOO_LONG = 500  # seconds, after which the stacks are dumped; valgrind is twenty times slower
_SLOW = 50.0  # seconds, after which a query has not ended early
_PACKAGE = Path(greenwait.__file__).parent
_NEED_MORE = ("eventlet", "gevent", "sqlalchemy", "trio", "__main__")  # than psycopg2


def import_everything() -> None:
    """Import every module that a stub describes; of the others, see that they are there."""
    for stub in _PACKAGE.rglob("*.pyi"):
        folder, name = stub.parent, stub.stem
        found = [folder / f"{name}{suffix}" for suffix in importlib.machinery.all_suffixes()]
        assert any(path.exists() for path in found), f"{stub} describes nothing"
        parts = stub.relative_to(_PACKAGE).with_suffix("").parts
        if parts[0] not in _NEED_MORE:
            importlib.import_module(".".join(("greenwait", *parts)))


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
        for wrong in ("dbname=there_is_none", "host=127.0.0.1 port=1"):
            with contextlib.suppress(psycopg2.OperationalError):
                connect(f"{dsn} {wrong}")
                raise AssertionError(wrong)
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
        assert next(greenwait.notifies(conn, timeout=_SLOW)).payload == "x"


def interrupted(dsn: str) -> None:
    """Run out of time, and be cancelled by another thread; the connection goes on."""
    with contextlib.closing(greenwait.connect(dsn)) as conn:
        cur = conn.cursor()
        for _ in range(5):
            start = time.monotonic()
            try:
                with greenwait.timeout(0.1):
                    cur.execute("select pg_sleep(100)")
            except greenwait.QueryTimeout:
                conn.rollback()
            else:
                raise AssertionError("no QueryTimeout")
            assert time.monotonic() - start < _SLOW, "it ended, but not early"
        other = threading.Timer(0.5, greenwait.cancel, [conn])
        other.start()
        with contextlib.suppress(psycopg2.errors.QueryCanceled):
            cur.execute("select pg_sleep(100)")
        other.join()
        conn.rollback()
        cur.execute("select 1")
        assert cur.fetchone() == (1,)


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


def files(dsn: str) -> None:
    """Copy a file in, out, and not to its end; write a large object, and read it."""
    with contextlib.closing(greenwait.connect(dsn)) as conn:
        cur = conn.cursor()
        cur.execute("create temp table taken (number int)")
        data = b"".join(b"%d\n" % number for number in range(50_000))
        cur.copy_from(io.BytesIO(data), "taken")
        file = io.BytesIO()
        cur.copy_expert("copy pg_temp.taken to stdout", file)
        assert file.getvalue() == data
        with contextlib.suppress(psycopg2.DataError):
            cur.copy_from(io.BytesIO(b"x\n" + data), "taken")
        conn.rollback()
        with contextlib.suppress(greenwait.QueryTimeout), greenwait.timeout(0.1):
            cur.copy_expert("copy (select generate_series(1, 1000000000)) to stdout", _Nowhere())
        conn.rollback()
        lob = conn.lobject(mode="wb")
        lob.write(data)
        assert conn.lobject(lob.oid, "rb").read() == data


class _Nowhere:
    def write(self, data: bytes) -> None:
        """Forget it."""


def streams(dsn: str) -> None:
    """Read a replication stream, end it, and have the server end one."""
    slot = f"smoke_{os.getpid()}"
    factory = greenwait.LogicalReplicationConnection
    with (
        contextlib.closing(greenwait.connect(dsn)) as writer,
        contextlib.closing(greenwait.connect(dsn, connection_factory=factory)) as conn,
    ):
        cur = conn.cursor()
        cur.create_replication_slot(slot, output_plugin="test_decoding")
        cur.start_replication(slot, decode=True)
        with writer:
            writer.cursor().execute("select pg_logical_emit_message(true, 'here', 'x')")
        message = [next(cur) for _ in range(3)][1]
        assert message.payload.endswith("content:x"), message.payload
        cur.send_feedback(flush_lsn=message.data_start, reply=True)
        with contextlib.suppress(greenwait.QueryTimeout), greenwait.timeout(0.3):
            next(cur)
            raise AssertionError("a message that nobody has written")
        cur.stop_replication()
        cur.start_replication(slot)
        greenwait.cancel(conn)
        with contextlib.suppress(psycopg2.errors.QueryCanceled):
            while True:
                next(cur)
        cur.drop_replication_slot(slot)


def broken(dsn: str) -> None:
    """Lose the connection while a query waits."""
    with contextlib.closing(psycopg2.connect(dsn)) as conn:
        with contextlib.suppress(psycopg2.OperationalError):
            conn.cursor().execute("select pg_terminate_backend(pg_backend_pid()), pg_sleep(5)")
        assert conn.closed


def _ask(dsn: str, number: int) -> int:
    with contextlib.closing(greenwait.connect(dsn)) as conn:
        cur = conn.cursor()
        cur.execute("select %s from pg_sleep(0.02)", (number,))
        return int(cur.fetchall()[0][0])


def threads(dsn: str) -> None:
    """Threads wait at the same time, without the GIL."""
    found: list[int] = []
    workers = [
        threading.Thread(target=lambda number=number: found.append(_ask(dsn, number)))
        for number in range(8)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(found) == list(range(8))


def hub(dsn: str) -> None:
    """Wait for many at once, give some up, borrow from a pool."""
    jobs = [functools.partial(_ask, dsn, number) for number in range(8)]
    assert greenwait.gather(*jobs) == list(range(8))
    with greenwait.Hub() as here:
        job = here.spawn(_ask, dsn, 1)
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
    """Wait on asyncio's loop, in synchronous code too, with a task that is cancelled."""

    async def work() -> None:
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
        asked = [greenwait.aio.run(_ask, dsn, number) for number in range(8)]
        assert await asyncio.gather(*asked) == list(range(8))

    asyncio.run(work())


_WAYS: tuple[Callable[[str], None], ...] = (
    *(connecting, queries, interrupted, copies, files, streams, broken, threads, hub, event_loop),
)


def main() -> None:
    """Go every way under each poller; the first that fails ends it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("dsn", nargs="?")
    parser.add_argument("--no-server", action="store_true")
    parser.add_argument("--waits", type=int, default=100, help="under each poller")
    options = parser.parse_args()
    faulthandler.dump_traceback_later(_TOO_LONG, exit=True)
    root = Path(__file__).resolve().parent.parent
    assert root / "src" not in _PACKAGE.parents, "this is not an installed one"
    import_everything()
    if options.no_server:
        print(f"greenwait {greenwait.__version__}: imports; no server to try it on")
        return
    with contextlib.ExitStack() as stack:
        dsn = options.dsn
        if dsn is None:
            sys.path.insert(0, str(root))  # before a package that calls itself tests, too
            server = importlib.import_module("tests.lab.postgres").running()
            dsn = stack.enter_context(server).dsn(server.transports[0])
        for poller in POLLERS:
            with greenwait.installed(poller=poller, cancel_grace=_SLOW):
                waits(dsn, options.waits)
                for way in _WAYS:
                    way(dsn)
    assert greenwait.stats().results_libpq >= len(POLLERS), "libpq is not called directly"
    python = ".".join(map(str, sys.version_info[:3]))
    libpq = psycopg2.extensions.libpq_version()
    names = ", ".join(way.__name__ for way in (waits, *_WAYS))
    print(f"greenwait {greenwait.__version__}, Python {python}, libpq {libpq}: {names}")


if __name__ == "__main__":
    main()
