"""``execute("COPY ...")``, which psycopg2 can't do in green mode, costs no connection."""

import time

import psycopg2
import pytest
from psycopg2.extensions import (
    TRANSACTION_STATUS_IDLE,
    TRANSACTION_STATUS_INERROR,
    set_wait_callback,
)

import greenwait
from greenwait._psycopg.libpq import FAST_PATHS
from greenwait._sleep import POLLERS
from tests.lab.marks import needs_session

CAN_END_COPY = FAST_PATHS["COPY"] == "on"
takes_libpq = pytest.mark.skipif(not CAN_END_COPY, reason="it takes libpq's functions")

COPIES = {
    "to": "copy (select 1) to stdout",
    "to, large": "copy (select g, repeat('x', 1000) from generate_series(1, 20000) g) to stdout",
    "to, endless": "copy (select generate_series(1, 1000000000000)) to stdout",
    "to, after rows": "select generate_series(1, 20000); copy (select 1) to stdout",
    "to, binary": "copy (select 1) to stdout (format binary)",
    "from": "copy pg_temp.taken from stdin",
    "from, then rows": "copy pg_temp.taken from stdin; select 1",
    "from, after rows": "select generate_series(1, 20000); copy pg_temp.taken from stdin",
}


@pytest.fixture(params=POLLERS)
def conn(request, transport, connect):
    set_wait_callback(greenwait.WaitCallback(poller=request.param, cancel_grace=20))
    conn = connect(transport)
    conn.cursor().execute("create temp table taken (number int)")
    conn.commit()
    return conn


@needs_session
@takes_libpq
@pytest.mark.parametrize("copy", COPIES)
@pytest.mark.parametrize("autocommit", [False, True])
def test_copy_in_execute_leaves_a_connection_that_can_be_rolled_back(conn, copy, autocommit):
    conn.autocommit = autocommit
    began = time.monotonic()
    with pytest.raises(psycopg2.ProgrammingError, match=r"use the copy_(to|from)\(\) method"):
        conn.cursor().execute(COPIES[copy])
    conn.rollback()
    assert conn.info.transaction_status == TRANSACTION_STATUS_IDLE
    for number in range(3):
        cur = conn.cursor()
        cur.execute("select %s", (number,))
        assert cur.fetchone() == (number,)
    conn.rollback()
    assert time.monotonic() - began < 5


@takes_libpq
def test_copy_that_was_refused_has_copied_nothing(conn):
    with pytest.raises(psycopg2.ProgrammingError):
        conn.cursor().execute("copy pg_temp.taken from stdin")
    assert conn.info.transaction_status == TRANSACTION_STATUS_INERROR
    conn.rollback()
    cur = conn.cursor()
    cur.execute("select count(*) from pg_temp.taken")
    assert cur.fetchone() == (0,)


@takes_libpq
def test_deadline_during_the_copy_is_kept(conn):
    with pytest.raises(psycopg2.Error), greenwait.timeout(0.2):
        conn.cursor().execute("select pg_sleep(10); copy (select 1) to stdout")
    conn.rollback()
    conn.cursor().execute("select 1")


@pytest.mark.skipif(CAN_END_COPY, reason="it is ended with libpq's functions")
@pytest.mark.parametrize("copy", COPIES)
def test_without_libpq_s_functions_it_costs_the_connection_and_says_so(conn, copy):
    with pytest.raises(psycopg2.ProgrammingError, match="the connection is closed, use copy_exp"):
        conn.cursor().execute(COPIES[copy])
    assert conn.closed
