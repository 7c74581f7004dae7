"""Cancelled again and again: by anyio's scopes, by asyncio's, and by web servers."""

import asyncio
import sys
import time
from typing import Any

import anyio
import psycopg2.extensions
import pytest

import greenwait
from greenwait import aio
from tests.lab.freezers import frozen
from tests.lab.marks import needs_refusal

HAS_TIMEOUT = sys.version_info >= (3, 11)
new: Any = asyncio  # what it has since then


def dictionary_of(stats, *names):
    return {name: getattr(stats, name) for name in names}


@needs_refusal
def test_anyio_costs_a_pool_no_connection(run, dsn):
    async def main():
        async with await aio.create_pool(dsn, max_size=1) as pool:
            for number in range(20):
                with anyio.move_on_after(0.01 + number % 5 / 100):
                    async with pool.connection() as conn, conn.cursor() as cur:
                        await cur.execute("select pg_sleep(20)")
                async with pool.connection() as conn, conn.cursor() as cur:
                    await cur.execute("select %s", (number,))
                    assert await cur.fetchone() == (number,)
            assert dictionary_of(pool.stats(), "in_use", "idle", "discarded") == {
                "in_use": 0,
                "idle": 1,
                "discarded": 0,
            }

    run(main())


@needs_refusal
def test_anyio_costs_the_pool_of_synchronous_code_no_connection(run, dsn):
    def work(pool):
        with pool.connection() as conn, conn, conn.cursor() as cur:
            cur.execute("select pg_sleep(20)")

    async def main():
        with greenwait.Pool(dsn, max_size=1) as pool:
            for _ in range(20):
                with anyio.move_on_after(0.02) as scope:
                    await aio.run(work, pool)
                assert scope.cancelled_caught
            assert pool.stats().discarded == 0

    run(main())


def test_connection_in_autocommit_mode_comes_back_as_it_was(run, dsn):
    async def main():
        async with await aio.create_pool(dsn, max_size=1) as pool:
            for _ in range(5):
                with anyio.move_on_after(0.02):
                    async with pool.connection() as conn, conn.cursor() as cur:
                        conn.autocommit = True
                        await cur.execute("begin")
                        await cur.execute("select pg_sleep(20)")
                async with pool.connection() as conn:
                    assert conn.autocommit is False
                    assert conn.info.transaction_status == 0  # TRANSACTION_STATUS_IDLE
                    with anyio.move_on_after(0.02):
                        await conn.cursor().execute("select pg_sleep(20)")
                    await conn.rollback()

    run(main())


@needs_refusal
def test_putconn_and_getconn_under_a_scope_that_cancels(run, dsn):
    async def main():
        async with await aio.create_pool(dsn, max_size=1) as pool:
            for _ in range(10):
                with anyio.move_on_after(0.02):
                    conn = await pool.getconn()
                    try:
                        await conn.cursor().execute("select pg_sleep(20)")
                    finally:
                        await pool.putconn(conn)
            assert dictionary_of(pool.stats(), "in_use", "discarded") == {
                "in_use": 0,
                "discarded": 0,
            }

    run(main())


def test_server_that_does_not_answer_is_left_within_the_grace(run, dsn):
    psycopg2.extensions.set_wait_callback(greenwait.wait)  # with one of a second

    async def main():
        async with await aio.create_pool(dsn, max_size=1) as pool:
            with anyio.CancelScope() as scope:
                async with pool.connection() as conn:
                    await conn.cursor().execute("select 1")
                    scope.deadline = anyio.current_time() + 0.2
                    began = time.monotonic()
                    with frozen(conn.info.backend_pid):
                        await conn.cursor().execute("select 2")
            assert scope.cancelled_caught
            assert time.monotonic() - began < 5
            assert dictionary_of(pool.stats(), "in_use", "discarded") == {
                "in_use": 0,
                "discarded": 1,
            }

    run(main())


def test_cancelling_again_while_the_query_is_stopped_does_not_end_that(run, dsn):
    async def main():
        conn = await aio.connect(dsn)
        cur = conn.cursor()
        await cur.execute("select 1")
        task: Any = asyncio.ensure_future(cur.execute("select pg_sleep(20)"))
        await asyncio.sleep(0.05)
        with frozen(conn.info.backend_pid):
            for _ in range(20):
                assert task.cancel()
                await asyncio.sleep(0.01)
            assert not task.done()
        with pytest.raises(asyncio.CancelledError):
            await task
        if HAS_TIMEOUT:
            assert task.cancelling() == 20
        assert not conn.closed
        await conn.rollback()
        await cur.execute("select 42")
        assert await cur.fetchone() == (42,)
        await conn.close()

    run(main())


# -- The scopes find out that it was them, as they do around anything else


async def nested(wait, log):
    with anyio.move_on_after(15) as outer:
        with anyio.move_on_after(0.05) as inner:
            await wait()
        log.append("after inner")
        await anyio.sleep(0)
    log.append((outer.cancelled_caught, inner.cancelled_caught))


