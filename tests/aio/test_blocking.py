"""A wait that stops the event loop: it is told, or refused."""

import asyncio
import contextlib
import time
import warnings

import psycopg2
import psycopg2.extras
import pytest

import greenwait
from greenwait import aio
from tests.lab.event_loops import ask
from tests.lab.marks import needs_refusal


@pytest.mark.parametrize("how", ["warn", "debug mode"])
def test_query_that_stops_the_loop_is_told_once_for_each_line(dsn, how):
    greenwait.install(on_event_loop="warn" if how == "warn" else None)

    async def main():
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(3):
                ask(dsn, "select 1")
            await aio.run(ask, dsn, "select 1")
        return [each for each in caught if "stops the event loop" in str(each.message)]

    from greenwait import _event_loop_warning

    _event_loop_warning._told.clear()
    loop = asyncio.new_event_loop()
    loop.set_debug(how != "warn")
    caught = loop.run_until_complete(main())
    loop.set_debug(False)
    if how != "warn":
        assert not loop.run_until_complete(main())
    loop.close()
    greenwait.uninstall()
    lines = [(each.filename, each.lineno) for each in caught]
    assert len(lines) == len(set(lines)) > 0
    assert {name for name, _ in lines} <= {ask.__code__.co_filename, psycopg2.__file__}


@needs_refusal
def test_query_that_stops_the_loop_is_refused(dsn, connect):
    conn = connect()

    async def main():
        with pytest.raises(RuntimeError, match=r"greenwait\.aio\.run"):
            conn.cursor().execute("select pg_sleep(20)")

    with (
        greenwait.installed(on_event_loop="raise", cancel_grace=10),
        contextlib.closing(asyncio.new_event_loop()) as loop,
    ):
        began = time.monotonic()
        loop.run_until_complete(main())
        assert time.monotonic() - began < 10
        conn.rollback()
        assert ask(dsn, "select 42") == 42
    with pytest.raises(ValueError, match="on_event_loop"):
        greenwait.WaitCallback(on_event_loop="ignore")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
