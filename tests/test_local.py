"""``greenwait.local()`` and ``greenwait.scope()``: what belongs to a job, and ends with it."""

import asyncio
import contextvars
import gc
import os
import threading
import weakref
from concurrent.futures import CancelledError

import psycopg2
import pytest
import trio
from greenlet import greenlet

import greenwait
import greenwait.aio
import greenwait.trio
from tests.lab.contexts import CONTEXTS
from tests.lab.marks import needs_fork

CASES = [
    "each_has_its_own",
    "end_is_told_once",
    "failure_is_an_end",
    "next_one_begins_without",
    "copy_of_the_context_keeps_nothing",
    "value_is_freed_without_a_function",
    "failure_of_the_function_is_told",
    pytest.param("forked_child_has_none_of_it", marks=needs_fork),
]


class Value:
    """What an attribute refers to."""


class Endings:
    """A local that keeps what its function is called with."""

    def __init__(self):
        self.told = []
        self.local = greenwait.local(on_end=self.told.append)


@pytest.fixture
def endings():
    return Endings()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("context", CONTEXTS)
def test_in_every_context(run_program, context, case):
    assert "well\n" in run_program("local_in_context", context, case)


# -- The ends of jobs and calls


def test_each_call_of_gather_has_its_own_where_few_run_at_once(callback, endings):
    def job(number):
        assert not hasattr(endings.local, "number")
        endings.local.number = number
        return greenwait.scope()

    scopes = greenwait.gather(*[lambda n=n: job(n) for n in range(7)], limit=2)
    assert len(set(scopes)) == 7
    assert sorted(each["number"] for each in endings.told) == list(range(7))


def test_each_call_of_map_has_its_own(callback, endings):
    def job(number):
        endings.local.number = number
        return greenwait.scope()

    assert len(set(greenwait.map(job, range(7), concurrency=2))) == 7
    assert sorted(each["number"] for each in endings.told) == list(range(7))


def test_attributes_are_dropped_before_the_job_is_done(callback, endings):
    def job():
        endings.local.number = 1

    with greenwait.Hub() as hub:
        hub.spawn(job).result()
        assert endings.told == [{"number": 1}]


def test_job_that_is_cancelled_has_ended(callback, connect, endings):
    def job():
        endings.local.number = 1
        cur.execute("select pg_sleep(60)")

    cur = connect().cursor()
    with greenwait.Hub() as hub:
        job = hub.spawn(job)
        hub.sleep(0)
        job.cancel()
        with pytest.raises(CancelledError):
            job.result()
        assert endings.told == [{"number": 1}]


def test_call_that_is_cancelled_has_ended(callback, connect, endings):
    def call(cur):
        endings.local.number = 1
        cur.execute("select pg_sleep(60)")

    async def main():
        task = asyncio.create_task(greenwait.aio.run(call, connect().cursor()))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert endings.told == [{"number": 1}]

    asyncio.run(main())


def test_trio_s_call_that_is_cancelled_has_ended(callback, connect, endings):
    def call(cur):
        endings.local.number = 1
        cur.execute("select pg_sleep(60)")

    async def main():
        with trio.move_on_after(0.2):
            await greenwait.trio.run(call, connect().cursor())
        assert endings.told == [{"number": 1}]

    trio.run(main)


def test_trio_s_calls_have_their_own(callback, endings):
    def call(number):
        assert not hasattr(endings.local, "number")
        endings.local.number = number
        return greenwait.scope()

    async def main():
        scopes = [await greenwait.trio.run(call, number) for number in range(3)]
        assert len({greenwait.scope(), *scopes}) == 4

    trio.run(main)
    assert endings.told == [{"number": 0}, {"number": 1}, {"number": 2}]


def test_awaited_method_is_a_call(callback, server, endings):
    """A decoder, for instance, runs in it."""

    def decode(value, cur):
        endings.local.value = value
        scopes.add(greenwait.scope())
        return value

    async def main():
        conn = await greenwait.aio.connect(server.dsn())
        cur = conn.cursor(name="named")
        psycopg2.extensions.register_type(psycopg2.extensions.new_type((25,), "OWN", decode), cur)
        await cur.execute("select 'a'::text union all select 'b'")
        assert await cur.fetchone() == ("a",)
        assert endings.told == [{"value": "a"}]
        assert await cur.fetchone() == ("b",)
        await conn.close()

    scopes: set[int] = {greenwait.scope()}
    asyncio.run(main())
    assert endings.told == [{"value": "a"}, {"value": "b"}]
    assert len(scopes) == 3


def test_task_of_an_event_loop_has_its_thread_s(endings):
    async def main():
        endings.local.value = 1

    asyncio.run(main())
    assert endings.local.value == 1


# -- Threads, and greenlets of nobody


def test_thread_that_has_ended(endings):
    def work():
        endings.local.number = 1
        endings.told.append(threading.get_ident())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert endings.told == [thread.ident, {"number": 1}]


