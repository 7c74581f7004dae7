"""A pool's functions: for each new connection, and for each that is given back."""

import contextlib
import signal
import threading
from typing import Any

import psycopg2
import psycopg2.extras
import pytest
from psycopg2.extensions import TRANSACTION_STATUS_IDLE

import greenwait
from tests.lab.asleep import when_asleep
from tests.lab.interrupts import Limit
from tests.lab.marks import needs_server_connection, needs_session
from tests.lab.queries import one

pytestmark = pytest.mark.patient
Pool: Any = greenwait.Pool


@pytest.fixture
def new_pool(callback, dsn):
    """Return a function that makes a pool of one, which is closed after the test."""
    opened = contextlib.ExitStack()

    def new_pool(**options):
        options = {"max_size": 1, "timeout": 20, **options}
        return opened.enter_context(greenwait.Pool(dsn, **options))

    with opened:
        yield new_pool


def discard_all(conn):
    conn.cursor().execute("discard all")


# -- configure


def test_configure_is_called_once_for_each_new_connection(new_pool):
    seen = []
    pool = new_pool(configure=seen.append, max_size=2, min_size=1)
    assert len(seen) == 1
    for _ in range(3):
        with pool.connection() as first, pool.connection() as second:
            assert {id(first), id(second)} == {id(conn) for conn in seen}
    assert len(seen) == 2


@needs_session
def test_what_configure_sets_is_there_for_all_borrowers(new_pool):
    def configure(conn):
        with conn.cursor() as cur:
            cur.execute("set application_name = 'of the pool'")

    pool = new_pool(configure=configure)
    for _ in range(2):
        with pool.connection() as conn:
            assert conn.info.transaction_status == TRANSACTION_STATUS_IDLE
            assert one(conn, "select current_setting('application_name')") == "of the pool"
            conn.rollback()


def test_settings_of_configure_are_those_that_come_back(new_pool):
    def configure(conn):
        conn.autocommit = True

    pool = new_pool(configure=configure)
    with pool.connection() as conn:
        assert conn.autocommit
        conn.autocommit = False
    with pool.connection() as conn:
        assert conn.autocommit


def test_configure_may_register_types(new_pool):
    pool = new_pool(configure=lambda conn: psycopg2.extras.register_hstore(conn, oid=3615))
    with pool.connection() as conn:
        assert one(conn, "select 1") == 1


def test_exception_of_configure_is_the_borrower_s_and_costs_no_place(new_pool):
    def configure(conn):
        seen.append(conn)
        if len(seen) == 1:
            raise ValueError("of configure")

    seen: list[psycopg2.extensions.connection] = []
    pool = new_pool(configure=configure)
    with pytest.raises(ValueError, match="of configure"):
        pool.getconn()
    assert seen[0].closed
    assert (pool.stats().in_use, pool.stats().size) == (0, 0)
    with pool.connection() as conn:
        assert one(conn, "select 1") == 1


def test_failed_statement_of_configure_is_the_borrower_s(new_pool):
    pool = new_pool(configure=lambda conn: one(conn, "select 1/0"))
    with pytest.raises(psycopg2.errors.DivisionByZero):
        pool.getconn()


def test_failed_transaction_that_configure_hides_is_told(new_pool):
    def configure(conn):
        with contextlib.suppress(psycopg2.Error):
            one(conn, "select 1/0")

    with pytest.raises(psycopg2.ProgrammingError, match=r"configure\(\) has left"):
        new_pool(configure=configure).getconn()


def test_lost_server_during_configure_is_tried_again(new_pool):
    def configure(conn):
        seen.append(conn)
        if len(seen) == 2:
            raise psycopg2.OperationalError("a moment")

    seen: list[psycopg2.extensions.connection] = []
    pool = new_pool(configure=configure)
    pool.putconn(pool.getconn(), close=True)
    with pool.connection() as conn:
        assert conn is seen[2]
    assert (pool.stats().failures, pool.stats().made) == (1, 2)


def test_configure_has_the_time_of_the_borrower(new_pool):
    pool = new_pool(configure=lambda conn: one(conn, "select pg_sleep(60)"), timeout=0.3)
    with pytest.raises(greenwait.PoolTimeout):
        pool.getconn()
    assert pool.stats().in_use == 0


# -- reset


@needs_server_connection
def test_reset_is_called_at_each_return_after_a_rollback(new_pool):
    def reset(conn):
        seen.append((conn.info.transaction_status, conn.autocommit))
        discard_all(conn)

    seen: list[tuple[int, bool]] = []
    pool = new_pool(reset=reset)
    with pool.connection() as conn:
        pid = conn.info.backend_pid
        one(conn, "set application_name = 'of a borrower'; select 1")
    conn = pool.getconn()
    assert conn.info.backend_pid == pid
    assert not conn.autocommit
    assert one(conn, "select current_setting('application_name')") != "of a borrower"
    pool.putconn(conn)
    assert seen == [(TRANSACTION_STATUS_IDLE, True)] * 2


