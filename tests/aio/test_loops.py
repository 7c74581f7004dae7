"""Event loops that are closed, that run in several threads, or within each other, or in a child."""

import asyncio
import contextlib
import gc
import os
import sys
import threading
import time
import weakref
from typing import Any

import psycopg2
import pytest

import greenwait
from greenwait import aio
from tests.lab.event_loops import LOOPS, PATIENT, one
from tests.lab.fault_proxy import FaultProxy
from tests.lab.hosts import silent_listener
from tests.lab.leaks import no_leaked_descriptors
from tests.lab.marks import needs_fork

SLEEP = "select pg_sleep(20)"
CLOSED = "event loop .* closed"


@pytest.fixture(params=LOOPS)
def new_loop(request):
    """Return a function that makes event loops, which complain to ``complaints``."""
    psycopg2.extensions.set_wait_callback(PATIENT)
    LOOPS[request.param]().close()  # libuv's first one makes a pipe that stays
    made = []

    def make():
        loop: Any = LOOPS[request.param]()
        made.append(loop)
        loop.complaints = []
        loop.set_exception_handler(lambda _, context: loop.complaints.append(context))
        return loop

    yield make
    for loop in made:
        loop.close()


def in_thread(function, *arguments):
    """Return what it returns in a thread of its own, when that has ended."""
    outcome = []
    thread = threading.Thread(target=lambda: outcome.append(function(*arguments)))
    thread.start()
    thread.join()
    return outcome[0]


# -- Closed while calls are under way


async def at_work(dsn):
    """Return a connection, and a task that is at work on it."""
    conn = await aio.connect(dsn)
    task = asyncio.ensure_future(conn.cursor().execute(SLEEP))
    await asyncio.sleep(0.05)
    return conn, task


def test_connection_is_closed_with_the_event_loop_and_its_methods_say_so(new_loop, dsn):
    loop = new_loop()
    conn, task = loop.run_until_complete(at_work(dsn))
    cur = conn.cursor()
    loop.close()
    assert conn.closed
    conn.close()
    conn.close()
    loop.close()
    assert not task.done()

    async def again():
        for method in (conn.rollback, conn.commit, conn.reset, lambda: cur.execute("select 1")):
            with pytest.raises(RuntimeError, match=CLOSED):
                await method()
        with pytest.raises(psycopg2.InterfaceError, match="closed"):
            async with conn:
                pass
        await conn.close()

    other = new_loop()
    other.run_until_complete(asyncio.wait_for(again(), 5))


def wait_in_run(conn, dsn):
    return aio.run(psycopg2.extensions.cursor.execute, conn.cursor(), SLEEP)


async def wait_for_commit(conn, dsn):
    async with conn:
        await conn.cursor().execute(SLEEP)


async def wait_in_line(conn, dsn):
    await asyncio.gather(*[conn.cursor().execute(SLEEP) for _ in range(3)])


async def wait_for_notify(conn, dsn):
    await conn.set_session(autocommit=True)
    await conn.cursor().execute("listen nobody")
    async for _ in aio.notifies(conn):
        pass


async def wait_for_awaitable(conn, dsn):
    await aio.run(lambda: aio.await_(asyncio.sleep(20)))


async def wait_for_deadline(conn, dsn):
    def work():
        with greenwait.timeout(20), psycopg2.connect(dsn) as own:
            own.cursor().execute(SLEEP)

    await aio.run(work)


async def wait_to_connect(conn, dsn):
    with silent_listener() as port:
        await aio.connect(f"host=127.0.0.1 port={port}")


async def wait_for_end_of_drain(conn, dsn):
    task = asyncio.ensure_future(conn.cursor().execute(SLEEP))
    await asyncio.sleep(0.02)
    task.cancel()
    await task


async def wait_again_and_again(conn, dsn):
    def stubborn():
        seen = []
        for _ in range(5):
            with (
                contextlib.suppress(psycopg2.Error, RuntimeError),
                psycopg2.connect(dsn) as own,
            ):
                own.cursor().execute(SLEEP)
            seen.append(True)
        with contextlib.suppress(RuntimeError):
            aio.await_(asyncio.sleep(20))
        return seen

    await aio.run(stubborn)


