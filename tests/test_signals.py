"""Signals during a wait: handlers run, the wait goes on, and Ctrl-C stops the query."""

import itertools
import os
import signal
import socket
import statistics
import threading
import time

import psycopg2
import pytest
from psycopg2.extensions import POLL_OK, POLL_READ, POLL_WRITE

import greenwait
from tests.lab.asleep import again_until, wait_until_asleep, when_asleep
from tests.lab.interrupts import DEAF, Limit
from tests.lab.marks import needs_pace, needs_refusal
from tests.lab.queries import one
from tests.lab.waiting import until

pytestmark = pytest.mark.patient


class Interrupter:
    """Sends a signal to this process as soon as the server sleeps in a connection's query."""

    def __init__(self, watcher, conn, number=signal.SIGINT):
        self._when_asleep = when_asleep(watcher, conn, self._send)
        self._number = number
        self.sent = float("-inf")

    def _send(self):
        self.sent = time.monotonic()
        os.kill(os.getpid(), self._number)

    def __enter__(self):
        self._when_asleep.__enter__()
        return self

    def __exit__(self, *exc_info):
        self._when_asleep.__exit__(None, None, None)


@pytest.fixture
def local_conn(callback, connect):
    """A connection for what does not depend on the transport."""
    return connect()


def test_handler_runs_at_once_and_the_wait_goes_on(local_conn, watcher, on_signal):
    ran = []
    on_signal(signal.SIGUSR1, lambda *_: ran.append(time.monotonic()))
    for _ in range(3):  # on a busy machine the best one counts
        ran.clear()
        with Interrupter(watcher, local_conn, signal.SIGUSR1) as interrupter:
            assert one(local_conn, "select 3 from pg_sleep(3)") == 3
            done = time.monotonic()
        assert len(ran) == 1
        if ran[0] - interrupter.sent < 1.5 and done - ran[0] > 0.2:
            break
    else:
        pytest.fail("it ran too late")


def test_signal_that_does_not_end_the_sleep_is_acted_on(callback, on_signal):
    """Delivered to another thread, a signal leaves the main one asleep: the race, at will."""
    late = []
    sent = 0.0
    quiet, peer = socket.socketpair()

    def send():
        nonlocal sent
        for number in range(20):
            time.sleep(0.03)
            sent = time.monotonic()
            signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
            while len(late) <= number:
                time.sleep(0.001)
        peer.send(b"x")

    class Stub:
        states = iter([POLL_READ, POLL_OK])

        def poll(self):
            return next(self.states)

        def fileno(self):
            return quiet.fileno()

    on_signal(signal.SIGUSR1, lambda *_: late.append(time.monotonic() - sent))
    sender = threading.Thread(target=send, daemon=True)
    with quiet, peer:
        sender.start()
        callback(Stub())
        sender.join()
    assert len(late) == 20
    assert statistics.median(late) < 0.1


def test_handler_runs_while_a_result_streams_in(local_conn, watcher, on_signal):
    """No sleep is interrupted, the signal goes to another thread, and none lasts a whole slice."""
    pid = local_conn.info.backend_pid
    ran = []

    def send():
        wait_until_asleep(watcher, pid)
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)

    on_signal(signal.SIGUSR1, lambda *_: ran.append(time.monotonic()))
    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    cur = local_conn.cursor()
    cur.execute("select repeat('x', 8192), pg_sleep(0.001) from generate_series(1, 3000)")
    done = time.monotonic()
    sender.join(30)
    assert cur.rowcount == 3000
    assert len(ran) == 1
    assert done - ran[0] > 0.3


