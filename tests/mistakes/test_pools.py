"""Mistakes with pools; each is told what to do."""

import math
from collections.abc import Callable
from typing import Any

import psycopg2
import psycopg2.pool
import pytest

import greenwait
from tests.lab.mistakes import (
    NOT_NEGATIVE,
    SECONDS,
    SYNCHRONOUS,
    Lab,
    Table,
    async_one,
    in_pool,
    tell,
)

GIVEN_BACK = "was given back to its pool: use it within its with block"
NOT_LENT = "not lent, or that was given back already"
IN_BLOCK = r"'with pool.connection\(\) as conn:'"


def make(**options: Any) -> Callable[[Lab], Any]:
    return lambda lab: lab.pool(**options)


def borrow_twice(pool: Any) -> None:
    with pool.connection(), pool.connection(0.05):
        pass


def enter_twice(pool: Any) -> None:
    block = pool.connection()
    with block, block:
        pass


def put_twice(pool: Any) -> None:
    conn = pool.getconn()
    pool.putconn(conn)
    pool.putconn(conn)


def put_in_block(pool: Any) -> None:
    with pool.connection() as conn:
        pool.putconn(conn)


async def async_with_block(lab: Lab) -> None:
    with lab.pool() as pool:
        async with pool.connection():
            pass


async def async_with_pool(lab: Lab) -> None:
    async with lab.pool():
        pass


def closed(use: Callable[[Any], Any]) -> Callable[[Any], None]:
    def mistake(pool: Any) -> None:
        pool.close()
        use(pool)

    return mistake


def after_block(use: Callable[[Any, Any], Any]) -> Callable[[Lab], Any]:
    """Return a mistake with a connection whose block is over, and a cursor of it."""

    def mistake(pool: Any) -> None:
        with pool.connection() as conn:
            cur = conn.cursor()
            cur.execute("select 1")
        use(conn, cur)

    return in_pool(mistake)


def after_putconn(pool: Any) -> None:
    conn = pool.getconn()
    pool.putconn(conn)
    conn.cursor().execute("select 1")


def enter(conn: Any) -> None:
    with conn:
        pass


def threaded(*args: Any, **options: Any) -> Callable[[Lab], Any]:
    return lambda lab: lab.any.ThreadedConnectionPool(
        *(lab.dsn if each == "dsn" else each for each in args), **options
    )


def in_threaded(use: Callable[[Any], Any]) -> Callable[[Lab], None]:
    def mistake(lab: Lab) -> None:
        pool: Any = greenwait.ThreadedConnectionPool(0, 1, lab.dsn)
        try:
            use(pool)
        finally:
            if not pool.closed:
                pool.closeall()

    return mistake


PoolError = psycopg2.pool.PoolError
InterfaceError = psycopg2.InterfaceError

