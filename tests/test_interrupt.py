"""What ends a wait early: the query stops, the caller gets the exception, and goes on."""

import codecs
import os
import random
import signal
import threading
import time

import greenlet
import psycopg2
import pytest
from psycopg2 import errors

import greenwait
from greenwait._sleep import POLLERS
from tests.lab.asleep import again_until, wait_until_asleep, when_asleep
from tests.lab.freezers import frozen
from tests.lab.interrupts import (
    DEAF,
    DEAF_AND_LOUD,
    FAILING,
    FAILING_AND_LOUD,
    LIMIT,
    Limit,
    raising,
    send,
)
from tests.lab.leaks import no_leaked_descriptors
from tests.lab.marks import needs_its_own_tracer, needs_refusal, needs_session
from tests.lab.postgres import Server
from tests.lab.queries import assert_stops, assert_usable, one
from tests.lab.waiting import until, when_waiting

pytestmark = pytest.mark.patient

GRACE = 20  # seconds, on a busy machine
CALLBACKS = {
    poller: greenwait.WaitCallback(poller=poller, cancel_grace=GRACE) for poller in POLLERS
} | {"spinning": greenwait.WaitCallback(spin=0.001, cancel_grace=GRACE)}


def interrupted(conn, watcher, query, action):
    """Execute *query*, run *action* once the server sleeps in it; return the exception, the delay.

    Both of the moment at which the caller has it.
    """
    acted = []

    def act():
        acted.append(time.monotonic())
        action()

    cur = conn.cursor()
    with when_asleep(watcher, conn, act):
        try:
            cur.execute(query)
            sum(range(100))  # the interpreter looks here at the latest
        except BaseException as exc:
            return exc, time.monotonic() - acted[0]
    pytest.fail("nothing was raised")


def assert_interrupted(conn, watcher, query):
    """LIMIT is raised, be it in the handler of the query's own failure."""
    try:
        caught, _ = interrupted(conn, watcher, query, send(signal.SIGALRM))
    except Limit as exc:
        caught = exc
    assert caught is LIMIT


# -- Ctrl-C, and whatever a handler raises


def test_ctrl_c_stops_the_query_within_a_tenth_of_a_second(conn, connect, watcher):
    pid = conn.info.backend_pid
    exc, delay = interrupted(conn, connect(), "select pg_sleep(10)", send(signal.SIGINT))
    assert type(exc) is KeyboardInterrupt
    assert delay < 5  # the promise is 0.1, on a machine that does nothing else
    assert_stops(watcher, pid)
    assert_usable(conn)


def test_ctrl_c_is_typically_heard_within_a_tenth_of_a_second(connect, watcher, callback):
    conn = connect()
    delays = []
    while min(delays, default=1) >= 0.1 and len(delays) < 20:
        delays.append(interrupted(conn, watcher, "select pg_sleep(10)", send(signal.SIGINT))[1])
        conn.rollback()
    assert min(delays) < 0.1


@pytest.mark.parametrize(
    "raised",
    [
        LIMIT,
        SystemExit(3),
        GeneratorExit(),
        TimeoutError("alarm"),
        psycopg2.OperationalError("of the handler's own"),
        errors.QueryCanceled("of the handler's own"),
        greenwait.QueryTimeout("of the handler's own"),
    ],
    ids=lambda raised: type(raised).__name__,
)
def test_exception_of_a_handler_is_what_the_caller_gets(
    callback, connect, watcher, on_signal, raised
):
    conn = connect()
    pid = conn.info.backend_pid
    on_signal(signal.SIGALRM, raising(raised))
    exc, _ = interrupted(conn, connect(), "select pg_sleep(10)", send(signal.SIGALRM))
    assert exc is raised
    assert_stops(watcher, pid)
    assert_usable(conn)


