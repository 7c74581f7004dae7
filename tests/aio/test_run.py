"""Synchronous code on an event loop: ``aio.run()``, and ``aio.await_()`` below it."""

import asyncio
import contextvars
import gc
import os
import time
import warnings
from typing import Any

import greenlet
import psycopg2
import psycopg2.extras
import pytest
from psycopg2 import errors

import greenwait
from greenwait import aio
from tests.lab.event_loops import LOOPS, ask, one


def test_many_at_the_same_time(run, dsn):
    async def main():
        began = time.monotonic()
        calls = [aio.run(ask, dsn, "select %s from pg_sleep(0.2)", n) for n in range(20)]
        assert await asyncio.gather(*calls) == list(range(20))
        assert time.monotonic() - began < 3.9  # one by one: 4

    run(main())


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


def test_call_may_replace_the_dict_of_its_greenlet(run, dsn):
    def work():
        greenlet.getcurrent().__dict__ = {}  # what makes it a worker is there
        return ask(dsn, "select 1")

    async def main():
        for _ in range(3):
            assert await aio.run(work) == 1
            calls = [aio.run(ask, dsn, "select 2 from pg_sleep(0.01)") for _ in range(2)]
            assert await asyncio.gather(*calls) == [2, 2]

    run(main())
