"""psycopg2 on an event loop: asyncio's own, and uvloop."""

import asyncio
import contextlib
import contextvars
import functools
import gc
import itertools
import os
import random
import re
import statistics
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import psycopg2
import psycopg2.extras
import pytest
from psycopg2 import errors

import greenwait
from greenwait import aio
from tests.lab import orm as orm_program
from tests.lab.event_loops import LOOPS, runner
from tests.lab.freezers import frozen
from tests.lab.hosts import silent_listener
from tests.lab.leaks import no_leaked_descriptors
from tests.lab.marks import needs_fork, needs_refusal, selects

TELLS_WHY = sys.version_info >= (3, 11)  # before, a task loses cancel()'s message


@pytest.fixture(params=LOOPS)
def run(request):
    """Return a function that runs a coroutine to its end, on each kind of event loop."""
    return runner(request.param)


@pytest.fixture
def active(connect):
    """Return a function that says how many queries with these words run on the server."""
    conn = connect()
    conn.autocommit = True
    with conn.cursor() as cur:
        cur.execute("select clock_timestamp()")
        began = cur.fetchall()[0][0]  # earlier tests may have left some that no cancel ends

    def count(words="pg_sleep"):
        with conn.cursor() as cur:
            cur.execute(
                "select count(*) from pg_stat_activity where state = 'active' and query like %s"
                " and pid <> pg_backend_pid() and query_start >= %s",
                (f"%{words}%", began),
            )
            return cur.fetchall()[0][0]

    return count


@pytest.fixture
def assert_stopped(active):
    def check():
        give_up = time.monotonic() + 5
        while active():
            assert time.monotonic() < give_up
            time.sleep(0.01)

    return check


def ask(dsn, query, *parameters):
    """Be ordinary synchronous code."""
    conn = psycopg2.connect(dsn)
    try:
        with conn, conn.cursor() as cur:
            cur.execute(query, parameters)
            return cur.fetchall()[0][0]
    finally:
        conn.close()


async def one(conn, query, *parameters):
    async with conn.cursor() as cur:
        await cur.execute(query, parameters)
        return (await cur.fetchone())[0]


# -- run() and await_()


def test_many_at_the_same_time(run, dsn):
    async def main():
        began = time.monotonic()
        calls = [aio.run(ask, dsn, "select %s from pg_sleep(0.2)", n) for n in range(20)]
        assert await asyncio.gather(*calls) == list(range(20))
        assert time.monotonic() - began < 3.9  # one by one: 4

    run(main())


@pytest.fixture
def dsn(server):
    return server.dsn(server.transports[0])


def test_event_loop_goes_on(run, dsn):
    async def main():
        turns = []

        async def count():
            while True:
                turns.append(1)
                await asyncio.sleep(0.01)

        counting = asyncio.create_task(count())
        for _ in range(5):  # this process may stand still meanwhile
            turns.clear()
            await aio.run(ask, dsn, "select pg_sleep(0.5)")
            if len(turns) > 10:
                break
        counting.cancel()
        assert len(turns) > 10

    run(main())


def test_result_and_exception(run):
    def fail(number, *, by):
        raise LookupError(number, by)

    def arguments(*args, **kwargs):
        return args, kwargs

    async def main():
        assert await aio.run(arguments, 1, a=2) == ((1,), {"a": 2})
        assert await aio.run(tuple, "ab") == ("a", "b")
        with pytest.raises(LookupError) as info:
            await aio.run(fail, 1, by=2)
        assert info.value.args == (1, 2)

    run(main())


def test_stop_iteration_is_no_result(run):
    async def main():
        with pytest.raises(RuntimeError, match="raised StopIteration") as info:
            await aio.run(next, iter(()))
        assert isinstance(info.value.__cause__, StopIteration)

    run(main())


def test_error_of_a_query(run, dsn):
    async def main():
        with pytest.raises(errors.DivisionByZero):
            await aio.run(ask, dsn, "select 1 / 0")

    run(main())


def test_run_is_a_coroutine_for_every_tool(run, dsn):
    async def main():
        query = "select 1"
        assert await asyncio.create_task(aio.run(ask, dsn, query)) == 1
        assert await asyncio.wait_for(aio.run(ask, dsn, query), 5) == 1
        assert await asyncio.shield(aio.run(ask, dsn, query)) == 1
        done, _ = await asyncio.wait([asyncio.ensure_future(aio.run(ask, dsn, query))])
        assert [task.result() for task in done] == [1]

    run(main())


def test_context_variables(run, dsn):
    variable = contextvars.ContextVar("variable", default="outside")

    def work():
        before = variable.get()
        ask(dsn, "select pg_sleep(0.05)")
        variable.set("changed")
        return before, variable.get()

    async def task(value):
        variable.set(value)
        assert await aio.run(work) == (value, "changed")
        assert variable.get() == value

    async def main():
        await asyncio.gather(*[task(n) for n in range(5)])

    run(main())


def test_timeout_around_and_inside(run, dsn, assert_stopped):
    def inside():
        with greenwait.timeout(0.2):
            return ask(dsn, "select pg_sleep(20)")

    async def main():
        began = time.monotonic()
        with pytest.raises(greenwait.QueryTimeout), greenwait.timeout(0.2):
            await aio.run(ask, dsn, "select pg_sleep(20)")
        with pytest.raises(greenwait.QueryTimeout):
            await aio.run(inside)
        assert 0.4 <= time.monotonic() - began < 10

    run(main())
    assert_stopped()


