"""A pool's functions may be asynchronous; and it is made by ``await`` or ``async with``."""

import asyncio

import psycopg2
import pytest

from greenwait import aio
from tests.lab.marks import needs_session


async def value_of(conn, query):
    async with conn.cursor() as cur:
        await cur.execute(query)
        return (await cur.fetchone())[0]


async def configure(conn):
    await asyncio.sleep(0)
    async with conn.cursor() as cur:
        await cur.execute("set application_name = 'of the pool'")


async def reset(conn):
    await asyncio.sleep(0)
    async with conn.cursor() as cur:
        await cur.execute("set application_name = 'given back'")


def configure_without_waiting(conn):
    conn.cursor().execute("set application_name = 'of the pool'")


def reset_without_waiting(conn):
    conn.cursor().execute("set application_name = 'given back'")


NAME = "select current_setting('application_name')"


@needs_session
@pytest.mark.parametrize(
    ("configure", "reset"),
    [(configure, reset), (configure_without_waiting, reset_without_waiting)],
    ids=["asynchronous", "synchronous"],
)
def test_functions_are_called(run, dsn, configure, reset):
    async def main():
        async with aio.create_pool(dsn, max_size=1, configure=configure, reset=reset) as pool:
            async with pool.connection() as conn:
                assert await value_of(conn, NAME) == "of the pool"
            async with pool.connection() as conn:
                assert await value_of(conn, NAME) == "given back"
            assert pool.stats().made == 1

    run(main())


def test_functions_are_called_for_the_first_connections(run, dsn):
    async def note(conn):
        seen.append(conn)

    async def main():
        async with aio.create_pool(dsn, min_size=2, max_size=2, configure=note):
            assert len(seen) == 2

    seen = []
    run(main())


def test_exception_of_an_asynchronous_function_costs_no_place(run, dsn):
    async def fail(conn):
        await asyncio.sleep(0)
        raise ValueError("of the function")

    async def main():
        async with aio.create_pool(dsn, max_size=1, configure=fail) as pool:
            for _ in range(2):
                with pytest.raises(ValueError, match="of the function"):
                    await pool.getconn()
            assert pool.stats().in_use == 0
        async with aio.create_pool(dsn, max_size=1, reset=fail) as pool:
            for _ in range(2):
                with pytest.raises(ValueError, match="of the function"):
                    async with pool.connection():
                        pass
            assert pool.stats().in_use == 0

    run(main())


def test_cancelled_task_cancels_the_function_and_costs_no_place(run, dsn):
    async def wait(conn):
        begun.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(conn)
            raise

    async def main():
        async with aio.create_pool(dsn, max_size=1, configure=wait) as pool:
            task = asyncio.create_task(pool.getconn())
            await begun.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert len(cancelled) == 1
            assert cancelled[0].closed
            assert pool.stats().in_use == 0

    begun, cancelled = asyncio.Event(), []
    run(main())


def test_tasks_reset_their_connections_at_the_same_time(run, dsn):
    async def together(conn):
        waiting.append(conn)
        if len(waiting) == 3:
            all_there.set()
        await asyncio.wait_for(all_there.wait(), 20)

    async def use(pool):
        async with pool.connection() as conn:
            await value_of(conn, "select 1 from pg_sleep(0.05)")

    async def main():
        async with aio.create_pool(dsn, max_size=3, reset=together) as pool:
            await asyncio.gather(*[use(pool) for _ in range(3)])
            assert pool.stats().idle == 3

    all_there, waiting = asyncio.Event(), []
    run(main())


@pytest.mark.parametrize("options", [{"minconn": 1}, {"min_size": 3, "max_size": 2}, {"reset": 1}])
def test_wrong_argument_is_told_at_once(dsn, options):
    with pytest.raises((TypeError, ValueError)):
        aio.create_pool(dsn, **options)


def test_pool_is_made_once(run, dsn):
    async def main():
        new = aio.create_pool(dsn)
        async with await new:
            pass
        with pytest.raises(RuntimeError, match="call create_pool"):
            await new

    run(main())


def test_pool_whose_first_connection_fails(run, server):
    async def main():
        with pytest.raises(psycopg2.OperationalError):
            async with aio.create_pool(server.dsn(dbname="nowhere"), min_size=1):
                pass
        with pytest.raises(psycopg2.OperationalError):
            await aio.create_pool(server.dsn(dbname="nowhere"), min_size=1)

    run(main())


def test_block_closes_the_pool(run, dsn):
    async def main():
        async with aio.create_pool(dsn) as pool, pool.connection() as conn:
            pass
        assert conn.closed
        with pytest.raises(psycopg2.InterfaceError):
            await pool.getconn()

    run(main())


def test_connection_may_be_closed_as_it_is_given_back(run, dsn):
    async def main():
        async with aio.create_pool(dsn) as pool:
            conn = await pool.getconn()
            await pool.putconn(conn, close=True)
            assert conn.closed
            assert pool.stats().size == 0

    run(main())
