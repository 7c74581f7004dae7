"""``greenwait.cancel()``, and the cancel that a deadline sends: whole, bounded, and secret."""

import contextlib
import errno
import os
import signal
import threading
import time

import psycopg2
import pytest
from psycopg2 import errors
from psycopg2.extensions import libpq_version, set_wait_callback

import greenwait
from greenwait._psycopg.libpq import FAST_PATHS
from tests.lab.asleep import when_asleep
from tests.lab.bounds import bound
from tests.lab.fault_proxy import Fault, FaultProxy
from tests.lab.freezers import frozen_postmaster
from tests.lab.leaks import no_leaked_descriptors
from tests.lab.marks import needs_backend_pid, needs_pace
from tests.lab.queries import assert_stops, assert_usable, one
from tests.lab.silence import silence

pytestmark = pytest.mark.patient

HAS_LIBPQ = not FAST_PATHS["cancel"].endswith("keeps the GIL")
IS_ENCRYPTED = FAST_PATHS["cancel"].startswith("on")
RUNS = 1000


@needs_backend_pid
def test_query_is_cancelled_from_another_thread(conn, connect, watcher):
    pid = conn.info.backend_pid
    with (
        when_asleep(watcher, conn, lambda: greenwait.cancel(conn, timeout=20)),
        pytest.raises(errors.QueryCanceled, match="user request") as info,
    ):
        conn.cursor().execute("select pg_sleep(20)")
    assert type(info.value) is errors.QueryCanceled
    assert_stops(connect(), pid)
    assert_usable(conn)


def test_nothing_happens_where_there_is_no_query(conn):
    greenwait.cancel(conn, timeout=20)
    assert one(conn, "select 3") == 3


@needs_backend_pid
def test_cancel_without_a_wait_callback_works_too(connect, watcher):
    set_wait_callback(None)
    conn = connect()
    with (
        when_asleep(watcher, conn, lambda: greenwait.cancel(conn, timeout=20)),
        pytest.raises(errors.QueryCanceled),
    ):
        conn.cursor().execute("select pg_sleep(20)")
    conn.rollback()


def test_closed_connection_is_an_interface_error(connect):
    conn = connect()
    conn.close()
    with pytest.raises(psycopg2.InterfaceError, match="closed"):
        greenwait.cancel(conn)


@pytest.mark.parametrize("nothing", [None, "conn", 3])
def test_anything_else_than_a_connection_is_a_type_error(nothing):
    with pytest.raises(TypeError, match="takes a psycopg2 connection"):
        greenwait.cancel(nothing)


@pytest.mark.parametrize("timeout", [-1, float("nan")])
def test_timeout_that_is_no_time_is_a_value_error(connect, timeout):
    with pytest.raises(ValueError, match="timeout="):
        greenwait.cancel(connect(), timeout=timeout)


def test_connection_that_is_being_made_has_nothing_to_cancel(callback, connect):
    aconn = connect(async_=1)
    with pytest.raises(psycopg2.OperationalError, match="still connecting"):
        greenwait.cancel(aconn)
    callback(aconn)


def test_query_that_goes_on_is_cancelled_again_after_a_second(callback, connect):
    """And not ever later, however long the grace: the server may only have been busy."""
    query = (
        "do $$begin for i in 1..70 loop begin perform pg_sleep(0.1); "
        "exception when query_canceled then null; end; end loop; end$$"
    )
    most = 0
    for _ in range(3):  # on a busy machine the best one counts
        conn, before = connect(), greenwait.stats().cancels
        with contextlib.suppress(psycopg2.Error), greenwait.timeout(0.2):
            conn.cursor().execute(query)
        most = max(most, greenwait.stats().cancels - before)
        conn.close()
        if most >= 7:
            break
    # At 0, 0.05, 0.25, 1.05 s, and then in each of six seconds; by pauses that grow: five.
    assert most >= 7


def test_many_cancels_leak_nothing(callback, connect):
    conn = connect()
    greenwait.cancel(conn, timeout=20)
    with no_leaked_descriptors():
        for _ in range(50):
            greenwait.cancel(conn, timeout=20)