@needs_refusal
@pytest.mark.parametrize("chosen", CALLBACKS)
@pytest.mark.parametrize("transport", ["unix", "tls"])
@pytest.mark.parametrize("query", [DEAF, DEAF_AND_LOUD], ids=["silent", "with a notice"])
def test_query_that_succeeds_all_the_same_swallows_nothing(
    chosen, server, transport, query, connect, watcher, on_signal
):
    if transport not in server.transports:
        pytest.skip("the server of GREENWAIT_TEST_DSN is reached in one way only")
    on_signal(signal.SIGALRM, raising(LIMIT))
    psycopg2.extensions.set_wait_callback(CALLBACKS[chosen])
    conn = connect(transport)
    conn.autocommit = True
    exc, _ = again_until(
        lambda: one(conn, "select current_setting('greenwait.deaf', true)") == "yes",
        conn,
        lambda: interrupted(conn, watcher, query, send(signal.SIGALRM)),
    )
    assert exc is LIMIT
    assert_usable(conn)


@pytest.mark.parametrize("query", [FAILING, FAILING_AND_LOUD], ids=["silent", "with a notice"])
def test_query_that_fails_for_its_own_reason_swallows_nothing(
    callback, connect, watcher, on_signal, query
):
    on_signal(signal.SIGALRM, raising(LIMIT))
    conn = connect()

    def attempt():
        LIMIT.__context__ = None
        assert_interrupted(conn, watcher, query)

    again_until(lambda: isinstance(LIMIT.__context__, errors.DivisionByZero), conn, attempt)
    LIMIT.__context__ = None
    assert_usable(conn)


@pytest.mark.parametrize(
    "execute",
    [
        lambda conn: conn.cursor().executemany("select pg_sleep(%s)", [(0,), (20,), (0,)]),
        lambda conn: conn.cursor().callproc("pg_sleep", (20,)),
        lambda conn: named_fetch(conn),
        lambda conn: with_connection(conn),
    ],
    ids=["executemany", "callproc", "named cursor", "with connection"],
)
def test_every_call_that_waits_raises_it(callback, connect, watcher, on_signal, execute):
    conn = connect()
    on_signal(signal.SIGALRM, raising(LIMIT))
    with when_asleep(watcher, conn, send(signal.SIGALRM)), pytest.raises(Limit):
        execute(conn)
    assert_usable(conn)


def named_fetch(conn):
    cur = conn.cursor("named")
    cur.execute("select pg_sleep(20)")
    cur.fetchone()


def with_connection(conn):
    with conn, conn.cursor() as cur:
        cur.execute("select pg_sleep(20)")


class Switching(psycopg2.extensions.connection):
    """Waits as an adapter does: by stepping aside."""

    steps_aside = False

    def fileno(self):
        if self.steps_aside:
            parent = greenlet.getcurrent().parent
            assert parent
            parent.switch()
        return super().fileno()


def test_exception_thrown_into_a_waiting_greenlet_is_what_the_caller_gets(
    connect, watcher, callback
):
    conn = connect(connection_factory=Switching)
    one(conn, "select 1")
    caught = []

    def run():
        try:
            conn.cursor().execute("select pg_sleep(20)")
        except BaseException as exc:
            caught.append(exc)

    job = greenlet.greenlet(run)
    conn.steps_aside = True
    job.switch()
    conn.steps_aside = False
    wait_until_asleep(watcher, conn.info.backend_pid)
    job.throw(LIMIT)
    assert caught == [LIMIT]
    assert_usable(conn)


