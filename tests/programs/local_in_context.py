"""What ``greenwait.local()`` does in one of the contexts: ``DSN CONTEXT CASE``."""

import contextvars
import gc
import os
import sys
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import psycopg2

import greenwait
from tests.lab import contexts

DSN, CONTEXT, CASE = sys.argv[-3:]
COUNT = 6
ended = []
own = greenwait.local(on_end=lambda attributes: ended.append(attributes))


class Value:
    """What an attribute refers to."""


def wait_a_moment():
    conn = psycopg2.connect(DSN, connection_factory=greenwait.Connection)
    with conn.cursor() as cur:
        cur.execute("select pg_sleep(0.05)")
    conn.close()


def until(condition):
    """Let others run until it is true: gevent's hub tells of an end a little later."""
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until, ended
        gc.collect()
        wait_a_moment()


def together(jobs):
    if CONTEXT in ("plain", "trio"):
        return in_threads(jobs)
    return contexts.together(CONTEXT, jobs)


def in_threads(jobs):
    """Call each in a thread of its own, which is not used again."""
    executors = [ThreadPoolExecutor(1) for _ in jobs]
    running = [executor.submit(job) for executor, job in zip(executors, jobs, strict=True)]
    for executor in executors:
        executor.shutdown()
    return [each.result() for each in running]


def each_has_its_own():
    own.number = "outer"

    def job(number):
        assert not hasattr(own, "number")
        own.number = number
        wait_a_moment()
        scope = greenwait.scope()
        wait_a_moment()
        assert greenwait.scope() == scope
        return own.number, scope

    found = together([lambda number=number: job(number) for number in range(COUNT)])
    assert [number for number, _ in found] == list(range(COUNT))
    assert len({greenwait.scope(), *(scope for _, scope in found)}) == COUNT + 1
    assert own.number == "outer"


def end_is_told_once():
    def job(number):
        own.number = number
        wait_a_moment()

    together([lambda number=number: job(number) for number in range(COUNT)])
    until(lambda: len(ended) == COUNT)
    assert sorted(each["number"] for each in ended) == list(range(COUNT))


def failure_is_an_end():
    def job():
        own.number = 3
        wait_a_moment()
        raise ValueError("of the job")

    def guarded():
        try:
            job()
        finally:
            assert own.number == 3

    try:
        together([guarded])
    except ValueError:
        until(lambda: ended == [{"number": 3}])
    else:
        raise AssertionError("it was lost")


def next_one_begins_without():
    def job():
        assert not hasattr(own, "number")
        own.number = 1
        return greenwait.scope()

    scopes = [scope for _ in range(COUNT) for scope in together([job, job])]
    assert len(set(scopes)) == 2 * COUNT


def copy_of_the_context_keeps_nothing():
    kept, values = [], []

    def job():
        value = own.value = Value()
        values.append(weakref.ref(value))
        kept.append(contextvars.copy_context())
        wait_a_moment()

    together([job] * COUNT)
    until(lambda: len(ended) == COUNT)
    ended.clear()
    assert [value() for value in values] == [None] * COUNT


def value_is_freed_without_a_function():
    plain, values = greenwait.local(), []

    def job():
        value = plain.value = Value()
        values.append(weakref.ref(value))
        wait_a_moment()

    together([job] * COUNT)
    until(lambda: [value() for value in values] == [None] * COUNT)


def failure_of_the_function_is_told():
    told = []
    sys.unraisablehook = lambda unraisable: told.append(unraisable.exc_value)

    def fail(attributes):
        raise ValueError(attributes["number"])

    failing = greenwait.local(on_end=fail)

    def job(number):
        failing.number = number
        own.number = number
        wait_a_moment()
        return number

    found = together([lambda number=number: job(number) for number in range(COUNT)])
    assert found == list(range(COUNT))
    until(lambda: len(ended) == COUNT)
    assert sorted(exc.args[0] for exc in told) == list(range(COUNT))
    assert {type(exc) for exc in told} == {ValueError}


def forked_child_has_none_of_it():
    def job():
        own.value = Value()
        scope = greenwait.scope()
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                assert not hasattr(own, "value")
                assert greenwait.scope() != scope
                own.value = 2
                assert own.value == 2
                gc.collect()
                assert ended == []
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(pid, 0)[1] == 0
        assert type(own.value) is Value
        assert greenwait.scope() == scope

    together([job])
    until(lambda: len(ended) == 1)


CASES = (
    each_has_its_own,
    end_is_told_once,
    failure_is_an_end,
    next_one_begins_without,
    copy_of_the_context_keeps_nothing,
    value_is_freed_without_a_function,
    failure_of_the_function_is_told,
    forked_child_has_none_of_it,
)

if __name__ == "__main__":
    (case,) = [each for each in CASES if each.__name__ == CASE]
    contexts.run(CONTEXT, case)
    print("well")