async def nested_outer_first(wait, log):
    with anyio.move_on_after(0.05) as outer:
        with anyio.move_on_after(15) as inner:
            try:
                await wait()
            finally:
                log.append("inner left")
        log.append("not here")
    log.append((outer.cancelled_caught, inner.cancelled_caught))


async def shielded(wait, log):
    with anyio.move_on_after(0.05) as outer:
        with anyio.CancelScope(shield=True) as inner, anyio.move_on_after(0.1):
            await wait()
        log.append("after the shield")
        await wait()
    log.append((outer.cancelled_caught, inner.cancelled_caught))


async def timeout_in_scope(wait, log):
    with anyio.move_on_after(15) as scope:
        try:
            async with new.timeout(0.05):
                await wait()
        except TimeoutError:
            log.append("timed out")
        await anyio.sleep(0)
    log.append(scope.cancelled_caught)


async def scope_in_timeout(wait, log):
    async with new.timeout(15):
        with anyio.move_on_after(0.05) as scope:
            await wait()
        await asyncio.sleep(0)
    log.append(scope.cancelled_caught)


async def timeout_around_scope_ends_first(wait, log):
    try:
        async with new.timeout(0.05):
            with anyio.move_on_after(15) as scope:
                await wait()
    except TimeoutError:
        log.append("timed out")
    log.append(scope.cancelled_caught)


async def scope_around_timeout_ends_first(wait, log):
    with anyio.move_on_after(0.05) as scope:
        async with new.timeout(15):
            await wait()
    log.append(scope.cancelled_caught)


async def group_in_scope(wait, log):
    with anyio.move_on_after(0.05) as scope:
        async with new.TaskGroup() as group:
            group.create_task(wait())
            await asyncio.sleep(20)
    log.append(scope.cancelled_caught)


async def group_that_fails_in_scope(wait, log):
    async def fail():
        await asyncio.sleep(0.05)
        raise LookupError

    with anyio.move_on_after(15) as scope:
        try:
            async with new.TaskGroup() as group:
                group.create_task(fail())
                await wait()
        except BaseException as exc:
            group_raised: Any = exc
            log.append([type(each).__name__ for each in group_raised.exceptions])
    log.append(scope.cancelled_caught)


async def group_and_timeout_cancel_at_once(wait, log):
    async def fail():
        await asyncio.sleep(0.05)
        raise LookupError

    try:
        async with new.timeout(0.05), new.TaskGroup() as group:
            group.create_task(fail())
            await wait()
    except BaseException as exc:
        log.append(type(exc).__name__ in ("TimeoutError", "ExceptionGroup"))


async def cancelled_by_scope_and_from_outside(wait, log, *, scope_first=True):
    task: Any = asyncio.current_task()
    scope = anyio.CancelScope()
    cancels = [lambda: scope.cancel(), lambda: task.cancel("from outside")]
    if not scope_first:
        cancels.reverse()

    def cancel_both():
        for cancel in cancels:
            cancel()

    asyncio.get_running_loop().call_later(0.05, cancel_both)
    try:
        with scope:
            await wait()
    except asyncio.CancelledError:
        log.append("raised")
        task.uncancel()
    log.append((scope.cancelled_caught, task.cancelling()))


async def cancelled_from_outside_and_by_scope(wait, log):
    await cancelled_by_scope_and_from_outside(wait, log, scope_first=False)


PROGRAMS = [nested, nested_outer_first, shielded]
if HAS_TIMEOUT:
    PROGRAMS += [
        timeout_in_scope,
        scope_in_timeout,
        timeout_around_scope_ends_first,
        scope_around_timeout_ends_first,
        group_in_scope,
        group_that_fails_in_scope,
        group_and_timeout_cancel_at_once,
        cancelled_by_scope_and_from_outside,
        cancelled_from_outside_and_by_scope,
    ]


@needs_refusal
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_query_is_to_cancel_scopes_what_a_sleep_is(run, dsn, program):
    def synchronous(conn):
        with conn, conn.cursor() as cur:
            cur.execute("select pg_sleep(20)")

    async def main():
        async with await aio.create_pool(dsn, max_size=2) as pool:

            async def query():
                async with pool.connection() as conn, conn, conn.cursor() as cur:
                    await cur.execute("select pg_sleep(20)")

            async def call():
                async with pool.connection() as conn:
                    await aio.run(synchronous, conn)

            async def sleep():
                await asyncio.sleep(20)

            async def observed(wait):
                log: list[Any] = []
                await asyncio.ensure_future(program(wait, log))
                return log

            expected = await observed(sleep)
            for _ in range(5):
                assert await observed(query) == expected
                assert await observed(call) == expected
            assert dictionary_of(pool.stats(), "in_use", "discarded") == {
                "in_use": 0,
                "discarded": 0,
            }

    run(main())
