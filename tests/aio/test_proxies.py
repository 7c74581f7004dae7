"""A library that traces puts proxies around connections and cursors: what it sees."""

import asyncio
import time
from typing import Any

import psycopg2
import pytest

import greenwait
from greenwait import aio


class Proxy:
    """What ``wrapt.ObjectProxy`` does, in short."""

    def __init__(self, wrapped):
        self.__wrapped__ = wrapped

    def __getattr__(self, name):
        return getattr(self.__wrapped__, name)

    def __setattr__(self, name, value):
        if name in ("__wrapped__", "seen"):
            object.__setattr__(self, name, value)
        else:
            setattr(self.__wrapped__, name, value)


class TracedCursor(Proxy):
    def __init__(self, wrapped, seen):
        super().__init__(wrapped)
        self.seen = seen

    def execute(self, query, *args):
        began = time.monotonic()
        try:
            return self.__wrapped__.execute(query, *args)
        finally:
            self.seen.append((query, time.monotonic() - began))


class TracedConnection(Proxy):
    def __init__(self, wrapped, seen):
        super().__init__(wrapped)
        self.seen = seen

    def cursor(self, *args, **kwargs):
        return TracedCursor(self.__wrapped__.cursor(*args, **kwargs), self.seen)


@pytest.fixture
def seen(monkeypatch):
    """The queries that are traced, and how long each took."""
    seen: list[Any] = []
    connect = psycopg2.connect
    for _ in range(2):  # two such libraries
        monkeypatch.setattr(
            psycopg2,
            "connect",
            lambda *args, connect=connect, **kwargs: TracedConnection(
                connect(*args, **kwargs), seen
            ),
        )
        connect = psycopg2.connect
    return seen


def test_queries_of_awaited_methods_are_seen_while_they_last(run, dsn, seen):
    async def main():
        conn = await aio.connect(dsn)
        assert type(conn) is aio.AsyncConnection
        async with conn, conn.cursor() as cur:
            assert isinstance(cur, aio.AsyncCursor)
            await cur.execute("select 1 from pg_sleep(0.1)")
            assert await cur.fetchone() == (1,)
        async with conn, conn.cursor("named", withhold=True, scrollable=True) as cur:
            await cur.execute("select generate_series(1, 3)")
            assert [row async for row in cur] == [(1,), (2,), (3,)]
            assert (cur.withhold, cur.scrollable) == (True, True)
        with pytest.raises(asyncio.TimeoutError):
            async with conn.cursor() as cur:
                await asyncio.wait_for(cur.execute("select pg_sleep(20)"), 0.1)
        await conn.rollback()
        conn.close()
        async with aio.create_pool(dsn, max_size=1) as pool, pool.connection() as conn:
            await conn.cursor().execute("select 2 from pg_sleep(0.1)")

    run(main())
    assert [query for query, _ in seen[::2]] == [query for query, _ in seen[1::2]]
    assert [query for query, _ in seen[::2]] == [
        "select 1 from pg_sleep(0.1)",
        "select generate_series(1, 3)",
        "select pg_sleep(20)",
        "select 2 from pg_sleep(0.1)",
    ]
    assert all(0.09 < seconds < 10 for query, seconds in seen if "pg_sleep" in query)


def test_synchronous_code_gets_the_proxy(run, dsn, seen):
    def work():
        conn: Any = greenwait.connect(dsn)
        assert isinstance(conn.cursor(), TracedCursor)
        greenwait.cancel(conn)
        conn.cursor().execute("select 1")
        assert list(greenwait.notifies(conn, 0)) == []
        conn.close()
        pool = greenwait.Pool(dsn, max_size=1)
        for _ in range(2):
            with pool.connection() as lent:
                assert isinstance(lent.cursor(), TracedCursor)
                lent.autocommit = not lent.autocommit
                lent.cursor().execute("select 2")
        assert (pool.stats().made, pool.stats().in_use) == (1, 0)
        pool.close()

    async def main():
        await aio.run(work)

    run(main())
    assert len(seen) == 6
