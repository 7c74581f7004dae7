"""``greenwait.stats()``: what greenwait has done so far, exactly and at no cost."""

import signal
import sys
import textwrap
import threading

import psycopg2
import pytest
from psycopg2.extensions import POLL_OK, POLL_READ

import greenwait
from tests.lab.asleep import when_asleep


@pytest.fixture(autouse=True)
def _from_zero():
    greenwait.stats(reset=True)


def test_stats_are_all_zero_after_a_reset():
    assert greenwait.stats() == (0,) * 10


def test_reset_returns_what_there_was(callback, connect):
    connect().cursor().execute("select 1")
    before = greenwait.stats()
    assert greenwait.stats(reset=True) == before
    assert before.waits > 2


def test_waits_sleeps_and_seconds_asleep_are_counted(callback, connect):
    conn = connect()
    conn.autocommit = True
    greenwait.stats(reset=True)
    conn.cursor().execute("select pg_sleep(2)")
    stats = greenwait.stats()
    assert stats.waits == 1
    assert stats.sleeps >= 1
    assert 0.1 <= stats.seconds_asleep < 20  # the server began before the client slept


def test_ready_answer_is_a_wait_without_a_sleep(callback, ready_stub):
    callback(ready_stub)
    assert greenwait.stats()[:3] == (1, 0, 0)


@pytest.fixture
def ready_stub():
    class Stub:
        def poll(self):
            return POLL_OK

        def fileno(self):
            raise AssertionError("nobody needs to sleep")

    return Stub()


def test_connecting_is_no_result(callback, connect):
    conn = connect()
    during_setup = greenwait.stats(reset=True)
    assert during_setup.waits > during_setup.results_plain + during_setup.results_libpq
    conn.cursor().execute("select 1")
    stats = greenwait.stats()
    assert stats.results_plain == stats.waits == 2  # BEGIN, too


def test_cancels_are_counted(callback, connect):
    conn, watcher = connect(), connect()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with (
            when_asleep(watcher, conn, lambda: signal.raise_signal(signal.SIGINT)),
            pytest.raises(KeyboardInterrupt),
        ):
            conn.cursor().execute("select pg_sleep(30)")
    finally:
        signal.signal(signal.SIGINT, before)
    assert greenwait.stats().cancels >= 1  # sent again, where the server takes its time


def test_wait_that_fails_is_a_wait_and_no_result(callback):
    class Stub:
        def poll(self):
            return POLL_READ

        def fileno(self):
            return -1

    with pytest.raises(psycopg2.OperationalError):
        callback(Stub())
    stats = greenwait.stats()
    assert (stats.waits, stats.results_plain, stats.results_libpq) == (1, 0, 0)


def test_threads_are_counted_together(callback, connect):
    conns = [connect() for _ in range(8)]
    for conn in conns:
        conn.autocommit = True
    greenwait.stats(reset=True)

    def query(conn):
        cur = conn.cursor()
        for _ in range(500):
            cur.execute("select 1")

    threads = [threading.Thread(target=query, args=(conn,), daemon=True) for conn in conns]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stats = greenwait.stats()
    assert stats.waits == 8 * 500
    assert stats.results_plain + stats.results_libpq == 8 * 500


def test_forked_child_starts_from_zero(run_python):
    out = run_python(
        textwrap.dedent("""
            import os, sys
            import psycopg2, greenwait
            greenwait.install()
            psycopg2.connect(sys.argv[1]).close()
            assert greenwait.stats().waits
            pid = os.fork()
            if not pid:
                print(tuple(greenwait.stats()) == (0,) * 10, flush=True)
                os._exit(0)
            os.waitpid(pid, 0)
            print(greenwait.stats().waits > 0)
        """)
    )
    assert out.split() == ["True", "True"]


def test_waits_leave_nothing_behind(callback, connect):
    conn = connect()
    conn.autocommit = True
    cur = conn.cursor()

    def run():
        for _ in range(2000):
            cur.execute("select 1")
            greenwait.stats()
        return sys.getallocatedblocks()

    run()
    first = run()
    assert run() - first < 20


def test_connections_leave_nothing_behind(callback, server):
    def run():
        for _ in range(60):
            conn = psycopg2.connect(server.dsn(server.transports[0]))
            conn.cursor().execute("select 1")
            conn.close()
        del conn
        return sys.getallocatedblocks()

    run()
    first = run()
    assert run() - first < 60


def test_unknown_argument_is_a_type_error():
    with pytest.raises(TypeError):
        greenwait.stats(True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