MISTAKES: Table = {
    # Making one
    "Pool(1, 10, dsn)": (TypeError, r"its sizes by name: Pool\(dsn, min_size=1, max_size=10\)",
        lambda lab: lab.any.Pool(1, 10, lab.dsn)),
    "Pool(dsn, 1, 10)": (TypeError, "its sizes by name", lambda lab: lab.any.Pool(lab.dsn, 1, 10)),
    "Pool(123)": (TypeError, "dsn must be a connection string", lambda lab: lab.any.Pool(123)),
    "Pool(max_size=0)": (ValueError, "max_size=0: it must be 1 or more", make(max_size=0)),
    "Pool(max_size='5')": (TypeError, "a number of connections, not 'str'", make(max_size="5")),
    "Pool(max_size=1.5)": (TypeError, "a number of connections, not 'float'", make(max_size=1.5)),
    "Pool(min_size=-1)": (ValueError, "min_size=-1: it must be 0 or more", make(min_size=-1)),
    "Pool(min_size=5, max_size=2)": (ValueError, "min_size=5 is more than max_size=2",
        make(min_size=5, max_size=2)),
    "Pool(timeout='x')": (TypeError, "timeout " + SECONDS, make(timeout="x")),
    "Pool(timeout=None)": (TypeError, "timeout " + SECONDS, make(timeout=None)),
    "Pool(timeout=inf)": (ValueError, NOT_NEGATIVE, make(timeout=math.inf)),
    "Pool(max_idle=-1)": (ValueError, NOT_NEGATIVE, make(max_idle=-1)),
    "Pool(max_lifetime='1h')": (TypeError, "max_lifetime " + SECONDS, make(max_lifetime="1h")),
    "Pool(check='select 1')": (TypeError, "check must be a function or None, not 'str'",
        make(check="select 1")),
    "Pool(check=async)": (TypeError, "check " + SYNCHRONOUS, make(check=async_one)),
    "Pool(configure=async)": (TypeError, "configure " + SYNCHRONOUS, make(configure=async_one)),
    "Pool(reset=async)": (TypeError, "reset " + SYNCHRONOUS, make(reset=async_one)),
    "Pool(connection_factory=1)": (TypeError, "connection_factory must be a class",
        make(connection_factory=1)),
    "Pool(connection_factory=dict)": (TypeError, "must be a subclass of connection",
        make(connection_factory=dict)),
    "Pool(async_=True)": (TypeError, "not async_: leave that out", make(async_=True)),
    # Others' options
    "Pool(minconn=1)": (TypeError, "did you mean min_size?", make(minconn=1)),
    "Pool(maxsize=1)": (TypeError, "did you mean max_size?", make(maxsize=1)),
    "Pool(conninfo=)": (TypeError, "did you mean dsn?", make(conninfo="dbname=x")),
    "Pool(connection_class=)": (TypeError, "did you mean connection_factory?",
        make(connection_class=1)),
    "Pool(init=)": (TypeError, "did you mean configure?", make(init=1)),
    "Pool(setup=)": (TypeError, "did you mean configure?", make(setup=1)),
    "Pool(open=False)": (TypeError, "leave it out: a pool is open", make(open=False)),
    "Pool(num_workers=)": (TypeError, "a borrower makes its connection itself",
        make(num_workers=1)),
    "Pool(max_waiting=)": (TypeError, "timeout limits how long each waits", make(max_waiting=1)),
    "Pool(kwargs={})": (TypeError, "pass its elements by name", make(kwargs={})),
    "Pool(max_queries=)": (TypeError, "max_lifetime limits", make(max_queries=1)),
    "Pool(command_timeout=)": (TypeError, r"use greenwait.timeout\(\)", make(command_timeout=1)),
    "Pool(pool_recycle=)": (TypeError, "did you mean max_lifetime?", make(pool_recycle=1)),
    "Pool(pool_pre_ping=)": (TypeError, "did you mean check?", make(pool_pre_ping=True)),
    "Pool(xyzzy=)": (TypeError, "libpq has no such option", make(xyzzy=1)),
    # Borrowing
    "PoolTimeout": (greenwait.PoolTimeout, "give connections back earlier, or raise max_size",
        in_pool(borrow_twice)),
    "pool.connection('x')": (TypeError, "timeout " + SECONDS,
        in_pool(lambda pool: pool.connection("x").__enter__())),
    "pool.getconn('key')": (TypeError, "timeout " + SECONDS,
        in_pool(lambda pool: pool.getconn("key"))),
    "pool.getconn(-1)": (ValueError, NOT_NEGATIVE, in_pool(lambda pool: pool.getconn(-1))),
    "pool.putconn(None)": (ValueError, NOT_LENT, in_pool(lambda pool: pool.putconn(None))),
    "pool.putconn(foreign)": (ValueError, "what getconn\\(\\) of the same pool has returned",
        lambda lab: in_pool(lambda pool: pool.putconn(lab.conn))(lab)),
    "putconn() twice": (ValueError, NOT_LENT, in_pool(put_twice)),
    "putconn() in a block": (ValueError, "with block, which gives it back", in_pool(put_in_block)),
    "pool.connection().cursor()": (AttributeError, "write " + IN_BLOCK,
        in_pool(lambda pool: pool.connection().cursor())),
    "a block twice": (RuntimeError, r"call connection\(\) for each", in_pool(enter_twice)),
    "a block's end": (RuntimeError, "use connection\\(\\) in a with statement",
        in_pool(lambda pool: pool.connection().__exit__(None, None, None))),
    "async with pool.connection()": (TypeError, r"greenwait.aio.create_pool\(\) makes one",
        async_with_block),
    "async with Pool()": (TypeError, r"greenwait.aio.create_pool\(\) makes one", async_with_pool),
    "pool.acquire()": (AttributeError, r"it is connection\(\)", in_pool(lambda p: p.acquire())),
    "pool.release()": (AttributeError, r"it is putconn\(\)", in_pool(lambda p: p.release(1))),
    "pool.execute()": (AttributeError, IN_BLOCK, in_pool(lambda p: p.execute("select 1"))),
    "pool.cursor()": (AttributeError, IN_BLOCK, in_pool(lambda p: p.cursor())),
    "pool.open()": (AttributeError, "open as soon as it is made", in_pool(lambda p: p.open())),
    "pool.get_stats()": (AttributeError, r"it is stats\(\)", in_pool(lambda p: p.get_stats())),
    "pool.closeall()": (AttributeError, r"it is close\(\)", in_pool(lambda p: p.closeall())),
    "pool.close('x')": (TypeError, "timeout " + SECONDS, in_pool(lambda pool: pool.close("x"))),
    "connection() of a closed pool": (InterfaceError, "the pool is closed, .*make another",
        in_pool(closed(lambda pool: pool.connection().__enter__()))),
    "getconn() of a closed pool": (InterfaceError, "the pool is closed, .*make another",
        in_pool(closed(lambda pool: pool.getconn()))),
    # A connection used after its block
    "a query after the block": (InterfaceError, r"execute\(\): .*" + GIVEN_BACK,
        after_block(lambda conn, cur: conn.cursor().execute("select 1"))),
    "a cursor after the block": (InterfaceError, r"execute\(\): .*" + GIVEN_BACK,
        after_block(lambda conn, cur: cur.execute("select 1"))),
    "commit() after the block": (InterfaceError, r"commit\(\): .*" + GIVEN_BACK,
        after_block(lambda conn, cur: conn.commit())),
    "rollback() after the block": (InterfaceError, r"rollback\(\): .*" + GIVEN_BACK,
        after_block(lambda conn, cur: conn.rollback())),
    "with conn after the block": (InterfaceError, "a with block: .*" + GIVEN_BACK,
        after_block(lambda conn, cur: enter(conn))),
    "autocommit after the block": (InterfaceError, "autocommit: .*" + GIVEN_BACK,
        after_block(lambda conn, cur: setattr(conn, "autocommit", True))),
    "lobject() after the block": (InterfaceError, r"lobject\(\): .*" + GIVEN_BACK,
        after_block(lambda conn, cur: conn.lobject())),
    "notifies() after the block": (InterfaceError, r"notifies\(\): .*" + GIVEN_BACK,
        after_block(lambda conn, cur: list(greenwait.notifies(conn, 0)))),
    "a query after putconn()": (InterfaceError, r"before putconn\(\)", in_pool(after_putconn)),
    # psycopg2's
    "ThreadedConnectionPool(dsn)": (TypeError, "takes two numbers first", threaded("dsn")),
    "ThreadedConnectionPool(dsn, 1, 2)": (TypeError, "takes two numbers first",
        threaded("dsn", 1, 2)),
    "ThreadedConnectionPool('x', 'y')": (TypeError, "not 'x' and 'y'", threaded("x", "y")),
    "ThreadedConnectionPool(min_size=1)": (TypeError, "minconn and maxconn",
        threaded(min_size=1, max_size=2)),
    "ThreadedConnectionPool(5, 1)": (ValueError, "minconn=5, maxconn=1: from 0 to maxconn",
        threaded(5, 1, "dsn")),
    "ThreadedConnectionPool(0, 0)": (ValueError, "minconn=0, maxconn=0", threaded(0, 0, "dsn")),
    "ThreadedConnectionPool(0, 1, dsn, dsn=)": (TypeError, "two values for 'dsn'",
        threaded(0, 1, "dsn", dsn="x")),
    "threaded.connection()": (AttributeError, r"it is getconn\(\)",
        in_threaded(lambda pool: pool.connection())),
    "threaded.close()": (AttributeError, r"it is closeall\(\)",
        in_threaded(lambda pool: pool.close())),
    "with threaded": (TypeError, r"call closeall\(\), or use a greenwait.Pool",
        in_threaded(lambda pool: enter(pool))),
    "threaded.putconn()": (PoolError, "unkeyed connection",
        in_threaded(lambda pool: pool.putconn())),
    "threaded exhausted": (PoolError, "connection pool exhausted",
        in_threaded(lambda pool: (pool.getconn(), pool.getconn()))),
    "threaded closed": (PoolError, "connection pool is closed",
        in_threaded(lambda pool: (pool.closeall(), pool.getconn()))),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake(server: Any, mistake: str) -> None:
    tell(server, MISTAKES, mistake)
