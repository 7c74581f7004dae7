"""Typical mistakes: each is told at once, by an error that says what to do."""

import asyncio
import contextlib
import copy
import functools
import pickle
from typing import Any

import psycopg2
import psycopg2.extras
import pytest
from psycopg2.extensions import get_wait_callback

import greenwait
from greenwait import aio


def one():
    return 1


async def async_one(*args):
    return 1


async def async_many():
    yield 1


class Async:
    async def __call__(self):
        return 1

    async def method(self):
        return 1


class Lab:
    """What a mistake is made with."""

    def __init__(self, dsn):
        self.dsn = dsn
        self.any: Any = greenwait  # mistakes that a type checker would tell
        self.conn: Any = greenwait.connect(dsn)
        self.aio: Any = aio

    def pool(self, **options):
        return self.any.Pool(self.dsn, **options)

    def spawn(self, *args):
        with greenwait.Hub() as hub:
            return hub.spawn(*args).result()

    def awaited(self, coroutine):
        return asyncio.run(coroutine)

    async def helper(self, function, *args):
        conn = await aio.connect(self.dsn)
        with contextlib.closing(conn):
            function(conn, conn.cursor(), *args)


def of_pool(make):
    def mistake(lab):
        pool = lab.pool(max_size=1, timeout=0.05)
        with contextlib.closing(pool):
            make(pool)

    return mistake


def borrow_twice(pool):
    with pool.connection(), pool.connection():
        pass


def decorated_generator(lab):
    @greenwait.timeout(1)
    def generator():
        yield


def installed_generator(lab):
    @greenwait.installed()
    def generator():
        yield


def decorated_async_generator(lab):
    @greenwait.timeout(1)
    async def generator():
        yield


SYNCHRONOUS = "takes a synchronous function, and .* is an async one.*await it in asyncio"
HELPER = r"does not await .* write await greenwait.aio.run\("
BY_NAME = r"options by name, as in {}\(poller='epoll'\)"
SECONDS = "must be a number of seconds"
NOT_NEGATIVE = "it must be 0 or more seconds"

