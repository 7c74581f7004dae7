"""Many queries at once on one thread."""

import contextlib
import contextvars
import gc
import itertools
import os
import random
import signal
import sys
import threading
import time
import weakref
from concurrent.futures import CancelledError
from typing import Any, get_origin

import greenlet
import psycopg2
import pytest
from psycopg2.extensions import set_wait_callback

import greenwait
from greenwait._greenlets import gather as gathering
from greenwait._greenlets.hub import hub_here
from tests.lab.asleep import again_until
from tests.lab.freezers import frozen
from tests.lab.hosts import silent_listener
from tests.lab.interrupts import LIMIT, Limit, raising
from tests.lab.leaks import no_leaked_descriptors
from tests.lab.marks import needs_fork, needs_refusal
from tests.lab.queries import assert_stopped, assert_usable, one
from tools.postgres import Server

pytestmark = pytest.mark.patient

TWENTY_SECONDS = "select pg_sleep(20)"
NOTHING: dict[str, object] = {}


@pytest.fixture
def conns(callback, connect):
    """Return a function that returns so many connections."""
    return lambda count, *args, **keywords: [connect(*args, **keywords) for _ in range(count)]


def sleep_and_say(conn, seconds, answer=None):
    return one(conn, "select %s from pg_sleep(%s)", answer, seconds)


def interrupt_soon(seconds=0.2, number=signal.SIGINT):
    timer = threading.Timer(seconds, os.kill, (os.getpid(), number))
    timer.daemon = True
    timer.start()
    return timer


@contextlib.contextmanager
def takes(at_least, less_than):
    began = time.monotonic()
    yield
    assert at_least <= time.monotonic() - began < less_than


# -- gather()


def test_results_are_in_the_order_of_the_calls(conns, transport):
    own = conns(6, transport)
    calls = [
        lambda i=i: sleep_and_say(own[i], 0.1 - i * 0.015, f"number {i}") for i in range(len(own))
    ]
    assert greenwait.gather(*calls) == [f"number {i}" for i in range(len(own))]
    assert_usable(*own)


def test_twenty_queries_take_as_long_as_one(conns):
    own = conns(20)
    for conn in own:
        one(conn, "select 1")
    took = []
    for _ in range(5):
        began = time.monotonic()
        greenwait.gather(*[lambda conn=conn: sleep_and_say(conn, 0.05) for conn in own])
        took.append(time.monotonic() - began)
    assert min(took) < 0.5  # one by one: 1.0


def test_nothing_to_gather_is_an_empty_list(callback):
    assert greenwait.gather() == []


def test_idle_connection_that_is_readable_ends_no_sleep(conns, watcher):
    """It stays in the set, and is taken out when nobody reads what has come."""
    idle, busy = conns(2)
    with greenwait.Hub() as hub:
        hub.spawn(one, idle, "select 1").result()
        idle.rollback()
        one(watcher, "select pg_terminate_backend(%s, 5000)", idle.info.backend_pid)
        polls, cpu = greenwait.stats().sleeps, time.process_time()
        hub.spawn(one, busy, "select pg_sleep(0.5)").result()
        assert time.process_time() - cpu < 0.2
        assert greenwait.stats().sleeps - polls < 10
        with pytest.raises(psycopg2.OperationalError):
            hub.spawn(one, idle, "select 1").result()


@needs_fork
def test_socket_that_a_child_keeps_open_ends_no_sleep(callback, connect, watcher):
    """It is closed here and goes on being reported: nobody can take it out of the set."""
    conn = connect()
    with greenwait.Hub() as hub:
        hub.spawn(one, conn, "select 1").result()
        conn.rollback()
        gc.collect()  # what other tests have left would give its number to another
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(writing)
            os.read(reading, 1)
            os._exit(0)
        os.close(reading)
        try:
            number, pid = conn.fileno(), conn.info.backend_pid
            conn.close()
            again = connect()
            assert again.fileno() == number
            one(watcher, "select pg_terminate_backend(%s, 5000)", pid)
            for _ in range(3):
                cpu = time.process_time()
                assert hub.spawn(sleep_and_say, again, 0.3, "well").result() == "well"
                assert time.process_time() - cpu < 0.15
        finally:
            os.close(writing)
            os.waitpid(child, 0)


def test_more_jobs_wait_than_python_recurses(callback):
    """A greenlet begins as deep as the one that starts it."""

    def spawn_more():
        jobs.extend(hub.spawn(hub.sleep, 0.1) for _ in range(1500))

    with greenwait.Hub() as hub:
        jobs = [hub.spawn(hub.sleep, 0.2) for _ in range(3000)]
        hub.spawn(spawn_more).result()
    assert all(job.done() for job in jobs)


@pytest.mark.parametrize("limit", [1, 3, 100])
def test_limit_is_how_many_run_at_once(conns, limit):
    own = conns(8)
    running, most = 0, 0

    def call(conn):
        nonlocal running, most
        running += 1
        most = max(most, running)
        sleep_and_say(conn, 0.01)
        running -= 1

    greenwait.gather(*[lambda conn=conn: call(conn) for conn in own], limit=limit)
    assert most == min(limit, len(own))