@needs_pace
@pytest.mark.parametrize("state", [POLL_READ, POLL_WRITE])
def test_handler_runs_while_the_descriptor_is_always_ready(callback, state, on_signal):
    """No Python code runs between the sleeps, as none does with a connection."""
    ran = []
    ready, peer = socket.socketpair()
    before = greenwait.stats().sleeps

    class Stub:
        poll = itertools.repeat(state).__next__
        fileno = ready.fileno

    def handler(*_):
        ran.append(True)
        Stub.poll = itertools.chain(itertools.repeat(state, 1000), [POLL_OK]).__next__

    def send():
        while greenwait.stats().sleeps < before + 100:
            time.sleep(0.001)
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)

    on_signal(signal.SIGUSR1, handler)
    sender = threading.Thread(target=send, daemon=True)
    with ready, peer:
        peer.send(b"x")
        sender.start()
        callback(Stub())
        sender.join()
    assert ran == [True]


@needs_refusal
def test_signal_just_before_the_answer_is_not_lost_with_a_notification(local_conn, on_signal):
    """What strikes Python code that decodes one, psycopg2 forgets, and the notification too.

    A statement that was stopped, where the machine took so long, sends none: the table says so.
    """

    def handler(*_):
        raise Limit

    def send():  # the main thread sleeps on: the signal is another's
        time.sleep(0.005)
        signal.pthread_kill(threading.get_ident(), signal.SIGALRM)

    on_signal(signal.SIGALRM, handler)
    local_conn.autocommit = True
    cur = local_conn.cursor()
    cur.execute("listen struck; create temp table sent (n int)")
    for number in range(20):
        sender = threading.Thread(target=send, daemon=True)
        with pytest.raises(Limit):
            sender.start()
            cur.execute(
                f"notify struck, '{number}'; insert into sent values ({number}); "
                "select pg_sleep(0.02)"
            )
            sender.join()
            sum(range(100))  # the interpreter looks here at the latest
        sender.join()
    cur.execute("select n from sent order by n")
    sent = [n for (n,) in cur]
    assert [int(each.payload) for each in local_conn.notifies] == sent
    assert sent


def test_signal_at_any_moment_is_acted_on(local_conn, on_signal):
    """A timer that fires at every phase of 1,500 short queries; none waits for the sleep's end."""
    due = 0.0
    late = []
    on_signal(signal.SIGALRM, lambda *_: late.append(time.monotonic() - due))
    local_conn.autocommit = True
    for number in range(1500):
        delay = 20e-6 + number % 100 * 3e-6
        due = time.monotonic() + delay
        signal.setitimer(signal.ITIMER_REAL, delay)
        one(local_conn, "select 1")
        while len(late) <= number:
            one(local_conn, "select 1")
    assert len(late) == 1500
    assert statistics.quantiles(late, n=100)[-1] < 0.1


def test_eintr_storm_changes_no_result(conn, on_signal):
    ticks = 0

    def tick(*_):
        nonlocal ticks
        ticks += 1

    on_signal(signal.SIGALRM, tick)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    conn.autocommit = True
    cur = conn.cursor()
    for number in range(1000):
        cur.execute("select %s, repeat('x', %s)", (number, number))
        assert cur.fetchall() == [(number, "x" * number)]
    cur.execute("select 1 from pg_sleep(0.3)")
    assert cur.fetchall() == [(1,)]
    assert ticks > 100


def test_storm_while_connecting_and_receiving(callback, transport, connect, on_signal):
    on_signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    for _ in range(5):
        conn = connect(transport)
        assert len(one(conn, "select repeat('x', 5000000)")) == 5000000


def test_ctrl_c_cancels_the_query_and_keeps_the_connection(conn, watcher):
    with Interrupter(watcher, conn) as interrupter:
        with pytest.raises(KeyboardInterrupt):
            one(conn, "select pg_sleep(20)")
        assert time.monotonic() - interrupter.sent < 5
    conn.rollback()
    assert one(conn, "select 1") == 1


