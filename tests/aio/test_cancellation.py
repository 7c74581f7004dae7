"""Tasks that are cancelled: the query stops, and whoever cancels gets what it waits for."""

import asyncio
import functools
import gc
import os
import random
import statistics
import sys
import time

import psycopg2
import psycopg2.extras
import pytest

from greenwait import aio
from tests.lab.event_loops import one
from tests.lab.freezers import frozen
from tests.lab.hosts import silent_listener
from tests.lab.leaks import no_leaked_descriptors
from tests.lab.marks import needs_refusal, selects

TELLS_WHY = sys.version_info >= (3, 11)  # before, a task loses cancel()'s message


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