def test_many_timeouts_at_different_times(run, dsn):
    lateness = []

    async def late(seconds):
        began = time.monotonic()
        with pytest.raises(greenwait.QueryTimeout), greenwait.timeout(seconds):
            await aio.run(ask, dsn, "select pg_sleep(20)")
        lateness.append(time.monotonic() - began - seconds)

    async def main():
        await asyncio.gather(*[late(0.5 - n * 0.02) for n in range(20)])

    for _ in range(5):  # this process or the server may stand still meanwhile
        run(main())
        if min(lateness) < 0.4:
            break
    # The descriptors are looked through every second, which would end them at last, 0.5 s late.
    assert 0 <= min(lateness) < 0.4


def test_await_below_run(run, dsn):
    async def think(value):
        await asyncio.sleep(0.02)
        if isinstance(value, Exception):
            raise value
        return value

    def work(value):
        assert ask(dsn, "select 1") == 1
        return aio.await_(think(value))

    async def main():
        assert await asyncio.gather(*[aio.run(work, n) for n in range(10)]) == list(range(10))
        with pytest.raises(LookupError):
            await aio.run(work, LookupError())
        future = asyncio.get_running_loop().create_future()
        future.set_result(42)
        assert await aio.run(aio.await_, future) == 42

    run(main())


def test_cancellation_of_what_is_awaited_below_run(run):
    seen = []
    begun = asyncio.Event()

    async def think():
        begun.set()
        try:
            await asyncio.sleep(20)
        except asyncio.CancelledError:
            await asyncio.sleep(0.05)
            seen.append("cleaned up")
            raise

    async def main():
        task = asyncio.create_task(aio.run(lambda: aio.await_(think())))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert seen == ["cleaned up"]
        task = asyncio.create_task(aio.run(lambda: aio.await_(think())))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main())


def test_callback_that_is_not_registered_is_told(run, dsn):
    async def main():
        with pytest.raises(RuntimeError, match=r"greenwait\.aio needs .* greenwait\.install\(\)"):
            await aio.run(ask, dsn, "select 1")
        with pytest.raises(RuntimeError, match="wait callback, and None is registered"):
            await aio.connect(dsn)

    psycopg2.extensions.set_wait_callback(None)
    run(main())


def test_cancelled_before_what_is_awaited_below_run_has_begun(run):
    seen = []

    async def think():
        seen.append("begun")
        await asyncio.sleep(20)

    async def main():
        loop = asyncio.get_running_loop()
        other = asyncio.create_task(aio.run(lambda: aio.await_(asyncio.sleep(20))))
        await asyncio.sleep(0.05)
        # Its end is delivered in the event loop's next round, before that has think() begin.
        loop.call_soon(other.cancel)
        task = asyncio.create_task(aio.run(lambda: aio.await_(think())))
        loop.call_soon(task.cancel)
        for cancelled in (other, task):
            with pytest.raises(asyncio.CancelledError):
                await cancelled
        await asyncio.sleep(0)

    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it was never awaited, of which nobody complains
        run(main())
        gc.collect()
    assert seen == []


def test_mistakes_are_told(run, dsn):
    async def nothing():
        pass

    def nested():
        coroutine = aio.run(ask, dsn, "select 1")
        with pytest.raises(RuntimeError, match=r"below greenwait\.aio\.run"):
            coroutine.send(None)
        with pytest.raises(RuntimeError, match=r"asyncio\.gather\(\)"):
            greenwait.gather(lambda: 1)

    async def main():
        with pytest.raises(RuntimeError, match=r"await_\(\) is for synchronous code below"):
            aio.await_(nothing())
        await aio.run(nested)
        with greenwait.Hub(), pytest.raises(RuntimeError, match="leave the hub"):
            await aio.run(nested)

    run(main())
    with pytest.raises(RuntimeError, match=r"await_\(\) is for"):
        aio.await_(nothing())
    coroutine = aio.run(nested)
    with pytest.raises(RuntimeError, match="no running event loop"):
        coroutine.send(None)


def test_call_is_awaited_once(run, dsn):
    async def main():
        conn = await aio.connect(dsn)
        call = conn.commit()
        await call
        with pytest.raises(RuntimeError, match="call the function again"):
            await call
        conn.close()

    run(main())


@pytest.mark.filterwarnings("error")
def test_call_that_is_closed_is_not_missed(run, dsn):
    async def main():
        conn = await aio.connect(dsn)
        call: Any = conn.commit()
        assert iter(call) is call
        call.close()
        del call
        gc.collect()
        conn.close()

    run(main())


def test_what_a_task_waits_for_behaves_as_a_future(run, dsn):
    async def main():
        for query, error in (("select 1", type(None)), ("select 1 / 0", errors.DivisionByZero)):
            task = asyncio.create_task(aio.run(ask, dsn, query))
            await asyncio.sleep(0)
            future = task._fut_waiter  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
            assert not future.done()
            assert not future.cancelled()
            await asyncio.wait([task])
            assert future.done()
            assert not future.cancel()
            assert type(future.exception()) is error
            assert type(task.exception()) is error

    run(main())


def test_cancelled_before_what_is_awaited_begins(run):
    async def main():
        begun = []

        async def think():
            begun.append(1)

        def work():
            asyncio.get_running_loop().call_soon(task.cancel)
            aio.await_(think())

        task = asyncio.create_task(aio.run(work))
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not begun

    run(main())


def test_greenlets_are_used_again(run):
    import greenlet

    async def main():
        first = await aio.run(greenlet.getcurrent)
        for _ in range(100):
            assert await aio.run(greenlet.getcurrent) is first

    run(main())


