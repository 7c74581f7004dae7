"""psycopg2 in trio programs."""

import os
import random
import time
from collections.abc import Callable
from typing import Any

import psycopg2
import pytest
import trio
from psycopg2 import errors

import greenwait
from greenwait import trio as greenwait_trio
from tests.lab import orm as orm_program
from tests.lab.asleep import again_until
from tests.lab.freezers import frozen
from tests.lab.hosts import silent_listener
from tests.lab.leaks import no_leaked_descriptors
from tests.lab.marks import needs_backend_pid, needs_fork, needs_refusal, needs_session

run = greenwait_trio.run


@pytest.fixture
def dsn(server, callback):
    # A busy machine's server may need more than a second to end a query.
    patient = greenwait.WaitCallback(poller=getattr(callback, "poller", "poll"), cancel_grace=10)
    psycopg2.extensions.set_wait_callback(patient)
    return server.dsn(server.transports[0])


@pytest.fixture
def assert_stopped(connect):
    conn = connect()
    conn.autocommit = True
    with conn.cursor() as cur:
        cur.execute("select clock_timestamp()")
        began = cur.fetchone()  # earlier tests may have left some that no cancel ends

    def check():
        give_up = time.monotonic() + 5
        query = (
            "select count(*) from pg_stat_activity where state = 'active' and query_start >= %s"
            " and query like '%%pg_sleep(20)' and pid <> pg_backend_pid()"
        )
        with conn.cursor() as cur:
            while True:
                cur.execute(query, began)
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
        found.clear()
        turns.clear()
        began = time.monotonic()
        async with trio.open_nursery() as outer:
            outer.start_soon(count)
            async with trio.open_nursery() as nursery:
                for number in range(20):
                    nursery.start_soon(work, number)
            outer.cancel_scope.cancel()
        return time.monotonic() - began

    for _ in range(5):  # this process may stand still meanwhile
        took = trio.run(main)
        assert sorted(found) == list(range(20))
        if took < 2 and len(turns) > 5:
            return
    raise AssertionError(took, len(turns))


def test_result_and_exception(dsn):
    def arguments(*args, **kwargs):
        return args, kwargs

    async def main():
        assert await run(arguments, 1, a=2) == ((1,), {"a": 2})
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
    assert time.monotonic() - began < 10
    assert_stopped()


def test_connecting_is_cancelled(callback):
    async def main(port):
        with trio.move_on_after(0.05) as scope:
            await run(psycopg2.connect, f"host=127.0.0.1 port={port} user=x dbname=x")
        assert scope.cancelled_caught

    with silent_listener() as port:
        trio.run(main, port)
        for _ in range(3):
            with no_leaked_descriptors():
                trio.run(main, port)


def test_connect_timeout_and_others_go_on(callback):
    turns = []

    async def count():
        while True:
            turns.append(1)
            await trio.sleep(0.01)

    async def main(port):
        dsn = f"host=127.0.0.1 port={port} user=x dbname=x connect_timeout=2"
        began = time.monotonic()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(count)
            with pytest.raises(psycopg2.OperationalError, match=r"connect_timeout|timeout expired"):
                await run(greenwait.connect, dsn)
            nursery.cancel_scope.cancel()
        assert 2 <= time.monotonic() - began < 6

    with silent_listener() as port:
        trio.run(main, port)
    assert len(turns) > 10


def test_scopes_that_end_together(dsn, assert_stopped):
    """The end of the query is waited for, though a scope around that has ended too."""

    async def main():
        conn = await run(psycopg2.connect, dsn)
        with trio.move_on_after(0.1) as outer, trio.move_on_after(0.1):
            await run(ask_on, conn, "select pg_sleep(20)")
        assert outer.cancel_called
        assert await run(ask_on, conn, "select 42") == 42
        conn.close()

    trio.run(main)
    assert_stopped()