@pytest.mark.parametrize(
    ("limit", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), (True, TypeError)]
)
def test_limit_that_is_none_is_refused(callback, limit, error):
    with pytest.raises(error, match="limit"):
        greenwait.gather(lambda: None, limit=limit)


def test_what_can_not_be_called_is_refused(callback):
    with pytest.raises(TypeError, match="gather\\(\\) takes functions, not 'int'"):
        greenwait.gather(lambda: None, 5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


@needs_refusal
@pytest.mark.parametrize("limit", [None, 4])
def test_first_exception_cancels_the_others(conns, watcher, limit):
    own = conns(5)
    calls = [lambda conn=conn: one(conn, TWENTY_SECONDS) for conn in own[1:]]
    with takes(0, 10), pytest.raises(psycopg2.errors.DivisionByZero):
        greenwait.gather(
            lambda: one(own[0], "select 1 / 0 from pg_sleep(0.05)"), *calls, limit=limit
        )
    assert_stopped(watcher, own)
    assert_usable(*own)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_further_exceptions_are_the_cause_of_the_first(callback, count):
    def fail(number):
        try:
            hub = hub_here()
            assert hub
            hub.sleep(0.05 if number == 0 else 10)
        except greenlet.GreenletExit:
            raise KeyError(number) from None
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as info:
        greenwait.gather(*[lambda i=i: fail(i) for i in range(count)])
    cause: Any = info.value.__cause__
    if count == 1:
        assert cause is None
    elif count == 2:
        assert repr(cause) == "KeyError(1)"
    else:
        assert [repr(exc) for exc in cause.exceptions] == ["KeyError(1)", "KeyError(2)"]


def test_ctrl_c_cancels_all_of_them(conns, watcher):
    own = conns(10)
    with takes(0.15, 10), pytest.raises(KeyboardInterrupt):
        interrupt_soon()
        greenwait.gather(*[lambda conn=conn: one(conn, TWENTY_SECONDS) for conn in own])
    assert_stopped(watcher, own)
    assert_usable(*own)


def test_exception_of_a_handler_cancels_all_of_them(conns, watcher):
    own = conns(3)
    before = signal.signal(signal.SIGALRM, raising(LIMIT))
    try:
        with pytest.raises(Limit):
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            greenwait.gather(*[lambda conn=conn: one(conn, TWENTY_SECONDS) for conn in own])
    finally:
        signal.signal(signal.SIGALRM, before)
    assert_stopped(watcher, own)
    assert_usable(*own)


def test_ctrl_c_in_a_job_s_own_code_is_raised_too(conns):
    own = conns(2)

    def work():
        time.sleep(0.01)
        signal.raise_signal(signal.SIGINT)

    with takes(0, 10), pytest.raises(KeyboardInterrupt):
        greenwait.gather(work, *[lambda conn=conn: one(conn, TWENTY_SECONDS) for conn in own])
    assert_usable(*own)


def test_second_ctrl_c_does_not_wait_for_frozen_servers(own_server, callback):
    assert isinstance(own_server, Server)
    own = [psycopg2.connect(own_server.dsn("unix")) for _ in range(3)]
    for conn in own:
        one(conn, "select 1")
    cancels = greenwait.stats().cancels

    def press_twice():
        os.kill(os.getpid(), signal.SIGINT)
        while greenwait.stats().cancels < cancels + len(own):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    timer = threading.Timer(0.2, press_twice)
    with contextlib.ExitStack() as stack:
        for conn in own:
            stack.enter_context(frozen(conn.info.backend_pid))
        with takes(0.1, 10), pytest.raises(KeyboardInterrupt):
            # It is started when they all wait.
            greenwait.gather(
                *[lambda conn=conn: one(conn, "select 1") for conn in own], timer.start
            )
    timer.join()
    assert all(conn.closed for conn in own)


def test_deadline_around_it_holds_for_each(conns, watcher):
    own = conns(5)
    with takes(0.15, 10), pytest.raises(greenwait.QueryTimeout), greenwait.timeout(0.2) as block:
        greenwait.gather(*[lambda conn=conn: one(conn, TWENTY_SECONDS) for conn in own])
    assert block.expired
    assert_stopped(watcher, own)
    assert_usable(*own)


def test_deadline_inside_is_of_its_own_job(conns):
    own = conns(2)

    def hurried():
        with pytest.raises(greenwait.QueryTimeout), greenwait.timeout(0.05):
            one(own[0], TWENTY_SECONDS)
        own[0].rollback()
        return "too late"

    assert greenwait.gather(hurried, lambda: sleep_and_say(own[1], 0.2, "in time")) == [
        "too late",
        "in time",
    ]


def test_gather_in_a_job_joins_in(conns):
    own = conns(4)

    def pair(first, second):
        return greenwait.gather(
            lambda: sleep_and_say(own[first], 0.05, first),
            lambda: sleep_and_say(own[second], 0.05, second),
        )

    assert greenwait.gather(lambda: pair(0, 1), lambda: pair(2, 3)) == [[0, 1], [2, 3]]
    with greenwait.Hub():
        assert pair(0, 1) == [0, 1]


def test_interrupt_of_a_map_that_has_failed(conns):
    own = conns(2)

    def work(number):
        if number == 0:
            one(own[0], "select pg_sleep(0.1)")
            raise ValueError
        with contextlib.suppress(greenlet.GreenletExit):
            one(own[1], TWENTY_SECONDS)
        own[1].rollback()
        interrupt_soon(0.1)
        one(own[1], TWENTY_SECONDS)

    with takes(0.2, 10), pytest.raises(KeyboardInterrupt) as info:
        list(greenwait.map(work, range(2)))
    assert type(info.value.__cause__) is ValueError


@needs_refusal
def test_job_that_catches_its_cancel_is_waited_for(conns):
    own = conns(2)

    def stubborn():
        try:
            one(own[0], TWENTY_SECONDS)
        except greenlet.GreenletExit:
            own[0].rollback()
            order.append(sleep_and_say(own[0], 0.1, "cleaned up"))
            raise

    order = []
    with pytest.raises(psycopg2.errors.DivisionByZero):
        greenwait.gather(stubborn, lambda: one(own[1], "select 1 / 0 from pg_sleep(0.05)"))
    assert order == ["cleaned up"]


# -- map()


def test_map_yields_in_order(conns):
    own = conns(4)
    free = list(own)

    def call(number):
        conn = free.pop()
        try:
            return sleep_and_say(conn, random.random() * 0.02, number)
        finally:
            free.append(conn)

    assert list(greenwait.map(call, range(40), concurrency=4)) == list(range(40))


def test_map_is_lazy_and_bounded(callback):
    begun = []
    asked = []

    def items():
        for number in itertools.count():
            asked.append(number)
            yield number

    def call(number):
        begun.append(number)
        return number

    results = greenwait.map(call, items(), concurrency=3)
    assert asked == begun == []
    assert next(results) == 0
    assert len(asked) == len(begun) == 3
    assert next(results) == 1
    assert len(asked) == 4
    results.close()
    assert len(asked) == 4
    assert hub_here() is None


@needs_refusal
def test_closed_map_cancels_what_is_under_way(conns, watcher):
    own = conns(3)

    def call(number):
        return sleep_and_say(own[number], 0 if number == 0 else 20, number)

    results = greenwait.map(call, range(3))
    with takes(0, 10):
        assert next(results) == 0
        results.close()
    assert_stopped(watcher, own)
    assert_usable(*own)


def test_map_in_a_job_that_is_cancelled_cancels_what_is_under_way(conns, watcher):
    """The one whose result is waited for too."""
    own = conns(3)
    ended = []

    def call(number):
        try:
            sleep_and_say(own[number], 20)
        finally:
            ended.append(number)

    with takes(0, 10), greenwait.Hub() as hub:
        job = hub.spawn(lambda: list(greenwait.map(call, range(3))))
        hub.sleep(0.2)
        job.cancel()
        with pytest.raises(CancelledError):
            job.result()
        assert sorted(ended) == [0, 1, 2]
    assert_stopped(watcher, own)
    assert_usable(*own)


@needs_refusal
def test_map_that_is_dropped_is_closed(conns, watcher):
    own = conns(3)
    results = greenwait.map(lambda i: sleep_and_say(own[i], 3 * (i > 0), i), range(3))
    assert next(results) == 0
    del results
    gc.collect()
    assert hub_here() is None
    assert_usable(*own)


@needs_refusal
def test_exception_comes_in_its_place(conns):
    own = conns(3)

    def call(number):
        return one(own[number], f"select {number} / (1 - {number})")

    results = greenwait.map(call, range(3))
    assert next(results) == 0
    with pytest.raises(psycopg2.errors.DivisionByZero):
        next(results)
    assert list(results) == []
    assert_usable(*own)


def test_maps_may_overlap_in_any_order(callback):
    first = greenwait.map(lambda i: i, range(10), concurrency=2)
    assert next(first) == 0
    second = greenwait.map(lambda i: -i, range(10), concurrency=2)
    assert next(second) == 0
    first.close()
    assert list(second) == [-i for i in range(1, 10)]
    assert hub_here() is None


def test_consumer_s_own_queries_let_them_go_on(conns):
    own = conns(3)
    done = []

    def call(number):
        sleep_and_say(own[number], 0.1 * number)
        done.append(number)
        return number

    results = greenwait.map(call, range(2))
    assert next(results) == 0
    give_up = time.monotonic() + 20
    while done == [0]:
        assert time.monotonic() < give_up
        one(own[2], "select 1")
    assert done == [0, 1]
    assert next(results) == 1


@pytest.mark.parametrize("concurrency", [0, "many"])
def test_concurrency_that_is_none_is_refused(callback, concurrency):
    with pytest.raises((ValueError, TypeError), match="concurrency"):
        greenwait.map(print, [], concurrency=concurrency)


# -- Hub


def test_jobs_run_beside_the_block(conns):
    own = conns(3)
    were_done = False
    for _ in range(5):  # on a busy machine the best one counts
        with greenwait.Hub() as hub:
            jobs = [hub.spawn(sleep_and_say, conn, 0.1, answer="done") for conn in own[1:]]
            assert not any(job.done() for job in jobs)
            sleep_and_say(own[0], 1)
            were_done = all(job.done() for job in jobs)
            assert [job.result() for job in jobs] == ["done", "done"]
        if were_done:
            break
    assert were_done


def test_type_of_a_job_can_be_written_down():
    assert get_origin(greenwait.Job[int]) is greenwait.Job


def test_leaving_the_block_waits(conns):
    own = conns(2)
    done = []
    with greenwait.Hub() as hub:
        for conn in own:
            hub.spawn(lambda conn: done.append(sleep_and_say(conn, 0.1)), conn)
    assert len(done) == 2


def test_job_may_spawn_another_which_is_waited_for(callback):
    done = []

    def work(depth):
        hub.sleep(0.01)
        if depth:
            hub.spawn(work, depth - 1)
        done.append(depth)

    with greenwait.Hub() as hub:
        hub.spawn(work, 3)
    assert done == [3, 2, 1, 0]


def test_exception_in_the_block_cancels_the_jobs(conns, watcher):
    own = conns(3)
    with takes(0, 10), pytest.raises(ZeroDivisionError), greenwait.Hub() as hub:
        for conn in own:
            hub.spawn(one, conn, TWENTY_SECONDS)
        hub.sleep(0.1)
        raise ZeroDivisionError
    assert_stopped(watcher, own)
    assert_usable(*own)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_what_ends_the_program_ends_the_block(conns, watcher, kind):
    own = conns(2)

    def end():
        hub.sleep(0.1)
        raise kind

    with takes(0, 10), pytest.raises(kind), greenwait.Hub() as hub:
        for conn in own:
            hub.spawn(one, conn, TWENTY_SECONDS)
        hub.spawn(end)
    assert_stopped(watcher, own)
    assert_usable(*own)


def test_failure_that_nobody_has_asked_for_is_raised_at_the_end(callback):
    with pytest.raises(KeyError, match="lost"), greenwait.Hub() as hub:
        hub.spawn(NOTHING.__getitem__, "lost")
        hub.spawn(NOTHING.__getitem__, "lost too")


def test_failure_that_was_asked_for_is_not(callback):
    with greenwait.Hub() as hub:
        job = hub.spawn(NOTHING.__getitem__, "found")
        with pytest.raises(KeyError):
            job.result()


def test_result_has_a_timeout(conns):
    (conn,) = conns(1)
    with greenwait.Hub() as hub:
        job = hub.spawn(sleep_and_say, conn, 3, "late")
        with takes(0.05, 2.9), pytest.raises(TimeoutError, match=r"still at work after 0\.05 s"):
            job.result(timeout=0.05)
        assert job.result(timeout=20) == "late"


def test_cancelled_job(conns, watcher):
    own = conns(2)
    with takes(0, 10), greenwait.Hub() as hub:
        jobs = [hub.spawn(one, conn, TWENTY_SECONDS) for conn in own]
        hub.sleep(0.1)
        assert [job.cancel() for job in jobs] == [True, True]
        for job in jobs:
            with pytest.raises(CancelledError):
                job.result()
            assert job.done()
            assert not job.cancel()
    assert_stopped(watcher, own)
    assert_usable(*own)


def test_job_that_is_cancelled_before_it_begins_never_does(callback):
    begun = []
    with greenwait.Hub() as hub:
        job = hub.spawn(begun.append, 1)
        job.cancel()
        hub.sleep(0.01)
        with pytest.raises(CancelledError):
            job.result()
    assert begun == []


def test_job_may_cancel_another(conns):
    (conn,) = conns(1)
    with greenwait.Hub() as hub:
        job = hub.spawn(one, conn, TWENTY_SECONDS)
        hub.sleep(0.05)
        hub.spawn(job.cancel).result()
        with pytest.raises(CancelledError):
            job.result()
    assert_usable(conn)


@needs_refusal
def test_cancel_that_no_wait_raises_any_more_is_the_job_s_result(conns):
    """It waits for the end of what a deadline stops, and then the job waits for nothing else."""
    (conn,) = conns(1)
    query = (
        "do $$begin perform pg_sleep(20); "
        "exception when query_canceled then perform pg_sleep(0.5); end$$"
    )
    was_in_time = False

    def stubborn():
        with contextlib.suppress(greenwait.QueryTimeout), greenwait.timeout(0.05):
            conn.cursor().execute(query)
        return "a result"

    def attempt():
        nonlocal was_in_time
        before = greenwait.stats().cancels
        with greenwait.Hub() as hub:
            job = hub.spawn(stubborn)
            while greenwait.stats().cancels == before:
                hub.sleep(0.001)
            was_in_time = job.cancel()
            with pytest.raises(CancelledError) if was_in_time else contextlib.nullcontext():
                job.result()
        assert not conn.closed

    # Where it was stopped before or after the block that takes its time, the job has ended.
    again_until(lambda: was_in_time, conn, attempt)


@needs_refusal
def test_cancel_of_a_query_that_succeeds_all_the_same_is_not_swallowed(conns):
    deaf = "do $$ begin perform pg_sleep(3); exception when query_canceled then null; end $$"
    (conn,) = conns(1)

    def work():
        with conn.cursor() as cur:
            cur.execute(deaf)
        return "swallowed"

    with greenwait.Hub() as hub:
        job = hub.spawn(work)
        hub.sleep(0.1)
        job.cancel()
        with pytest.raises(CancelledError):
            job.result()
    assert_usable(conn)


def test_each_thread_has_its_own(conns):
    own = conns(8)
    answers = {}

    def work(number):
        pair = own[2 * number : 2 * number + 2]
        answers[number] = greenwait.gather(
            *[lambda conn=conn: sleep_and_say(conn, 0.05, number) for conn in pair]
        )

    threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert answers == {number: [number, number] for number in range(4)}


def test_another_thread_may_not_use_it(callback):
    failures = []

    def use(job):
        for call in (lambda: hub.spawn(print), lambda: hub.sleep(0), job.result, job.cancel):
            try:
                call()
            except RuntimeError as exc:
                failures.append("a hub is its thread's alone" in str(exc))

    with greenwait.Hub() as hub:
        job = hub.spawn(lambda: None)
        thread = threading.Thread(target=use, args=(job,), daemon=True)
        thread.start()
        thread.join(20)
    assert failures == [True] * 4


def test_hub_in_a_hub_is_refused(callback):
    with greenwait.Hub() as hub:
        with pytest.raises(RuntimeError, match=r"use its spawn\(\), or greenwait.gather"):
            greenwait.Hub().__enter__()
        job = hub.spawn(greenwait.Hub().__enter__)
        with pytest.raises(RuntimeError, match="a hub is at work in this thread"):
            job.result()


def test_mistakes_are_told(callback):
    with pytest.raises(TypeError, match=r"made by Hub\.spawn\(\)"):
        greenwait.Job()
    with greenwait.Hub() as hub:
        with pytest.raises(TypeError, match="takes a function, not 'int'"):
            hub.spawn(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType,reportCallIssue]
        job = hub.spawn(hub.__exit__, None, None, None)
        with pytest.raises(RuntimeError, match="left by the greenlet that has entered it"):
            job.result()


def test_repr_of_a_job(callback):
    with greenwait.Hub() as hub:
        job = hub.spawn(hub.sleep, 20)
        assert repr(job) == "<greenwait.Job waiting to run>"
        hub.sleep(0)
        assert repr(job) == "<greenwait.Job running>"
        job.cancel()
        with pytest.raises(CancelledError):
            job.result()
        assert repr(job) == "<greenwait.Job done, cancelled>"


def test_hub_is_for_one_block(callback):
    hub = greenwait.Hub()
    with hub:
        pass
    with pytest.raises(RuntimeError, match="make another"), hub:
        pass
    with pytest.raises(RuntimeError, match="block is over"):
        hub.spawn(print)


def test_hub_needs_the_callback():
    for registered in (None, print):
        set_wait_callback(registered)
        with pytest.raises(RuntimeError, match=r"call greenwait.install\(\) first"):
            greenwait.gather(lambda: None)


def test_job_can_not_wait_for_itself(callback):
    with greenwait.Hub() as hub:
        jobs = []
        jobs.append(hub.spawn(lambda: jobs[0].result()))
        with pytest.raises(RuntimeError, match="its own result"):
            jobs[0].result()


@pytest.mark.parametrize("limit", [None, 1, 2])
def test_gather_calls_each_in_a_context_of_its_own(callback, limit):
    variable = contextvars.ContextVar("variable", default="the caller's")

    def see_and_set(number):
        seen = variable.get()
        variable.set(number)
        return seen

    calls = [lambda number=number: see_and_set(number) for number in range(5)]
    assert greenwait.gather(*calls, limit=limit) == ["the caller's"] * 5
    assert list(greenwait.map(see_and_set, range(5), concurrency=limit or 5)) == (
        ["the caller's"] * 5
    )
    assert variable.get() == "the caller's"


@pytest.mark.parametrize("limit", [None, 1])
def test_deadline_around_gather_holds_for_each(limit, callback, connect):
    conn = connect()
    began = time.monotonic()
    with pytest.raises(greenwait.QueryTimeout), greenwait.timeout(0.2):
        greenwait.gather(lambda: True, lambda: one(conn, TWENTY_SECONDS), limit=limit)
    assert time.monotonic() - began < 10


def test_jobs_have_a_copy_of_the_context(callback):
    variable = contextvars.ContextVar("variable", default="nobody's")

    def work(name):
        before = variable.get()
        variable.set(name)
        hub.sleep(0.01)
        return before, variable.get()

    with greenwait.Hub() as hub:
        variable.set("the block's")
        jobs = [hub.spawn(work, name) for name in "ab"]
        assert [job.result() for job in jobs] == [("the block's", "a"), ("the block's", "b")]
        assert variable.get() == "the block's"
        assert hub.spawn(variable.get).result() == "the block's"  # also in a used greenlet


def test_greenlets_are_reused(callback):
    seen = set()
    with greenwait.Hub() as hub:
        for _ in range(50):
            hub.spawn(lambda: seen.add(id(greenlet.getcurrent()))).result()
    assert len(seen) == 1


def test_sleep_lets_others_go_on(callback):
    order = []

    def work(name):
        for number in range(3):
            order.append(f"{name}{number}")
            hub.sleep(0)

    with greenwait.Hub() as hub:
        hub.spawn(work, "a")
        hub.spawn(work, "b")
    assert order == ["a0", "b0", "a1", "b1", "a2", "b2"]


def test_sleep_takes_its_time(callback):
    with takes(0.1, 5), greenwait.Hub() as hub:
        hub.sleep(0.1)
    wrong: Any
    for wrong in (-1, "1"):
        with pytest.raises((ValueError, TypeError), match="seconds"), greenwait.Hub() as hub:
            hub.sleep(wrong)


def test_large_answer_does_not_starve_others(conns):
    own = conns(2)
    late = []

    def read():
        with own[0].cursor() as cur:
            cur.execute("select repeat('x', 1000) from generate_series(1, 60000)")

    def look():
        while not reading.done():
            began = time.monotonic()
            one(own[1], "select 1")
            late.append(time.monotonic() - began)

    for _ in range(5):  # on a busy machine the best one counts
        late.clear()
        with greenwait.Hub() as hub:
            reading = hub.spawn(read)
            hub.spawn(look)
        if len(late) > 5:
            break
    assert len(late) > 5  # and not once, at the end


def test_job_that_is_always_ready_does_not_starve_others(conns):
    own = conns(3)

    def ask(conn):
        while not waiting.done():
            one(conn, "select 1")

    with takes(0.1, 10), greenwait.Hub() as hub:
        waiting = hub.spawn(sleep_and_say, own[0], 0.1)
        for conn in own[1:]:
            hub.spawn(ask, conn)
        timer = hub.spawn(hub.sleep, 0.05)
        timer.result(timeout=10)


def test_jobs_that_only_sleep_for_nothing_do_not_starve_queries(conns):
    (conn,) = conns(1)

    def spin():
        while not waiting.done():
            hub.sleep(0)

    with takes(0.05, 10), greenwait.Hub() as hub:
        waiting = hub.spawn(sleep_and_say, conn, 0.05)
        hub.spawn(spin)


def test_large_statements_and_answers(conns, transport):
    own = conns(4, transport)

    def call(conn, size):
        return len(one(conn, "select %s || 'y'", "x" * size))

    sizes = [10, 100_000, 3_000_000, 1]
    calls = [lambda c=conn, s=size: call(c, s) for conn, size in zip(own, sizes, strict=True)]
    for _ in range(3):
        assert greenwait.gather(*calls) == [size + 1 for size in sizes]


def test_connecting_in_jobs(callback, server, transport):
    def call(number):
        with contextlib.closing(psycopg2.connect(server.dsn(transport))) as conn:
            return one(conn, "select %s", number)

    with no_leaked_descriptors():
        assert list(greenwait.map(call, range(60), concurrency=10)) == list(range(60))


def test_silent_hosts_time_out_beside_each_other(callback):
    def call(port):
        with pytest.raises(psycopg2.OperationalError, match="connect_timeout"):
            psycopg2.connect(host="127.0.0.1", port=port, user="x", connect_timeout=1)

    with silent_listener() as port, no_leaked_descriptors(), takes(1, 4.5):
        greenwait.gather(*[lambda: call(port) for _ in range(5)])


def test_descriptor_that_is_closed_under_a_wait(conns):
    own = conns(2)

    def close():
        hub.sleep(0.1)
        number = os.open("/dev/null", os.O_RDONLY)
        os.close(own[0].fileno())
        os.close(number)

    with takes(0, 5), greenwait.Hub() as hub:
        job = hub.spawn(one, own[0], "select pg_sleep(20)")
        hub.spawn(close)
        with pytest.raises(psycopg2.OperationalError, match="closed while greenwait waited"):
            job.result()
        assert one(own[1], "select 1") == 1
    own[0].close()


def test_jobs_wait_for_one_connection_s_notifications(conns):
    conn, sender = conns(2)
    conn.autocommit = sender.autocommit = True
    conn.cursor().execute("listen jobs")

    def listen():
        found = []
        for each in greenwait.notifies(conn, timeout=20):
            if each.payload == "the end":
                return found
            found.append(int(each.payload))
        raise AssertionError(found)

    def send():
        for payload in [*range(20), "the end", "the end", "the end"]:
            one(sender, "select pg_notify('jobs', %s)", str(payload))

    *found, _ = greenwait.gather(listen, listen, listen, send)
    assert sorted(number for each in found for number in each or ()) == list(range(20))


def test_listener_whose_notification_another_one_takes_goes_on_listening(conns):
    conn, sender = conns(2)
    conn.autocommit = sender.autocommit = True
    conn.cursor().execute("listen jobs")
    one(sender, "select pg_notify('jobs', 'first')")  # there before anybody waits: each gives way
    began = time.monotonic()

    def listen():
        found = []
        for each in greenwait.notifies(conn, timeout=20):
            found.append(each.payload)
            if each.payload == "last":
                return found
        raise AssertionError(found)

    def send():
        for _ in range(2):
            time.sleep(0.05)  # so that the first of it is there when the hub looks
            one(sender, "select pg_notify('jobs', 'last')")

    *found, _ = greenwait.gather(listen, listen, send)
    assert sorted(each for payloads in found for each in payloads or ()) == [
        "first",
        "last",
        "last",
    ]
    assert time.monotonic() - began < 10


def test_connection_that_is_lost_costs_only_its_own_job(conns, watcher):
    own = conns(3)
    with greenwait.Hub() as hub:
        jobs = [hub.spawn(sleep_and_say, own[0], 20)]
        jobs += [hub.spawn(sleep_and_say, conn, 0.3, "here") for conn in own[1:]]
        hub.sleep(0.1)
        one(watcher, "select pg_terminate_backend(%s)", own[0].info.backend_pid)
        with pytest.raises(psycopg2.OperationalError):
            jobs[0].result()
        assert [job.result() for job in jobs[1:]] == ["here", "here"]


def test_signal_handler_may_query_meanwhile(conns):
    own = conns(3)
    free = conns(20)
    answers = []

    def handler(*_):
        if not free:  # the server stands still
            return
        conn = free.pop()
        answers.append(sleep_and_say(conn, 0.02, "handled"))
        free.append(conn)

    before = signal.signal(signal.SIGALRM, handler)
    try:
        for _ in range(5):  # on a busy machine the best one counts
            answers.clear()
            signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
            results = greenwait.gather(
                *[lambda conn=conn: sleep_and_say(conn, 0.4, "job") for conn in own]
            )
            signal.setitimer(signal.ITIMER_REAL, 0)
            assert results == ["job"] * 3
            if len(answers) > 2:
                break
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert len(answers) > 2


def test_signal_handler_that_queries_as_a_job_has_ended_comes_to_its_end(conns):
    """Nobody would wait for it in the greenlet in which jobs run, once there is no job."""
    (conn,) = conns(1)
    begun, answers = [], []

    def handler(*_):
        begun.append(True)
        answers.append(sleep_and_say(conn, 0.3, "handled"))

    was_in_time = False
    before = signal.signal(signal.SIGALRM, handler)
    try:
        for _ in range(5):  # on a busy machine the sleep may be over before the signal comes
            begun.clear()
            answers.clear()
            with greenwait.Hub() as hub:
                hub.spawn(signal.setitimer, signal.ITIMER_REAL, 0.05)
                hub.sleep(0.15)
                was_in_time = bool(begun)
            if was_in_time:
                assert answers == ["handled"]
                break
            signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert was_in_time
    assert sleep_and_say(conn, 0, "fit") == "fit"


def test_query_in_a_greenlet_of_somebody_else_s(conns):
    """A generator that is made of a greenlet, say: it waits too, and can't be cancelled."""
    own = conns(2)

    def nested():
        inner = greenlet.greenlet(lambda: sleep_and_say(own[0], 0.05, "inner"))
        return inner.switch()

    assert greenwait.gather(nested, lambda: sleep_and_say(own[1], 0.1, "outer")) == [
        "inner",
        "outer",
    ]


def test_async_connections_are_waited_for_too(callback, server):
    def call(number):
        conn = psycopg2.connect(server.dsn(server.transports[0]), async_=1)
        with contextlib.closing(conn):
            greenwait.wait(conn)
            cur = conn.cursor()
            cur.execute("select %s from pg_sleep(0.8)", (number,))
            greenwait.wait(conn)
            return cur.fetchall()[0][0]

    with takes(0.8, 3.9):  # one by one: 4
        assert greenwait.gather(*[lambda i=i: call(i) for i in range(5)]) == list(range(5))


def test_look_for_closed_descriptors_disturbs_no_open_one(conns):
    """It is once a second; os.fstat() takes no socket on Windows."""
    results = greenwait.map(lambda conn: sleep_and_say(conn, 1.5, 7), conns(2))
    assert list(results) == [7, 7]


@needs_fork
def test_forked_child_has_no_hub(run_program):
    child, gathered, refused, parent = run_program("hub_fork").splitlines()
    assert (child, gathered, parent) == ("child", "[1, 2]", "parent")
    assert "make another hub" in refused


def test_what_wakes_a_hub_without_eventfd_is_closed_with_it(run_program):
    assert run_program("hub_without_eventfd") == "0\n"


@needs_fork
def test_child_that_is_forked_in_a_job_has_a_gather_of_its_own(run_program):
    """As one of multiprocessing's is: its jobs are not those of the parent."""
    assert run_program("gather_fork") == "[0, 1, 2]\n[4, 5]\n[6, 7, None]\n"


@needs_fork
@pytest.mark.parametrize("end", ["exit", "raise", "return"])
@pytest.mark.parametrize("where", ["job", "block", "gather", "map"])
def test_forked_child_that_leaves_leaves_its_parents_jobs_alone(run_program, where, end):
    child, last = run_program("hub_forks", where, end).splitlines()
    assert last == "[1, 2]"
    said, own = child.rsplit(" [", 1)
    assert own == "3, 4]"
    if end == "return" and where in ("block", "map"):
        assert said == "None"
    else:
        expected = {
            "exit": "SystemExit(0)",
            "raise": "KeyError('child')",
            "return": "RuntimeError('a job has returned in",
        }
        assert said.startswith(expected[end])


def test_interpreter_exit_with_a_hub_at_work(run_python):
    script = """
import sys, psycopg2, greenwait
greenwait.install()
conn = psycopg2.connect(sys.argv[1])
hub = greenwait.Hub().__enter__()
hub.spawn(conn.cursor().execute, "select pg_sleep(0.1)")
hub.sleep(0.01)
results = greenwait.map(lambda i: i, range(10))
print(next(results))
"""
    assert run_python(script) == "0\n"


#: How many items a map has of which one is read.
MAPS = {"under way": "10", "alone": "2", "at its end": "1"}


@pytest.mark.parametrize("items", MAPS.values(), ids=MAPS)
@pytest.mark.parametrize("maps", [1, 2])
def test_map_that_a_thread_keeps_until_its_end_says_nothing(run_program, items, maps):
    assert run_program("thread_with_maps", items, str(maps)) == ""


def test_nothing_is_left_behind(conns):
    own = conns(3)

    class Tracked:
        pass

    results = []

    def work(conn):
        tracked = Tracked()
        results.append(weakref.ref(tracked))
        one(conn, "select 1")
        return tracked

    with no_leaked_descriptors():
        greenwait.gather(*[lambda conn=conn: work(conn) for conn in own])
        with greenwait.Hub() as hub:
            job = hub.spawn(work, own[0])
            job.result()
            del job
        with greenwait.Hub() as hub:
            hub.spawn(work, own[0]).cancel()
            hub.sleep(0)
        del hub
    gc.collect()
    assert [reference() for reference in results] == [None] * 4


def test_sleep_that_is_interrupted_before_it_begins(conns):
    (conn,) = conns(1)
    with greenwait.Hub() as hub:

        def work():
            job.cancel()
            hub.sleep(0)

        job = hub.spawn(work)
        assert sleep_and_say(conn, 0.05, 1) == 1
        for number in range(5):
            assert hub.spawn(sleep_and_say, conn, 0.01, number).result() == number
    assert hub_here() is None


def test_interrupt_between_jobs_and_their_join_cancels_them(callback, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    begun: list[int] = []
    monkeypatch.setattr(gathering, "join", interrupt)
    with pytest.raises(KeyboardInterrupt):
        greenwait.gather(*[lambda number=number: begun.append(number) for number in range(3)])
    assert begun == []
    assert hub_here() is None


def test_interrupts_at_random_moments_leave_no_hub_entered(run_program):
    assert run_program("hub_interrupts") == "5000\n"


@needs_refusal
def test_cancels_at_random_moments(conns, watcher):
    """Thousands of them: connections stay usable, or are known to be lost."""
    own = conns(10)
    source = random.Random(4711)
    queries = [
        "select 1",
        "select pg_sleep(0.001)",
        "select repeat('x', 300000)",
        "select g from generate_series(1, 2000) g",
        "select pg_sleep(5)",
    ]
    wrong = []

    def work(conn):
        try:
            for _ in range(20):
                number = source.randrange(1000)
                if one(conn, "select %s", number) != number:
                    wrong.append(conn)
                one(conn, source.choice(queries))
        finally:
            conn.rollback()

    with no_leaked_descriptors(), greenwait.Hub() as hub:
        for _ in range(100):
            jobs = [hub.spawn(work, conn) for conn in own]
            while jobs:
                hub.sleep(source.random() * 0.003)
                job = jobs.pop(source.randrange(len(jobs)))
                job.cancel()
                with contextlib.suppress(CancelledError):
                    job.result(timeout=20)
    assert wrong == []
    assert_stopped(watcher, own)
    assert_usable(*own)


@pytest.mark.skipif(sys.platform != "linux", reason="proc_pid_status(5) is Linux's")
def test_memory_of_a_waiting_job(run_program):
    """Beyond its connection. Python's pages come in lots, so this is a mean."""
    assert 0 < float(run_program("waiting_jobs")) < 24