def test_nothing_is_kept_of_a_call(run):
    class Something:
        pass

    async def main():
        import weakref

        result = await aio.run(Something)
        seen = weakref.ref(result)
        del result
        gc.collect()
        assert seen() is None

    run(main())


def test_event_loops_leave_no_descriptors(dsn, callback):
    async def main():
        conn = await aio.connect(dsn)
        await one(conn, "select pg_sleep(0.01)")
        conn.close()

    for new_loop in LOOPS.values():
        before = 0
        for _ in range(5):
            loop = new_loop()
            loop.run_until_complete(main())
            loop.close()
            del loop
            before = before or len(os.listdir("/proc/self/fd"))
        assert len(os.listdir("/proc/self/fd")) <= before


# -- Cancellation


@pytest.mark.parametrize("how", ["cancel", "wait_for", "timeout", "group"])
def test_cancelled(run, dsn, assert_stopped, how):
    async def sleep(conn):
        return await one(conn, "select pg_sleep(20)")

    async def main():
        conn = await aio.connect(dsn)
        await one(conn, "select 1")
        began = time.monotonic()
        if how == "cancel":
            task = asyncio.create_task(sleep(conn))
            await asyncio.sleep(0.1)
            task.cancel("why")
            with pytest.raises(asyncio.CancelledError) as info:
                await task
            assert info.value.args == (("why",) if TELLS_WHY else ())
        elif how == "wait_for":
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(sleep(conn), 0.1)
        elif sys.version_info >= (3, 11) and how == "timeout":
            with pytest.raises(asyncio.TimeoutError):
                async with asyncio.timeout(0.1):
                    await sleep(conn)
        elif sys.version_info >= (3, 11):
            with pytest.raises(ExceptionGroup) as group_info:  # noqa: F821
                async with asyncio.TaskGroup() as group:
                    group.create_task(sleep(conn))
                    await asyncio.sleep(0.1)
                    raise LookupError
            assert [type(each) for each in group_info.value.exceptions] == [LookupError]
        assert time.monotonic() - began < 10
        await conn.rollback()
        assert await one(conn, "select 42") == 42
        conn.close()

    if how in ("timeout", "group") and sys.version_info < (3, 11):
        pytest.skip("asyncio has it from Python 3.11 on")
    run(main())
    assert_stopped()