def test_tasks_share_a_connection_and_one_that_waits_its_turn_is_cancelled(dsn):
    def execute(conn, query):
        with conn.cursor() as cur:
            cur.execute(query)
            return cur.fetchone()[0]

    lock = f"pg_advisory_xact_lock(1906, {os.getpid()})"
    holder = psycopg2.connect(dsn)
    holder.cursor().execute(f"select {lock}")

    async def main():
        conn = await run(greenwait.connect, dsn)
        begun = trio.Event()
        ended = []

        def wait():
            begun.set()
            return execute(conn, f"select 1 from {lock}")

        async def have_its_turn():
            ended.append(await run(wait))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(have_its_turn)
            await begun.wait()
            with trio.move_on_after(0.1) as scope:
                await run(execute, conn, "select 2")
            assert scope.cancelled_caught
            holder.close()
            assert await run(execute, conn, "select 3") == 3
            assert ended == [1]
        conn.close()

    trio.run(main)


async def all_of(function: Callable[..., Any], *arguments: Any):
    """Return the results of twenty calls under way at the same time, sorted."""
    found = []

    async def one(number):
        found.append(await run(function, *arguments, number))

    began = time.monotonic()
    async with trio.open_nursery() as nursery:
        for number in range(1, 21):
            nursery.start_soon(one, number)
    assert time.monotonic() - began < 6  # 8 s and more one after the other
    return sorted(found)


@pytest.mark.parametrize("pool", orm_program.POOLS)
def test_sqlalchemy(dsn, pool):
    with orm_program.engine(dsn, **orm_program.POOLS[pool]) as engine:
        assert trio.run(all_of, orm_program.write_and_read, engine) == list(range(1, 21))


@needs_session
def test_execute_values(dsn):
    assert trio.run(all_of, orm_program.insert_many, dsn) == list(range(1, 21))


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
        async def begin(number):
            await run(work, pool, shared, number)

        shared = await run(greenwait.connect, dsn)
        pool = await run(greenwait.Pool, dsn, max_size=3)
        async with trio.open_nursery() as nursery:
            for number in range(30):
                nursery.start_soon(begin, number)
        await run(pool.close)
        shared.close()

    trio.run(main)
    assert sorted(found) == list(range(30))


@needs_backend_pid
def test_cancellation_while_a_statement_is_sent(dsn):
    """It waits to write, and to read what the server may have to say, in one nursery."""
    raised = []

    def work(conn):
        try:
            conn.cursor().execute("select length(%s)", ("x" * 5_000_000,))
        except BaseException as exc:
            raised.append(exc)
            raise

    async def main(conn):
        with trio.move_on_after(0.2) as scope:
            await run(work, conn)
        assert scope.cancelled_caught

    psycopg2.extensions.set_wait_callback(greenwait.wait)  # with a grace of a second
    conn = psycopg2.connect(dsn)
    conn.autocommit = True  # or it would wait for the answer to BEGIN
    with frozen(conn.info.backend_pid):
        trio.run(main, conn)
    conn.close()
    assert [type(each) for each in raised] == [trio.Cancelled]


