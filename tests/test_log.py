"""The logger ``greenwait``: cancels, deadlines, graces that ran out, a pool's connections."""

import contextlib
import inspect
import logging
import os
import signal

import psycopg2
import pytest
from psycopg2.extensions import set_wait_callback

import greenwait
from tests.lab.asleep import when_asleep
from tests.lab.freezers import frozen
from tests.lab.interrupts import Limit, raising
from tests.lab.logs import handled_by
from tests.lab.marks import needs_backend_pid, needs_copy, needs_server_connection
from tests.lab.postgres import Server
from tests.lab.queries import TWENTY_SECONDS, assert_usable, one, terminate
from tests.lab.waiting import when_waiting

LIMIT = Limit()


@pytest.fixture(name="log")
def _log(caplog):
    """Every record of greenwait's, and a callback that gives the server time."""
    set_wait_callback(greenwait.WaitCallback(cancel_grace=20))
    caplog.set_level(logging.DEBUG, "greenwait")
    return caplog


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)


# -- Queries that are stopped


@needs_copy
def test_line_is_the_programs_where_the_package_executes_it(log, server):
    with (
        contextlib.closing(greenwait.connect(server.dsn())) as conn,
        conn.cursor() as cur,
        pytest.raises(greenwait.QueryTimeout),
        greenwait.timeout(0.2),
    ):
        line = inspect.stack()[0].lineno + 1
        cur.copy_expert("copy (select pg_sleep(20)) to stdout", Sink())
    assert {(record.pathname, record.lineno) for record in log.records} == {(__file__, line)}


class Sink:
    def write(self, data):
        pass


def test_looks_of_what_waits_for_long_are_neither_logged_nor_counted(log, server):
    with contextlib.closing(greenwait.connect(server.dsn())) as conn:
        conn.autocommit = True
        before = greenwait.stats().timeouts
        assert list(greenwait.notifies(conn, timeout=2.5)) == []  # it looks each second
    assert log.messages == []
    assert greenwait.stats().timeouts == before


@needs_backend_pid
def test_deadline_and_its_cancel_are_logged_with_backend_and_line(log, connect):
    conn = connect()
    pid = conn.info.backend_pid
    cur = conn.cursor()
    with pytest.raises(greenwait.QueryTimeout), greenwait.timeout(0.5):
        line = inspect.stack()[0].lineno + 1
        cur.execute(TWENTY_SECONDS)
    struck, sent = log.records
    assert struck.getMessage() == (
        f"the deadline of greenwait.timeout(0.5) has struck a wait for backend {pid}"
    )
    assert sent.getMessage() == (
        f"sent {sent.args[0]} cancel request(s) to backend {pid}: "
        "the deadline of greenwait.timeout(0.5)"
    )
    for record in log.records:
        assert (record.name, record.levelname) == ("greenwait", "DEBUG")
        assert (record.pathname, record.lineno, record.backend_pid) == (__file__, line, pid)


def test_deadline_of_the_callback_is_logged(log, connect):
    conn = connect()
    set_wait_callback(greenwait.WaitCallback(timeout=0.2, cancel_grace=20))
    with pytest.raises(greenwait.QueryTimeout):
        conn.cursor().execute(TWENTY_SECONDS)
    assert log.messages[0].startswith("the deadline of WaitCallback(timeout=0.2) has struck")


def test_cancel_of_an_interrupted_query_is_logged_with_the_interrupt(log, connect, watcher):
    conn = connect()
    with when_asleep(watcher, conn, interrupt), pytest.raises(KeyboardInterrupt):
        conn.cursor().execute(TWENTY_SECONDS)
    (message,) = log.messages
    assert message.startswith("sent ")
    assert message.endswith(": KeyboardInterrupt")
    assert_usable(conn)


def test_cancel_function_is_logged(log, connect):
    conn = connect()
    greenwait.cancel(conn)
    assert log.messages == [
        f"sent a cancel request to backend {conn.info.backend_pid}: cancel()",
    ]