def test_cancellation_does_not_wait_for_anything_else(run, dsn):
    async def main():
        conn = await aio.connect(dsn)
        took = []
        for _ in range(5):  # or it would take a second each
            began = time.monotonic()
            task = asyncio.create_task(one(conn, "select pg_sleep(20)"))
            await asyncio.sleep(0.1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await conn.rollback()
            took.append(time.monotonic() - began)
        assert statistics.median(took) < 0.6
        conn.close()

    run(main())


def test_cancelled_twice(run, dsn, assert_stopped):
    async def main():
        conn = await aio.connect(dsn)
        task = asyncio.create_task(one(conn, "select pg_sleep(20)"))
        await asyncio.sleep(0.1)
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await conn.rollback()
        assert await one(conn, "select 42") == 42
        conn.close()

    run(main())
    assert_stopped()


def test_second_cancellation_while_the_query_is_stopped_is_one_with_the_first(run, dsn):
    """As two that come before a task goes on are, and as cancel scopes and anyio rely on."""

    def work(conn):
        try:
            conn.cursor().execute("select pg_sleep(20)")
        except asyncio.CancelledError as exc:
            return [str(exc.__context__)]

    async def main():
        conn = await aio.connect(dsn)
        task = asyncio.create_task(aio.run(work, conn))
        await asyncio.sleep(0.1)
        with frozen(conn.info.backend_pid):
            task.cancel()
            await asyncio.sleep(0.1)
            task.cancel("again")
            await asyncio.sleep(0.05)
        assert await task == ["again"] if TELLS_WHY else [""]
        assert not conn.closed
        conn.close()

    run(main())


def test_cancelled_before_it_begins(run, dsn):
    async def main():
        begun = []
        task = asyncio.create_task(aio.run(begun.append, 1))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not begun

    run(main())


@needs_refusal
def test_cancellation_that_comes_too_late_is_delivered(run, dsn):
    """The answer is there, the cancellation too, and the code does not wait any more."""

    async def main():
        conn = await aio.connect(dsn)
        conn.autocommit = True

        def work():
            with conn.cursor() as cur:
                cur.execute("select 1 from pg_sleep(0.05)")

        for _ in range(20):
            task = asyncio.create_task(aio.run(work))
            await asyncio.sleep(0)  # then it has been sent
            time.sleep(0.06)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert await one(conn, "select 42") == 42
        conn.close()

    run(main())


def test_connecting_is_cancelled(run):
    async def main():
        with silent_listener() as port:
            for _ in range(5):
                with no_leaked_descriptors():
                    connecting = aio.connect(f"host=127.0.0.1 port={port} user=x dbname=x")
                    task = asyncio.create_task(connecting)
                    await asyncio.sleep(0.05)
                    task.cancel()
                    with pytest.raises(asyncio.CancelledError):
                        await task
                    del task, connecting
                    gc.collect()

    async def warm_up():
        await asyncio.gather(main(), return_exceptions=True)

    async def both():
        await warm_up()
        await main()

    run(both())


@pytest.mark.parametrize("make", [aio.connect, functools.partial(aio.create_pool, min_size=1)])
def test_connection_that_was_just_made_for_a_cancelled_task_is_closed(run, dsn, make):
    async def main():
        tasks, made = [], []

        class Made(aio.AsyncConnection):
            def __init__(self, *args, **kwargs):
                super().__init__(*args, **kwargs)
                made.append(self)
                tasks[0].cancel()  # too late for it

        tasks.append(asyncio.create_task(make(dsn, connection_factory=Made)))
        with pytest.raises(asyncio.CancelledError):
            await tasks[0]
        assert [conn.closed for conn in made] == [1]

    run(main())


def test_connect_timeout_and_others_go_on(run):
    async def main():
        with silent_listener() as port:
            began = time.monotonic()
            dsn = f"host=127.0.0.1 port={port} user=x dbname=x connect_timeout=2"
            task = asyncio.create_task(aio.connect(dsn))
            longest = 0.0
            while not task.done():
                before = time.monotonic()
                await asyncio.sleep(0.005)
                longest = max(longest, time.monotonic() - before)
            with pytest.raises(psycopg2.OperationalError, match=r"connect_timeout|timeout expired"):
                await task
            assert 2 <= time.monotonic() - began < 6
            return longest

    # This process may stand still meanwhile.
    assert any(run(main()) < 1 for _ in range(3))


@pytest.mark.parametrize("name", ["localhost", "no-such-host.invalid"])
def test_names_are_looked_up(run, server, name):
    if not hasattr(server, "port"):
        pytest.skip("not our own server")
    options = psycopg2.extensions.parse_dsn(server.dsn("tcp"))

    async def main():
        connecting = aio.connect(**{**options, "host": name})
        if name == "localhost":
            conn = await connecting
            assert conn.info.host == "localhost"
            conn.close()
        else:
            with pytest.raises(psycopg2.OperationalError, match="could not translate host name"):
                await connecting

    run(main())


@needs_refusal
def test_two_thousand_cancelled_at_random_moments(run, dsn, assert_stopped):
    rng = random.Random(7)

    async def work(pool, number):
        async with pool.connection() as conn:
            if number % 3 == 0:
                await one(conn, "select pg_sleep(%s)", rng.random() * 0.02)
            elif number % 3 == 1:
                for _ in range(5):
                    await one(conn, "select 1")
            else:
                await aio.run(ask_on, conn, "select pg_sleep(0.005)")

    def ask_on(conn, query):
        with conn, conn.cursor() as cur:
            cur.execute(query)
            return cur.fetchone()

    async def main():
        async with await aio.create_pool(dsn, max_size=20) as pool:
            ended = {"cancelled": 0, "through": 0}
            for _ in range(10):
                tasks = [asyncio.create_task(work(pool, n)) for n in range(200)]
                for task in rng.sample(tasks, len(tasks)):
                    await asyncio.sleep(0 if rng.random() < 0.7 else rng.random() * 0.005)
                    task.cancel()
                for outcome in await asyncio.gather(*tasks, return_exceptions=True):
                    if isinstance(outcome, asyncio.CancelledError):
                        ended["cancelled"] += 1
                    else:
                        assert outcome is None
                        ended["through"] += 1
                assert pool.stats().in_use == pool.stats().waiting == 0
            assert min(ended.values()) > 20
            async with pool.connection() as conn:
                assert await one(conn, "select 42") == 42
            await asyncio.sleep(1.5)
        selector = getattr(asyncio.get_running_loop(), "_selector", None)
        if selector is not None:
            await asyncio.sleep(1.5)  # it lets go of our descriptor when nobody waits
            assert len(selector.get_map()) == 1  # its own

    run(main())
    assert_stopped()


def test_event_loop_that_ends_with_queries_under_way(run_program):
    """No complaint of asyncio's, which is in debug mode, and no query left."""
    assert run_program("loop_ends").strip() == "well"


def test_look_for_closed_descriptors_disturbs_no_open_one(run, dsn):
    async def main():
        conn = await aio.connect(dsn)
        assert await one(conn, "select 7 from pg_sleep(1.5)") == 7
        await conn.close()

    run(main())


@pytest.mark.skipif(selects, reason="select(2), which asyncio has here, fails for all sockets then")
def test_descriptor_that_is_closed_under_a_wait(run, dsn):
    async def main():
        conn = await aio.connect(dsn)
        task = asyncio.create_task(one(conn, "select pg_sleep(3)"))
        await asyncio.sleep(0.1)
        number = os.open("/dev/null", os.O_RDONLY)
        os.close(conn.fileno())
        os.close(number)
        with pytest.raises(psycopg2.OperationalError):
            await task

    run(main())


# -- AsyncConnection and AsyncCursor


def test_every_method_is_awaited(run, dsn):
    async def main():
        conn = await aio.connect(dsn)
        assert type(conn) is aio.AsyncConnection
        await conn.set_session(isolation_level="SERIALIZABLE", readonly=True)
        assert await one(conn, "show transaction_isolation") == "serializable"
        await conn.rollback()
        await conn.set_session(readonly=False)
        await conn.set_isolation_level(psycopg2.extensions.ISOLATION_LEVEL_READ_COMMITTED)
        await conn.set_client_encoding("LATIN1")
        await conn.reset()
        await conn.tpc_begin(conn.xid(1, "aio", "test"))
        assert await one(conn, "select 1") == 1
        await conn.tpc_prepare()
        await conn.tpc_rollback()
        assert await conn.tpc_recover() == []
        await conn.rollback()
        cur = conn.cursor()
        await cur.execute("create temporary table t (n int)")
        await cur.executemany("insert into t values (%s)", [(n,) for n in range(5)])
        await cur.callproc("abs", (-3,))
        assert await cur.fetchone() == (3,)
        await cur.execute("select n from t order by n")
        assert await cur.fetchmany(2) == [(0,), (1,)]
        await cur.scroll(1)
        assert await cur.fetchall() == [(3,), (4,)]
        assert await cur.fetchone() is None
        await cur.close()
        assert cur.closed
        await conn.commit()
        for _ in range(5):  # the server may need longer to take it
            try:
                await conn.cancel()
                break
            except psycopg2.OperationalError as exc:
                if "has not taken the cancel request within 1 s" not in str(exc):
                    raise
        else:
            raise AssertionError
        await conn.close()
        assert conn.closed
        with pytest.raises(psycopg2.InterfaceError):
            await conn.commit()

    run(main())


def test_transactions(run, dsn):
    async def main():
        first, second = await aio.connect(dsn), await aio.connect(dsn)
        await one_off(first, "create table if not exists aio_transactions (n int)")
        async with first:
            await one_off(first, "insert into aio_transactions values (1)")
        with pytest.raises(LookupError):
            async with first:
                await one_off(first, "insert into aio_transactions values (2)")
                raise LookupError
        assert await one(second, "select array_agg(n) from aio_transactions") == [1]
        await second.rollback()
        await one_off(first, "drop table aio_transactions")
        with pytest.raises(TypeError, match="async with conn"), first:
            pass
        first.close()
        second.close()
        with pytest.raises(psycopg2.InterfaceError):
            async with first:
                pass

    async def one_off(conn, statement):
        async with conn.cursor() as cur:
            await cur.execute(statement)
        if "table" in statement:
            await conn.commit()

    run(main())


@pytest.mark.parametrize(
    "factory",
    [
        psycopg2.extensions.cursor,
        psycopg2.extras.DictCursor,
        psycopg2.extras.RealDictCursor,
        psycopg2.extras.NamedTupleCursor,
        greenwait.Cursor,
        aio.AsyncCursor,
    ],
    ids=lambda cls: cls.__name__,
)
def test_cursor_classes(run, dsn, factory):
    expected = [("n",)] * 3 if factory is psycopg2.extras.RealDictCursor else [(1,), (2,), (3,)]

    async def main():
        conn = await aio.connect(dsn, cursor_factory=factory)
        for name in (None, "named"):
            async with conn.cursor(name) as cur:
                assert isinstance(cur, factory)
                cur.itersize = 2
                await cur.execute("select generate_series(1, 3) as n")
                first = await cur.fetchone()
                rows = [first, *[row async for row in cur]]
                assert [tuple(row) for row in rows] == expected
                if factory is psycopg2.extras.NamedTupleCursor:
                    assert rows[2].n == 3
                if factory is psycopg2.extras.RealDictCursor:
                    assert rows == [{"n": 1}, {"n": 2}, {"n": 3}]
        conn.close()

    run(main())


def test_rows_of_a_server_side_cursor_come_by_itersize(run, dsn):
    async def main():
        conn = await aio.connect(dsn)
        async with conn.cursor("named") as cur:
            cur.itersize = 10
            await cur.execute("select n, pg_backend_pid() from generate_series(1, 95) as n")
            found = [row[0] async for row in cur]
            assert found == list(range(1, 96))
        async with conn.cursor("again") as cur:
            await cur.execute("select n from generate_series(1, 5) as n")
            rows = aiter(cur)
            assert [(await anext(rows))[0]] + [row[0] async for row in rows] == [1, 2, 3, 4, 5]
        async with conn.cursor("other") as cur:
            await cur.execute("select 1")
            with pytest.raises(TypeError, match="async for"):
                next(cur)
        conn.close()

    run(main())


def test_synchronous_code_below_run_has_plain_methods(run, dsn):
    def work(conn):
        with conn, conn.cursor() as cur:
            cur.execute("create temporary table t (n int, s text)")
            psycopg2.extras.execute_values(
                cur, "insert into t values %s", [(n, str(n)) for n in range(500)]
            )
            psycopg2.extras.execute_batch(cur, "insert into t values (%s, 'x')", [(1,), (2,)])
            cur.execute("select count(*) from t")
            return cur.fetchone()[0]

    async def main():
        conns = [await aio.connect(dsn) for _ in range(20)]
        found = await asyncio.gather(*[aio.run(work, conn) for conn in conns])
        assert found == [502] * 20
        for conn in conns:
            conn.close()

    run(main())


def test_tasks_share_a_connection(run, dsn):
    async def main():
        conn = await aio.connect(dsn)
        order = []

        async def work(number):
            assert await one(conn, "select %s from pg_sleep(0.01)", number) == number
            order.append(number)
            await conn.commit()

        await asyncio.gather(*[work(n) for n in range(20)])
        assert order == list(range(20))
        conn.close()

    run(main())


def test_one_that_waits_its_turn_is_cancelled(run, dsn):
    async def main():
        conn = await aio.connect(dsn)
        first = asyncio.create_task(one(conn, "select pg_sleep(0.3)"))
        await asyncio.sleep(0)
        waiting = [asyncio.create_task(one(conn, "select 2")) for _ in range(5)]
        await asyncio.sleep(0)
        waiting[1].cancel()
        waiting[3].cancel()
        found = await asyncio.gather(*waiting, return_exceptions=True)
        assert [str(type(each).__name__) for each in found] == [
            "int",
            "CancelledError",
            "int",
            "CancelledError",
            "int",
        ]
        await first
        conn.close()

    run(main())


def test_close_and_attributes_while_a_task_is_at_work(run, dsn):
    async def main():
        conn = await aio.connect(dsn)
        task = asyncio.create_task(one(conn, "select 1 from pg_sleep(0.2)"))
        await asyncio.sleep(0)
        with pytest.raises(psycopg2.ProgrammingError, match=r"await set_session\(\)"):
            conn.autocommit = True
        closing = conn.close()
        assert not conn.closed
        assert await task == 1
        await closing
        assert conn.closed
        conn = await aio.connect(dsn)
        conn.autocommit = True
        task = asyncio.create_task(one(conn, "select 1 from pg_sleep(0.2)"))
        await asyncio.sleep(0)
        conn.close()
        assert await task == 1
        give_up = time.monotonic() + 5
        while not conn.closed:
            await asyncio.sleep(0.01)
            assert time.monotonic() < give_up

    run(main())


def test_turn_that_is_handed_over_is_taken(run, dsn):
    """A task goes on before the one whose turn it is now."""

    async def main():
        conn = await aio.connect(dsn)

        async def first():
            assert await one(conn, "select 1 from pg_sleep(0.1)") == 1
            with pytest.raises(psycopg2.ProgrammingError, match="a task is at work"):
                conn.autocommit = True
            conn.close()
            assert not conn.closed

        second = one(conn, "select 2 from pg_sleep(0.1)")
        assert (await asyncio.gather(first(), second))[1] == 2
        give_up = time.monotonic() + 5
        while not conn.closed:
            await asyncio.sleep(0.01)
            assert time.monotonic() < give_up

    run(main())


def test_cancellation_and_result_of_what_is_awaited_at_once(run):
    async def main():
        loop = asyncio.get_running_loop()
        for _ in range(3):
            future = loop.create_future()
            task = asyncio.create_task(aio.run(aio.await_, future))
            await asyncio.sleep(0.02)
            task.cancel()
            future.set_result(1)
            with pytest.raises(asyncio.CancelledError):
                await task
        await asyncio.sleep(0.01)
        assert await aio.run(aio.await_, asyncio.sleep(0.01, 7)) == 7

    run(main())


def test_await_of_what_is_not_awaitable(run):
    async def main():
        mistakes: list[Any] = [None, main]
        for mistake in mistakes:
            with pytest.raises(TypeError):
                await aio.run(aio.await_, mistake)

    run(main())


def test_event_loop_that_goes_on_in_another_thread(dsn, callback):
    loop = asyncio.new_event_loop()
    answers = []

    def ask_there():
        for number in range(3):
            answers.append(loop.run_until_complete(aio.run(ask, dsn, f"select {number}")))

    ask_there()
    thread = threading.Thread(target=ask_there)
    thread.start()
    thread.join(20)
    loop.close()
    assert answers == [0, 1, 2, 0, 1, 2]


def test_event_loop_does_not_change_its_thread_below_a_call(dsn, callback):
    loop = asyncio.new_event_loop()
    caught = []
    lock = f"pg_advisory_xact_lock(1908, {os.getpid()})"
    holder = psycopg2.connect(dsn)
    holder.cursor().execute(f"select {lock}")

    async def begin():
        task = asyncio.create_task(aio.run(ask, dsn, f"select 1 from {lock}"))
        await asyncio.sleep(0.05)
        return task

    def ask_there():
        try:
            loop.run_until_complete(aio.run(ask, dsn, "select 2"))
        except RuntimeError as exc:
            caught.append(str(exc))

    task = loop.run_until_complete(begin())
    thread = threading.Thread(target=ask_there)
    thread.start()
    thread.join(20)
    holder.close()
    assert "another thread" in caught[0]
    assert loop.run_until_complete(task) == 1
    assert loop.run_until_complete(aio.run(ask, dsn, "select 3")) == 3
    loop.close()


@pytest.mark.parametrize("in_thread", [False, True])
def test_place_is_not_given_to_who_waited_in_a_closed_event_loop(dsn, callback, in_thread):
    pool = greenwait.Pool(dsn, max_size=1)
    conn = pool.getconn()
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)  # the task is pending, as it is to be

    async def main():
        task = asyncio.create_task(aio.run(pool.getconn))
        await asyncio.sleep(0.05)
        return task

    task = loop.run_until_complete(main())
    loop.close()

    def give_back():
        pool.putconn(conn)
        given.append(pool.getconn(timeout=2))

    given: list[Any] = []
    if in_thread:
        thread = threading.Thread(target=give_back)
        thread.start()
        thread.join(20)
    else:
        give_back()
    assert given == [conn]
    assert not task.done()
    del task, loop
    gc.collect()  # whoever waited there ends, and gives back no place
    with pytest.raises(greenwait.PoolTimeout):
        pool.getconn(timeout=0.1)
    pool.putconn(conn)
    assert pool.getconn(timeout=2) is conn
    with pytest.raises(greenwait.PoolTimeout):
        pool.getconn(timeout=0.1)
    pool.putconn(conn)
    pool.close(timeout=2)


