"""``greenwait.ThreadedConnectionPool`` has psycopg2's interface, and stops no other job."""

import threading
import time
from typing import Any

import psycopg2
import psycopg2.pool
import pytest
from psycopg2.extensions import TRANSACTION_STATUS_IDLE

import greenwait
from tests.lab.marks import needs_session
from tests.lab.queries import one

pytestmark = pytest.mark.patient

POOLS = {
    "psycopg2": psycopg2.pool.ThreadedConnectionPool,
    "greenwait": greenwait.ThreadedConnectionPool,
}


@pytest.fixture(params=POOLS)
def kind(request, callback):
    """Return each of the two classes in turn: they do the same."""
    return POOLS[request.param]


@pytest.fixture
def pool(kind, dsn):
    pool = kind(1, 2, dsn)
    yield pool
    if not pool.closed:
        pool.closeall()


# -- What both do


def test_pool_is_of_psycopg2_s_base_class(pool):
    assert isinstance(pool, psycopg2.pool.AbstractConnectionPool)
    assert (pool.minconn, pool.maxconn, pool.closed) == (1, 2, False)


def test_connection_is_used_again_after_a_rollback(pool):
    conn = pool.getconn()
    one(conn, "select 1")
    pool.putconn(conn)
    assert conn.info.transaction_status == TRANSACTION_STATUS_IDLE
    assert pool.getconn() is conn


def test_pool_that_is_exhausted_raises_at_once(pool):
    conns = [pool.getconn(), pool.getconn()]
    began = time.monotonic()
    with pytest.raises(psycopg2.pool.PoolError, match=r"^connection pool exhausted$"):
        pool.getconn()
    assert time.monotonic() - began < 5
    pool.putconn(conns.pop())
    assert pool.getconn().closed == 0


def test_key_has_one_connection(pool):
    conn = pool.getconn("a")
    assert pool.getconn("a") is conn
    other = pool.getconn(key="b")
    assert other is not conn
    pool.putconn(conn, "a")
    pool.putconn(other, key="b")
    with pytest.raises(psycopg2.pool.PoolError, match=r"^trying to put unkeyed connection$"):
        pool.putconn(conn)


def test_key_need_not_be_repeated(pool):
    conn = pool.getconn("a")
    pool.putconn(conn)
    assert pool.getconn("b") is conn


def test_connection_may_be_closed(pool):
    conn = pool.getconn()
    pool.putconn(conn, close=True)
    assert conn.closed
    assert pool.getconn().closed == 0


def test_connection_of_others_is_refused(pool, connect):
    with pytest.raises(psycopg2.pool.PoolError, match=r"^trying to put unkeyed connection$"):
        pool.putconn(connect())


def test_connection_that_was_closed_comes_back_as_another(pool):
    conn = pool.getconn()
    conn.close()
    pool.putconn(conn)
    assert pool.getconn().closed == 0


def test_closeall_closes_those_in_use_too(pool):
    conn, idle = pool.getconn(), pool.getconn()
    pool.putconn(idle)
    pool.closeall()
    assert conn.closed
    assert idle.closed
    assert pool.closed
    for use in (pool.getconn, lambda: pool.putconn(conn), pool.closeall):
        with pytest.raises(psycopg2.pool.PoolError, match=r"^connection pool is closed$"):
            use()


def test_arguments_are_those_of_connect(kind, dsn):
    class Own(greenwait.Connection):
        pass

    for args, kwargs in (
        ((dsn, Own), {}),
        ((dsn,), {"connection_factory": Own}),
        ((), {"dsn": dsn, "connection_factory": Own, "application_name": "own"}),
    ):
        pool = kind(1, 1, *args, **kwargs)
        assert type(pool.getconn()) is Own
        pool.closeall()


def test_first_connections_are_made_at_once(kind, server):
    with pytest.raises(psycopg2.OperationalError):
        kind(1, 2, server.dsn(dbname="nowhere"))


def test_more_threads_than_connections_take_turns(pool):
    def work():
        while True:
            try:
                conn = pool.getconn()
            except psycopg2.pool.PoolError:
                time.sleep(0.001)
                continue
            found.append(one(conn, "select 1"))
            pool.putconn(conn)
            return

    found: list[int] = []
    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert found == [1] * 8


# -- What only greenwait's does


@pytest.fixture
def own_pool(callback, dsn):
    pool = greenwait.ThreadedConnectionPool(0, 5, dsn)
    yield pool
    if not pool.closed:
        pool.closeall()


def test_jobs_connect_and_roll_back_at_the_same_time(own_pool):
    """psycopg2's would stop the thread for ever: it connects under a lock."""

    def job(number):
        conn = own_pool.getconn()
        try:
            return one(conn, f"select {number} from pg_sleep(0.05)")
        finally:
            own_pool.putconn(conn)

    for _ in range(2):
        assert greenwait.gather(*[lambda n=n: job(n) for n in range(5)]) == list(range(5))


def test_jobs_with_one_key_have_one_connection(own_pool):
    found = greenwait.gather(*[lambda: own_pool.getconn("a")] * 3)
    assert len(set(found)) == 1
    own_pool.putconn(found[0])
    for _ in range(5):
        own_pool.getconn()


def test_pool_that_is_closed_while_a_job_connects(own_pool):
    def close():
        own_pool.closeall()

    def job():
        with pytest.raises(psycopg2.pool.PoolError, match=r"^connection pool is closed$"):
            own_pool.getconn()

    greenwait.gather(job, close)


def test_job_that_is_cancelled_while_it_connects_costs_no_place(own_pool):
    def job():
        own_pool.putconn(own_pool.getconn())

    for _ in range(10):
        with greenwait.Hub() as hub:
            one_job = hub.spawn(job)
            hub.sleep(0)
            one_job.cancel()
    conns = [own_pool.getconn() for _ in range(5)]
    for conn in conns:
        own_pool.putconn(conn)


@needs_session
def test_connections_come_back_as_they_were_made(own_pool):
    conn = own_pool.getconn()
    conn.autocommit = True
    own_pool.putconn(conn)
    assert own_pool.getconn() is conn
    assert not conn.autocommit


def test_sizes_that_are_wrong_are_told(dsn):
    for minconn, maxconn in ((2, 1), (-1, 1), (0, 0)):
        with pytest.raises(ValueError, match="minconn="):
            greenwait.ThreadedConnectionPool(minconn, maxconn, dsn)


def test_wrong_argument_is_told_at_once(dsn):
    new_pool: Any = greenwait.ThreadedConnectionPool
    with pytest.raises(TypeError, match="no argument 'zzz'"):
        new_pool(0, 1, dsn, zzz=1)
    with pytest.raises(TypeError, match="by position"):
        new_pool(0, 1, dsn, None, None, 1)
    with pytest.raises(TypeError, match="two values for 'dsn'"):
        new_pool(0, 1, dsn, dsn=dsn)