@needs_pace
def test_next_query_is_safe_from_a_cancel_that_comes_late(callback, connect):
    """The query ends as its deadline passes: before, while or after the cancel is sent."""
    conn = connect()
    conn.autocommit = True
    cur = conn.cursor()
    cancelled = 0
    for number in range(RUNS):
        try:
            with greenwait.timeout(bound(0.0008 + number % 50 * 0.00002)):
                cur.execute("select pg_sleep(%s)", (bound(0.001 + number % 5 * 0.002),))
        except greenwait.QueryTimeout:
            cancelled += 1
        cur.execute("select %s::int, pg_sleep(0.0002)", (number,))  # would be hit
        assert cur.fetchone()[0] == number
    assert 0 < cancelled < RUNS


@pytest.mark.skipif(not IS_ENCRYPTED, reason="this libpq sends the key in clear")
@pytest.mark.parametrize("cancel", ["deadline", "cancel"])
def test_secret_key_does_not_cross_a_tls_connection_in_clear(callback, own_server, cancel):
    with FaultProxy(own_server) as proxy:
        conn = psycopg2.connect(proxy.dsn(sslmode="require"))
        watcher = psycopg2.connect(own_server.dsn("unix"))
        pid = conn.info.backend_pid
        if cancel == "deadline":
            with pytest.raises(greenwait.QueryTimeout), greenwait.timeout(0.2):
                conn.cursor().execute("select pg_sleep(20)")
        else:
            with (
                when_asleep(watcher, conn, lambda: greenwait.cancel(conn, timeout=20)),
                pytest.raises(errors.QueryCanceled),
            ):
                conn.cursor().execute("select pg_sleep(20)")
        conn.close()
        watcher.close()
        sent = [bytes(each.to_server) for each in proxy.connections]
    assert len(sent) >= 2  # a cancel is sent again where the server takes its time
    # A CancelRequest is its code, the process's number and the key (PostgreSQL manual, 53.7).
    for stream in sent:
        assert (80877102).to_bytes(4, "big") not in stream
        assert (80877102).to_bytes(4, "big") + pid.to_bytes(4, "big") not in stream


@pytest.mark.skipif(not HAS_LIBPQ, reason="psycopg2's own cancel() keeps the GIL")
def test_frozen_postmaster_silences_nobody_and_is_given_up(callback, own_server):
    conn = psycopg2.connect(own_server.dsn("tcp"))
    conn.autocommit = True
    one(conn, "select 1")
    for _ in range(3):  # on a busy machine the best one counts
        with no_leaked_descriptors(), frozen_postmaster(own_server), silence() as others:
            began = time.monotonic()
            with pytest.raises(psycopg2.OperationalError, match=r"within 2 s"):
                greenwait.cancel(conn, timeout=2)
            assert 2 <= time.monotonic() - began < 10
        if others.longest < 1 + others.machine:
            break
    assert others.longest < 1 + others.machine
    conn.close()


@pytest.mark.skipif(not HAS_LIBPQ, reason="psycopg2's own cancel() waits by itself")
def test_deadline_around_it_and_a_signal_handler_end_it(callback, own_server):
    conn = psycopg2.connect(own_server.dsn("tcp"))
    mine = psycopg2.OperationalError("the handler's")

    def handler(*_):
        raise mine

    before = signal.signal(signal.SIGALRM, handler)
    try:
        with no_leaked_descriptors(), frozen_postmaster(own_server):
            began = time.monotonic()
            with (
                pytest.raises(greenwait.QueryTimeout, match="timeout") as expired,
                greenwait.timeout(0.1) as block,
            ):
                greenwait.cancel(conn, timeout=20)
            assert expired.value.timeout is block
            assert block.expired
            with pytest.raises(psycopg2.OperationalError, match=r"has not taken .* within 0\.1 s"):
                greenwait.cancel(conn, timeout=0.1)
            with pytest.raises(psycopg2.OperationalError) as info:
                signal.setitimer(signal.ITIMER_REAL, 0.1)
                greenwait.cancel(conn, timeout=20)
            assert time.monotonic() - began < 5
    finally:
        signal.signal(signal.SIGALRM, before)
    assert info.value is mine
    conn.close()


