"""``WaitCallback(slow=...)``: a warning for each wait that took longer, and where it was."""

import concurrent.futures
import inspect
import logging
import textwrap
import threading

import psycopg2
import pytest
from psycopg2.extensions import POLL_OK, set_wait_callback

import greenwait
from greenwait._sleep import POLLERS
from tests.lab.logs import handled_by
from tests.lab.marks import needs_refusal


@pytest.fixture(params=POLLERS)
def log_slow(request, caplog):
    """Return a function that registers a callback with ``slow=``."""

    def register(slow):
        set_wait_callback(greenwait.WaitCallback(poller=request.param, slow=slow, cancel_grace=20))
        return caplog

    return register


def test_slow_wait_is_logged_with_time_backend_and_line(log_slow, connect):
    conn = connect()
    conn.autocommit = True
    log = log_slow(0.1)
    cur = conn.cursor()
    line = inspect.stack()[0].lineno + 1
    cur.execute("select pg_sleep(2)")
    (record,) = log.records
    assert (record.name, record.levelname) == ("greenwait", "WARNING")
    assert (record.pathname, record.lineno) == (__file__, line)
    assert record.backend_pid == conn.info.backend_pid
    assert 0.1 <= record.seconds < 30  # the server began before the wait
    assert record.getMessage() == (
        f"waited {record.seconds:.3f} s for backend {conn.info.backend_pid} at {__file__}:{line} "
        "in test_slow_wait_is_logged_with_time_backend_and_line()"
    )


def test_quick_wait_is_not_logged(log_slow, connect):
    conn = connect()
    log = log_slow(10)
    conn.cursor().execute("select pg_sleep(0.1)")
    assert log.records == []


def test_zero_logs_every_wait(log_slow, connect):
    conn = connect()
    conn.autocommit = True
    log = log_slow(0)
    conn.cursor().execute("select 1")
    assert len(log.records) == 1


def test_slow_connecting_is_logged(log_slow, connect):
    log = log_slow(0)
    connect()
    assert log.records[0].funcName == "connect"


def test_wait_that_fails_is_logged_and_its_error_raised(log_slow, connect):
    conn = connect()
    conn.autocommit = True
    log = log_slow(0.1)
    with pytest.raises(psycopg2.OperationalError):
        conn.cursor().execute("select pg_sleep(2), pg_terminate_backend(pg_backend_pid())")
    assert len(log.records) == 1


def test_stub_is_logged_without_a_backend(log_slow):
    class Stub:
        def poll(self):
            return POLL_OK

        def fileno(self):
            return -1

    log = log_slow(0)
    greenwait.WaitCallback(slow=0)(Stub())
    assert log.records[0].backend_pid is None


def test_line_is_found_where_a_thread_runs_only_the_query(run_python):
    """``execute`` itself is the thread's function: psycopg2 has no Python frame."""
    out = run_python(
        textwrap.dedent("""
            import _thread, logging, sys, time
            import psycopg2, greenwait

            logging.basicConfig(stream=sys.stdout)
            conn = psycopg2.connect(sys.argv[1])
            conn.autocommit = True
            cur = conn.cursor()
            greenwait.install(slow=0)
            _thread.start_new_thread(cur.execute, ("select 1",))
            while not greenwait.stats().results_plain or _thread._count():
                time.sleep(0.01)
        """)
    )
    assert "at no Python code" in out


def test_handler_that_fails_costs_neither_query_nor_connection(log_slow, connect):
    def fail(record):
        raise RuntimeError("the log is broken")

    conn = connect()
    logger = logging.getLogger("greenwait")
    logger.addFilter(fail)
    unraisable = []
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.unraisablehook", lambda what: unraisable.append(what.exc_value))
            log_slow(0)
            cur = conn.cursor()
            cur.execute("select 5")
    finally:
        logger.removeFilter(fail)
    assert cur.fetchone() == (5,)
    assert "the log is broken" in str(unraisable[0])


def test_handler_may_query_another_connection(log_slow, connect):
    conn, other = connect(), connect()
    logged = []

    class Handler(logging.Handler):
        def emit(self, record):
            if not logged:
                logged.append(record)
                other.cursor().execute("select 1")

    handler = Handler()
    logger = logging.getLogger("greenwait")
    logger.addHandler(handler)
    try:
        log_slow(0)
        cur = conn.cursor()
        cur.execute("select 6")
    finally:
        logger.removeHandler(handler)
    assert cur.fetchone() == (6,)
    assert logged


@pytest.mark.parametrize("in_thread", [False, True])
def test_cancelled_job_keeps_its_connection(log_slow, connect, in_thread):
    """What writes the record is the first Python code to run after the wait."""
    conn = connect()
    conn.autocommit = True
    log = log_slow(0)  # on a busy machine the job may begin just before it is cancelled
    jobs = []

    def work():
        with greenwait.Hub() as hub:
            jobs.append(hub.spawn(conn.cursor().execute, "select pg_sleep(20)"))
            hub.sleep(0.2)
            jobs[0].cancel()
            with pytest.raises(concurrent.futures.CancelledError):
                jobs[0].result()

    if in_thread:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    else:
        work()
    assert jobs[0].done()
    assert len(log.records) == 1
    assert conn.closed == 0
    conn.cursor().execute("select 1")


def test_handler_may_query_when_a_deadline_has_passed(log_slow, connect):
    conn, other = connect(), connect()
    answers = []

    def emit(record):
        log_slow(10)
        cur = other.cursor()
        cur.execute("select 6 * 7 from pg_sleep(0.1)")
        answers.append(cur.fetchone()[0])

    conn.cursor().execute("select 1")
    log_slow(0)
    with (
        handled_by(emit),
        pytest.raises(greenwait.QueryTimeout),
        greenwait.timeout(0.2) as outer,
    ):
        conn.cursor().execute("select pg_sleep(20)")
    assert answers == [42]
    assert outer.expired


@needs_refusal
@pytest.mark.parametrize("query", ["select 1", "select pg_sleep(20)"])
def test_interrupt_while_the_record_is_written_costs_no_connection(log_slow, connect, query):
    conn = connect()
    conn.autocommit = True

    def emit(record):
        raise KeyboardInterrupt

    log_slow(0)
    with handled_by(emit), pytest.raises(KeyboardInterrupt), greenwait.timeout(0.2):
        conn.cursor().execute(query)
        sum(range(100))  # the interpreter looks here at the latest
    log_slow(10)
    conn.cursor().execute("select 1")


def test_signal_handler_that_uses_the_connection_while_the_record_is_written(log_slow, connect):
    conn = connect(connection_factory=greenwait.Connection)
    told = []

    def emit(record):
        try:
            conn.rollback()
        except psycopg2.ProgrammingError as exc:
            told.append(str(exc))

    log_slow(0)
    with handled_by(emit):
        conn.cursor().execute("select 1")
    assert "at work for the very greenlet or thread" in told[0]