def test_deadline_of_a_borrower_is_logged_at_the_end_of_its_block(log, server):
    with greenwait.Pool(server.dsn(), max_size=1) as pool, pool.connection():
        log.clear()
        with pytest.raises(greenwait.QueryTimeout), greenwait.timeout(0.2):
            pool.getconn()
        assert log.messages == [
            "the deadline of greenwait.timeout(0.2) has struck a wait for a connection or a lock"
        ]


def test_nothing_is_logged_of_what_is_not_stopped(log, connect):
    conn = connect()
    with greenwait.timeout(20):
        assert_usable(conn)
    assert log.messages == []


@pytest.fixture
def freezable(own_server):
    """A connection to a server whose processes may be frozen."""
    assert isinstance(own_server, Server)
    conn = psycopg2.connect(own_server.dsn("tcp"))
    yield conn
    conn.close()


def test_grace_that_ran_out_is_a_warning(freezable, caplog):
    set_wait_callback(greenwait.WaitCallback(cancel_grace=0.3))
    pid = freezable.info.backend_pid
    with frozen(pid), pytest.raises(psycopg2.OperationalError), greenwait.timeout(0.1):
        freezable.cursor().execute("select 1")
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.backend_pid == pid
    assert record.getMessage() == (
        f"backend {pid} has not ended its query within the grace of 0.3 s, and the connection is "
        "closed: the deadline of greenwait.timeout(0.1)"
    )


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, Limit])
def test_interrupt_while_a_deadline_is_logged_is_not_lost(log, connect, interruption):
    conn = connect()

    def emit(record):
        raise interruption

    first = KeyboardInterrupt if interruption is KeyboardInterrupt else greenwait.QueryTimeout
    with handled_by(emit), pytest.raises(first) as info, greenwait.timeout(0.2):
        conn.cursor().execute(TWENTY_SECONDS)
    chain = [info.value, info.value.__context__]
    assert {type(each) for each in chain} == {greenwait.QueryTimeout, interruption}
    assert_usable(conn)


def test_signal_while_the_record_of_an_interrupt_is_written_is_not_lost(
    log, connect, watcher, on_signal
):
    conn = connect()
    on_signal(signal.SIGALRM, raising(LIMIT))

    def emit(record):
        os.kill(os.getpid(), signal.SIGINT)
        sum(range(100))

    with (
        handled_by(emit),
        pytest.raises(KeyboardInterrupt) as info,
        when_asleep(watcher, conn, lambda: os.kill(os.getpid(), signal.SIGALRM)),
    ):
        conn.cursor().execute(TWENTY_SECONDS)
    assert info.value.__context__ is LIMIT
    assert_usable(conn)


def test_interrupt_while_a_grace_that_ran_out_is_logged_is_not_lost(freezable, caplog, on_signal):
    set_wait_callback(greenwait.WaitCallback(cancel_grace=0.3))
    on_signal(signal.SIGALRM, raising(LIMIT))

    def emit(record):
        raise KeyboardInterrupt

    pid = freezable.info.backend_pid
    with (
        frozen(pid),
        handled_by(emit),
        pytest.raises(KeyboardInterrupt) as info,
        when_waiting(lambda: os.kill(os.getpid(), signal.SIGALRM)),
    ):
        freezable.cursor().execute("select 1")
    assert info.value.__context__ is LIMIT
    assert "within 0.3 s of the interrupt" in str(LIMIT.__cause__)
    assert freezable.closed


def test_handler_may_query_while_a_deadline_is_logged(log, connect):
    conn, other = connect(), connect()
    answers = []
    with (
        handled_by(lambda record: answers.append(one(other, "select 6 * 7 from pg_sleep(0.1)"))),
        pytest.raises(greenwait.QueryTimeout),
        greenwait.timeout(0.2),
    ):
        conn.cursor().execute(TWENTY_SECONDS)
    assert set(answers) == {42}


# -- A pool's connections


