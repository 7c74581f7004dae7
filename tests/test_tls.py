"""TLS records that are larger than what libpq reads at once: nothing of an answer is overlooked.

Only libpq before 17.11 and 18.6 leaves bytes in OpenSSL; with a later one these tests
pass whatever greenwait does.
"""

import select
import statistics
import threading
import time

import psycopg2
import pytest
from psycopg2.extensions import connection

import greenwait
from tests.lab.postgres import Server
from tests.lab.tls_proxy import TlsProxy

# Found by trying: with libpq 15 each of these leaves its end in OpenSSL, on a fresh connection.
ROWS = "select repeat('x', 100) from generate_series(1, 400)"
MANY_ROWS = "select repeat('x', 100) from generate_series(1, 5000)"
VALUE = "select repeat('x', 32748)"
LARGE_VALUE = "select repeat('x', 1048556)"


@pytest.fixture(scope="module")
def proxy(server):
    if not isinstance(server, Server):
        pytest.skip("the proxy needs a server of our own")
    with TlsProxy(server) as proxy:
        yield proxy


@pytest.fixture
def connect_through(proxy, callback):
    """Return a function that connects through the proxy; each connection is closed at the end."""
    opened = []

    def connect(**keywords):
        conn = psycopg2.connect(proxy.dsn(), **keywords)
        opened.append(conn)
        return conn

    yield connect
    for conn in opened:
        conn.close()


def length(cur):
    return sum(len(value) for (value,) in cur.fetchall())


@pytest.mark.parametrize(
    ("query", "expected"),
    [(ROWS, 40_000), (MANY_ROWS, 500_000), (VALUE, 32_748), (LARGE_VALUE, 1_048_556)],
)
def test_answer_in_large_records_is_received(connect_through, query, expected):
    conn = connect_through()
    conn.autocommit = True
    for _ in range(3):
        cur = conn.cursor()
        cur.execute(query)
        assert length(cur) == expected


@pytest.mark.parametrize("rows", range(150, 400, 25))
def test_answer_of_any_size_is_received(connect_through, rows):
    cur = connect_through().cursor()
    cur.execute(f"select repeat('x', 100) from generate_series(1, {rows})")
    assert length(cur) == 100 * rows


def test_answer_is_received_in_another_thread(connect_through):
    """Without signals to serve it sleeps longer than the main one, but not here."""
    took = []

    def query():
        conn = connect_through()
        conn.autocommit = True
        cur = conn.cursor()
        began = time.monotonic()
        cur.execute(ROWS)
        took.append(time.monotonic() - began)
        assert length(cur) == 40_000

    for _ in range(5):
        thread = threading.Thread(target=query, daemon=True)
        thread.start()
        thread.join(30)
    assert statistics.median(took) < 0.5


def test_answer_is_received_by_an_async_connection(connect_through, callback):
    conn = connect_through(async_=1)
    callback(conn)
    for _ in range(3):
        cur = conn.cursor()
        cur.execute(ROWS)
        callback(conn)
        assert length(cur) == 40_000


@pytest.mark.parametrize("polls", range(1, 6))
def test_answer_is_received_by_an_async_connection_that_was_polled_before(
    connect_through, callback, polls
):
    """The first poll of the callback may then read the record of which a part is left."""
    conn = connect_through(async_=1)
    callback(conn)
    cur = conn.cursor()
    cur.execute(ROWS)
    conn.poll()  # sends
    select.select([conn], [], [], 30)
    for _ in range(polls):
        conn.poll()  # reads a record, or a part of one
    callback(conn)
    assert length(cur) == 40_000


def test_answer_is_received_by_a_subclass_that_polls_by_itself(connect_through):
    class Polling(connection):
        def poll(self):
            return super().poll()

    cur = connect_through(connection_factory=Polling).cursor()
    cur.execute(ROWS)
    assert length(cur) == 40_000


def test_large_statement_and_answer_pass(connect_through):
    cur = connect_through().cursor()
    cur.execute("select %s", ("x" * 3_000_000,))
    assert length(cur) == 3_000_000


def test_idle_wait_does_not_look_again(connect_through):
    """A wait for the first of an answer misses nothing, and sleeps as long as the server does."""
    conn = connect_through()
    conn.autocommit = True
    waits = []

    def query():
        conn.cursor().execute("select pg_sleep(1.5)")
        waits.append(greenwait.stats().sleeps)

    greenwait.stats(reset=True)
    thread = threading.Thread(target=query, daemon=True)  # the main one wakes for signals
    thread.start()
    thread.join()
    assert waits[0] < 10
