"""Connections are lent as they were made, by a block or by hand."""

import contextlib
import os

import psycopg2
import pytest
from psycopg2.extensions import TRANSACTION_STATUS_IDLE

import greenwait
from tests.lab.marks import needs_server_connection
from tests.lab.queries import one, terminate

pytestmark = pytest.mark.patient


# -- Borrowing


def test_block_commits(pool, watcher):
    table = f"pool_{os.getpid()}"
    one(watcher, f"create table {table} (n int); select 1")
    try:
        with pool.connection() as conn:
            conn.cursor().execute(f"insert into {table} values (1)")
        with pytest.raises(ZeroDivisionError), pool.connection() as conn:
            conn.cursor().execute(f"insert into {table} values (2)")
            raise ZeroDivisionError
        assert one(watcher, f"select array_agg(n) from {table}") == [1]
    finally:
        watcher.cursor().execute(f"drop table {table}")


def test_connections_are_used_again(pool):
    pids = set()
    for _ in range(5):
        with pool.connection() as conn:
            pids.add(conn.info.backend_pid)
    assert len(pids) == 1
    stats = pool.stats()
    assert (stats.size, stats.idle, stats.in_use, stats.lent, stats.made) == (1, 1, 0, 5, 1)


def test_connections_are_of_greenwait_s_class_or_one_s_own(pool, dsn):
    with pool.connection() as conn:
        assert type(conn) is greenwait.Connection

    class Own(psycopg2.extensions.connection):
        pass

    with greenwait.Pool(dsn, connection_factory=Own) as other, other.connection() as conn:
        assert type(conn) is Own


def test_getconn_and_putconn(pool):
    conn = pool.getconn()
    one(conn, "select 1")
    assert pool.stats().in_use == 1
    pool.putconn(conn)
    assert conn.info.transaction_status == TRANSACTION_STATUS_IDLE
    with pytest.raises(ValueError, match="not lent"):
        pool.putconn(conn)
    with pytest.raises(ValueError, match="not lent"):
        pool.putconn(object())


def test_block_is_entered_once(pool):
    block = pool.connection()
    with block, pytest.raises(RuntimeError, match="call connection"), block:
        pass
    assert pool.stats().in_use == 0
    with block:
        pass


@pytest.mark.parametrize(
    ("leave", "is_kept"),
    [
        (lambda conn: one(conn, "select 1"), True),
        (lambda conn: conn.set_session(autocommit=True, readonly=True), True),
        (lambda conn: setattr(conn, "isolation_level", "SERIALIZABLE"), True),
        (lambda conn: failed(conn), True),
        (lambda conn: begun_by_a_query(conn), True),
        (lambda conn: begun_behind_its_back(conn), True),
        (lambda conn: prepared(conn), False),
        (lambda conn: conn.close(), False),
    ],
    ids=[
        "in transaction",
        "session",
        "isolation",
        "failed",
        "begun",
        "begun behind",
        "prepared",
        "closed",
    ],
)
def test_next_one_finds_it_as_the_first_one_did(pool, leave, is_kept):
    conn = pool.getconn()
    leave(conn)
    pool.putconn(conn)
    with pool.connection() as again:
        for xid in again.tpc_recover():
            again.tpc_rollback(xid)
        again.rollback()
    with pool.connection() as again:
        assert (again is conn) == is_kept
        assert again.info.transaction_status == TRANSACTION_STATUS_IDLE
        assert (again.autocommit, again.readonly, again.isolation_level) == (False, None, None)
        assert one(again, "select 6 * 7") == 42


def failed(conn):
    with contextlib.suppress(psycopg2.ProgrammingError):
        one(conn, "select from nowhere")


def begun_by_a_query(conn):
    conn.autocommit = True
    one(conn, "begin; select 1")


def begun_behind_its_back(conn):
    conn.autocommit = True
    one(conn, "begin; select 1")
    conn.autocommit = False


def prepared(conn):
    conn.tpc_begin(conn.xid(1, "pool", "test"))
    one(conn, "select 1")
    conn.tpc_prepare()


@needs_server_connection
def test_lost_connection_is_told_of_at_the_end_of_the_block(pool, watcher):
    with pytest.raises(psycopg2.InterfaceError, match="closed"), pool.connection() as conn:
        terminate(watcher, conn)
        with contextlib.suppress(psycopg2.OperationalError):
            one(conn, "select 1")
    with pool.connection() as conn:
        assert one(conn, "select 1") == 1


def test_block_may_close_it(pool):
    with pool.connection() as conn:
        conn.close()
    assert pool.stats().size == 0


# -- Arguments


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"max_size": 0}, ValueError, "max_size=0: it must be 1 or more"),
        ({"max_size": "10"}, TypeError, "max_size must be a number of connections, not 'str'"),
        ({"min_size": -1}, ValueError, "min_size=-1: it must be 0 or more"),
        ({"min_size": 11}, ValueError, "min_size=11 is more than max_size=10"),
        ({"timeout": None}, TypeError, "timeout must be a number of seconds, not 'NoneType'"),
        ({"timeout": -1}, ValueError, "timeout=-1"),
        ({"max_idle": "x"}, TypeError, "max_idle must be a number of seconds, or None"),
        ({"max_lifetime": -1}, ValueError, "max_lifetime=-1"),
        ({"check": 1}, TypeError, "check must be a function or None, not 'int'"),
        ({"async_": True}, TypeError, "not async_"),
        ({"dsn": 1}, TypeError, "dsn must be a connection string, not 'int'"),
    ],
)
def test_arguments_are_checked(arguments, error, message):
    with pytest.raises(error, match=message):
        greenwait.Pool(**arguments)


def test_repr(pool):
    with pool.connection():
        assert repr(pool) == "<greenwait.Pool 1 of 2 in use, 0 idle, 0 waiting>"