WAITS = [
    wait_in_run,
    wait_for_commit,
    wait_in_line,
    wait_for_notify,
    wait_for_awaitable,
    wait_for_deadline,
    wait_to_connect,
    wait_for_end_of_drain,
    wait_again_and_again,
]


@pytest.mark.parametrize("wait", WAITS, ids=lambda wait: wait.__name__)
def test_nothing_is_left_of_an_event_loop_that_is_closed(new_loop, dsn, wait):
    async def main():
        conn = await aio.connect(dsn)
        task = asyncio.ensure_future(wait(conn, dsn))
        await asyncio.sleep(0.05)
        return conn, task

    def close_one():
        loop = LOOPS[kind]()
        loop.set_exception_handler(lambda *_: None)  # tasks are destroyed that are pending
        conn, _ = loop.run_until_complete(main())
        began = time.monotonic()
        loop.close()
        conn.close()
        assert time.monotonic() - began < 3
        return weakref.ref(loop), weakref.ref(conn)

    kind = "asyncio" if type(new_loop()).__module__.startswith("asyncio") else "uvloop"
    close_one()  # what is made once
    gc.collect()
    with no_leaked_descriptors():
        references = close_one()
        gc.collect()
    assert [reference() for reference in references] == [None, None]


def test_synchronous_code_is_unwound_when_the_event_loop_is_closed(new_loop, dsn):
    log: list[Any] = []

    def work():
        conn = psycopg2.connect(dsn)
        log.append("connected")
        try:
            conn.cursor().execute(SLEEP)
        except BaseException as exc:
            log.append(exc)
            raise
        finally:
            log.append(conn.closed)

    async def main():
        task = asyncio.ensure_future(aio.run(work))
        while not log:
            await asyncio.sleep(0.01)
        return task

    loop = new_loop()
    task = loop.run_until_complete(main())
    loop.close()
    assert len(log) == 3
    with pytest.raises(RuntimeError, match=CLOSED):
        raise log[1]
    assert not task.done()


async def hold_in_block(pool):
    async with pool.connection() as conn, conn, conn.cursor() as cur:
        await cur.execute(SLEEP)


async def hold_while_asleep(pool):
    async with pool.connection() as conn:
        await conn.cursor().execute("select 1")
        await asyncio.sleep(20)


async def hold_by_getconn(pool):
    conn = await pool.getconn()
    await conn.cursor().execute(SLEEP)
    await pool.putconn(conn)


async def hold_in_run(pool):
    def work():
        with pool._pool.connection() as conn:
            conn.cursor().execute(SLEEP)

    await aio.run(work)


@pytest.mark.parametrize("keeps_task", [False, True])
@pytest.mark.parametrize(
    "hold",
    [hold_in_block, hold_while_asleep, hold_by_getconn, hold_in_run],
    ids=lambda hold: hold.__name__,
)
def test_pool_gets_its_places_back_when_the_event_loop_is_closed(new_loop, dsn, hold, keeps_task):
    async def main():
        pool = await aio.create_pool(dsn, max_size=2)
        tasks = [asyncio.ensure_future(hold(pool)) for _ in range(3)]  # one is in line
        while (pool.stats().in_use, pool.stats().waiting) != (2, 1):
            await asyncio.sleep(0.01)
        return pool, tasks

    async def again():
        assert await asyncio.gather(*[ask(number) for number in range(5)]) == list(range(5))
        await pool.close()

    async def ask(number):
        async with pool.connection(timeout=5) as conn:
            return await one(conn, f"select {number}")

    loop = new_loop()
    pool, tasks = loop.run_until_complete(main())
    loop.close()
    if not keeps_task:
        tasks.clear()
        gc.collect()
    assert pool.stats().in_use == 0
    assert pool.stats().waiting == 0
    other = new_loop()
    other.run_until_complete(asyncio.wait_for(again(), 10))
    assert not other.complaints
    tasks.clear()
    gc.collect()
    assert pool.stats().in_use == 0


def test_event_loop_that_is_in_use_is_not_closed(new_loop, dsn):
    async def main():
        conn, task = await at_work(dsn)
        with pytest.raises(RuntimeError, match="running"):
            asyncio.get_running_loop().close()
        assert not conn.closed
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await conn.rollback()
        conn.close()

    new_loop().run_until_complete(main())


