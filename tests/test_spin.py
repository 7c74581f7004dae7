"""``spin=``: look for the answer before sleeping, only as long as that makes sense."""

import os
import textwrap
import threading
import time

import pytest
from psycopg2.extensions import set_wait_callback

import greenwait
from greenwait._sleep import POLLERS
from tests.lab.bounds import bound

# Both the server and the busy machine decide whether an answer comes in time, so hits are
# waited for, and the bounds are on what greenwait decides: how often and how long it looks.
PATIENCE = bound(30)


@pytest.fixture(params=POLLERS)
def spinning(request, connect):
    """Return a function that connects and queries with a ``spin``, and the counters from zero."""

    def register(spin, **options):
        conn = connect()
        conn.autocommit = True
        set_wait_callback(greenwait.WaitCallback(poller=request.param, spin=spin, **options))
        greenwait.stats(reset=True)
        return conn.cursor()

    return register


def query_until(cur, enough, query="select 1"):
    end = time.monotonic() + PATIENCE
    while not enough(greenwait.stats()):
        cur.execute(query)
        assert time.monotonic() < end, greenwait.stats()


def test_default_never_spins(spinning):
    cur = spinning(0.0)
    for _ in range(50):
        cur.execute("select 1")
    stats = greenwait.stats()
    assert (stats.spin_hits, stats.spin_misses, stats.seconds_spinning) == (0, 0, 0)


def test_answer_found_by_looking_is_a_hit_and_no_sleep(spinning):
    cur = spinning(0.05)
    end = time.monotonic() + PATIENCE
    hits = sleeps = 0
    while hits < 50:
        greenwait.stats(reset=True)
        cur.execute("select 1")
        stats = greenwait.stats()
        assert stats.spin_hits + stats.spin_misses == stats.waits == 1
        assert 0 < stats.seconds_spinning < PATIENCE
        if stats.spin_hits:
            hits += 1
            sleeps += stats.sleeps
        assert time.monotonic() < end, (hits, stats)
    assert sleeps <= 5


def test_late_answer_is_a_miss_after_the_time_given(spinning):
    cur = spinning(0.01)
    cur.execute("select pg_sleep(2)")
    stats = greenwait.stats()
    assert (stats.spin_hits, stats.spin_misses) == (0, 1)
    assert stats.seconds_spinning >= 0.01
    assert stats.seconds_asleep > 0.05


def test_spin_is_over_when_its_time_is(spinning):
    end = time.monotonic() + PATIENCE
    while True:  # the answer may be there when the CPU comes back to a busy machine
        cur = spinning(0.001)
        for _ in range(30):
            cur.execute("select pg_sleep(0.02)")
        stats = greenwait.stats()
        assert stats.spin_hits + stats.spin_misses == 30
        assert 0.001 * stats.spin_misses <= stats.seconds_spinning
        if stats.spin_misses > 10 and stats.seconds_spinning < 30 * 0.02:
            return
        assert time.monotonic() < end, stats


def test_automatic_spins_when_answers_are_quick(spinning):
    cur = spinning("auto")
    query_until(cur, lambda stats: stats.spin_hits >= 100)


def test_automatic_sleeps_for_the_first_answer(spinning):
    cur = spinning("auto")
    cur.execute("select 1")
    stats = greenwait.stats()
    assert (stats.spin_hits, stats.spin_misses) == (0, 0)


def test_automatic_gives_up_on_slow_answers(spinning):
    end = time.monotonic() + PATIENCE
    while True:
        cur = spinning("auto")
        for _ in range(300):
            cur.execute("select pg_sleep(0.002)")
        stats = greenwait.stats()
        # After 1, 3, 7, ... sleeps: 8 times. More, when the machine holds the client up until
        # the answer is there, which then seems quick.
        if 1 <= stats.spin_hits + stats.spin_misses < 100:
            return
        assert time.monotonic() < end, stats