@needs_fork
def test_forked_child_has_waits_and_event_loops_of_its_own(run_program):
    assert run_program("aio_fork") == "1 [2, 3] [4]\n[0, [5, 6]]\n"


def test_forgotten_await_is_named(run, dsn):
    async def main():
        conn = await aio.connect(dsn)
        cur = conn.cursor()
        for forgetful, name in (
            (lambda: cur.execute("select 1"), "AsyncCursor.execute"),
            (lambda: cur.fetchone(), "AsyncCursor.fetchone"),
            (lambda: conn.commit(), "AsyncConnection.commit"),
        ):
            with pytest.warns(RuntimeWarning, match=f"'{name}' was never awaited"):
                forgetful()  # and nobody has the coroutine
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            cur.close()
            conn.close()
            gc.collect()

    run(main())


def test_connection_of_another_event_loop(run, dsn):
    async def first():
        conn = await aio.connect(dsn)
        await one(conn, "select 1")
        return conn

    async def second(conn):
        with pytest.raises(RuntimeError, match="another event loop"):
            await one(conn, "select 1")

    loop = asyncio.new_event_loop()
    conn = loop.run_until_complete(first())
    run(second(conn))
    loop.close()

    async def third():
        assert await one(conn, "select 1") == 1  # nobody can use it there any more
        conn.close()

    run(third())


