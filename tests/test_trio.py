"""psycopg2 in trio programs."""

import time

import psycopg2
import pytest
import trio
from psycopg2 import errors

import greenwait
from greenwait import trio as greenwait_trio
from tests.fault_lab import no_leaked_descriptors

run = greenwait_trio.run


@pytest.fixture
def dsn(server, callback):
    return server.dsn(server.transports[0])


@pytest.fixture
def assert_stopped(connect):
    conn = connect()
    conn.autocommit = True

    def check():
        give_up = time.monotonic() + 5
        query = (
            "select count(*) from pg_stat_activity where state = 'active'"
            " and query like '%pg_sleep(20)' and pid <> pg_backend_pid()"
        )
        with conn.cursor() as cur:
            while True:
                cur.execute(query)
                if cur.fetchone() == (0,):
                    return
                assert time.monotonic() < give_up

    return check


def ask(dsn, query, *parameters):
    conn = psycopg2.connect(dsn)
    try:
        return ask_on(conn, query, *parameters)
    finally:
        conn.close()


def ask_on(conn, query, *parameters):
    with conn, conn.cursor() as cur:
        cur.execute(query, parameters)
        return cur.fetchone()[0]


def test_many_at_the_same_time_and_others_go_on(dsn):
    found, turns = [], []

    async def work(number):
        found.append(await run(ask, dsn, "select %s from pg_sleep(0.2)", number))

    async def count():
        while True:
            turns.append(1)
            await trio.sleep(0.01)

    async def main():
        began = time.monotonic()
        async with trio.open_nursery() as outer:
            outer.start_soon(count)
            async with trio.open_nursery() as nursery:
                for number in range(20):
                    nursery.start_soon(work, number)
            outer.cancel_scope.cancel()
        assert time.monotonic() - began < 2

    trio.run(main)
    assert sorted(found) == list(range(20))
    assert len(turns) > 5


def test_result_and_exception(dsn):
    async def main():
        assert await run(lambda *args, **kwargs: (args, kwargs), 1, a=2) == ((1,), {"a": 2})
        with pytest.raises(errors.DivisionByZero):
            await run(ask, dsn, "select 1 / 0")
        large = await run(ask, dsn, "select length(%s)", "x" * 3_000_000)
        assert large == 3_000_000

    trio.run(main)


def test_cancelled(dsn, assert_stopped):
    async def main():
        conn = await run(psycopg2.connect, dsn)
        for _ in range(3):
            with trio.move_on_after(0.1) as scope:
                await run(ask_on, conn, "select pg_sleep(20)")
            assert scope.cancelled_caught
            assert await run(ask_on, conn, "select 42") == 42
        conn.close()

    began = time.monotonic()
    trio.run(main)
    assert time.monotonic() - began < 4
    assert_stopped()


def test_timeout_around_and_inside(dsn, assert_stopped):
    def inside():
        with greenwait.timeout(0.1):
            ask(dsn, "select pg_sleep(20)")

    async def main():
        with pytest.raises(greenwait.QueryTimeout):
            await run(inside)
        with pytest.raises(greenwait.QueryTimeout), greenwait.timeout(0.1):
            await run(ask, dsn, "select pg_sleep(20)")

    trio.run(main)
    assert_stopped()


def test_pool_and_shared_connection(dsn):
    found = []

    def work(pool, shared, number):
        with pool.connection() as conn:
            assert ask_on(conn, "select %s from pg_sleep(0.005)", number) == number
        with shared.cursor() as cur:
            cur.execute("select %s", (number,))
            found.append(cur.fetchone()[0])

    async def main():
        shared = await run(greenwait.connect, dsn)
        pool = await run(greenwait.Pool, dsn, max_size=3)
        async with trio.open_nursery() as nursery:
            for number in range(30):
                nursery.start_soon(run, work, pool, shared, number)
        await run(pool.close)
        shared.close()

    trio.run(main)
    assert sorted(found) == list(range(30))


def test_hundreds_cancelled_at_random_moments(dsn, assert_stopped):
    import random

    rng = random.Random(3)
    ended = {True: 0, False: 0}

    def work(pool, seconds):
        with pool.connection() as conn:
            ask_on(conn, "select pg_sleep(%s)", seconds)

    async def one(pool):
        with trio.move_on_after(rng.random() * 0.02) as scope:
            await run(work, pool, rng.random() * 0.01)
        ended[scope.cancelled_caught] += 1

    async def main():
        pool = await run(greenwait.Pool, dsn, max_size=10)
        for _ in range(10):
            async with trio.open_nursery() as nursery:
                for _ in range(30):
                    nursery.start_soon(one, pool)
            assert pool.stats().in_use == pool.stats().waiting == 0
        await run(pool.close)

    trio.run(main)
    with no_leaked_descriptors():
        trio.run(main)
    assert min(ended.values()) > 10
    assert_stopped()


def test_mistakes_are_told(dsn):
    def nested():
        with pytest.raises(RuntimeError, match="nursery"):
            greenwait.gather(lambda: 1)

    async def main():
        await run(nested)

    trio.run(main)
    coroutine = run(ask, dsn, "select 1")
    with pytest.raises(RuntimeError, match="must be called from async context"):
        coroutine.send(None)