# -- In several threads


def test_thread_that_ends_ends_its_calls(new_loop, dsn):
    loop = new_loop()
    with no_leaked_descriptors():
        conn, task = in_thread(loop.run_until_complete, at_work(dsn))
        assert conn.closed
        with pytest.raises(RuntimeError, match="thread in which this waited has ended"):
            loop.run_until_complete(asyncio.wait_for(task, 5))

        async def again():
            conn = await aio.connect(dsn)
            assert await one(conn, "select 42") == 42
            conn.close()

        loop.run_until_complete(again())
        in_thread(loop.run_until_complete, again())
        loop.close()
        assert not loop.complaints


def test_event_loop_of_a_thread_that_has_ended_can_be_closed(new_loop, dsn):
    async def main():
        pool = await aio.create_pool(dsn, max_size=2)
        tasks = [asyncio.ensure_future(hold_in_block(pool)) for _ in range(2)]
        await asyncio.sleep(0.1)
        return pool, tasks

    with no_leaked_descriptors():
        loop = new_loop()
        pool, _ = in_thread(loop.run_until_complete, main())
        loop.close()
        assert pool.stats().in_use == 0
        del _
        gc.collect()


def test_event_loop_closed_by_another_thread_ends_its_calls_with_theirs(new_loop, dsn):
    loop = new_loop()
    closed = threading.Event()
    parked = threading.Event()
    found = []

    def work():
        found.extend(loop.run_until_complete(at_work(dsn)))
        parked.set()
        closed.wait()

    thread = threading.Thread(target=work)
    thread.start()
    parked.wait()
    conn, _ = found
    loop.close()

    async def again():
        with pytest.raises(RuntimeError, match="connect again"):
            await conn.rollback()
        await conn.close()

    other = new_loop()
    other.run_until_complete(asyncio.wait_for(again(), 5))
    conn.close()
    closed.set()
    thread.join()
    assert conn.closed


def test_answer_that_comes_while_another_thread_runs_the_event_loop_waits_for_its_own(
    new_loop, dsn
):
    lock = f"pg_advisory_xact_lock(1907, {os.getpid()})"
    holder = psycopg2.connect(dsn)
    holder.cursor().execute(f"select {lock}")

    async def begin():
        conn = await aio.connect(dsn)
        conn.autocommit = True
        task = asyncio.ensure_future(one(conn, f"select 42 from {lock}"))
        await asyncio.sleep(0.05)
        return conn, task

    async def other_work():
        began, cpu_began = time.monotonic(), time.thread_time()
        holder.close()  # now the answer comes
        await asyncio.sleep(0.5)
        assert time.monotonic() - began < 5
        return time.thread_time() - cpu_began

    loop = new_loop()
    conn, task = loop.run_until_complete(begin())
    assert in_thread(loop.run_until_complete, other_work()) < 0.25
    assert not task.done()
    assert loop.run_until_complete(asyncio.wait_for(task, 5)) == 42
    assert loop.run_until_complete(one(conn, "select 43")) == 43
    assert not loop.complaints
    conn.close()


def test_cancellation_and_deadline_in_another_thread_wait_for_its_own(new_loop, dsn):
    async def one_in_time(conn):
        with greenwait.timeout(0.2):
            return await one(conn, SLEEP)

    async def begin():
        conns = [await aio.connect(dsn) for _ in range(2)]
        late = asyncio.ensure_future(one_in_time(conns[0]))
        cancelled = asyncio.ensure_future(one(conns[1], SLEEP))
        await asyncio.sleep(0.05)
        return conns, late, cancelled

    async def cancel(task):
        task.cancel()
        cpu_began = time.thread_time()
        await asyncio.sleep(0.3)
        return time.thread_time() - cpu_began

    loop = new_loop()
    conns, late, cancelled = loop.run_until_complete(begin())
    assert in_thread(loop.run_until_complete, cancel(cancelled)) < 0.2
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(asyncio.wait_for(cancelled, 20))
    with pytest.raises(greenwait.QueryTimeout):
        loop.run_until_complete(asyncio.wait_for(late, 20))
    assert not loop.complaints
    for conn in conns:
        loop.run_until_complete(conn.rollback())
        assert loop.run_until_complete(one(conn, "select 42")) == 42
        conn.close()


