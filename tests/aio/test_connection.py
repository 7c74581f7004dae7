"""``AsyncConnection`` and ``AsyncCursor``: every method is awaited."""

import asyncio
import gc
import os
import threading
import time
import warnings
from typing import Any

import psycopg2
import psycopg2.extras
import pytest

import greenwait
from greenwait import aio
from tests.lab.event_loops import ask, one
from tests.lab.marks import needs_fork


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


def test_block_of_a_named_cursor_raises_why_it_could_not_be_declared(run, dsn):
    async def query(conn):
        async with conn.cursor("slow", withhold=True) as cur:
            await cur.execute("select pg_sleep(30)")

    async def main():
        conn = await aio.connect(dsn)
        await conn.set_session(autocommit=True)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(query(conn), 0.1)
        assert await one(conn, "select 1") == 1
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
        conns.append(conn)

    conns = []
    run(main())
    call = conns[0].commit()
    with pytest.raises(RuntimeError, match="no running event loop"):
        call.send(None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it was awaited, where that is impossible
        del call
        gc.collect()


def test_task_shows_which_method_it_awaits(run, dsn):
    async def main():
        conn = await aio.connect(dsn)
        awaited: Any = conn.cursor().execute("select 1")
        task = asyncio.create_task(awaited)
        assert "coro=<AsyncCursor.execute()>" in repr(task)
        await task
        conn.close()

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