@pytest.mark.skipif(not HAS_LIBPQ, reason="psycopg2's own cancel() keeps the GIL")
def test_deadline_beside_a_frozen_postmaster_closes_the_connection(callback, own_server):
    """Its cancel may yet come, and must not find another query."""
    conn = psycopg2.connect(own_server.dsn("tcp"))
    one(conn, "select 1")
    greenwait.install(cancel_grace=0.5)
    with no_leaked_descriptors(), frozen_postmaster(own_server):  # which ends the request
        began = time.monotonic()
        with (
            pytest.raises(psycopg2.OperationalError, match=r"has not answered within 0\.5 s"),
            greenwait.timeout(0.2),
        ):
            conn.cursor().execute("select pg_sleep(20)")
        assert 0.7 <= time.monotonic() - began < 10
        assert conn.closed
    greenwait.uninstall()


def test_refused_cancel_lets_the_query_end_by_itself(callback, own_server):
    """The answer comes within the grace: then it stands, and the connection is usable."""
    with FaultProxy(own_server) as proxy:
        conn = psycopg2.connect(proxy.dsn())
        one(conn, "select 1")
        proxy.inject(Fault("refuse"))
        with greenwait.installed(cancel_grace=20), greenwait.timeout(0.1) as block:
            assert one(conn, "select 4 from pg_sleep(0.6)") == 4
        assert not block.expired
        proxy.clear()
        assert_usable(conn)
        conn.close()


@needs_backend_pid
def test_cancel_inside_a_query_s_own_wait_from_a_signal_handler(callback, connect, watcher):
    import signal

    conn = connect()
    before = signal.signal(signal.SIGALRM, lambda *_: greenwait.cancel(conn, timeout=20))
    try:
        with (
            when_asleep(watcher, conn, lambda: os.kill(os.getpid(), signal.SIGALRM)),
            pytest.raises(errors.QueryCanceled),
        ):
            conn.cursor().execute("select pg_sleep(20)")
    finally:
        signal.signal(signal.SIGALRM, before)
    assert_usable(conn)


@needs_backend_pid
def test_cancels_from_many_threads_at_once(callback, connect, watcher):
    conn = connect()
    failures = []

    def cancel():
        try:
            greenwait.cancel(conn, timeout=20)
        except BaseException as exc:
            failures.append(exc)

    def cancel_all():
        threads = [threading.Thread(target=cancel, daemon=True) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)

    with when_asleep(watcher, conn, cancel_all), pytest.raises(errors.QueryCanceled):
        conn.cursor().execute("select pg_sleep(20)")
    assert failures == []
    assert_usable(conn)


def test_report_says_how_it_cancels():
    if libpq_version() >= 170000 and HAS_LIBPQ:
        assert FAST_PATHS["cancel"] == "on: encrypted as the connection is"


@pytest.mark.skipif(not HAS_LIBPQ, reason="psycopg2's own cancel() is asked")
@pytest.mark.parametrize(
    ("what", "raised", "closed"),
    [
        ("ctrl-c", "KeyboardInterrupt", 2),
        ("deadline", "Operational", 2),
        ("cancel", "Operational", 0),
    ],
)
def test_without_a_descriptor_to_cancel_with_says_so(run_program, what, raised, closed):
    said = run_program("cancel_without_descriptors", what)
    assert said.startswith(raised)
    assert os.strerror(errno.EMFILE) in said
    assert said.rstrip().endswith(f"True {closed}")


@pytest.mark.skipif(not HAS_LIBPQ, reason="psycopg2's own cancel() is asked")
@pytest.mark.parametrize("context", ["hub", "asyncio", "gevent", "eventlet"])
@pytest.mark.parametrize("what", ["deadline", "cancel"])
def test_without_a_descriptor_to_cancel_with_says_so_beside_others(run_program, context, what):
    said = run_program("cancel_without_descriptors_beside_others", context, what)
    ends = {"deadline": "Operational", "cancel": ("GreenletExit", "CancelledError")}
    assert said.startswith(ends[what])
    assert os.strerror(errno.EMFILE) in said
    assert said.rstrip().endswith("True 2")
