"""The event loop goes on, however much there is to do for calls at the same time."""

import asyncio
import time
from collections import Counter

import psycopg2

import greenwait
from greenwait import aio

# Calls may hold the event loop up for 3 ms where their descriptor is ready, as long where a turn is
# scheduled, and as long where tasks begin them.
_WORK = 0.002
_MOST = 8


class _Iterations:
    """The number of the event loop's iteration, while a task is in its block."""

    number = 0

    def __enter__(self):
        self._event_loop = asyncio.get_running_loop()
        self._handle = self._event_loop.call_soon(self._count)
        return self

    def _count(self):
        self.number += 1
        self._handle = self._event_loop.call_soon(self._count)

    def __exit__(self, *_):
        self._handle.cancel()


def test_event_loop_runs_a_few_calls_in_each_iteration(run, dsn):
    iterations = _Iterations()
    worked = []

    def work():
        conn = psycopg2.connect(dsn)
        for _ in range(10):
            conn.cursor().execute("select 1")
            time.sleep(_WORK)
            worked.append(iterations.number)
        conn.close()

    async def main():
        with iterations:
            await asyncio.gather(*[aio.run(work) for _ in range(40)])

    run(main())
    assert len(worked) == 400
    assert max(Counter(worked).values()) <= _MOST


def test_tasks_begin_a_few_calls_in_each_iteration(run):
    iterations = _Iterations()
    begun = []

    def work():
        time.sleep(_WORK)
        begun.append(iterations.number)

    async def main():
        with iterations:
            await asyncio.gather(*[aio.run(work) for _ in range(40)])

    run(main())
    assert len(begun) == 40
    assert max(Counter(begun).values()) <= _MOST


def test_call_that_is_cancelled_before_its_turn_never_begins(run):
    begun = []

    def work(number):
        time.sleep(_WORK)
        begun.append(number)
        return number

    async def main():
        tasks = [asyncio.create_task(aio.run(work, number)) for number in range(40)]
        await asyncio.sleep(0)
        first = len(begun)
        assert 0 < first < 20
        for task in tasks[20:]:
            task.cancel()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert found[:20] == [*range(20)]
        assert all(isinstance(each, asyncio.CancelledError) for each in found[20:])

    run(main())
    assert sorted(begun) == [*range(20)]


def test_call_whose_turn_does_not_come_fails_with_the_event_loop():
    begun = []

    def work(number):
        time.sleep(_WORK)
        begun.append(number)

    async def main():
        tasks.extend(asyncio.create_task(aio.run(work, number)) for number in range(40))
        await asyncio.sleep(0)

    tasks = []
    event_loop = asyncio.new_event_loop()
    with greenwait.installed():
        event_loop.run_until_complete(main())
        count = len(begun)
        assert 0 < count < 40
        event_loop.close()
    assert len(begun) == count
