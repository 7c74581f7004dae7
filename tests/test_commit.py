"""A commit that is interrupted: its outcome first, and if there is none, that is said."""

import contextlib
import logging
import operator
import os
import select
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from psycopg2.extensions import STATUS_READY

import greenwait
from greenwait._connections import connection
from greenwait._psycopg.state import begin_method
from greenwait.connection import Connection
from tests.lab.asleep import wait_until_asleep
from tests.lab.freezers import frozen
from tests.lab.interrupts import LIMIT, Limit, raising, send
from tests.lab.leaks import no_leaked_descriptors
from tests.lab.marks import needs_refusal
from tests.lab.postgres import Server
from tests.lab.waiting import until

pytestmark = pytest.mark.patient

# A trigger that runs at the commit, and takes as long as its row says, once it has its lock.
SLOW_COMMIT = """
create table if not exists {table} (seconds float, tag text);
create or replace function take_time() returns trigger language plpgsql as
    'begin perform pg_advisory_xact_lock(hashtext(new.tag)); perform pg_sleep(-new.seconds);
    if new.seconds < 0 then raise notice ''no''; raise division_by_zero; end if;
    perform pg_sleep(new.seconds); return null; end';
create constraint trigger takes_time after insert on {table}
    deferrable initially deferred for each row execute function take_time();
"""


def wait_for_sleeps():
    """Return when the main thread, the only one that waits, has seen to what has come before.

    Its sleeps in a wait are of 50 ms at most.
    """
    sleeps = greenwait.stats().sleeps
    until(lambda: greenwait.stats().sleeps >= sleeps + 2)


def commit(conn):
    conn.commit()


def leave_block(conn):
    with conn:
        pass


def leave_block_by_return(conn):
    with contextlib.ExitStack() as stack:
        stack.enter_context(conn)


def call_method(conn):
    operator.methodcaller("commit")(conn)


# How the callback is to know that it is a commit.
WAYS = {
    "psycopg2 commit()": (psycopg2.extensions.connection, commit),
    "psycopg2 with conn": (psycopg2.extensions.connection, leave_block),
    "Connection commit()": (Connection, commit),
    "Connection with conn": (Connection, leave_block),
    "Connection in a stack": (Connection, leave_block_by_return),
    "Connection, method called by another": (Connection, call_method),
}


class Case:
    """A connection in a transaction whose commit takes time.

    One that is *held* takes it when it has been seen at it, and not before.
    """

    def __init__(self, server, way, seconds, *, held=False):
        factory, self._commit = WAYS[way]
        self.watcher = psycopg2.connect(server.dsn("unix"))
        self.watcher.autocommit = True
        self.conn = psycopg2.connect(server.dsn("tcp"), connection_factory=factory)
        self.pid = self.conn.info.backend_pid
        for _ in range(100):  # CPython specialises what it has executed often
            self._commit(self.conn)
        self.tag = f"{way} {time.monotonic_ns()}"
        self.table = f"slow_{abs(hash(self.tag))}"
        self.watcher.cursor().execute(SLOW_COMMIT.format(table=self.table))
        self.conn.cursor().execute(f"insert into {self.table} values (%s, %s)", (seconds, self.tag))
        self.held = held
        if held:
            self.hold("pg_advisory_lock")

    def hold(self, function):
        self.watcher.cursor().execute(f"select {function}(hashtext(%s))", (self.tag,))

    def commit(self, meanwhile: Any = None) -> None:
        """Commit; *meanwhile* is done as soon as the server is at it."""

        def act():
            wait_until_asleep(self.watcher, self.pid)
            meanwhile()
            if self.held:
                self.hold("pg_advisory_unlock")

        thread = threading.Thread(target=act if meanwhile else lambda: None, daemon=True)
        thread.start()
        try:
            self._commit(self.conn)
            sum(range(100))  # the interpreter looks here at the latest
        finally:
            thread.join(30)
            assert not thread.is_alive()

    def is_committed(self):
        cur = self.watcher.cursor()
        cur.execute(f"select count(*) from {self.table} where tag = %s", (self.tag,))
        return cur.fetchall() == [(1,)]

    def close(self):
        self.conn.close()
        self.watcher.close()


