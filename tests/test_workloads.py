"""Every psycopg2 workload, through every poller, over unix socket, TCP and TLS."""

import contextlib
import io
import os
import resource
import threading
from concurrent.futures import ThreadPoolExecutor

import psycopg2
import pytest
from psycopg2 import errors, extras

import greenwait
from tests.lab.marks import needs_session

MEGABYTE = 1024 * 1024


def fetch_one(conn, query, *args):
    with conn.cursor() as cur:
        cur.execute(query, *args)
        return cur.fetchone()[0]


def test_query_returns_its_rows(conn):
    with conn.cursor() as cur:
        cur.execute("select g, g * 2 from generate_series(1, 1000) g")
        assert cur.fetchall() == [(g, g * 2) for g in range(1, 1001)]


def test_tls_connection_is_encrypted(callback, connect, server):
    if "tls" not in server.transports:
        pytest.skip("the server of GREENWAIT_TEST_DSN is reached in one way only")
    assert connect("tls").info.ssl_in_use


def test_transaction_commits_and_rolls_back(conn):
    with conn, conn.cursor() as cur:
        cur.execute("create temp table t (x int)")
    with conn, conn.cursor() as cur:
        cur.execute("insert into t values (1)")
    with contextlib.suppress(ZeroDivisionError), conn, conn.cursor() as cur:
        cur.execute("insert into t values (2)")
        raise ZeroDivisionError
    assert fetch_one(conn, "select array_agg(x) from t") == [1]


def test_server_error_leaves_connection_usable(conn):
    with pytest.raises(errors.UndefinedTable):
        fetch_one(conn, "select * from there_is_no_such_table")
    conn.rollback()
    assert fetch_one(conn, "select 1") == 1


def test_notices_are_collected(conn):
    with conn.cursor() as cur:
        cur.execute("do $$ begin raise notice 'one'; raise notice 'two'; end $$")
    assert [notice.split(":")[1].strip() for notice in conn.notices] == ["one", "two"]


def test_notice_before_the_result_does_not_end_the_wait(conn):
    assert fetch_one(conn, "do $$ begin raise notice 'x'; end $$; select 7 from pg_sleep(0.1)") == 7


@needs_session
def test_listen_receives_notify(conn, connect, transport):
    conn.autocommit = True
    other = connect(transport)
    other.autocommit = True
    conn.cursor().execute("listen greenwait")
    other.cursor().execute("notify greenwait, 'hello'")
    assert fetch_one(conn, "select 1") == 1
    assert [notify.payload for notify in conn.notifies] == ["hello"]


def test_named_cursor_fetches_in_portions(conn):
    with conn.cursor("portions") as cur:
        cur.itersize = 100
        cur.execute("select generate_series(1, 1000)")
        assert sum(row[0] for row in cur) == 500500


def test_executemany_and_execute_values_insert_all(conn):
    with conn.cursor() as cur:
        cur.execute("create temp table t (x int)")
        cur.executemany("insert into t values (%s)", [(x,) for x in range(50)])
        extras.execute_values(cur, "insert into t values %s", [(x,) for x in range(50, 1000)])
    assert fetch_one(conn, "select sum(x) from t") == sum(range(1000))


def test_callproc_returns(conn):
    with conn.cursor() as cur:
        cur.callproc("upper", ["green"])
        assert cur.fetchone() == ("GREEN",)


@pytest.mark.parametrize("factory", [None, greenwait.Connection])
def test_two_phase_commit(callback, connect, transport, factory):
    conn = connect(transport, connection_factory=factory)
    conn.autocommit = True
    if fetch_one(conn, "show max_prepared_transactions") == "0":
        pytest.skip("the server of GREENWAIT_TEST_DSN does not allow prepared transactions")
    table = f"prepared_{os.getpid()}"
    conn.cursor().execute(f"create table {table} (x int)")
    conn.autocommit = False
    xid = conn.xid(1, table, "")
    conn.tpc_begin(xid)
    conn.cursor().execute(f"insert into {table} values (1)")
    conn.tpc_prepare()
    other = connect(transport)
    assert fetch_one(other, f"select count(*) from {table}") == 0
    assert table in [xid.gtrid for xid in other.tpc_recover()]
    conn.tpc_commit()
    assert fetch_one(other, f"select count(*) from {table}") == 1
    other.rollback()
    conn.autocommit = True
    conn.cursor().execute(f"drop table {table}")


def test_large_statement_is_sent(conn):
    value = "x" * (50 * MEGABYTE)
    assert fetch_one(conn, "select length(%s)", (value,)) == len(value)


def test_large_result_is_received(conn):
    result = fetch_one(conn, f"select repeat('0123456789', {10 * MEGABYTE})")
    assert len(result) == 100 * MEGABYTE
    assert result[:10] == result[-10:] == "0123456789"


def test_multiple_statements_give_the_last_result(conn):
    assert fetch_one(conn, "select 1; select pg_sleep(0.05); select 3") == 3


def test_copy_expert_says_green_mode_cannot(conn):
    with conn.cursor() as cur, pytest.raises(psycopg2.ProgrammingError, match="asynchronous"):
        cur.copy_expert("copy (select 1) to stdout", io.StringIO())


def test_three_hundred_threads_query_at_once(callback, transport, connect):
    gate = threading.Barrier(300)

    def work(number):
        gate.wait(30)
        with contextlib.closing(connect(transport)) as conn:
            return [fetch_one(conn, "select %s", (number + k,)) for k in range(3)]

    with ThreadPoolExecutor(300) as pool:
        results = list(pool.map(work, range(300)))
    assert results == [[n, n + 1, n + 2] for n in range(300)]


def test_descriptor_above_1024(callback, transport, connect):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 1200:
        resource.setrlimit(resource.RLIMIT_NOFILE, (1200, hard))
    with contextlib.ExitStack() as stack:
        for _ in range(1100):
            stack.callback(os.close, os.open(os.devnull, os.O_RDONLY))
        conn = connect(transport)
        assert conn.fileno() > 1024
        assert fetch_one(conn, "select 1 from pg_sleep(0.01)") == 1
        conn.close()


def test_async_connection_is_driven_by_wait(callback, transport, connect):
    aconn = connect(transport, async_=1)
    callback(aconn)
    with aconn.cursor() as cur:
        for number in range(3):
            cur.execute("select %s from pg_sleep(0.01)", (number,))
            callback(aconn)
            assert cur.fetchall() == [(number,)]


def test_async_connection_raises_the_servers_error(callback, transport, connect):
    aconn = connect(transport, async_=1)
    callback(aconn)
    with aconn.cursor() as cur:
        cur.execute("select 1 / 0")
        with pytest.raises(errors.DivisionByZero):
            callback(aconn)
        cur.execute("select 2")
        callback(aconn)
        assert cur.fetchall() == [(2,)]


def test_connection_opened_before_registration_works(connect, transport):
    conn = connect(transport)
    with greenwait.installed():
        assert fetch_one(conn, "select 5 from pg_sleep(0.01)") == 5


def test_twenty_thousand_rows_over_many_reads(conn):
    with conn.cursor() as cur:
        cur.execute("select g, repeat('x', 100) from generate_series(1, 20000) g")
        rows = cur.fetchall()
    assert len(rows) == 20000
    assert rows[-1] == (20000, "x" * 100)
