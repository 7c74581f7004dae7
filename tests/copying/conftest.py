"""Connections with a table to copy into and out of."""

import psycopg2.extensions
import pytest

import greenwait
from greenwait._sleep import POLLERS


@pytest.fixture(params=POLLERS)
def copying(request, transport, connect):
    """A ``greenwait.Connection`` with a table, for every callback over every transport."""
    callback = greenwait.WaitCallback(poller=request.param, cancel_grace=20)
    psycopg2.extensions.set_wait_callback(callback)
    conn = connect(transport, connection_factory=greenwait.Connection)
    conn.cursor().execute("set jit = off; create temp table t (id int, data text)")
    conn.commit()
    return conn


@pytest.fixture
def count():
    """Return a function that returns the number of rows."""

    def count(conn, table="t"):
        with conn.cursor() as cur:
            cur.execute(f"select count(*) from {table}")
            return cur.fetchone()[0]

    return count
