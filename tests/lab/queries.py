"""What a test asks of a server: a value, whether a connection is usable, whether a query ended."""

import time

from tests.lab.bounds import bound

__all__ = [
    "TWENTY_SECONDS",
    "assert_stopped",
    "assert_stops",
    "assert_usable",
    "one",
    "sleep_and_say",
    "terminate",
]

TWENTY_SECONDS = "select pg_sleep(20)"


def one(conn, query, *parameters):
    """Return the only value that *query* has."""
    with conn.cursor() as cur:
        cur.execute(query, parameters or None)
        ((value,),) = cur.fetchall()
        return value


def sleep_and_say(conn, seconds, answer=None):
    """Return the answer, after so many seconds on the server."""
    return one(conn, "select %s from pg_sleep(%s)", answer, seconds)


def assert_usable(*conns):
    """Each is open, and after a rollback it does what it did before."""
    for conn in conns:
        assert not conn.closed
        conn.rollback()
        assert one(conn, "select 6 * 7") == 42
        conn.rollback()


def assert_stops(watcher, pid, within=0.1):
    """The server process *pid* has stopped its query, or does so in time."""
    began = time.monotonic()
    active = f"select count(*) from pg_stat_activity where pid = {pid} and state = 'active'"
    while one(watcher, active):
        assert time.monotonic() - began < bound(within + 0.4)  # a busy machine's
    return time.monotonic() - began


def assert_stopped(watcher, conns, within=5):
    """The server processes of these have nothing to do, or soon won't."""
    pids = [conn.info.backend_pid for conn in conns]
    query = "select count(*) from pg_stat_activity where pid = any(%s) and state = 'active'"
    give_up = time.monotonic() + bound(within)
    while one(watcher, query, pids):
        assert time.monotonic() < give_up


def terminate(watcher, *connections):
    """End their server processes; return when they have ended."""
    for conn in connections:
        one(watcher, "select pg_terminate_backend(%s, 5000)", conn.info.backend_pid)
