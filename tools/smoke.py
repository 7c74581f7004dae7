"""Does an installed greenwait work, in every context that needs nothing but psycopg2?

    python tools/smoke.py [DSN]

Run by path, so that the greenwait that is imported is the installed one. Without a DSN it starts
a PostgreSQL of its own (``tools/postgres.py``); ``--no-server`` is for where there is none:
then everything is imported, and no more.
"""

import asyncio
import contextlib
import faulthandler
import importlib
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psycopg2
import psycopg2.extensions

import greenwait
import greenwait.aio
from greenwait._sleep import POLLERS

_BOUND = 120  # seconds; then all stacks are dumped
_NEED_MORE = {"__main__", "eventlet", "gevent", "trio"}  # than psycopg2


def _ask(dsn: str, number: int) -> int:
    with contextlib.closing(psycopg2.connect(dsn)) as conn:
        cur = conn.cursor()
        cur.execute("select %s from pg_sleep(0.05)", (number,))
        row = cur.fetchone()
        assert row is not None
        return int(row[0])


def imports() -> None:
    """Import every module: each extension is there, and fits this Python."""
    package = Path(greenwait.__file__).parent
    for path in package.rglob("*"):
        module = (*path.relative_to(package).parts[:-1], path.name.partition(".")[0])
        if path.suffix in (".py", ".so", ".pyd") and module[0] not in _NEED_MORE:
            importlib.import_module(".".join(("greenwait", *module)).removesuffix(".__init__"))


def callbacks(dsn: str) -> None:
    """Each callback waits for a row, and for a result that arrives in many pieces."""
    for poller in POLLERS:
        with greenwait.installed(poller=poller), contextlib.closing(psycopg2.connect(dsn)) as conn:
            cur = conn.cursor()
            cur.execute("select 42 from pg_sleep(0.05)")
            assert cur.fetchall() == [(42,)]
            cur.execute("select repeat('x', 3000000)")
            assert len(cur.fetchall()[0][0]) == 3_000_000
    assert greenwait.stats().results_libpq >= len(POLLERS), "libpq is not called directly"


def threads(dsn: str) -> None:
    """Threads wait at the same time, without the GIL."""
    found: list[int] = []
    with greenwait.installed():
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
    """Greenlets wait on one thread."""
    with greenwait.installed():
        assert list(greenwait.map(lambda n: _ask(dsn, n), range(8))) == list(range(8))


def event_loop(dsn: str) -> None:
    """Run synchronous code that waits on asyncio's loop."""

    async def main() -> list[int]:
        return await asyncio.gather(*[greenwait.aio.run(_ask, dsn, n) for n in range(8)])

    with greenwait.installed():
        assert asyncio.run(main()) == list(range(8))


def limit(dsn: str) -> None:
    """End a query at its timeout; the connection goes on."""
    with greenwait.installed(), contextlib.closing(greenwait.connect(dsn)) as conn:
        cur = conn.cursor()
        start = time.monotonic()
        try:
            with greenwait.timeout(0.2):
                cur.execute("select pg_sleep(60)")
        except greenwait.QueryTimeout:
            conn.rollback()
        else:
            raise AssertionError("no QueryTimeout")
        assert time.monotonic() - start < 50, "it ended, but not early"
        cur.execute("select 1")
        assert cur.fetchone() == (1,)


_CHECKS: tuple[Callable[[str], None], ...] = (callbacks, threads, hub, event_loop, limit)


def main() -> None:
    """Run every check; the first that fails ends it."""
    faulthandler.dump_traceback_later(_BOUND, exit=True)
    root = Path(__file__).resolve().parent.parent
    assert root / "src" not in Path(greenwait.__file__).parents, "this is not an installed one"
    imports()
    if sys.argv[1:] == ["--no-server"]:
        print(f"greenwait {greenwait.__version__}: imports; no server to try it on")
        return
    with contextlib.ExitStack() as stack:
        if sys.argv[1:]:
            (dsn,) = sys.argv[1:]
        else:
            sys.path.append(str(root))
            server = importlib.import_module("tools.postgres").running()
            dsn = stack.enter_context(server).dsn(server.transports[0])
        for check in _CHECKS:
            check(dsn)
    python = ".".join(map(str, sys.version_info[:3]))
    libpq = psycopg2.extensions.libpq_version()
    names = ", ".join(check.__name__ for check in _CHECKS)
    print(f"greenwait {greenwait.__version__}, Python {python}, libpq {libpq}: {names}")


if __name__ == "__main__":
    main()