# -- The pool


def test_pool(run, dsn):
    async def main():
        async with await aio.create_pool(dsn, min_size=1, max_size=3) as pool:
            assert pool.stats().size == 1

            async def work(number):
                async with pool.connection() as conn:
                    return await one(conn, "select %s from pg_sleep(0.01)", number)

            assert await asyncio.gather(*[work(n) for n in range(30)]) == list(range(30))
            assert pool.stats().made == 3
            conn = await pool.getconn()
            await one(conn, "select 1")
            await pool.putconn(conn)
            with pytest.raises(LookupError):
                async with pool.connection():
                    raise LookupError
            assert pool.stats().in_use == 0
            assert repr(pool).startswith("<greenwait.aio.AsyncPool 0 of 3 in use, 3 idle")
            conn = await pool.getconn()
            with pytest.raises(greenwait.PoolTimeout, match="still in use"):
                await pool.close(timeout=0.05)
            await pool.putconn(conn)
        with pytest.raises(psycopg2.InterfaceError):
            await pool.getconn()

    run(main())


def test_pool_serves_in_order_and_passes_over_who_is_cancelled(run, dsn):
    async def main():
        async with await aio.create_pool(dsn, max_size=1) as pool:
            conn = await pool.getconn()
            order = []

            async def work(number):
                async with pool.connection():
                    order.append(number)

            tasks = [asyncio.create_task(work(n)) for n in range(10)]
            await asyncio.sleep(0)
            assert pool.stats().waiting == 10
            for number in (0, 3, 9):
                tasks[number].cancel()
            await asyncio.sleep(0.01)
            assert pool.stats().waiting == 7
            await pool.putconn(conn)
            await asyncio.gather(*tasks, return_exceptions=True)
            assert order == [1, 2, 4, 5, 6, 7, 8]
            began = time.monotonic()
            async with pool.connection():
                with pytest.raises(greenwait.PoolTimeout):
                    await pool.getconn(timeout=0.1)
            assert 0.1 <= time.monotonic() - began < 5

    run(main())


