"""``AsyncPool``: in order, and passing over who is cancelled."""

import asyncio
import time
from typing import Any

import psycopg2
import psycopg2.extras
import pytest

import greenwait
from greenwait import aio
from tests.lab.event_loops import one


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


def _plain(conn):
    conn.autocommit = True


class Counted(aio.AsyncConnection):
    """A connection whose commits are counted."""

    commits = 0

    def commit(self):
        Counted.commits += 1
        return super().commit()


def test_block_that_leaves_nothing_to_do_ends_without_a_call(run, dsn, monkeypatch):
    async def main():
        async with await aio.create_pool(dsn, max_size=1, configure=_plain) as pool:
            block = pool.connection()
            conn = await block.__aenter__()
            assert await one(conn, "select 1") == 1
            with monkeypatch.context() as patch:
                patch.setattr("greenwait.aio._pool.Call", None)
                await block.__aexit__(None, None, None)
            assert (pool.stats().in_use, pool.stats().idle) == (0, 1)

    run(main())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("autocommit", False),
        ("isolation_level", "SERIALIZABLE"),
        ("readonly", True),
        ("deferrable", True),
    ],
)
def test_block_that_leaves_another_setting_restores_it(run, dsn, name, value):
    """And the event loop is not stopped by that, for which an exception would be raised."""

    async def main():
        async with await aio.create_pool(dsn, max_size=1, configure=_plain) as pool:
            async with pool.connection() as conn:
                before = getattr(conn, name)
                await conn.set_session(**{name: value})
                assert getattr(conn, name) != before
            async with pool.connection() as again:
                assert again is conn
                assert getattr(conn, name) == before

    with greenwait.installed(on_event_loop="raise"):
        run(main())


def test_block_that_leaves_a_transaction_by_hand_rolls_it_back(run, dsn):
    async def main():
        async with await aio.create_pool(dsn, max_size=1, configure=_plain) as pool:
            async with pool.connection() as conn:
                await one(conn, "begin; select 1")
            async with pool.connection() as again:
                assert again is conn
                idle = psycopg2.extensions.TRANSACTION_STATUS_IDLE
                assert conn.get_transaction_status() == idle

    run(main())


def test_block_calls_a_commit_and_a_reset_of_ones_own(run, dsn):
    async def main():
        resets = []

        async def reset(conn):
            await conn.cursor().execute("select 1")
            resets.append(conn)

        options: Any = {"max_size": 1, "configure": _plain}
        async with await aio.create_pool(dsn, connection_factory=Counted, **options) as pool:
            Counted.commits = 0
            async with pool.connection() as conn:
                await one(conn, "select 1")
            assert Counted.commits == 1
        async with await aio.create_pool(dsn, reset=reset, **options) as pool:
            async with pool.connection() as conn:
                await one(conn, "select 1")
            assert resets == [conn]

    run(main())


def test_block_that_is_entered_twice_keeps_its_connection(run, dsn):
    async def main():
        async with await aio.create_pool(dsn, max_size=1) as pool:
            block = pool.connection()
            async with block as conn:
                with pytest.raises(RuntimeError, match="entered already"):
                    async with block:
                        pass
                assert pool.stats().in_use == 1
                assert await one(conn, "select 1") == 1
            assert pool.stats().in_use == 0

    run(main())
