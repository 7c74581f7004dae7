"""Uses that look like mistakes, and work."""

import asyncio
import copy
import pickle
from typing import Any

import psycopg2
import psycopg2.extras
import pytest
from psycopg2.extensions import get_wait_callback

import greenwait
from greenwait import aio


def test_functions_of_psycopg2_work_below_run(server):
    async def main():
        conn = await aio.connect(server.dsn(server.transports[0]))
        cur = conn.cursor()
        await aio.run(psycopg2.extras.execute_values, cur, "select * from (values %s) v", [(1,)])
        assert await cur.fetchone() == (1,)
        assert cur.mogrify("select %s", ("x",)) == b"select 'x'"
        await conn.rollback()
        conn.close()

    with greenwait.installed():
        asyncio.run(main())


def test_logging_connection_before_the_awaited_one(server, tmp_path):
    cls: Any = type("C", (psycopg2.extras.LoggingConnection, aio.AsyncConnection), {})

    async def main():
        dsn = server.dsn(server.transports[0])
        conn: Any = await aio.connect(dsn, connection_factory=cls)
        with (tmp_path / "log").open("w+") as log:
            conn.initialize(log)
            cur = conn.cursor()
            await cur.execute("select 1")
            assert await cur.fetchone() == (1,)
            log.seek(0)
            assert log.read() == "select 1\n"
        conn.close()

    with greenwait.installed():
        asyncio.run(main())


@pytest.mark.parametrize("kind", ["function", "async function"])
def test_timeout_decorates(server, kind):
    block = greenwait.timeout(0.1)

    @block
    def sleep(conn):
        """Sleep on the server."""
        with conn.cursor() as cur:
            cur.execute("select pg_sleep(20)")

    @block
    async def async_sleep(conn):
        """Sleep on the server."""
        async with conn.cursor() as cur:
            await cur.execute("select pg_sleep(20)")

    async def main(dsn):
        conn = await aio.connect(dsn)
        for _ in range(2):  # each call has a block of its own
            with pytest.raises(greenwait.QueryTimeout):
                await async_sleep(conn)
            await conn.rollback()
        conn.close()

    dsn = server.dsn(server.transports[0])
    with greenwait.installed():
        if kind == "async function":
            assert asyncio.iscoroutinefunction(async_sleep)
            asyncio.run(main(dsn))
        else:
            assert (sleep.__name__, sleep.__doc__) == ("sleep", "Sleep on the server.")
            conn = greenwait.connect(dsn)
            for _ in range(2):
                with pytest.raises(greenwait.QueryTimeout):
                    sleep(conn)
                conn.rollback()
            conn.close()


def test_installed_decorates_async_functions():
    @greenwait.installed(timeout=3)
    async def during():
        await asyncio.sleep(0)
        return get_wait_callback()

    before = get_wait_callback()
    assert asyncio.iscoroutinefunction(during)
    found: Any = asyncio.run(during())
    assert found.timeout == 3
    assert get_wait_callback() is before


def test_callback_can_be_copied_and_pickled():
    callback = greenwait.WaitCallback(timeout=3, spin="auto", slow=0.5, on_event_loop="raise")
    for other in (
        copy.copy(callback),
        copy.deepcopy(callback),
        pickle.loads(pickle.dumps(callback)),
    ):
        assert other is not callback
        assert repr(other) == repr(callback)


def test_aio_is_an_attribute(run_python):
    printed = run_python(
        "import greenwait, sys; assert 'greenwait.aio' not in sys.modules;"
        "print(greenwait.aio.run.__name__); assert not hasattr(greenwait, 'gevent')"
    )
    assert printed.strip() == "run"