def test_connection_that_was_just_lent_to_a_cancelled_task_goes_back(run, dsn):
    """Both tasks have theirs in the same turn of the loop; the first cancels the second."""

    async def enter(pool):
        async with pool.connection():
            pass

    async def once(first_pool, second_pool, borrow):
        conns = [await first_pool.getconn(), await second_pool.getconn()]

        async def first():
            async with first_pool.connection():
                second_task.cancel()

        def give_back():
            first_pool._pool.putconn(conns[0])
            second_pool._pool.putconn(conns[1])

        first_task = asyncio.create_task(first())
        second_task = asyncio.create_task(borrow(second_pool))
        await asyncio.sleep(0)
        await aio.run(give_back)
        await first_task
        with pytest.raises(asyncio.CancelledError):
            await second_task
        assert second_pool.stats().in_use == 0

    async def main():
        async with (
            await aio.create_pool(dsn, max_size=1) as first_pool,
            await aio.create_pool(dsn, max_size=1) as second_pool,
        ):
            for _ in range(20):
                await once(first_pool, second_pool, enter)
                await once(first_pool, second_pool, aio.AsyncPool.getconn)

    run(main())


def test_pool_survives_the_end_of_its_connections(run, dsn, connect):
    killer = connect()
    killer.autocommit = True

    async def main():
        async with await aio.create_pool(dsn, max_size=2) as pool:
            for _ in range(3):
                async with pool.connection() as conn:
                    pid = await one(conn, "select pg_backend_pid()")
                with killer.cursor() as cur:
                    cur.execute("select pg_terminate_backend(%s, 5000)", (pid,))
                async with pool.connection() as conn:
                    assert await one(conn, "select 42") == 42

    run(main())


# -- LISTEN and NOTIFY


async def listen_until(last, conn):
    """Return the payloads that come, up to this one."""
    found = []
    async with contextlib.aclosing(aio.notifies(conn, timeout=20)) as notifications:
        async for notification in notifications:
            found.append(notification.payload)
            if found[-1] == last:
                return found
    raise AssertionError(found)


def test_notifications_in_order_and_none_lost(run, dsn, connect):
    sender = connect()
    sender.autocommit = True

    def send(*payloads):
        with sender.cursor() as cur:
            for payload in payloads:
                cur.execute("select pg_notify('aio', %s)", (str(payload),))

    async def main():
        conn = await aio.connect(dsn)
        conn.autocommit = True
        async with conn.cursor() as cur:
            await cur.execute("listen aio")
        send(1, 2)
        assert await listen_until("2", conn) == ["1", "2"]
        began = time.monotonic()
        assert [n.payload async for n in aio.notifies(conn, timeout=0.2)] == []
        assert 0.2 <= time.monotonic() - began < 10
        send(3)
        assert [n.payload async for n in aio.notifies(conn, timeout=0)] in (["3"], [])
        send(4, 5)
        found = []
        for _ in range(200):

            async def listen():
                async for notify in aio.notifies(conn):
                    found.append(notify.payload)

            task = asyncio.create_task(listen())
            await asyncio.sleep(0.001)
            send(len(found))
            await asyncio.sleep(random.random() * 0.002)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        send("last")
        found += await listen_until("last", conn)
        assert len(found) >= 203
        assert await one(conn, "select 42") == 42
        conn.close()

    run(main())


