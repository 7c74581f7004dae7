"""Every kind of event loop, and what still runs on the server."""

import time

import pytest

from tests.lab.event_loops import LOOPS, runner


@pytest.fixture(params=LOOPS)
def run(request):
    """Return a function that runs a coroutine to its end, on each kind of event loop."""
    return runner(request.param)


@pytest.fixture
def active(connect):
    """Return a function that says how many queries with these words run on the server."""
    conn = connect()
    conn.autocommit = True
    with conn.cursor() as cur:
        cur.execute("select clock_timestamp()")
        began = cur.fetchall()[0][0]  # earlier tests may have left some that no cancel ends

    def count(words="pg_sleep"):
        with conn.cursor() as cur:
            cur.execute(
                "select count(*) from pg_stat_activity where state = 'active' and query like %s"
                " and pid <> pg_backend_pid() and query_start >= %s",
                (f"%{words}%", began),
            )
            return cur.fetchall()[0][0]

    return count


@pytest.fixture
def assert_stopped(active):
    def check():
        give_up = time.monotonic() + 5
        while active():
            assert time.monotonic() < give_up
            time.sleep(0.01)

    return check


@pytest.fixture
def dsn(server):
    return server.dsn(server.transports[0])