@pytest.fixture(params=WAYS)
def case(request, own_server, callback):
    """Return a function that makes a case, for each way to commit."""
    assert isinstance(own_server, Server)
    cases = []

    def make(seconds, **options):
        cases.append(Case(own_server, request.param, seconds, **options))
        return cases[-1]

    yield make
    for each in cases:
        each.close()


@needs_refusal
def test_interrupted_commit_stands_and_the_interrupt_is_delivered_after(case, on_signal):
    case = case(0.1, held=True)
    on_signal(signal.SIGALRM, raising(LIMIT))
    greenwait.install(cancel_grace=20)
    cancels = greenwait.stats().cancels
    with pytest.raises(Limit) as info:
        case.commit(send(signal.SIGALRM))
    greenwait.uninstall()
    assert info.value is LIMIT
    assert case.is_committed()
    assert greenwait.stats().cancels == cancels
    assert case.conn.status == STATUS_READY
    case.conn.cursor().execute("select 1")


def test_commit_past_its_deadline_stands(case):
    case = case(0.3)
    with greenwait.installed(cancel_grace=20), greenwait.timeout(0.05) as block:
        case.commit()
    assert case.is_committed()
    assert not block.expired
    case.conn.cursor().execute("select 1")


@pytest.mark.parametrize("cause", ["deadline", "interrupt"])
def test_commit_without_an_answer_is_in_doubt(case, on_signal, cause):
    case = case(20)
    on_signal(signal.SIGALRM, raising(LIMIT))
    seconds = 0.2 if cause == "deadline" else None
    began = time.monotonic()
    with (
        no_leaked_descriptors(),
        greenwait.installed(cancel_grace=0.3),
        pytest.raises(greenwait.CommitInDoubt, match="may or may not have been committed") as info,
        greenwait.timeout(seconds),
    ):
        case.commit(send(signal.SIGALRM) if cause == "interrupt" else None)
        case.conn.close()
    assert time.monotonic() - began < 10
    assert isinstance(info.value, psycopg2.OperationalError)
    assert (info.value.__cause__ is LIMIT) == (cause == "interrupt")
    assert case.conn.closed


def test_commit_on_a_frozen_server_is_in_doubt(case):
    case = case(0)
    with (
        frozen(case.pid),
        greenwait.installed(cancel_grace=0.2),
        greenwait.timeout(0.1),
        pytest.raises(greenwait.CommitInDoubt),
    ):
        case.commit()
    assert case.conn.closed


def test_commit_whose_connection_is_lost_is_in_doubt(case):
    case = case(20)
    stop = lambda: case.watcher.cursor().execute(f"select pg_terminate_backend({case.pid})")  # noqa: E731
    by_itself = type(case.conn) is not Connection
    with pytest.raises(psycopg2.OperationalError) as info:
        case.commit(stop)
    # The server's last words are an answer, to psycopg2: only our class knows better.
    assert isinstance(info.value, greenwait.CommitInDoubt) or by_itself
    assert case.conn.closed
    assert not case.is_committed()


def test_commit_whose_connection_is_lost_is_in_doubt_without_a_callback_too(own_server):
    psycopg2.extensions.set_wait_callback(None)
    case = Case(own_server, "Connection commit()", 20)
    stop = lambda: case.watcher.cursor().execute(f"select pg_terminate_backend({case.pid})")  # noqa: E731
    with contextlib.closing(case), pytest.raises(greenwait.CommitInDoubt, match="lost"):
        case.commit(stop)


