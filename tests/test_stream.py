"""Large answers, received by libpq without the GIL: nothing but the speed may be different."""

import json
import signal
import threading
import time
from itertools import pairwise

import pytest
from psycopg2.extensions import connection

import greenwait
from greenwait._psycopg.libpq import FAST_PATHS
from greenwait._sleep import POLLERS
from tests.lab.servers import POOL_MODE

IS_NATIVE = FAST_PATHS["receive"] == "on"
LARGE = "select g, repeat('x', 100) from generate_series(1, 20000) g"
# Streamed: the rows before the event have been sent, and partly received, when it comes.
STREAM = "select g, {event}, repeat('x', 100) from (select generate_series(1, 20000) g) s"

SITUATIONS = {
    "rows": f'cur.execute("{LARGE}"); tell(cur.rowcount, cur.fetchall()[-1])',
    "value": "cur.execute(\"select repeat('x', 5000000)\"); tell(len(cur.fetchone()[0]))",
    "statement": "cur.execute('select length(%s)', ('x' * 5000000,)); tell(cur.fetchone())",
    "statement and answer": "cur.execute('select %s', ('x' * 5000000,)); "
    "tell(len(cur.fetchone()[0]))",
    "named cursor": f'named = conn.cursor("c"); named.itersize = 20000; named.execute("{LARGE}"); '
    "tell(sum(row[0] for row in named))",
    "several statements": f'cur.execute("select 1; {LARGE}; {LARGE}; select 2"); '
    "tell(cur.fetchall(), cur.statusmessage)",
    "empty statements": f'cur.execute(";;{LARGE};;"); tell(cur.rowcount)',
    "no rows": f'cur.execute("create temp table t as {LARGE}"); tell(cur.rowcount)',
    "notices": "cur.execute(\"do $$ begin for i in 1..20000 loop raise notice 'n % %', i, "
    "repeat('x', 20); end loop; end $$\"); tell(len(conn.notices), conn.notices[-1])",
    "notices between": f"cur.execute(\"do $$ begin raise notice 'first'; end $$; {LARGE}; "
    "do $$ begin raise warning 'last'; end $$\"); tell(conn.notices)",
    "notifies": "conn.autocommit = True; cur.execute('listen channel'); "
    f"cur.execute(\"notify channel, 'one'; {LARGE}; notify channel, 'two'; {LARGE}\"); "
    "tell([n.payload for n in conn.notifies], cur.rowcount)",
    "copy to": f'attempt("copy ({LARGE}) to stdout")',
    "copy after rows": f'attempt("{LARGE}; copy ({LARGE}) to stdout")',
    "copy from": 'attempt("copy pg_class from stdin")',
    "error in the stream": f'attempt("{STREAM.format(event="1 / (15000 - g)")}")',
    "error after a result": f'attempt("{LARGE}; select 1 / 0; {LARGE}")',
    "two errors": f'attempt("{LARGE}; select nothing; select 1 / 0")',
    "terminated": 'attempt("'
    + STREAM.format(event="case when g = 15000 then pg_terminate_backend(pg_backend_pid()) end")
    + '")',
    "cancelled": 'attempt("'
    + STREAM.format(event="case when g = 15000 then pg_cancel_backend(pg_backend_pid()) end")
    + '")',
}

# In green mode psycopg2 refuses COPY in execute(), reports the first error of several, and
# does not hear a dying server's last words.
UNLIKE_BLOCKING = {"copy to", "copy after rows", "copy from", "two errors", "terminated"}


@pytest.fixture
def play(run_program, transport):
    """Return a function that plays all situations and returns what the program saw of each."""

    def run(callback, *, plain=False):
        with pytest.MonkeyPatch.context() as patch:
            if plain:
                patch.setenv("GREENWAIT_NO_LIBPQ", "1")
            said = run_program("situations", callback, json.dumps(SITUATIONS), transport=transport)
        seen, streamed = json.loads(said)
        assert (streamed > 10) == (IS_NATIVE and not plain and callback != "blocking")
        return seen

    return run


def test_libpq_path_gives_what_the_plain_path_gives(play):
    plain = play("poll", plain=True)
    # Without libpq, a COPY that was begun can't be ended.
    alike = SITUATIONS.keys() - {"copy to", "copy after rows", "copy from"}
    if POOL_MODE is not None:  # it does not pass on what the server says last
        alike -= {"terminated"}
    for callback in POLLERS:
        seen = play(callback)
        assert {name: seen[name] for name in alike} == {name: plain[name] for name in alike}


def test_libpq_path_gives_what_blocking_psycopg2_gives(play):
    green, blocking = play("poll"), play("blocking")
    alike = SITUATIONS.keys() - UNLIKE_BLOCKING
    assert {name: green[name] for name in alike} == {name: blocking[name] for name in alike}