def test_pool_is_used_by_event_loops_in_several_threads(run, new_loop, dsn):
    """Two connections for four event loops of ten tasks each: they go from one to the other."""

    async def work(pool):
        async def ask(number):
            async with pool.connection() as conn:
                if number % 3:
                    return await one(conn, f"select {number}")
                async with conn:
                    return await one(conn, f"select {number} from pg_sleep(0.001)")

        for _ in range(10):
            assert await asyncio.gather(*[ask(number) for number in range(10)]) == list(range(10))
        return True

    pool = aio.AsyncPool(greenwait.Pool(dsn, max_size=2, connection_factory=aio.AsyncConnection))
    loops = [new_loop() for _ in range(4)]
    outcomes = []
    threads = [
        threading.Thread(
            target=lambda loop=loop: outcomes.append(loop.run_until_complete(work(pool)))
        )
        for loop in loops
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == [True] * 4
    assert pool.stats().discarded == 0
    assert pool.stats().made == 2
    assert not any(loop.complaints for loop in loops)
    run(pool.close())


def test_idle_connection_belongs_to_no_event_loop(new_loop, dsn):
    async def borrow():
        async with pool.connection() as conn:
            return await one(conn, "select pg_backend_pid()")

    first, second = new_loop(), new_loop()
    pool = first.run_until_complete(aio.create_pool(dsn, max_size=1))
    seen = {loop.run_until_complete(borrow()) for loop in (first, second, first)}
    assert len(seen) == 1
    second.run_until_complete(pool.close())


# -- Within each other, which nest_asyncio makes possible


@pytest.mark.skipif(
    sys.version_info >= (3, 14),
    reason="nest_asyncio 1.6.0 does not tell it which task is the current one",
)
def test_event_loop_within_a_task_goes_on_as_well(run_program):
    assert run_program("nested_loops") == "[]\n"


# -- In a forked child


@needs_fork
@pytest.mark.skipif(
    sys.version_info >= (3, 14), reason="a child can't run its parent's event loop to its end"
)
@pytest.mark.parametrize("where", ["first", "after a wait"])
@pytest.mark.parametrize("kind", LOOPS)
def test_forked_child_that_leaves_an_event_loop_leaves_the_queries_there_alone(
    run_program, own_server, kind, where
):
    def outcome(end):
        with FaultProxy(own_server) as proxy:
            said = run_program("aio_forks", proxy.dsn(sslmode="disable"), kind, where, end)
            give_up = time.monotonic() + 20  # the proxy may be late
            while any(each.is_open for each in proxy.connections):
                assert time.monotonic() < give_up
                time.sleep(0.01)
            return said, [bytes(each.to_server) for each in proxy.connections]

    said, sent = outcome("sys.exit")
    assert said == "[3, 1, 2, 3, 4]\n"
    # What a child that leaves at once does not send, this one does not send either.
    assert sent == outcome("_exit")[1]


def test_event_loop_that_does_not_let_itself_be_closed_goes_on(new_loop, dsn):
    loop = new_loop()
    close, is_shared = loop.close, True
    loop.close = lambda: None if is_shared else close()  # a test-suite's, which many tests share
    conn, _ = loop.run_until_complete(at_work(dsn))
    loop.close()
    assert not loop.is_closed()
    assert not conn.closed
    other, _ = loop.run_until_complete(at_work(dsn))
    is_shared = False
    loop.close()
    assert conn.closed
    assert other.closed


# -- Event loops that nobody closes


@pytest.mark.parametrize(
    ("kind", "end"),
    # uvloop itself keeps those that are not closed.
    [("asyncio", "closed"), ("asyncio", "freed"), ("uvloop", "closed")],
)
def test_event_loop_is_freed_in_silence_closed_or_not(run_program, kind, end):
    pytest.importorskip(kind)
    assert run_program("unclosed_loops", kind, end) == "0\n"


def test_event_loop_is_freed_in_silence_as_the_interpreter_ends(run_program):
    assert run_program("unclosed_loops", "asyncio", "kept") == "1\n"
