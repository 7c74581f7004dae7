"""Mistakes in asyncio programs; each is told what to do."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import psycopg2
import psycopg2.extras
import pytest

import greenwait
from greenwait import aio
from tests.lab.mistakes import (
    NOT_NEGATIVE,
    SECONDS,
    SYNCHRONOUS,
    Lab,
    Table,
    async_one,
    in_async_pool,
    in_asyncio,
    one,
    tell,
    uninstalled,
)

HELPER = r"does not await .* write await greenwait.aio.run\("
GIVEN_BACK = "was given back to its pool: use it within its with block"
NOT_AWAITED = r"not awaited.*write await AsyncCursor.{}\(\.\.\.\)"
EXTRAS: Any = psycopg2.extras


async def with_cursor(conn: Any, cur: Any) -> None:
    with conn.cursor("named"):
        pass


async def for_named(conn: Any, cur: Any) -> None:
    async with conn.cursor("named") as named:
        await named.execute("select 1")
        for _ in named:
            pass


async def blocks_nested(conn: Any, cur: Any) -> None:
    async with conn, conn:
        pass


async def await_cursor(conn: Any, cur: Any) -> None:
    await conn.cursor()


async def awaited_twice(conn: Any, cur: Any) -> None:
    call = cur.execute("select 1")
    await call
    await call


async def without_await(conn: Any, cur: Any) -> None:
    cur.execute("select 1")
    await cur.fetchone()


def closed(use: Callable[[Any], Any]) -> Callable[[Lab], Any]:
    async def mistake(lab: Lab) -> None:
        conn = await aio.connect(lab.dsn)
        await conn.close()
        await use(conn)

    return mistake


async def with_new_pool(lab: Lab) -> None:
    with lab.aio.create_pool(lab.dsn):
        pass


async def new_pool_twice(lab: Lab) -> None:
    new = aio.create_pool(lab.dsn)
    async with await new:
        await new


async def with_block(pool: Any) -> None:
    with pool.connection():
        pass


async def with_pool(pool: Any) -> None:
    with pool:
        pass


async def await_block(pool: Any) -> None:
    await pool.connection()


async def block_twice(pool: Any) -> None:
    block = pool.connection()
    async with block, block:
        pass


async def block_end(pool: Any) -> None:
    await pool.connection().__aexit__(None, None, None)


async def borrow_twice(pool: Any) -> None:
    async with pool.connection(), pool.connection(0.05):
        pass


async def put_in_block(pool: Any) -> None:
    async with pool.connection() as conn:
        await pool.putconn(conn)


async def closed_pool(pool: Any) -> None:
    await pool.close()
    await pool.getconn()


def after_block(use: Callable[[Any, Any], Any]) -> Callable[[Lab], Any]:
    async def mistake(pool: Any) -> None:
        async with pool.connection() as conn:
            cur = conn.cursor()
            await cur.execute("select 1")
        found = use(conn, cur)
        if found is not None:
            await found

    return in_async_pool(mistake)


async def async_with_conn_after_block(conn: Any) -> None:
    async with conn:
        pass


async def for_notifies(lab: Lab) -> None:
    async for _ in lab.aio.notifies(None):
        pass


async def sync_connection_in_loop(lab: Lab) -> None:
    with greenwait.installed(on_event_loop="raise"):
        greenwait.connect(lab.dsn).close()


def outside_of_a_loop(lab: Lab) -> None:
    coroutine = aio.run(one)
    with contextlib.closing(coroutine):
        coroutine.send(None)


MISTAKES: Table = {
    # run() and await_()
    "aio.run(async)": (TypeError, r"aio.run\(\) " + SYNCHRONOUS, lambda lab: aio.run(async_one)),
    "aio.run(one())": (TypeError, r"aio.run\(\) takes a function, not 'int'",
        lambda lab: lab.aio.run(one())),
    "aio.run(coroutine)": (TypeError, "not 'coroutine': pass the function",
        lambda lab: lab.aio.run(async_one())),
    "aio.run() uninstalled": (RuntimeError, r"call greenwait.install\(\) first",
        uninstalled(lambda lab: aio.run(one))),
    "aio.run() below run()": (RuntimeError, "awaited below greenwait.aio.run",
        lambda lab: aio.run(lambda: lab.aio.run(one).send(None))),
    "aio.run() without a loop": (RuntimeError, "is for asyncio, whose event loop does not run",
        outside_of_a_loop),
    "await_() elsewhere": (RuntimeError, "elsewhere, await it",
        lambda lab: aio.await_(async_one())),
    "await_(function)": (TypeError, r"not 'function': call it, as in await_\(function\(\)\)",
        lambda lab: aio.run(lab.aio.await_, async_one)),
    "await_(1)": (TypeError, "takes a coroutine, or another awaitable, not 'int'",
        lambda lab: aio.run(lab.aio.await_, 1)),
    "connect() in a loop": (RuntimeError, "this query stops the event loop",
        sync_connection_in_loop),
    # Connecting
    "aio.connect(123)": (TypeError, "dsn must be a connection string",
        lambda lab: lab.aio.connect(123)),
    "aio.connect(async_=True)": (TypeError, "leave async_ out",
        lambda lab: lab.aio.connect(lab.dsn, async_=True)),
    "aio.connect(timeout=1)": (psycopg2.ProgrammingError, "it is connect_timeout",
        lambda lab: lab.aio.connect(lab.dsn, timeout=1)),
    "aio.connect() uninstalled": (RuntimeError, r"call greenwait.install\(\) first",
        uninstalled(lambda lab: aio.connect(lab.dsn))),
    # A missing await, or one too many
    "cur.fetchone()[0]": (TypeError, NOT_AWAITED.format("fetchone"),
        in_asyncio(lambda conn, cur: cur.fetchone()[0])),
    "len(cur.fetchall())": (TypeError, NOT_AWAITED.format("fetchall"),
        in_asyncio(lambda conn, cur: len(cur.fetchall()))),
    "while cur.fetchone()": (TypeError, NOT_AWAITED.format("fetchone"),
        in_asyncio(lambda conn, cur: bool(cur.fetchone()))),
    "cur.execute().fetchone()": (AttributeError, r"write \(await AsyncCursor.execute\(\.\.\.\)\)",
        in_asyncio(lambda conn, cur: cur.execute("select 1").fetchone())),
    "with conn.commit()": (TypeError, r"write await AsyncConnection.commit",
        in_asyncio(lambda conn, cur: conn.commit().__enter__())),
    "await conn.cursor()": (TypeError, r"write 'cur = conn.cursor\(\)'", in_asyncio(await_cursor)),
    "a call awaited twice": (RuntimeError, "call the function again", in_asyncio(awaited_twice)),
    "execute() not awaited": (psycopg2.ProgrammingError, "no results to fetch",
        in_asyncio(without_await)),
    "with conn": (TypeError, "write 'async with conn:'",
        in_asyncio(lambda conn, cur: conn.__enter__())),
    "with named cursor": (TypeError, "write 'async with cursor:'", in_asyncio(with_cursor)),
    "for row in named": (TypeError, "write 'async for row in cursor'", in_asyncio(for_named)),
    "async with conn, conn": (psycopg2.ProgrammingError, "is open already",
        in_asyncio(blocks_nested)),
    "closed.execute()": (psycopg2.InterfaceError, "connection already closed",
        closed(lambda conn: conn.cursor().execute("select 1"))),
    "closed.commit()": (psycopg2.InterfaceError, "connection already closed",
        closed(lambda conn: conn.commit())),
    "aconn.execute()": (AttributeError, r"cur = conn.cursor\(\)",
        in_asyncio(lambda conn, cur: conn.execute("select 1"))),
    "aconn.transaction()": (AttributeError, "'async with conn:' in asyncio",
        in_asyncio(lambda conn, cur: conn.transaction())),
    "acur.fetchval()": (AttributeError, r"it is fetchone\(\)\[0\]",
        in_asyncio(lambda conn, cur: cur.fetchval())),
    # psycopg2's functions, which await nothing
    "register_hstore(conn)": (TypeError, HELPER,
        in_asyncio(lambda conn, cur: EXTRAS.register_hstore(conn))),
    "register_hstore(cur)": (TypeError, HELPER,
        in_asyncio(lambda conn, cur: EXTRAS.register_hstore(cur))),
    "register_composite(conn)": (TypeError, HELPER,
        in_asyncio(lambda conn, cur: EXTRAS.register_composite("t", conn))),
    "register_range(conn)": (TypeError, HELPER,
        in_asyncio(lambda conn, cur: EXTRAS.register_range("t", "T", conn))),
    "execute_values(cur)": (TypeError, r"execute_values\(\) " + HELPER,
        in_asyncio(lambda conn, cur: EXTRAS.execute_values(cur, "%s", [(1,)]))),
    "execute_batch(cur)": (TypeError, r"execute_batch\(\) " + HELPER,
        in_asyncio(lambda conn, cur: EXTRAS.execute_batch(cur, "select %s", [(1,)]))),
    # Classes
    "class C(AsyncConnection, LoggingConnection)": (
        TypeError, "write LoggingConnection before AsyncConnection",
        lambda lab: type("C", (aio.AsyncConnection, EXTRAS.LoggingConnection), {})),
    "class C(AsyncConnection, DictConnection)": (
        TypeError, "write DictConnection before AsyncConnection",
        lambda lab: type("C", (aio.AsyncConnection, EXTRAS.DictConnection), {})),
    "class C(AsyncCursor, DictCursor)": (TypeError, "write DictCursor before AsyncCursor",
        lambda lab: type("C", (aio.AsyncCursor, EXTRAS.DictCursor), {})),
    # Notifications
    "aio.notifies(None)": (TypeError, "takes a psycopg2 connection, not 'NoneType'", for_notifies),
    # The pool
    "AsyncPool(dsn)": (TypeError, r"made by await greenwait.aio.create_pool\(dsn",
        lambda lab: lab.aio.AsyncPool(lab.dsn)),
    "AsyncPool(dsn, max_size=1)": (TypeError, r"made by await greenwait.aio.create_pool\(dsn",
        lambda lab: lab.aio.AsyncPool(lab.dsn, max_size=1)),
    "create_pool(minsize=1)": (TypeError, "did you mean min_size?",
        lambda lab: aio.create_pool(lab.dsn, minsize=1)),
    "create_pool(max_size=0)": (ValueError, "it must be 1 or more",
        lambda lab: aio.create_pool(lab.dsn, max_size=0)),
    "create_pool(command_timeout=1)": (TypeError, r"use greenwait.timeout\(\)",
        lambda lab: aio.create_pool(lab.dsn, command_timeout=1)),
    "create_pool(init=)": (TypeError, "did you mean configure?",
        lambda lab: aio.create_pool(lab.dsn, init=async_one)),
    "create_pool(loop=)": (TypeError, "leave it out", lambda lab: aio.create_pool(loop=1)),
    "create_pool().connection()": (AttributeError, r"write pool = await greenwait.aio.create_pool",
        lambda lab: lab.aio.create_pool(lab.dsn).connection()),
    "with create_pool()": (TypeError, "write 'async with greenwait.aio.create_pool",
        with_new_pool),
    "create_pool() awaited twice": (RuntimeError, r"call create_pool\(\) for each", new_pool_twice),
    "with apool.connection()": (TypeError, r"write 'async with pool.connection\(\) as conn:'",
        in_async_pool(with_block)),
    "await apool.connection()": (TypeError, r"write 'async with pool.connection\(\) as conn:'",
        in_async_pool(await_block)),
    "apool.connection().cursor()": (AttributeError, r"write 'async with pool.connection\(\)",
        in_async_pool(lambda pool: pool.connection().cursor())),
    "with apool": (TypeError, "write 'async with", in_async_pool(with_pool)),
    "apool.acquire()": (AttributeError, r"it is connection\(\)",
        in_async_pool(lambda pool: pool.acquire())),
    "apool.release()": (AttributeError, r"it is putconn\(\)",
        in_async_pool(lambda pool: pool.release(1))),
    "apool.fetch()": (AttributeError, "use a cursor of conn",
        in_async_pool(lambda pool: pool.fetch("select 1"))),
    "apool.wait_closed()": (AttributeError, r"close\(\) waits",
        in_async_pool(lambda pool: pool.wait_closed())),
    "apool.connection('x')": (TypeError, "timeout " + SECONDS,
        in_async_pool(lambda pool: pool.connection("x").__aenter__())),
    "apool.getconn(-1)": (ValueError, NOT_NEGATIVE, in_async_pool(lambda pool: pool.getconn(-1))),
    "apool.putconn(None)": (ValueError, "not lent", in_async_pool(lambda p: p.putconn(None))),
    "apool.putconn() in a block": (ValueError, "which gives it back",
        in_async_pool(put_in_block)),
    "apool block twice": (RuntimeError, r"call connection\(\) for each",
        in_async_pool(block_twice)),
    "apool block's end": (RuntimeError, "not entered: use connection\\(\\) in async with",
        in_async_pool(block_end)),
    "apool PoolTimeout": (greenwait.PoolTimeout, "give connections back earlier",
        in_async_pool(borrow_twice)),
    "apool closed": (psycopg2.InterfaceError, "the pool is closed", in_async_pool(closed_pool)),
    "apool query after the block": (psycopg2.InterfaceError, GIVEN_BACK,
        after_block(lambda conn, cur: conn.cursor().execute("select 1"))),
    "apool cursor after the block": (psycopg2.InterfaceError, GIVEN_BACK,
        after_block(lambda conn, cur: cur.execute("select 1"))),
    "apool commit() after the block": (psycopg2.InterfaceError, GIVEN_BACK,
        after_block(lambda conn, cur: conn.commit())),
    "apool async with conn after the block": (psycopg2.InterfaceError, GIVEN_BACK,
        after_block(lambda conn, cur: async_with_conn_after_block(conn))),
    "apool autocommit after the block": (psycopg2.InterfaceError, GIVEN_BACK,
        after_block(lambda conn, cur: setattr(conn, "autocommit", True))),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
def test_mistake(server: Any, mistake: str) -> None:
    tell(server, MISTAKES, mistake)


def test_pool_awaits_its_check(server: Any) -> None:
    checked: list[Any] = []

    async def check(conn: Any) -> None:
        await asyncio.sleep(0)
        cur = conn.cursor()
        await cur.execute("select 1")
        checked.append(await cur.fetchone())

    async def main() -> None:
        async with aio.create_pool(server.dsn(server.transports[0]), check=check) as pool:
            for _ in range(2):
                async with pool.connection():
                    pass

    with greenwait.installed():
        asyncio.run(main())
    assert checked == [(1,)]
