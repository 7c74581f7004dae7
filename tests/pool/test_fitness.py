"""No connection is lent that is not fit to be used."""

import signal
import time

import psycopg2
import pytest
from psycopg2.extensions import TRANSACTION_STATUS_IDLE

import greenwait
from tests.lab.asleep import when_asleep
from tests.lab.marks import needs_backend_pid, needs_refusal, needs_server_connection, needs_session
from tests.lab.queries import one, terminate

pytestmark = pytest.mark.patient


@needs_server_connection
def test_terminated_ones_are_not_lent(pool, watcher):
    with pool.connection() as first, pool.connection() as second:
        pids = {first.info.backend_pid, second.info.backend_pid}
    terminate(watcher, first, second)
    with pool.connection() as conn:
        assert one(conn, "select pg_backend_pid()") not in pids
    stats = pool.stats()
    assert (stats.made, stats.discarded) == (3, 2)


def test_terminated_one_is_not_lent_though_its_last_words_take_long_to_read(callback, dsn, watcher):
    class Slow(greenwait.Connection):
        is_slow = False

        def poll(self):
            found = super().poll()
            if self.is_slow:
                time.sleep(0.05)
            return found

    with greenwait.Pool(dsn, connection_factory=Slow) as pool:
        with pool.connection() as first:
            first.is_slow = True
        terminate(watcher, first)
        with pool.connection() as conn:
            assert one(conn, "select 1") == 1


@needs_server_connection
def test_one_that_is_lost_in_a_transaction_is_not_kept(pool, watcher):
    conn = pool.getconn()
    one(conn, "select 1")
    terminate(watcher, conn)
    pool.putconn(conn)
    assert conn.closed
    with pool.connection() as conn:
        assert one(conn, "select 1") == 1
    assert pool.stats().discarded == 1


@needs_session
def test_messages_do_not_make_it_unfit(pool, watcher):
    with pool.connection() as conn:
        conn.cursor().execute("listen pool")
    watcher.cursor().execute("notify pool; notify pool, 'again'")
    give_up = time.monotonic() + 20
    while len(conn.notifies) < 2:
        with pool.connection() as again:
            assert again is conn
        assert time.monotonic() < give_up


def test_check(callback, dsn):
    seen = []

    def check(conn):
        seen.append(conn)
        if one(conn, f"select {len(seen)}") == 2:
            raise psycopg2.OperationalError("not this one")

    with greenwait.Pool(dsn, check=check) as pool:
        used = []
        for _ in range(4):
            with pool.connection() as conn:
                assert conn.info.transaction_status == TRANSACTION_STATUS_IDLE
                used.append(conn)
    assert seen == [used[0], used[0], used[2]]
    assert used[0] is used[1] is not used[2] is used[3]


def test_check_that_fails_otherwise(callback, dsn):
    def check(conn):
        raise ZeroDivisionError

    with greenwait.Pool(dsn, check=check) as pool:
        with pool.connection():
            pass
        with pytest.raises(ZeroDivisionError):
            pool.getconn()
        assert (pool.stats().size, pool.stats().in_use) == (0, 0)


def test_check_that_takes_too_long(callback, dsn):
    def check(conn):
        one(conn, "select pg_sleep(5)")

    with greenwait.Pool(dsn, check=check) as pool:
        with pool.connection():
            pass
        with pytest.raises(greenwait.QueryTimeout), greenwait.timeout(0.1):
            pool.getconn()
        assert pool.stats().in_use == 0


def test_max_idle(callback, dsn):
    with greenwait.Pool(dsn, max_idle=1, min_size=1) as pool:
        with pool.connection() as first, pool.connection(), pool.connection():
            began = time.monotonic()
        assert pool.stats().idle == 3 or time.monotonic() - began > 1  # on a busy machine
        time.sleep(1.1)
        with pool.connection() as conn:
            assert conn is first  # who came back last
        assert pool.stats().idle == 1
        time.sleep(1.1)
        with pool.connection() as conn:
            assert conn is first  # the least there shall be
        assert pool.stats().discarded == 2


def test_max_lifetime(callback, dsn):
    with greenwait.Pool(dsn, max_lifetime=1) as pool:
        with pool.connection() as first:
            time.sleep(1.1)
        assert first.closed
        began = time.monotonic()
        with pool.connection() as second:
            pass
        assert not second.closed or time.monotonic() - began > 1  # on a busy machine
        time.sleep(1.1)
        with pool.connection() as third:
            assert third is not second
        assert second.closed


def test_query_that_was_cancelled_leaves_it_fit(pool):
    def work():
        with pool.connection() as conn:
            one(conn, "select pg_sleep(20)")

    with greenwait.Hub() as hub:
        jobs = [hub.spawn(work) for _ in range(2)]
        wait_in_hub(hub, lambda: pool.stats().in_use == 2)
        hub.sleep(0.1)
        for job in jobs:
            job.cancel()
        wait_in_hub(hub, lambda: pool.stats().in_use == 0)
        assert pool.stats().idle == 2
    with pool.connection() as conn:
        assert one(conn, "select 1") == 1


@needs_backend_pid
@needs_refusal
def test_interrupted_query_leaves_it_fit(pool, watcher):
    def handler(*_):
        raise LookupError

    before = signal.signal(signal.SIGALRM, handler)
    try:
        with (
            pytest.raises(LookupError),
            pool.connection() as conn,
            when_asleep(watcher, conn, lambda: signal.raise_signal(signal.SIGALRM)),
        ):
            one(conn, "select pg_sleep(20)")
    finally:
        signal.signal(signal.SIGALRM, before)
    with pool.connection() as again:
        assert again is conn
        assert one(again, "select 1") == 1


def wait_in_hub(hub, condition):
    give_up = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < give_up
        hub.sleep(0.005)