def test_function_is_called_in_the_thread_that_ends():
    def work():
        local.number = 1

    told = []
    local = greenwait.local(on_end=lambda attributes: told.append(threading.get_ident()))
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert told == [thread.ident]


def test_greenlet_that_is_freed_has_ended(endings):
    def work():
        endings.local.number = 1

    one = greenlet(work)
    one.switch()
    del one
    assert endings.told == [{"number": 1}]


def test_dead_greenlets_are_found_though_something_keeps_them(endings):
    def work():
        endings.local.number = 1

    kept = [greenlet(work) for _ in range(100)]
    for each in kept:
        each.switch()
    assert len(endings.told) >= 50


def test_greenlets_of_a_thread_end_with_it(endings):
    kept = []

    def work():
        def body():
            endings.local.number = 1

        kept.append(greenlet(body))
        kept[0].switch()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert endings.told == [{"number": 1}]


# -- The function that is told


def test_interrupt_that_comes_meanwhile_is_raised_by_the_job(callback):
    def interrupt(attributes):
        raise KeyboardInterrupt

    def job():
        local.number = 1

    local = greenwait.local(on_end=interrupt)
    with pytest.raises(KeyboardInterrupt):
        greenwait.gather(job)


def test_function_may_query(callback, connect):
    conn = connect(connection_factory=greenwait.Connection)

    def query(attributes):
        with conn.cursor() as cur:
            cur.execute("select %s", (attributes["number"],))
            told.extend(cur.fetchone())

    def job(number):
        local.number = number

    told: list[int] = []
    local = greenwait.local(on_end=query)
    greenwait.gather(*[lambda n=n: job(n) for n in range(3)])
    assert sorted(told) == [0, 1, 2]


def test_function_that_sets_attributes_again_and_again_is_called_a_few_times(callback):
    def again(attributes):
        local.number = attributes["number"] + 1
        told.append(attributes["number"])

    def job():
        local.number = 0

    told: list[int] = []
    local = greenwait.local(on_end=again)
    greenwait.gather(job)
    assert told == [0, 1, 2, 3]
    thread = threading.Thread(target=job)
    thread.start()
    thread.join()
    assert len(told) <= 8
    assert not hasattr(local, "number")


def test_function_is_not_called_where_nothing_is_left(callback, endings):
    def job():
        endings.local.number = 1
        del endings.local.number

    greenwait.gather(job)
    assert endings.told == []


def test_function_is_told_of_what_a_job_has_in_each_local(callback):
    first, second = Endings(), Endings()

    def job():
        first.local.number = 1
        second.local.number = 2

    greenwait.gather(job)
    assert (first.told, second.told) == ([{"number": 1}], [{"number": 2}])


def test_function_must_be_one():
    with pytest.raises(TypeError, match="on_end must be a function or None, not 'int'"):
        greenwait.local(on_end=3)  # type: ignore[arg-type]


def test_function_is_not_called_at_interpreter_exit(run_python):
    program = """
import greenwait
own = greenwait.local(on_end=lambda attributes: print("called"))
own.number = 1
print("well")
"""
    assert run_python(program) == "well\n"


# -- What it keeps, and what it does not


def test_attributes_end_with_the_local():
    local = greenwait.local()
    value = local.value = Value()
    found = weakref.ref(value)
    del local, value
    assert found() is None


def test_attribute_that_refers_to_its_local_keeps_nothing():
    local = greenwait.local()
    local.value = Value()
    local.value.local = local
    found = weakref.ref(local.value)
    del local
    gc.collect()
    assert found() is None


def test_thread_does_not_remember_locals_that_are_gone():
    before = len(gc.get_objects())
    for _ in range(1000):
        greenwait.local().number = 1
    gc.collect()
    assert len(gc.get_objects()) < before + 200


def test_copied_context_sees_what_runs(callback, endings):
    """A context says nothing of whose attributes they are."""

    def job():
        endings.local.number = 1
        return contextvars.copy_context()

    (context,) = greenwait.gather(job)
    assert not context.run(hasattr, endings.local, "number")


def test_attribute_that_is_not_there():
    with pytest.raises(AttributeError, match=r"'greenwait.local' object has no attribute 'number'"):
        greenwait.local().number  # noqa: B018
    with pytest.raises(
        AttributeError, match=r"this greenwait.local has no attribute 'number' here"
    ):
        del greenwait.local().number


def test_scope_of_the_thread_stays_and_is_hashable():
    assert {greenwait.scope(): 1}[greenwait.scope()] == 1


@needs_fork
def test_forked_child_keeps_what_the_parent_has_and_does_not_tell(endings):
    value = endings.local.value = Value()
    found = weakref.ref(value)
    del value
    pid = os.fork()
    if pid == 0:
        endings.local.value = 2
        gc.collect()
        os._exit(0 if found() is not None and endings.told == [] else 1)
    assert os.waitpid(pid, 0)[1] == 0