def test_interrupts_of_many_threads_reach_their_own(callback, connect):
    """Each thread has its own deadline, at about the same time as the others'."""
    conns = [connect() for _ in range(6)]
    found = {}

    def run(number, conn):
        try:
            for _ in range(10):
                with (
                    pytest.raises(greenwait.QueryTimeout) as info,
                    greenwait.timeout(0.05) as block,
                ):
                    conn.cursor().execute(f"select pg_sleep(20), {number}")
                assert info.value.timeout is block
                assert_usable(conn)
            found[number] = None
        except BaseException as exc:
            found[number] = exc

    threads = [threading.Thread(target=run, args=each, daemon=True) for each in enumerate(conns)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(50)
    assert found == dict.fromkeys(range(6))


def test_query_within_psycopg2_s_call_does_not_take_it_away(
    callback, connect, watcher, on_signal, monkeypatch
):
    """Python code that decodes an error's message queries; so may a __del__ in that moment."""
    conn, other = connect(), connect()
    answers = []

    def decode(text, errors="strict"):
        answers.append(one(other, "select 6 * 7"))
        return codecs.latin_1_decode(text, errors)

    def asking(name):
        return codecs.CodecInfo(codecs.latin_1_encode, decode) if name == "asking" else None

    def attempt():
        LIMIT.__context__ = None
        answers.clear()
        assert_interrupted(conn, watcher, FAILING)

    codecs.register(asking)
    monkeypatch.setitem(psycopg2.extensions.encodings, "LATIN1", "asking")
    try:
        conn.set_client_encoding("LATIN1")
        on_signal(signal.SIGALRM, raising(LIMIT))
        again_until(lambda: isinstance(LIMIT.__context__, errors.DivisionByZero), conn, attempt)
    finally:
        codecs.unregister(asking)
    LIMIT.__context__ = None
    assert answers
    assert set(answers) == {42}
    assert_usable(conn)


@needs_refusal
@needs_session
def test_interrupt_while_notifications_follow_the_result_costs_nothing(
    callback, connect, on_signal
):
    """psycopg2 has the result then, and libpq maybe all of the answer, which has no more to say."""
    conn = connect()
    conn.autocommit = True
    conn.cursor().execute("listen following")
    query = "select pg_notify('following', n::text) from generate_series(1, 2000) n"
    on_signal(signal.SIGALRM, raising(LIMIT))
    began = time.monotonic()
    conn.cursor().execute(query)
    took, rng = time.monotonic() - began, random.Random(1)
    for _ in range(60):
        del conn.notifies[:]
        try:
            signal.setitimer(signal.ITIMER_REAL, took * rng.uniform(0.2, 1))
            conn.cursor().execute(query)
            until(lambda: signal.getitimer(signal.ITIMER_REAL)[0] == 0)
            pytest.fail("nothing was raised")
        except Limit:
            assert not conn.closed
        assert len(conn.notifies) in (0, 2000)


@needs_refusal
def test_interrupt_that_is_swallowed_reaches_no_other_greenlet(connect, watcher, callback):
    """In a thread it may strike the code that psycopg2 calls for a notification, and is lost."""

    conn, other = connect(connection_factory=Switching), connect()
    conn.autocommit = True
    conn.cursor().execute("listen swallowing")
    answers, caught = [], []

    def run():
        try:
            conn.cursor().execute(f"notify swallowing; {DEAF}")
        except BaseException as exc:
            caught.append(exc)

    def work():
        job = greenlet.greenlet(run)
        conn.steps_aside = True
        job.switch()
        conn.steps_aside = False
        wait_until_asleep(watcher, conn.info.backend_pid)
        try:
            job.throw(LIMIT)
            answers.append(one(other, "select 6 * 7"))
        except BaseException as exc:
            caught.append(exc)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(50)
    assert answers == [42]
    assert caught in ([], [LIMIT])  # it may have come before the end of the query
    assert_usable(conn)


@needs_refusal
def test_interrupt_of_a_greenlet_without_python_code_comes_out_of_it(connect, watcher, callback):
    """Its query succeeds, and it has no code of its own to raise anything in."""
    conn, other = connect(connection_factory=Switching), connect()
    conn.autocommit = True

    def attempt():
        one(conn, "select 1")
        job = greenlet.greenlet(conn.cursor().execute)
        conn.steps_aside = True
        job.switch(DEAF)
        conn.steps_aside = False
        wait_until_asleep(watcher, conn.info.backend_pid)
        with pytest.raises(Limit):
            job.throw(LIMIT)
        assert job.dead

    again_until(
        lambda: one(conn, "select current_setting('greenwait.deaf', true)") == "yes", conn, attempt
    )
    assert one(other, "select 6 * 7") == 42
    assert_usable(conn)


@needs_its_own_tracer
def test_traced_code_gets_it_too(run_program):
    """That of a debugger, or of coverage.py."""
    assert run_program("traced", DEAF_AND_LOUD) == "it was raised\n"


def test_server_s_own_cancel_is_still_psycopg2_s_own_error(callback, connect, watcher):
    conn = connect()
    with pytest.raises(greenwait.QueryTimeout), greenwait.timeout(0.01):
        conn.cursor().execute("select pg_sleep(20)")
    conn.rollback()
    stop = f"select pg_cancel_backend({conn.info.backend_pid})"
    with (
        when_asleep(watcher, conn, lambda: one(watcher, stop)),
        pytest.raises(errors.QueryCanceled, match="user request") as info,
    ):
        conn.cursor().execute("select pg_sleep(20)")
    assert type(info.value) is errors.QueryCanceled
    assert errors.lookup("57014") is errors.QueryCanceled
    assert_usable(conn)


# -- A server that does not answer


@pytest.fixture
def freezable(own_server, callback):
    """A connection to a server whose processes may be frozen, and the server process's pid."""
    assert isinstance(own_server, Server)
    conn = psycopg2.connect(own_server.dsn("tcp"))
    yield conn, conn.info.backend_pid
    conn.close()


def test_second_ctrl_c_gives_up_at_once(freezable):
    conn, pid = freezable
    psycopg2.extensions.set_wait_callback(greenwait.WaitCallback(cancel_grace=30))
    one(conn, "select 1")
    times = []
    cancels = greenwait.stats().cancels

    def interrupt_twice():
        os.kill(os.getpid(), signal.SIGINT)
        until(lambda: greenwait.stats().cancels > cancels)
        time.sleep(0.4)
        times.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    with frozen(pid), no_leaked_descriptors():
        with when_waiting(interrupt_twice), pytest.raises(KeyboardInterrupt):
            conn.cursor().execute("select 1")
        delay = time.monotonic() - times[-1]
        conn.close()
    assert delay < 5  # the promise is 0.1; the grace would be 30
    assert conn.closed


def test_interrupt_of_a_frozen_server_is_raised_after_the_grace(freezable, on_signal):
    conn, pid = freezable
    psycopg2.extensions.set_wait_callback(greenwait.WaitCallback(cancel_grace=0.3))
    on_signal(signal.SIGALRM, raising(LIMIT))
    one(conn, "select 1")
    sent = []

    def interrupt():
        sent.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGALRM)

    with frozen(pid):
        with when_waiting(interrupt), pytest.raises(Limit) as info:
            conn.cursor().execute("select 1")
        took = time.monotonic() - sent[0]
    assert info.value is LIMIT
    assert 0.3 <= took < 10
    assert conn.closed