MISTAKES: dict[str, Any] = {
    # The callback
    "WaitCallback(seconds=3)": (TypeError, "no option 'seconds'; it accepts: poller, timeout, spin",
        lambda lab: lab.any.WaitCallback(seconds=3)),
    "WaitCallback(conn)": (TypeError, "keyword options only; register an instance",
        lambda lab: lab.any.WaitCallback(lab.conn)),
    "WaitCallback(poller='kqueue')": (ValueError, "not available here; this system has",
        lambda lab: lab.any.WaitCallback(poller="kqueue")),
    "WaitCallback(poller=1)": (TypeError, "poller must be one of",
        lambda lab: lab.any.WaitCallback(poller=1)),
    "WaitCallback(timeout='1s')": (TypeError, "timeout " + SECONDS + ", or None, not 'str'",
        lambda lab: lab.any.WaitCallback(timeout="1s")),
    "WaitCallback(timeout=-1)": (ValueError, "timeout=-1: " + NOT_NEGATIVE,
        lambda lab: lab.any.WaitCallback(timeout=-1)),
    "WaitCallback(timeout=True)": (TypeError, SECONDS,
        lambda lab: lab.any.WaitCallback(timeout=True)),
    "WaitCallback(spin='always')": (TypeError, 'spin .*or "auto"',
        lambda lab: lab.any.WaitCallback(spin="always")),
    "WaitCallback(spin=None)": (TypeError, 'spin .*or "auto"',
        lambda lab: lab.any.WaitCallback(spin=None)),
    "WaitCallback(slow=-0.5)": (ValueError, "slow=-0.5: " + NOT_NEGATIVE,
        lambda lab: lab.any.WaitCallback(slow=-0.5)),
    "WaitCallback(cancel_grace=None)": (TypeError, "cancel_grace " + SECONDS,
        lambda lab: lab.any.WaitCallback(cancel_grace=None)),
    "WaitCallback(cancel_grace=inf)": (ValueError, "cancel_grace=inf",
        lambda lab: lab.any.WaitCallback(cancel_grace=float("inf"))),
    "WaitCallback(on_event_loop='ignore')": (ValueError, "it is None, 'warn' or 'raise'",
        lambda lab: lab.any.WaitCallback(on_event_loop="ignore")),
    "wait(None)": (TypeError, "fileno", lambda lab: lab.any.wait(None)),
    "install('epoll')": (TypeError, BY_NAME.format("install"),
        lambda lab: lab.any.install("epoll")),
    "installed('epoll')": (TypeError, BY_NAME.format("installed"),
        lambda lab: lab.any.installed("epoll")),
    "install(timeouts=1)": (TypeError, "no option 'timeouts'",
        lambda lab: lab.any.install(timeouts=1)),
    "uninstall() of nothing": (RuntimeError, r"greenwait.install\(\) was not called",
        lambda lab: (lab.any.uninstall(), lab.any.uninstall())),
    "greenwait.gevents": (AttributeError, "no attribute 'gevents'", lambda lab: lab.any.gevents),
    # Jobs
    "gather(async)": (TypeError, r"gather\(\) " + SYNCHRONOUS,
        lambda lab: greenwait.gather(async_one)),
    "gather(partial(async))": (TypeError, SYNCHRONOUS,
        lambda lab: greenwait.gather(functools.partial(async_one, 1))),
    "gather(async method)": (TypeError, SYNCHRONOUS,
        lambda lab: greenwait.gather(Async().method)),
    "gather(async callable)": (TypeError, SYNCHRONOUS, lambda lab: greenwait.gather(Async())),
    "gather(async generator)": (TypeError, SYNCHRONOUS, lambda lab: greenwait.gather(async_many)),
    "gather([one, one])": (TypeError, r"not 'list': pass its functions one by one",
        lambda lab: lab.any.gather([one, one])),
    "gather(one())": (TypeError, "takes a function, not 'int'", lambda lab: lab.any.gather(one())),
    "gather(limit=0)": (ValueError, "limit=0: it must be 1 or more",
        lambda lab: greenwait.gather(one, limit=0)),
    "gather(limit='2')": (TypeError, "limit must be a number of calls, not 'str'",
        lambda lab: lab.any.gather(one, limit="2")),
    "map(async, items)": (TypeError, r"map\(\) " + SYNCHRONOUS,
        lambda lab: list(greenwait.map(async_one, [1]))),
    "map(items, one)": (TypeError, r"map\(\) takes a function, not 'list'",
        lambda lab: list(lab.any.map([1], one))),
    "map(one, 3)": (TypeError, "not iterable", lambda lab: list(lab.any.map(one, 3))),
    "map(concurrency=0)": (ValueError, "concurrency=0: it must be 1 or more",
        lambda lab: list(lab.any.map(one, [], concurrency=0))),
    "spawn(async)": (TypeError, r"spawn\(\) " + SYNCHRONOUS, lambda lab: lab.spawn(async_one)),
    "spawn(None)": (TypeError, "takes a function, not 'NoneType'", lambda lab: lab.spawn(None)),
    "aio.run(async)": (TypeError, r"aio.run\(\) " + SYNCHRONOUS,
        lambda lab: lab.awaited(aio.run(async_one))),
    "aio.run(one())": (TypeError, r"aio.run\(\) takes a function, not 'int'",
        lambda lab: lab.awaited(lab.aio.run(one()))),
    # Notifications, cancels, deadlines
    "notifies(None)": (TypeError, r"notifies\(\) takes a psycopg2 connection, not 'NoneType'",
        lambda lab: list(lab.any.notifies(None))),
    "notifies(conn, 'x')": (TypeError, "timeout " + SECONDS,
        lambda lab: lab.any.notifies(lab.conn, "x")),
    "notifies(conn, -1)": (ValueError, "timeout=-1: " + NOT_NEGATIVE,
        lambda lab: greenwait.notifies(lab.conn, -1)),
    "cancel(None)": (TypeError, r"cancel\(\) takes a psycopg2 connection, not 'NoneType'",
        lambda lab: lab.any.cancel(None)),
    "cancel(cursor)": (TypeError, "takes a psycopg2 connection, not 'Cursor'",
        lambda lab: lab.any.cancel(lab.conn.cursor())),
    "cancel(closed)": (psycopg2.InterfaceError, "nothing to cancel: the connection is closed",
        lambda lab: (lab.conn.close(), lab.any.cancel(lab.conn))),
    "timeout('5')": (TypeError, "seconds " + SECONDS, lambda lab: lab.any.timeout("5")),
    "timeout(-1)": (ValueError, "seconds=-1: " + NOT_NEGATIVE, lambda lab: greenwait.timeout(-1)),
    "timeout(nan)": (ValueError, NOT_NEGATIVE, lambda lab: greenwait.timeout(float("nan"))),
    "timeout(1)(2)": (TypeError, r"timeout\(\) decorates functions, not 'int'.*write a with block",
        lambda lab: lab.any.timeout(1)(2)),
    "timeout() of a generator": (TypeError, "write a with block there", decorated_generator),
    "installed() of a generator": (TypeError, "write a with block there", installed_generator),
    "timeout() of an async generator": (TypeError, "write a with block there",
        decorated_async_generator),
    # Pools
    "PoolTimeout": (greenwait.PoolTimeout, "give connections back earlier, or raise max_size",
        of_pool(borrow_twice)),
    "Pool(minconn=1)": (TypeError, "minconn", lambda lab: lab.pool(minconn=1)),
    "Pool(max_size=0)": (ValueError, "max_size", lambda lab: lab.pool(max_size=0)),
    "Pool(min_size=5, max_size=2)": (ValueError, "min_size",
        lambda lab: lab.pool(min_size=5, max_size=2)),
    "Pool(timeout='x')": (TypeError, SECONDS, lambda lab: lab.pool(timeout="x")),
    # Awaited methods, and psycopg2's functions, which await nothing
    "register_hstore(conn)": (TypeError, HELPER,
        lambda lab: lab.awaited(
            lab.helper(lambda conn, cur: psycopg2.extras.register_hstore(conn)))),
    "register_hstore(cur)": (TypeError, HELPER,
        lambda lab: lab.awaited(
            lab.helper(lambda conn, cur: psycopg2.extras.register_hstore(cur)))),
    "register_composite(conn)": (TypeError, HELPER,
        lambda lab: lab.awaited(
            lab.helper(lambda conn, cur: psycopg2.extras.register_composite("t", conn)))),
    "register_range(conn)": (TypeError, HELPER,
        lambda lab: lab.awaited(
            lab.helper(lambda conn, cur: psycopg2.extras.register_range("t", "T", conn)))),
    "execute_values(cur)": (TypeError, r"execute_values\(\) " + HELPER,
        lambda lab: lab.awaited(
            lab.helper(lambda conn, cur: psycopg2.extras.execute_values(cur, "%s", [(1,)])))),
    "execute_batch(cur)": (TypeError, r"execute_batch\(\) " + HELPER,
        lambda lab: lab.awaited(
            lab.helper(lambda conn, cur: psycopg2.extras.execute_batch(cur, "select %s", [(1,)])))),
    "with conn": (TypeError, "write 'async with conn:'",
        lambda lab: lab.awaited(lab.helper(lambda conn, cur: conn.__enter__()))),
    "class C(AsyncConnection, LoggingConnection)": (
        TypeError, "write LoggingConnection before AsyncConnection",
        lambda lab: type("C", (aio.AsyncConnection, psycopg2.extras.LoggingConnection), {})),
    "class C(AsyncConnection, DictConnection)": (
        TypeError, "write DictConnection before AsyncConnection",
        lambda lab: type("C", (aio.AsyncConnection, psycopg2.extras.DictConnection), {})),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
def test_mistake(server, mistake):
    kind, words, make = MISTAKES[mistake]
    with greenwait.installed():
        lab = Lab(server.dsn(server.transports[0]))
        with contextlib.closing(lab.conn), pytest.raises(kind, match=words):
            make(lab)


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