def test_reset_is_not_called_for_what_is_not_lent_again(new_pool):
    seen = []
    pool = new_pool(reset=seen.append)
    pool.putconn(pool.getconn(), close=True)
    with pool.connection() as conn:
        conn.close()
    assert seen == []


def test_server_s_error_of_reset_closes_the_connection(new_pool):
    pool = new_pool(reset=lambda conn: one(conn, "select 1/0"))
    with pool.connection() as conn:
        one(conn, "select 1")
    assert conn.closed
    assert (pool.stats().size, pool.stats().in_use, pool.stats().discarded) == (0, 0, 1)


def test_other_error_of_reset_is_raised_and_costs_no_place(new_pool):
    def reset(conn):
        raise ValueError("of reset")

    pool = new_pool(reset=reset)
    conn = pool.getconn()
    with pytest.raises(ValueError, match="of reset"):
        pool.putconn(conn)
    assert conn.closed
    assert (pool.stats().size, pool.stats().in_use) == (0, 0)


def test_what_reset_leaves_open_is_committed(new_pool):
    def reset(conn):
        conn.autocommit = False
        one(conn, "select 1")

    pool = new_pool(reset=reset)
    with pool.connection() as conn:
        pass
    assert conn.info.transaction_status == TRANSACTION_STATUS_IDLE
    assert pool.stats().idle == 1


def test_failed_transaction_that_reset_hides_closes_the_connection(new_pool):
    def reset(conn):
        conn.autocommit = False
        with contextlib.suppress(psycopg2.Error):
            one(conn, "select 1/0")

    pool = new_pool(reset=reset)
    with pool.connection() as conn:
        pass
    assert conn.closed


def test_interrupt_of_reset_is_raised_and_the_connection_kept(new_pool, watcher, on_signal):
    def interrupt(number, frame):
        raise Limit

    def reset(conn):
        seen.append(conn)
        if len(seen) == 1:
            one(conn, "select pg_sleep(60)")

    seen: list[psycopg2.extensions.connection] = []
    on_signal(signal.SIGALRM, interrupt)
    pool = new_pool(reset=reset)
    conn = pool.getconn()
    strike = when_asleep(watcher, conn, lambda: signal.raise_signal(signal.SIGALRM))
    with strike, pytest.raises(Limit):
        pool.putconn(conn)
    assert len(seen) == 2
    assert (pool.stats().idle, pool.stats().in_use) == (1, 0)


def test_jobs_reset_their_connections_at_the_same_time(new_pool):
    def reset(conn):
        started.append(conn)
        one(conn, "select pg_sleep(0.1)")
        together.append(len(started))

    def job():
        with pool.connection() as conn:
            one(conn, "select 1")

    started: list[object] = []
    together: list[int] = []
    pool = new_pool(reset=reset, max_size=5)
    greenwait.gather(*[job] * 5)
    assert max(together) > 1
    assert pool.stats().idle == 5


def test_threads_reset_theirs_too(new_pool):
    seen = []
    pool = new_pool(reset=lambda conn: seen.append(threading.get_ident()))

    def work():
        with pool.connection() as conn:
            one(conn, "select 1")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 4
    assert set(seen) == {thread.ident for thread in threads}


# -- The other arguments


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("minconn", "min_size"),
        ("maxconn", "max_size"),
        ("minsize", "min_size"),
        ("pool_size", "max_size"),
        ("max_sise", "max_size"),
        ("conninfo", "dsn"),
        ("init", "configure"),
    ],
)
def test_wrong_argument_is_told_at_once_with_the_right_name(dsn, name, meant):
    with pytest.raises(TypeError, match=f"no argument '{name}': did you mean {meant}"):
        Pool(dsn, **{name: 1})


def test_argument_that_means_nothing_is_told_at_once(dsn):
    with pytest.raises(TypeError, match="no argument 'zzz', and libpq has no such option"):
        greenwait.Pool(dsn, zzz=1)


@pytest.mark.parametrize("name", ["check", "configure", "reset"])
def test_function_must_be_one(dsn, name):
    with pytest.raises(TypeError, match=f"{name} must be a function or None, not 'int'"):
        Pool(dsn, **{name: 1})


def test_options_of_libpq_and_psycopg2_are_taken(dsn):
    options = {"application_name": "own", "connect_timeout": 5, "database": "x", "user": "y"}
    Pool(**options, connection_factory=None, cursor_factory=None).close()


def test_pool_is_generic():
    assert str(greenwait.Pool[greenwait.Connection]).startswith("greenwait.Pool[")


def test_connection_may_be_closed_as_it_is_given_back(new_pool):
    pool = new_pool()
    conn = pool.getconn()
    pool.putconn(conn, close=True)
    assert conn.closed
    assert (pool.stats().size, pool.stats().in_use) == (0, 0)