def test_tasks_that_wait_for_one_connection_s_notifications(run, dsn, connect):
    """Both hear of one that only one of them gets; the other one goes on listening."""
    sender = connect()
    sender.autocommit = True

    async def main():
        conn = await aio.connect(dsn)
        conn.autocommit = True
        async with conn.cursor() as cur:
            await cur.execute("listen pair")
        for number in range(30):
            tasks = [asyncio.create_task(listen_until("last", conn)) for _ in range(2)]
            for payload in (str(number), "last", "last"):
                await asyncio.sleep(0.002)
                sender.cursor().execute("select pg_notify('pair', %s)", (payload,))
                time.sleep(0.012)  # so long that both are due when the event loop looks
            found = [each for found in await asyncio.gather(*tasks) for each in found]
            assert sorted(found) == [str(number), "last", "last"]
        conn.close()

    run(main())


def test_no_notification_is_lost_by_a_task_that_is_cancelled_just_then(run, dsn, connect):
    """Two listeners are woken in the same turn; whichever is first cancels the other."""
    sender = connect()
    sender.autocommit = True
    rounds = 100

    async def main():
        conns = [await aio.connect(dsn) for _ in range(2)]
        found = [[], []]
        for conn in conns:
            conn.autocommit = True
            async with conn.cursor() as cur:
                await cur.execute("listen couple")

        async def listen(which):
            async for notify in aio.notifies(conns[which]):
                found[which].append(notify.payload)
                tasks[1 - which].cancel()
                return

        for number in range(rounds):
            tasks = [asyncio.create_task(listen(which)) for which in range(2)]
            await asyncio.sleep(0)
            with sender.cursor() as cur:
                cur.execute("select pg_notify('couple', %s)", (str(number),))
            time.sleep(0.002)  # both have it before the loop looks
            await asyncio.gather(*tasks, return_exceptions=True)
        sender.cursor().execute("notify couple, 'last'")
        for which in range(2):
            found[which] += await listen_until("last", conns[which])
            assert found[which] == [*[str(number) for number in range(rounds)], "last"]
            conns[which].close()

    run(main())


@pytest.mark.parametrize("context", ["thread", "hub"])
def test_notifications_in_synchronous_code(callback, connect, context):
    conn, sender = connect(), connect()
    conn.autocommit = sender.autocommit = True
    conn.cursor().execute("listen plain")

    def send():
        for number in range(3):
            time.sleep(0)
            sender.cursor().execute("select pg_notify('plain', %s)", (str(number),))

    def listen():
        found = itertools.islice(greenwait.notifies(conn, timeout=20), 3)
        return [notify.payload for notify in found]

    if context == "hub":
        assert greenwait.gather(listen, send)[0] == ["0", "1", "2"]
    else:
        send()
        assert listen() == ["0", "1", "2"]
    assert list(greenwait.notifies(conn, timeout=0)) == []
    with pytest.raises(greenwait.QueryTimeout), greenwait.timeout(0.05):
        list(greenwait.notifies(conn, timeout=20))


# -- A wait that stops the loop


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

    from greenwait import _event_loop

    _event_loop._told.clear()
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
    assert {name for name, _ in lines} <= {__file__, psycopg2.__file__}


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


# -- ORM


@pytest.mark.parametrize("pool", orm_program.POOLS)
def test_sqlalchemy_below_run(run, dsn, pool):
    async def main(engine):
        began = time.monotonic()
        calls = [aio.run(orm_program.write_and_read, engine, n) for n in range(20)]
        assert await asyncio.gather(*calls) == list(range(20))
        assert time.monotonic() - began < 6  # 8 s and more one after the other

    with orm_program.engine(dsn, **orm_program.POOLS[pool]) as engine:
        run(main(engine))


def test_execute_values_below_run(run, dsn):
    async def main():
        began = time.monotonic()
        calls = [aio.run(orm_program.insert_many, dsn, n) for n in range(1, 21)]
        assert await asyncio.gather(*calls) == list(range(1, 21))
        assert time.monotonic() - began < 6

    run(main())


# -- The examples


@pytest.fixture(scope="module")
def database_of_the_examples(own_server):
    """Their connection string, without a server's name, is for this."""
    conn = psycopg2.connect(own_server.dsn("unix"))
    conn.autocommit = True
    with conn.cursor() as cur:
        cur.execute("create role postgres login password 'secret'")
        cur.execute("create database test owner postgres")
    conn.close()
    conn = psycopg2.connect(own_server.dsn("unix", dbname="test", user="postgres"))
    with conn, conn.cursor() as cur:
        cur.execute("create table users (id int, name text)")
        cur.execute("insert into users values (1, 'Ada'), (2, 'Grace')")
    conn.close()
    where = psycopg2.extensions.parse_dsn(own_server.dsn("unix"))
    return {"PGHOST": where["host"], "PGPORT": where["port"]}


@pytest.mark.parametrize("name", ["fetch_data.py", "fetch_data_idiomatic.py"])
def test_example(database_of_the_examples, name):
    script = (Path(__file__).parent.parent / "examples" / name).read_text()
    if sys.version_info >= (3, 14):
        script = re.sub(r"(?m)^loop = .*\n.*", "asyncio.run(main())", script)
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, **database_of_the_examples},
        capture_output=True,
        text=True,
        timeout=40,
    )
    assert done.returncode == 0, done.stderr
    assert re.findall(r"'name'[,:] '(\w+)'", done.stdout) == ["Ada", "Grace"]
