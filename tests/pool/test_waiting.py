"""Who waits for a connection: in line, in every context."""

import contextlib
import os
import re
import signal
import threading
import time
from concurrent.futures import CancelledError

import psycopg2
import pytest
from psycopg2.extensions import set_wait_callback

import greenwait
from tests.lab.marks import needs_prompt_cancel, needs_refusal
from tests.lab.queries import one
from tests.lab.random_moments import interrupted
from tests.lab.waiting import until

pytestmark = pytest.mark.patient


def test_too_late(pool):
    with pool.connection(), pool.connection():
        began = time.monotonic()
        with pytest.raises(greenwait.PoolTimeout) as caught, pool.connection(timeout=0.1):
            pass
    assert 0.1 <= time.monotonic() - began < 5
    assert isinstance(caught.value, psycopg2.OperationalError)
    assert str(caught.value) == (
        f"{str(caught.value).split(' s:')[0]} s: of at most 2 there are 2 in use, 0 being made "
        "and 0 idle, and 0 others wait: give connections back earlier, or raise max_size or timeout"
    )
    assert re.match(r"no connection within [\d.]+ s: ", str(caught.value))
    assert pool.stats().timeouts == 1
    assert pool.stats().waiting == 0


def test_timeout_of_the_block_around(pool):
    with pool.connection(), pool.connection():
        with pytest.raises(greenwait.QueryTimeout), greenwait.timeout(0.1), pool.connection():
            pass
        with pytest.raises(greenwait.PoolTimeout), greenwait.timeout(20):
            pool.getconn(timeout=0.05)
    assert pool.stats().in_use == 0


def test_interrupt_while_waiting(pool):
    def handler(*_):
        raise LookupError

    before = signal.signal(signal.SIGALRM, handler)
    try:
        with pool.connection(), pool.connection():
            began = time.monotonic()
            with pytest.raises(LookupError):
                signal.setitimer(signal.ITIMER_REAL, 0.1)
                pool.getconn()
            assert time.monotonic() - began < 5
            assert pool.stats().waiting == 0
    finally:
        signal.signal(signal.SIGALRM, before)
    assert pool.stats().in_use == 0


@needs_prompt_cancel
@needs_refusal
def test_interrupts_at_random_moments_cost_no_place(pool):
    """Of two places: one that is lost, and another one, would end the test."""

    def use_it():
        with pool.connection() as conn, conn.cursor() as cur:
            cur.execute("select 1")

    assert interrupted(use_it, microseconds=680) > 100
    assert pool.stats().in_use == 0
    with pool.connection() as first, pool.connection() as second:
        assert one(first, "select 1") == one(second, "select 1") == 1


def test_threads_are_served_in_order(callback, dsn):
    order = []

    def work(number):
        with pool.connection() as conn:
            one(conn, "select pg_sleep(0.002)")
            order.append(number)

    with greenwait.Pool(dsn, max_size=1) as pool:
        with pool.connection():
            threads = []
            for number in range(20):
                threads.append(threading.Thread(target=work, args=(number,), daemon=True))
                threads[-1].start()
                until(lambda: pool.stats().waiting > number)  # noqa: B023, at once
        for thread in threads:
            thread.join(20)
    assert order == list(range(20))


def test_jobs_are_served_in_order(callback, dsn):
    order = []

    def work(number):
        with pool.connection() as conn:
            one(conn, "select pg_sleep(0.001)")
            order.append(number)

    with greenwait.Pool(dsn, max_size=1) as pool, greenwait.Hub() as hub:
        for number in range(100):
            hub.spawn(work, number)
    assert order == list(range(100))


def test_threads_and_hubs_are_in_one_line(callback, dsn):
    """Who waits in a hub is called by a thread, and the other way round."""
    done = []

    def work():
        for _ in range(20):
            with pool.connection() as conn:
                done.append(one(conn, "select 1"))

    def run_hub():
        greenwait.gather(*[work] * 5)

    with greenwait.Pool(dsn, max_size=2, timeout=30) as pool:
        threads = [threading.Thread(target=target, daemon=True) for target in [work, run_hub] * 3]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(40)
            assert not thread.is_alive()
        assert len(done) == 3 * 20 + 3 * 5 * 20
        assert pool.stats().size <= 2


def test_thousand_jobs_wait_without_a_descriptor_each(callback, dsn):
    with (
        greenwait.Pool(dsn, max_size=2) as pool,
        greenwait.Hub() as hub,
        pool.connection(),
        pool.connection(),
    ):
        before = len(os.listdir("/proc/self/fd"))
        jobs = [hub.spawn(lambda: pool.connection().__enter__()) for _ in range(1000)]
        hub.sleep(0)
        assert pool.stats().waiting == 1000
        # What wakes the hub is an eventfd, or a pair of sockets.
        assert len(os.listdir("/proc/self/fd")) <= before + 2
        for job in jobs:
            job.cancel()
        hub.sleep(0)
        assert pool.stats().waiting == 0


def test_cancels_in_the_line_at_every_moment(pool):
    """The place that was given to one that has gone is given on."""

    def work():
        with pool.connection() as conn:
            one(conn, "select 1")

    with greenwait.Hub() as hub:
        for number in range(300):
            jobs = [hub.spawn(work) for _ in range(6)]
            for _ in range(number % 7):
                hub.sleep(0)
            jobs[number % 6].cancel()
            jobs[number % 5].cancel()
            for job in jobs:
                with contextlib.suppress(CancelledError):
                    job.result(timeout=20)
    assert pool.stats().in_use == pool.stats().waiting == 0


def test_without_any_callback(dsn):
    set_wait_callback(None)
    answers = []

    def work(number):
        with pool.connection() as conn:
            answers.append(one(conn, "select %s", number) == number)

    with greenwait.Pool(dsn, max_size=2) as pool:
        threads = [threading.Thread(target=work, args=(i,), daemon=True) for i in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
    assert answers == [True] * 10