def test_ctrl_c_cancels_the_query_of_an_async_connection(callback, transport, connect, watcher):
    class Interrupted(psycopg2.extensions.connection):
        armed = False

        def fileno(self):
            if self.armed:
                self.armed = False
                wait_until_asleep(watcher, self.info.backend_pid)
                os.kill(os.getpid(), signal.SIGINT)
            return super().fileno()

    aconn = connect(transport, async_=1, connection_factory=Interrupted)
    callback(aconn)
    cur = aconn.cursor()
    cur.execute("select pg_sleep(20)")
    aconn.armed = True
    with pytest.raises(KeyboardInterrupt):
        callback(aconn)
    cur.execute("select 1")
    callback(aconn)
    assert cur.fetchone() == (1,)


@needs_refusal
def test_ctrl_c_is_raised_when_the_query_succeeds_all_the_same(conn, watcher):
    conn.autocommit = True

    def attempt():
        with Interrupter(watcher, conn), pytest.raises(KeyboardInterrupt):
            conn.cursor().execute(DEAF)

    again_until(
        lambda: one(conn, "select current_setting('greenwait.deaf', true)") == "yes", conn, attempt
    )


@pytest.mark.parametrize("async_", [0, 1])
def test_ctrl_c_while_connecting_is_raised_as_it_is(callback, async_):
    """The server accepts, and then says nothing."""
    waits = greenwait.stats().waits
    with socket.create_server(("127.0.0.1", 0)) as silent:
        raised = threading.Event()

        def interrupt():
            peer, _ = silent.accept()
            with peer:
                peer.recv(1000)
                until(lambda: greenwait.stats().waits > waits)
                os.kill(os.getpid(), signal.SIGINT)
                assert raised.wait(20)

        thread = threading.Thread(target=interrupt, daemon=True)
        thread.start()
        port = silent.getsockname()[1]
        with pytest.raises(KeyboardInterrupt):
            aconn = psycopg2.connect(
                host="127.0.0.1", port=port, user="x", dbname="x", sslmode="disable", async_=async_
            )
            callback(aconn)
        raised.set()
        if async_:
            aconn.close()
        thread.join(20)
        assert not thread.is_alive()


def test_ctrl_c_in_a_stub_without_cancel_is_raised_as_it_is(callback):
    class Stub:
        def fileno(self):
            raise AssertionError("never asked")

        def poll(self):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        callback(Stub())


def test_query_inside_a_signal_handler(local_conn, watcher, connect, on_signal):
    other = connect()
    nested = []
    on_signal(signal.SIGUSR1, lambda *_: nested.append(one(other, "select 7 from pg_sleep(0.1)")))
    with Interrupter(watcher, local_conn, signal.SIGUSR1):
        assert one(local_conn, "select 3 from pg_sleep(3)") == 3
    assert nested == [7]


def test_outer_query_that_ends_during_a_nested_one_is_not_lost(
    local_conn, watcher, connect, on_signal
):
    """The nested wait sees the outer's descriptor get ready, and must neither spin nor eat it."""
    other = connect()
    spent = []

    def handler(*_):
        before = time.thread_time()
        one(other, "select pg_sleep(3)")
        spent.append(time.thread_time() - before)

    on_signal(signal.SIGUSR1, handler)
    with Interrupter(watcher, local_conn, signal.SIGUSR1):
        assert one(local_conn, "select 3 from pg_sleep(2)") == 3
    assert len(spent) == 1
    assert spent[0] < 0.05


def test_query_inside_del_during_a_query(local_conn, connect):
    """A notice makes psycopg2 append to a list during the wait; a list may run anybody's code."""
    other = connect()
    seen = []

    class Querying:
        def __del__(self):
            seen.append(one(other, "select 7 from pg_sleep(0.05)"))

    class Notices(list[str]):
        held = Querying()

        def append(self, notice):
            self.__dict__.pop("held", None)
            if hasattr(Notices, "held"):
                del Notices.held
            super().append(notice)

    local_conn.notices = Notices()
    assert (
        one(local_conn, "do $$ begin raise notice 'x'; end $$; select 3 from pg_sleep(0.05)") == 3
    )
    assert seen == [7]
    assert len(local_conn.notices) == 1