def test_connection_lost_while_it_drains_does_not_hide_the_interrupt(freezable, on_signal):
    conn, pid = freezable
    psycopg2.extensions.set_wait_callback(greenwait.WaitCallback(cancel_grace=20))
    one(conn, "select 1")

    def handler(*_):
        os.kill(pid, signal.SIGTERM)  # its last words come instead of an answer
        raise Limit

    on_signal(signal.SIGALRM, handler)
    watcher = psycopg2.connect(dsn=conn.dsn, password="unused")
    try:
        with when_asleep(watcher, conn, send(signal.SIGALRM)), pytest.raises(Limit):
            conn.cursor().execute("select pg_sleep(20)")
            sum(range(100))
    finally:
        watcher.close()


@pytest.mark.parametrize("grace", [0, 0.001, 20])
def test_connection_that_is_waited_for_by_hand_gets_it_too(callback, connect, watcher, grace):
    aconn = connect(async_=1)
    callback(aconn)
    cur = aconn.cursor()
    cur.execute("select pg_sleep(20)")
    chosen = greenwait.WaitCallback(timeout=0.1, cancel_grace=grace)
    if grace < 1:
        with pytest.raises(psycopg2.OperationalError):
            chosen(aconn)
        return
    with pytest.raises(greenwait.QueryTimeout) as info:
        chosen(aconn)
    assert info.value.pgcode == "57014"
    cur.execute("select 1")
    callback(aconn)
    assert cur.fetchone() == (1,)