def of_pool(log):
    """Return what a pool's records say after the pid, which is that of the record, too."""
    said = []
    for record in log.records:
        message = record.getMessage()
        if message.startswith("the pool"):
            assert record.levelname == "DEBUG"
            assert f"backend {record.backend_pid}" in message
            said.append(message.partition(f"backend {record.backend_pid}")[2])
    log.clear()
    return said


def test_connections_made_and_closed_are_logged(log, server):
    pool = greenwait.Pool(server.dsn(), min_size=1, max_size=2)
    (made,) = of_pool(log)
    assert made.startswith(", in 0.")
    first, second = pool.getconn(), pool.getconn()
    assert len(of_pool(log)) == 1
    pool.putconn(first, close=True)
    assert of_pool(log) == [": putconn() was told to"]
    second.close()
    pool.putconn(second)
    assert of_pool(log) == [": it was given back closed, or could not be restored"]
    with pool.connection():
        pass
    of_pool(log)
    pool.close()
    assert of_pool(log) == [": the pool is closed"]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"max_idle": 0}, "it was idle for max_idle"),
        ({"max_lifetime": 0}, "its max_lifetime is over"),
    ],
)
def test_age_is_a_reason(log, server, options, why):
    with greenwait.Pool(server.dsn(), **options) as pool:
        with pool.connection():
            pass
        assert of_pool(log)[1:] == [f": {why}"]


@needs_server_connection
def test_server_s_end_and_a_check_are_reasons(log, server, watcher):
    def check(conn):
        if checks:
            raise checks.pop()

    checks: list[psycopg2.Error] = []
    with greenwait.Pool(server.dsn(), check=check) as pool:
        with pool.connection() as conn:
            pass
        terminate(watcher, conn)
        with pool.connection():
            pass
        assert of_pool(log)[1:2] == [": the server has closed it"]
        checks.append(psycopg2.InterfaceError("unfit"))
        with pool.connection():
            pass
        assert of_pool(log)[0] == ": check() has not passed it"


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, Limit])
def test_interrupt_while_a_new_connection_is_logged_costs_no_place(log, server, interruption):
    def emit(record):
        raise interruption

    with greenwait.Pool(server.dsn(), max_size=1, timeout=5) as pool:
        with handled_by(emit), pytest.raises(interruption):
            pool.getconn()
        assert pool.stats()[:5] == (1, 1, 0, 1, 0)
        with pool.connection() as conn:
            assert one(conn, "select 1") == 1


def test_interrupt_while_a_closed_connection_is_logged_costs_no_place(log, server):
    def emit(record):
        raise KeyboardInterrupt

    with greenwait.Pool(server.dsn(), max_size=1, timeout=5) as pool:
        conn = pool.getconn()
        with handled_by(emit), pytest.raises(KeyboardInterrupt):
            pool.putconn(conn, close=True)
        assert pool.stats()[:5] == (0, 1, 0, 0, 0)
        with pool.connection() as conn:
            assert one(conn, "select 1") == 1


def test_place_is_free_when_a_closed_connection_is_logged(log, server):
    lent = []

    def emit(record):
        if "putconn()" in record.getMessage():
            lent.append(pool.getconn(timeout=5))

    with greenwait.Pool(server.dsn(), max_size=1, timeout=5) as pool:
        conn = pool.getconn()
        with handled_by(emit):
            pool.putconn(conn, close=True)
        pool.putconn(lent.pop())


@pytest.mark.parametrize("level", [logging.INFO, logging.WARNING])
def test_nothing_is_written_below_debug(caplog, server, level):
    caplog.set_level(level, "greenwait")
    with greenwait.Pool(server.dsn()) as pool, pool.connection():
        pass
    assert caplog.records == []


def test_connections_are_closed_though_the_log_raises(log, server):
    pool = greenwait.ThreadedConnectionPool(0, 3, server.dsn())
    conns = [pool.getconn() for _ in range(3)]

    def fail(record):
        raise Limit

    with handled_by(fail), contextlib.suppress(Limit):
        pool.closeall()
    assert [conn.closed for conn in conns] == [1, 1, 1]