def test_doubt_is_not_lost_to_the_log(own_server, callback, caplog):
    """A lost connection is not logged: an interrupt there would replace the doubt."""
    caplog.set_level(logging.DEBUG, "greenwait")
    case = Case(own_server, "Connection commit()", 20)
    stop = lambda: case.watcher.cursor().execute(f"select pg_terminate_backend({case.pid})")  # noqa: E731
    with contextlib.closing(case), pytest.raises(greenwait.CommitInDoubt, match="lost"):
        case.commit(stop)
    assert caplog.messages == []


def test_commit_that_is_not_seen_to_be_one_is_cancelled_as_any_query(own_server, callback):
    case = Case(own_server, "psycopg2 commit()", 20)
    with contextlib.closing(case):
        with pytest.raises(greenwait.QueryTimeout), greenwait.timeout(0.2):
            for _ in iter(case.conn.commit, "called by the loop itself"):
                break
        assert not case.conn.closed
        assert not case.is_committed()


def test_second_interrupt_of_a_commit_is_raised_and_tells_of_the_doubt(case, on_signal):
    case = case(20)
    handled = threading.Event()

    def handler(number, frame):
        handled.set()
        raise Limit

    on_signal(signal.SIGALRM, handler)

    def twice():
        os.kill(os.getpid(), signal.SIGALRM)
        assert handled.wait(20)
        wait_for_sleeps()
        os.kill(os.getpid(), signal.SIGALRM)

    package = Path(greenwait.__file__).parent
    called = set()

    def profile(frame, event, arg):
        path = Path(frame.f_code.co_filename)
        if handled.is_set() and event == "call" and path.parent == package:
            called.add(path.name)

    began = time.monotonic()
    with greenwait.installed(cancel_grace=30), pytest.raises(Limit) as info:
        sys.setprofile(profile)
        try:
            case.commit(twice)
        finally:
            sys.setprofile(None)
    assert time.monotonic() - began < 10
    assert isinstance(info.value.__cause__, greenwait.CommitInDoubt)
    assert case.conn.closed
    # A third signal would strike in Python code, and the two before it would be lost: but for the
    # log, where the three are chained (tests/test_log.py).
    assert called <= {"_caller.py", "_stop_log.py"}


@pytest.mark.parametrize("kind", [Limit, KeyboardInterrupt])
def test_interrupt_of_a_commit_past_its_deadline_tells_of_the_doubt(case, on_signal, kind):
    """A QueryTimeout would say that nothing was committed."""
    case = case(20)
    interrupt = kind()
    on_signal(signal.SIGALRM, raising(interrupt))

    def strike():
        time.sleep(0.5)  # the deadline is looked at when it passes
        wait_for_sleeps()
        os.kill(os.getpid(), signal.SIGALRM)

    began = time.monotonic()
    with (
        greenwait.installed(cancel_grace=30),
        pytest.raises((greenwait.CommitInDoubt, kind)) as info,
        greenwait.timeout(0.1),
    ):
        case.commit(strike)
    assert time.monotonic() - began < 10
    if kind is Limit:
        assert isinstance(info.value, greenwait.CommitInDoubt)
        assert info.value.__context__ is info.value.__cause__ is interrupt
    else:
        assert info.value is interrupt
        assert isinstance(interrupt.__cause__, greenwait.CommitInDoubt)
        interrupt.__cause__ = None
    assert case.conn.closed


def test_commit_that_the_server_refuses_is_no_doubt(case):
    case = case(-0.01)
    with pytest.raises(psycopg2.errors.DivisionByZero):
        case.commit()
    assert not case.conn.closed
    assert not case.is_committed()
    case.conn.cursor().execute("select 1")


def test_interrupt_before_a_commit_begins_is_forgotten_with_it(connect, callback, monkeypatch):
    def begin(conn, kind, keeps_interrupt):
        begin_method(conn, kind, keeps_interrupt)
        raise Limit

    conn = connect(connection_factory=Connection)
    conn.cursor().execute("select 1")
    monkeypatch.setattr(connection, "begin_method", begin)
    with pytest.raises(Limit):
        conn.commit()
    monkeypatch.undo()
    with pytest.raises(greenwait.QueryTimeout), greenwait.timeout(0.05):
        conn.cursor().execute("select pg_sleep(20)")