def test_large_answer_takes_the_libpq_path_and_a_small_one_the_plain(callback, connect):
    conn = connect()
    cur = conn.cursor()
    greenwait.stats(reset=True)
    cur.execute("select 1")  # and BEGIN
    assert greenwait.stats()[6:8] == (2, 0)
    cur.execute(LARGE)
    assert greenwait.stats()[6:8] == ((2, 1) if IS_NATIVE else (3, 0))


def test_async_connection_takes_the_plain_path(callback, connect):
    conn = connect(async_=1)
    callback(conn)
    cur = conn.cursor()
    greenwait.stats(reset=True)
    cur.execute(LARGE)
    callback(conn)
    assert cur.rowcount == 20000
    assert greenwait.stats().results_libpq == 0


def test_subclass_that_polls_by_itself_takes_the_plain_path(callback, connect):
    class Counting(connection):
        polls = 0

        def poll(self):
            self.polls += 1
            return super().poll()

    conn = connect(connection_factory=Counting)
    conn.cursor().execute(LARGE)
    assert conn.polls > 20


def test_connection_that_was_given_a_poll_takes_the_plain_path(callback, connect):
    class Open(connection):
        pass

    polls = []
    conn = connect(connection_factory=Open)
    own = conn.poll

    def poll():
        polls.append(1)
        return own()

    conn.poll = poll
    conn.cursor().execute(LARGE)
    assert len(polls) > 20


def test_subclass_without_a_poll_of_its_own_takes_the_libpq_path(callback, connect):
    class Other(connection):
        pass

    conn = connect(connection_factory=Other)
    greenwait.stats(reset=True)
    conn.cursor().execute(LARGE)
    assert greenwait.stats().results_libpq == IS_NATIVE


def test_signal_is_served_while_data_keeps_coming(run_program, transport):
    """The descriptor is ready again and again, so that no sleep is ever interrupted."""
    out = run_program("signals_while_receiving", transport=transport)
    late = [float(word) for word in out.split()]
    assert len(late) == 8
    assert late[3] < 0.4  # the bound is 0.1; the machine is busy
    assert late[-1] < 5


def test_ctrl_c_stops_a_result_that_is_being_received(callback, connect, run_program):
    out = run_program("ctrl_c_while_receiving")
    assert out.split() == ["(2,)", "True"]


def test_other_threads_run_while_a_value_arrives(callback, connect):
    """A hundred megabytes; blocking psycopg2 holds the GIL for none of it, the plain path for all.

    What is measured is the share of the looks, not a time: a machine that stands still
    stands still for both. Where it does so for longer than all the rest takes, it is tried again.
    """
    cur = connect().cursor()
    cur.execute("select 1")

    def attempt():
        looks = []
        begun, done = threading.Event(), threading.Event()

        def look():
            while not done.is_set():
                looks.append(time.perf_counter())
                begun.set()
                time.sleep(0.001)
            looks.append(time.perf_counter())

        thread = threading.Thread(target=look, daemon=True)
        thread.start()
        begun.wait(20)
        began = time.perf_counter()
        cur.execute("select repeat('x', 100000000)")
        took = time.perf_counter() - began
        done.set()
        thread.join()
        silence = max(b - a for a, b in pairwise(looks) if b > began)
        return silence / max(took, 0.1)

    shares = [attempt()]
    while IS_NATIVE and shares[-1] >= 0.5 and len(shares) < 8:
        shares.append(attempt())
    assert not IS_NATIVE or min(shares) < 0.5, shares


def test_threads_receive_large_answers_at_once(callback, connect, transport):
    conns = [connect(transport) for _ in range(8)]
    sums = []

    def query(conn):
        cur = conn.cursor()
        for _ in range(3):
            cur.execute(LARGE)
            sums.append(sum(row[0] for row in cur))

    threads = [threading.Thread(target=query, args=(conn,), daemon=True) for conn in conns]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(50)
    assert sums == [20000 * 20001 // 2] * 24


def test_handler_that_queries_another_connection_does_not_disturb_the_stream(callback, connect):
    conn, other = connect(), connect()
    answers = []

    def query(*_):
        cur = other.cursor()
        cur.execute(LARGE)
        answers.append(cur.rowcount)
        signal.setitimer(signal.ITIMER_REAL, 0.2)  # the next one must not interrupt this one

    before = signal.signal(signal.SIGALRM, query)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        cur = conn.cursor()
        for _ in range(5):
            cur.execute("select generate_series(1, 200000), repeat('x', 100)")
            assert sum(row[0] for row in cur) == 200000 * 200001 // 2
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert set(answers) == {20000}
