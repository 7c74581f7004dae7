"""The pool, with greenlets of gevent's and eventlet's in line."""

import time

import greenwait
from tests.lab.queries import one
from tests.programs.adapters.framework import (
    DSN,
    NAME,
    connect,
    descriptors,
    framework,
    join,
    kill,
    original,
    sleep,
    spawn,
    start_thread,
)


def pool_has_one_line_for_greenlets_and_threads():
    order = []

    def work(number):
        with pool.connection() as conn:
            one(conn, "select pg_sleep(0.001)")
            order.append(number)

    with greenwait.Pool(DSN, max_size=1, timeout=20) as pool:
        conn = pool.getconn()
        jobs = [spawn(work, number) for number in range(50)]
        while pool.stats().waiting < 50:
            sleep(0.001)
        pool.putconn(conn)
        join(jobs)
        assert order == list(range(50))
        conn = pool.getconn()
        jobs = [spawn(work, number) for number in range(5)]
        sleep(0)
        started = time.monotonic()
        try:
            pool.getconn(timeout=0.1)
        except greenwait.PoolTimeout:
            assert 0.1 <= time.monotonic() - started < 5
        kill(jobs[0])
        sleep(0)
        assert pool.stats().waiting == 4
        pool.putconn(conn)
        join(jobs[1:])


def native_threads_and_greenlets_share_a_pool():
    done = []

    def work():
        for _ in range(30):
            with pool.connection() as conn:
                done.append(one(conn, "select 1"))

    with greenwait.Pool(DSN, max_size=2, timeout=30) as pool:
        for _ in range(3):
            start_thread(work)
        join([spawn(work) for _ in range(5)])
        give_up = time.monotonic() + 20
        while len(done) < 8 * 30:
            sleep(0.01)
            assert time.monotonic() < give_up
        while pool.stats().in_use:
            sleep(0.01)
        assert pool.stats().size <= 2


def all_greenlets_wait_for_a_thread():
    pause = original("time", "sleep")

    def lend():
        pause(0.2)
        pool.putconn(conn)

    shared = connect(connection_factory=greenwait.Connection)

    def keep():
        one(shared, "select pg_sleep(0.2)")

    with greenwait.Pool(DSN, max_size=1) as pool:
        for _ in range(3):
            conn = pool.getconn()
            start_thread(lend)

            def work():
                with pool.connection() as conn:
                    return one(conn, "select 1")

            assert join([spawn(work) for _ in range(5)], None) == [1] * 5
            start_thread(keep)
            pause(0.05)
            assert join([spawn(one, shared, "select 1") for _ in range(5)], None) == [1] * 5


def thousand_greenlets_wait_in_line_without_a_descriptor_each():
    if NAME != "gevent":
        return
    with greenwait.Pool(DSN, max_size=1, timeout=20) as pool:
        conn = pool.getconn()
        before = descriptors()
        jobs = [spawn(lambda: pool.connection(timeout=15).__enter__()) for _ in range(1000)]
        while pool.stats().waiting < 1000:
            sleep(0.001)
        assert descriptors() <= before + 2
        framework.killall(jobs)
        assert pool.stats().waiting == 0
        pool.putconn(conn)