def test_interrupted_commit_that_the_server_refuses_swallows_nothing(case, on_signal, capfd):
    case = case(-0.1, held=True)
    on_signal(signal.SIGALRM, raising(LIMIT))
    with greenwait.installed(cancel_grace=20), pytest.raises(Limit) as info:
        case.commit(send(signal.SIGALRM))
    assert info.value is LIMIT
    assert isinstance(info.value.__context__, psycopg2.errors.DivisionByZero)
    info.value.__context__ = None
    assert not case.conn.closed
    assert not case.is_committed()
    assert capfd.readouterr() == ("", "")
    case.conn.rollback()
    case.conn.cursor().execute("select 1")


def test_interrupted_rollback_is_done_and_the_interrupt_is_delivered_after(
    own_server, callback, on_signal
):
    """Of the transaction nothing is left, in psycopg2's opinion and the server's."""
    on_signal(signal.SIGALRM, raising(LIMIT))
    alarmed = []

    class Alarmed(Connection):
        armed = False

        def fileno(self):
            if self.armed and not alarmed:
                alarmed.append(True)
                signal.raise_signal(signal.SIGALRM)
            return super().fileno()

    conn: Any = psycopg2.connect(own_server.dsn("unix"), connection_factory=Alarmed)
    with contextlib.closing(conn):
        for _ in range(20):
            conn.cursor().execute("create temp table passing (number int)")
            alarmed.clear()
            conn.armed = True
            with pytest.raises(Limit):
                conn.rollback()
                sum(range(100))
            conn.armed = False
            assert alarmed
            assert conn.info.transaction_status == 0


CLASSES = [psycopg2.extensions.connection, Connection]


@pytest.mark.parametrize("kind", CLASSES, ids=["psycopg2", "greenwait"])
def test_session_that_was_ended_while_it_was_idle_has_committed_nothing(
    connect, callback, kind, own_server
):
    conn = psycopg2.connect(own_server.dsn("tcp"), connection_factory=kind)
    with contextlib.closing(conn):
        conn.cursor().execute(
            "create table if not exists never (n int);set idle_in_transaction_session_timeout = 100"
        )
        assert select.select([conn], [], [], 20)[0]  # it has been ended
        with pytest.raises(psycopg2.OperationalError, match="nothing was committed") as info:
            conn.commit()
        assert not isinstance(info.value, greenwait.CommitInDoubt)
        assert "SQLSTATE 25P03" in str(info.value)
        assert "idle-in-transaction timeout" in str(info.value)
        assert conn.closed


@pytest.mark.parametrize("kind", CLASSES, ids=["psycopg2", "greenwait"])
def test_commit_in_doubt_has_the_server_s_last_words(connect, callback, kind, own_server):
    """A constraint trigger holds the commit until the session is ended."""
    watcher = psycopg2.connect(own_server.dsn("tcp"))
    watcher.autocommit = True
    conn = psycopg2.connect(own_server.dsn("tcp"), connection_factory=kind)
    with contextlib.closing(conn), contextlib.closing(watcher):
        conn.cursor().execute("""
            create temp table orders (number int);
            create function pg_temp.slow() returns trigger language plpgsql as
                'begin perform pg_sleep(20); return null; end';
            create constraint trigger slow after insert on orders
                deferrable initially deferred for each row execute function pg_temp.slow();
            insert into orders values (1);
        """)
        pid = conn.info.backend_pid

        def end():
            wait_until_asleep(watcher, pid)
            watcher.cursor().execute("select pg_terminate_backend(%s)", (pid,))

        thread = threading.Thread(target=end)
        thread.start()
        with pytest.raises(greenwait.CommitInDoubt, match="SQLSTATE 57P01") as info:
            conn.commit()
        thread.join(20)
        assert "administrator command" in str(info.value)
        assert isinstance(info.value.__cause__, psycopg2.OperationalError)