def test_automatic_never_looks_longer_than_a_tenth_of_a_millisecond(spinning):
    end = time.monotonic() + PATIENCE
    while True:  # the machine may take the CPU away in a look, but not in all of them
        cur = spinning("auto")
        for _ in range(10):
            greenwait.stats(reset=True)
            cur.execute("select pg_sleep(0.002)")
            stats = greenwait.stats()
            if stats.spin_hits + stats.spin_misses == 1 and stats.seconds_spinning < 0.0005:
                return
        assert time.monotonic() < end, stats


def test_automatic_begins_again_when_answers_are_quick_again(spinning):
    cur = spinning("auto")
    for _ in range(100):
        cur.execute("select pg_sleep(0.001)")
    query_until(cur, lambda stats: stats.spin_hits >= 100)


def test_automatic_learns_for_each_connection(spinning, connect):
    quick, slow = spinning("auto"), spinning("auto")
    query_until(quick, lambda stats: stats.spin_hits >= 20)
    greenwait.stats(reset=True)
    end = time.monotonic() + PATIENCE
    slow_waits = 0
    while greenwait.stats().spin_hits < 50:
        assert time.monotonic() < end, greenwait.stats()
        for _ in range(10):
            quick.execute("select 1")
        slow.execute("select pg_sleep(0.001)")
        slow_waits += 1


@pytest.mark.skipif(
    "epoll" not in POLLERS, reason="only on Linux it is asked which CPUs a thread may use"
)
@pytest.mark.parametrize("spin", ["'auto'", "0.01"])
def test_thread_with_one_cpu_never_spins(run_python, spin):
    out = run_python(
        textwrap.dedent(f"""
            import os, sys
            import psycopg2, greenwait
            conn = psycopg2.connect(sys.argv[1])
            greenwait.install(spin={spin})
            cpus = os.sched_getaffinity(0)
            os.sched_setaffinity(0, [min(cpus)])
            cur = conn.cursor()
            for _ in range(300):
                cur.execute("select 1")
            print(greenwait.stats().spin_hits + greenwait.stats().spin_misses)
            if len(cpus) > 1:
                os.sched_setaffinity(0, cpus)
                while not greenwait.stats().spin_hits:
                    cur.execute("select 1")
        """)
    )
    assert out.split() == ["0"]


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="there is one CPU, so nobody spins")
def test_signals_are_served_during_a_long_spin(run_python):
    out = run_python(
        textwrap.dedent("""
            import signal, sys, time
            import psycopg2, greenwait
            conn = psycopg2.connect(sys.argv[1])
            conn.autocommit = True
            greenwait.install(spin=30)
            late = []
            signal.signal(signal.SIGALRM, lambda *_: late.append(time.monotonic() - due))
            for _ in range(5):  # on a busy machine the best one counts
                due = time.monotonic() + 0.3
                signal.setitimer(signal.ITIMER_REAL, 0.3)
                conn.cursor().execute("select pg_sleep(2)")
                if late[-1] < 1.5:
                    break
            print(min(late), greenwait.stats().sleeps)
        """)
    )
    late, sleeps = out.split()
    assert float(late) < 1.5
    assert int(sleeps) == 0


def test_gil_is_released_while_spinning(spinning):
    cur = spinning(30.0)

    def attempt():
        counted = 0
        done = threading.Event()

        def count():
            nonlocal counted
            while not done.is_set():
                counted += 1
                time.sleep(0.01)

        thread = threading.Thread(target=count, daemon=True)
        thread.start()
        greenwait.stats(reset=True)
        cur.execute("select pg_sleep(0.5)")
        done.set()
        thread.join()
        assert greenwait.stats().spin_hits == 1
        return counted

    counts = [attempt()]
    while counts[-1] <= 10 and len(counts) < 10:  # on a busy machine the best one counts
        counts.append(attempt())
    assert max(counts) > 10, counts


@pytest.mark.parametrize("spin", ["auto", 0.01])
def test_connecting_does_not_spin(connect, spin):
    set_wait_callback(greenwait.WaitCallback(spin=spin))
    greenwait.stats(reset=True)
    connect()
    stats = greenwait.stats()
    # But for the two queries with which psycopg2 sets a connection up.
    assert stats.spin_hits + stats.spin_misses <= stats.results_plain < stats.waits
