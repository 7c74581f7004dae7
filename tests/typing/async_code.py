"""What do type checkers make of asyncio's and trio's programs that use greenwait?

It is not run, as ``sync_code.py`` is not.
"""

from collections.abc import AsyncGenerator
from typing import Any

import psycopg2.extensions
import psycopg2.extras
from psycopg2.extensions import Notify
from typing_extensions import assert_type

import greenwait.aio
import greenwait.trio


def length(word: str, *, times: int = 1) -> int:
    """Be called by others."""
    return len(word) * times


async def call() -> str:
    """Be awaited in synchronous code."""
    return ""


async def running() -> None:
    """What a function returns is what is awaited, and what it takes has to be given."""
    assert_type(await greenwait.aio.run(length, "a", times=2), int)
    assert_type(await greenwait.trio.run(length, "a"), int)
    assert_type(greenwait.aio.await_(call()), str)

    await greenwait.aio.run(length, 1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await greenwait.aio.run(length)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await greenwait.trio.run(length, "a", time=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await greenwait.aio.run(length("a"))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]


async def connections() -> None:
    """Methods are to be awaited, and give what psycopg2's do."""
    conn = await greenwait.aio.connect("dbname=postgres")
    assert_type(conn, greenwait.aio.AsyncConnection)
    async with conn, conn.cursor() as cur:
        assert_type(cur, greenwait.aio.AsyncCursor)
        await cur.execute("select %s", (1,))
        assert_type(await cur.fetchone(), tuple[Any, ...] | None)
        assert_type(await cur.fetchall(), list[tuple[Any, ...]])
        async for row in cur:
            assert_type(row, tuple[Any, ...])
    assert_type(await conn.commit(), None)
    assert_type(await conn.tpc_recover(), list[psycopg2.extensions.Xid])
    assert_type(greenwait.aio.notifies(conn, timeout=1), AsyncGenerator[Notify, None])
    assert_type(conn.cursor(cursor_factory=psycopg2.extras.DictCursor), Any)
    conn.close()
    await conn.close()

    cur.fetchone()[0]  # type: ignore[index]  # pyright: ignore[reportIndexIssue]
    await cur.execute(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await conn.set_session(autocomit=True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await greenwait.aio.connect(5)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]


class Own(greenwait.aio.AsyncConnection):
    """A class of a user's."""


async def configure(conn: greenwait.aio.AsyncConnection) -> None:
    """Be called with new connections."""


async def borrows_from(pool: greenwait.aio.AsyncPool) -> None:
    """Name a pool without the class of its connections: they are greenwait's."""
    async with pool.connection() as conn:
        assert_type(conn, greenwait.aio.AsyncConnection)
    assert_type(await pool.getconn(), greenwait.aio.AsyncConnection)


async def pools() -> None:
    """A pool lends connections of its class."""
    async with await greenwait.aio.create_pool("", min_size=1) as pool:
        assert_type(pool, greenwait.aio.AsyncPool[greenwait.aio.AsyncConnection])
        assert_type(pool.stats(), greenwait.PoolStats)
        async with pool.connection(timeout=1) as conn:
            assert_type(conn, greenwait.aio.AsyncConnection)
            await conn.commit()

    async with greenwait.aio.create_pool("", connection_factory=Own, reset=configure) as own:
        assert_type(own, greenwait.aio.AsyncPool[Own])
        assert_type(await own.getconn(), Own)
        await own.putconn(await own.getconn(), close=True)

    async with pool.connection("1"):  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        pass