@pytest.mark.parametrize("is_shielded", [False, True])
def test_cancellation_while_a_deadline_s_query_is_stopped_comes_before_the_next_statement(
    dsn, is_shielded
):
    conn = psycopg2.connect(dsn)
    conn.autocommit = True
    raised: list[BaseException] = []
    was_in_time = False

    def work():
        with conn.cursor() as cur:
            try:
                with greenwait.timeout(0.1):
                    cur.execute(
                        "do $$begin for i in 1..40 loop begin perform pg_sleep(0.1); "
                        "exception when query_canceled then raise notice 'deaf'; end; end loop; "
                        "raise exception 'no'; end$$"
                    )
            except BaseException as exc:
                raised.append(exc)
            if not raised or isinstance(raised[0], trio.Cancelled):
                raise raised[0]

    async def cancel(scope):
        while not conn.notices:
            await trio.sleep(0.01)
        nonlocal was_in_time
        was_in_time = not raised
        scope.cancel()

    async def main():
        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as scope:
                nursery.start_soon(cancel, scope)
                with trio.CancelScope(shield=is_shielded):
                    await run(work)
                await trio.lowlevel.checkpoint()
            assert scope.cancelled_caught or not was_in_time
            nursery.cancel_scope.cancel()

    def attempt():
        raised.clear()
        conn.notices.clear()
        trio.run(main)

    psycopg2.extensions.set_wait_callback(greenwait.WaitCallback(cancel_grace=20))
    # Where it was stopped outside of its blocks, nothing is left to be cancelled.
    again_until(lambda: was_in_time, conn, attempt)
    conn.close()
    (exc,) = raised
    assert isinstance(exc, psycopg2.Error if is_shielded else trio.Cancelled)


@needs_refusal
def test_two_thousand_cancelled_at_random_moments(dsn, assert_stopped):
    rng = random.Random(3)
    ended = {True: 0, False: 0}

    def work(pool, seconds):
        with pool.connection() as conn:
            ask_on(conn, "select pg_sleep(%s)", seconds)

    async def one(pool, is_cancelled):
        with trio.CancelScope() as scope:
            if is_cancelled:
                scope.deadline = trio.current_time() + rng.random() * 0.02
            await run(work, pool, rng.random() * 0.01)
        ended[scope.cancelled_caught] += 1

    async def main():
        pool = await run(greenwait.Pool, dsn, max_size=10)
        for _ in range(10):
            async with trio.open_nursery() as nursery:
                for number in range(125):
                    nursery.start_soon(one, pool, number % 5 > 0)
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
    with pytest.raises(RuntimeError, match=r"is awaited in a trio task, below trio.run\(\)"):
        coroutine.send(None)


def test_descriptor_that_is_closed_under_a_wait_is_an_error(dsn):
    conn = psycopg2.connect(dsn)

    async def close():
        await trio.sleep(0.1)
        os.close(conn.fileno())

    async def main():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(close)
            with pytest.raises((psycopg2.OperationalError, OSError), match="descriptor"):
                await run(conn.cursor().execute, "select pg_sleep(30)")

    began = time.monotonic()
    trio.run(main)
    assert time.monotonic() - began < 5


def test_callback_that_is_not_registered_is_told(dsn):
    async def main():
        with pytest.raises(RuntimeError, match=r"greenwait\.trio needs .* greenwait\.install\(\)"):
            await run(ask, dsn, "select 1")

    psycopg2.extensions.set_wait_callback(None)
    trio.run(main)


@needs_session
def test_query_beside_notifications_of_the_same_connection(dsn, connect):
    conn, other = connect(), connect()
    conn.autocommit = other.autocommit = True
    conn.cursor().execute("listen trio_beside")
    found: list[Any] = []

    def listen():
        for notify in greenwait.notifies(conn, timeout=20):
            found.append(notify.payload)
            if notify.payload == "last":
                break

    async def main():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run, listen)
            await trio.sleep(0.05)
            for number in range(3):
                cur = conn.cursor()
                await run(cur.execute, "select %s from pg_sleep(0.1)", (number,))
                assert cur.fetchone() == (number,)
                await run(other.cursor().execute, "notify trio_beside, %s", (str(number),))
            await run(other.cursor().execute, "notify trio_beside, 'last'")

    trio.run(main)
    assert found == ["0", "1", "2", "last"]


@needs_fork
def test_forked_child_has_waits_of_its_own(run_program):
    assert run_program("trio_fork") == "1 [2]\n0\n"


@needs_refusal
def test_interrupts_leave_no_query_behind(run_program):
    """Ctrl-C is raised where the code waits, and not between two lines of run()."""
    assert run_program("trio_interrupts") == "300\n"
