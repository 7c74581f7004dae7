"""Deadlines: one total for all that is waited for, the connection usable afterwards."""

import time

import psycopg2
import psycopg2.extras
import pytest
from psycopg2 import errors
from psycopg2.extensions import QueryCanceledError, set_wait_callback

import greenwait
from greenwait._psycopg.libpq import FAST_PATHS
from tests.lab.asleep import again_until
from tests.lab.bounds import bound
from tests.lab.freezers import frozen
from tests.lab.interrupts import timed_out
from tests.lab.leaks import no_leaked_descriptors
from tests.lab.queries import assert_stops, assert_usable, one
from tests.lab.silence import silence

pytestmark = pytest.mark.patient


LARGE = "select g, repeat('x', 1000) from generate_series(1, 100000000) g"


def test_query_is_stopped_at_the_deadline_and_the_connection_is_usable(conn, watcher):
    pid = conn.info.backend_pid
    exc, took = timed_out(conn, 0.5)
    assert 0.5 <= took < 5  # the promise is 0.6
    assert_stops(watcher, pid)
    assert isinstance(exc, QueryCanceledError)
    assert isinstance(exc, errors.QueryCanceled)
    assert isinstance(exc, psycopg2.OperationalError)
    assert exc.pgcode == "57014"
    assert "canceling statement" in str(exc.pgerror)
    assert exc.cursor is not None
    assert "greenwait.timeout(0.5)" in str(exc)
    assert_usable(conn)


def test_query_is_typically_stopped_within_a_tenth_of_a_second(callback, connect):
    conn = connect()
    late = []
    while min(late, default=1) >= 0.1 and len(late) < 20:
        late.append(timed_out(conn, 0.1)[1] - 0.1)
        conn.rollback()
    assert min(late) < 0.1


def test_query_in_autocommit_is_stopped_too(callback, connect):
    conn = connect()
    conn.autocommit = True
    timed_out(conn, 0.05)
    assert one(conn, "select 1") == 1


def test_default_of_the_callback_bounds_every_statement(connect):
    with greenwait.installed(timeout=1, cancel_grace=20):
        conn = connect()
        for _ in range(3):
            with pytest.raises(greenwait.QueryTimeout, match=r"WaitCallback\(timeout=1\)") as info:
                conn.cursor().execute("select pg_sleep(10)")
            assert info.value.timeout is None
            conn.rollback()
    with greenwait.installed(timeout=2.5):
        for _ in range(5):
            one(conn, "select 1 from pg_sleep(0.6)")  # each has its own


def test_block_bounds_the_total_of_many_statements(callback, connect):
    conn = connect()
    done = 0

    def attempt():
        nonlocal done
        done = 0
        began = time.monotonic()
        with pytest.raises(greenwait.QueryTimeout), greenwait.timeout(0.5):
            while True:
                one(conn, "select 1 from pg_sleep(0.02)")
                done += 1
        assert 0.5 <= time.monotonic() - began < 10

    again_until(lambda: done > 1, conn, attempt)
    assert_usable(conn)


def test_server_that_goes_on_talking_does_not_stretch_it(callback, connect):
    conn = connect()
    query = (
        "do $$ begin for i in 1..30 loop raise notice 'n'; perform pg_sleep(0.3); end loop; end $$"
    )
    _, took = timed_out(conn, 0.7, query)
    assert took < 5
    assert_usable(conn)


@pytest.mark.parametrize("transport", ["unix", "tls"])
def test_result_that_streams_past_the_deadline_is_stopped(callback, connect, server, transport):
    if transport not in server.transports:
        pytest.skip("the server of GREENWAIT_TEST_DSN is reached in one way only")
    conn = connect(transport)
    _, took = timed_out(conn, 0.3, LARGE)
    assert took < 10
    assert_usable(conn)


def test_result_that_is_there_in_time_stands(callback, connect):
    conn = connect()
    with greenwait.timeout(30) as block:
        assert one(conn, "select 5") == 5
    assert not block.expired


def test_result_that_comes_as_the_deadline_passes_stands_or_is_a_timeout(callback, connect):
    """Nothing else, whatever the order of events; and the next query is safe."""
    conn = connect()
    conn.autocommit = True
    outcomes = set()
    for number in range(300):
        seconds = bound(0.0005 + number % 60 * 0.0001)
        try:
            with greenwait.timeout(seconds):
                assert one(conn, f"select {number} from pg_sleep({bound(0.0025)})") == number
            outcomes.add("stands")
        except greenwait.QueryTimeout:
            outcomes.add("timeout")
        assert one(conn, f"select -{number}") == -number
    assert outcomes == {"stands", "timeout"}


def test_deadline_that_has_passed_stops_the_next_query(callback, connect):
    conn = connect()
    with greenwait.timeout(0.01) as block:
        time.sleep(0.05)
        with pytest.raises(greenwait.QueryTimeout):
            conn.cursor().execute("select pg_sleep(10)")
        assert block.expired
        conn.rollback()  # not cancelled: it is what the server accepts
        with pytest.raises(greenwait.QueryTimeout):
            conn.cursor().execute("select pg_sleep(10)")
    assert_usable(conn)


def test_rollback_after_the_deadline_is_done(callback, connect):
    """``with conn`` rolls back while the block's deadline has long passed."""
    conn = connect()
    cancels = greenwait.stats().cancels
    for number in range(50):
        with (
            pytest.raises(greenwait.QueryTimeout),
            greenwait.timeout(0.001),
            conn,
            conn.cursor() as cur,
        ):
            cur.execute("select pg_sleep(10)")
        assert conn.info.transaction_status == 0, number
    assert cancels < greenwait.stats().cancels
    assert one(conn, "select 1") == 1


def test_rollback_for_another_reason_after_the_deadline_is_done(callback, connect):
    conn = connect()
    one(conn, "select 1")
    with pytest.raises(ZeroDivisionError), greenwait.timeout(0.01), conn:
        time.sleep(0.05)
        raise ZeroDivisionError
    assert conn.info.transaction_status == 0
    assert one(conn, "select 1") == 1


# -- A server that does not answer


def test_frozen_server_is_an_operational_error_after_the_grace(own_server, callback):
    has_default_grace = greenwait.wait if callback.poller == "poll" else greenwait.EpollWaitCallback
    set_wait_callback(has_default_grace)
    for _ in range(3):  # on a busy machine the best one counts
        others = silence_beside_a_frozen_server(own_server)
        if FAST_PATHS["cancel"].endswith("keeps the GIL"):
            return
        if others.longest < 1 + others.machine:
            break
    assert others.longest < 1 + others.machine


def silence_beside_a_frozen_server(own_server):
    conn = psycopg2.connect(own_server.dsn("tcp"))
    one(conn, "select 1")
    with frozen(conn.info.backend_pid), no_leaked_descriptors(), silence() as others:
        began = time.monotonic()
        with (
            pytest.raises(psycopg2.OperationalError, match="has not answered within 1 s") as info,
            greenwait.timeout(0.5) as block,
        ):
            conn.cursor().execute("select pg_sleep(10)")
        took = time.monotonic() - began
        conn.close()
        began_closing = len(conn.notices)
    assert began_closing == 0
    assert not isinstance(info.value, greenwait.QueryTimeout)
    assert "The connection is closed" in str(info.value)
    assert 1.5 <= took < 6  # the promise is 1.8
    assert block.expired
    assert conn.closed
    return others
