"""``gather()``: many calls at once, in order, and all cancelled by the first failure."""

import contextlib
import contextvars
import gc
import os
import signal
import threading
import time
from typing import Any

import greenlet
import psycopg2
import pytest

import greenwait
from greenwait._greenlets import gather as gathering
from greenwait._greenlets.hub import hub_here
from tests.lab.freezers import frozen
from tests.lab.interrupts import LIMIT, Limit, interrupt_soon, raising
from tests.lab.marks import needs_fork, needs_refusal
from tests.lab.postgres import Server
from tests.lab.queries import TWENTY_SECONDS, assert_stopped, assert_usable, one, sleep_and_say
from tests.lab.waiting import takes

pytestmark = pytest.mark.patient


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
    with pytest.raises(TypeError, match="gather\\(\\) takes a function, not 'int'"):
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


def test_interrupt_between_jobs_and_their_join_cancels_them(callback, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    begun: list[int] = []
    monkeypatch.setattr(gathering, "join", interrupt)
    with pytest.raises(KeyboardInterrupt):
        greenwait.gather(*[lambda number=number: begun.append(number) for number in range(3)])
    assert begun == []
    assert hub_here() is None
