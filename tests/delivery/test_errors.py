"""What is raised where an interrupt, a deadline and an error of the query's own meet."""

import contextlib
import gc
import signal
import threading
import time
import weakref

import psycopg2
import pytest
from psycopg2 import errors
from psycopg2.extensions import encodings

import greenwait
from tests.lab.asleep import again_until, wait_until_asleep, when_asleep
from tests.lab.freezers import frozen
from tests.lab.interrupts import Limit
from tests.lab.marks import needs_refusal
from tests.lab.queries import assert_usable
from tests.lab.struck import Own, assert_raised

pytestmark = pytest.mark.patient


# -- The error is the server's own


def test_error_of_the_query_s_own_is_the_context(struck):
    raised = struck.strike(2)  # after BEGIN
    assert_raised(struck, raised, struck.cursor().execute, "select 1/0")
    assert isinstance(raised.__context__, errors.DivisionByZero)
    assert raised.__context__.pgcode == "22012"
    assert "division by zero" in str(raised.__context__)
    assert_usable(struck)


def test_error_of_the_query_s_own_comes_before_what_was_handled(struck):
    raised = struck.strike(2)
    with contextlib.suppress(Limit):
        try:
            raise KeyError
        except KeyError:
            struck.cursor().execute("select 1/0")
    assert isinstance(raised.__context__, errors.DivisionByZero)
    assert isinstance(raised.__context__.__context__, KeyError)


def test_deadline_leaves_the_query_its_own_error(callback, connect):
    conn = connect()
    query = (
        "do $$begin perform pg_sleep(20); "
        "exception when query_canceled then raise exception 'mine'; end$$"
    )

    def attempt():
        raised.clear()
        with pytest.raises(psycopg2.Error) as info, greenwait.timeout(0.2):
            conn.cursor().execute(query)
        raised.append(info.value)

    raised: list[BaseException] = []
    # Where it was stopped before or after the block, it has no error of its own.
    again_until(lambda: not isinstance(raised[0], greenwait.QueryTimeout), conn, attempt)
    assert isinstance(raised[0], errors.RaiseException)
    assert "mine" in str(raised[0])
    assert type(errors.QueryCanceled("later")) is errors.QueryCanceled
    conn.rollback()
    assert_usable(conn)


def test_class_of_a_cancel_is_always_psycopg2_s_own(callback, connect):
    own = errors.lookup("57014")
    conn = connect()
    with pytest.raises(greenwait.QueryTimeout) as info, greenwait.timeout(0.05):
        conn.cursor().execute("select pg_sleep(20)")
    assert errors.lookup("57014") is own is errors.QueryCanceled
    assert info.value.pgcode == "57014"
    assert "canceling statement" in str(info.value.pgerror)
    assert info.value.diag.severity == "ERROR"
    assert "deadline" in str(info.value)


def test_class_of_a_cancel_is_psycopg2_s_own_while_another_thread_has_a_deadline(callback, connect):
    own = errors.lookup("57014")
    conn, other, watcher = connect(), connect(), connect()
    watcher.autocommit = True
    raised = []

    def wait():
        with pytest.raises(greenwait.QueryTimeout) as info, greenwait.timeout(4):
            other.cursor().execute("select pg_sleep(20)")
        raised.append(info.value)

    thread = threading.Thread(target=wait)
    thread.start()
    wait_until_asleep(watcher, other.info.backend_pid)
    with (
        when_asleep(watcher, conn, lambda: greenwait.cancel(conn, timeout=20)),
        pytest.raises(errors.QueryCanceled) as info,
    ):
        conn.cursor().execute("select pg_sleep(20)")
    assert errors.lookup("57014") is own is errors.QueryCanceled
    assert type(info.value) is own
    assert type(own("by hand")) is own
    assert not raised  # still waiting
    thread.join(20)
    assert type(raised[0]) is greenwait.QueryTimeout
    conn.rollback()
    assert_usable(conn)


# -- Messages


@pytest.mark.parametrize("encoding", ["UTF8", "LATIN2", "LATIN1", "WIN1251", "EUC_JP"])
def test_notices_are_decoded_in_c(callback, connect, encoding):
    conn = connect(client_encoding=encoding)
    conn.cursor().execute("do $$begin raise notice 'hello'; end$$")
    assert "hello" in conn.notices[-1]
    name = encodings[encoding.replace("_", "")]
    assert "\xe9".encode(encodings["LATIN1"]) == b"\xe9"
    assert b"abc".decode(name) == "abc"
    with pytest.raises(UnicodeDecodeError):
        b"\xc3\x28".decode(encodings["UTF8"])
    if encoding == "WIN1251":
        text = "\u0436"
        conn.cursor().execute(f"do $$begin raise notice '{text}'; end$$")
        assert text in conn.notices[-1]


def test_what_is_connected_before_the_callback_is_registered_decodes_in_c(run_python):
    script = """
import sys
import greenwait, psycopg2
conn = psycopg2.connect(sys.argv[1])
greenwait.install()
called = []
sys.setprofile(lambda frame, event, _: called.append(frame.f_code.co_name))
conn.cursor().execute("do $$begin raise notice 'hello'; end$$")
sys.setprofile(None)
print(conn.notices, [each for each in called if "decode" in each])
"""
    assert run_python(script) == "['NOTICE:  hello\\n'] []\n"


@needs_refusal
def test_signals_at_every_moment_of_notices_cost_no_exception(callback, connect, on_signal):
    """psycopg2 forgets what is raised while it decodes them."""
    conn = connect()
    conn.autocommit = True
    cur = conn.cursor()
    caught = 0

    def strike(*_):
        raise Limit

    on_signal(signal.SIGALRM, strike)
    gc.disable()  # what it calls, hypothesis's function for one, forgets exceptions too
    try:
        for attempt in range(400):
            give_up = time.monotonic() + 20
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.0002 + 0.000005 * (attempt % 200))
                cur.execute("do $$begin for i in 1..40 loop raise notice 'hello'; end loop; end$$")
                while time.monotonic() < give_up:
                    pass
            except Limit:
                caught += 1
            else:
                break
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        gc.enable()
    assert caught == 400


# -- A QueryTimeout of another block than the wait's


@pytest.fixture
def out_of_time(connect, on_signal):
    """Have the handler of SIGALRM run out of its own time, in a query of its own."""
    other = connect()
    other.autocommit = True

    def handler(*_):
        with greenwait.timeout(0.05):
            other.cursor().execute("select pg_sleep(20)")

    on_signal(signal.SIGALRM, handler)


IGNORES_CANCELS = """
do $$begin
    for i in 1..10 loop
        begin perform pg_sleep(0.1); exception when query_canceled then null; end;
    end loop;
end$$"""


@needs_refusal
@pytest.mark.parametrize(
    "query", ["select pg_sleep(20)", IGNORES_CANCELS, f"{IGNORES_CANCELS}; select 1/0"]
)
def test_deadline_of_a_handler_is_raised_as_what_it_is(connect, out_of_time, query):
    conn = connect(connection_factory=Own)
    raised: list[BaseException] = []

    def attempt():
        raised.clear()
        with (
            greenwait.installed(cancel_grace=20),
            pytest.raises(greenwait.QueryTimeout, match=r"0\.05") as info,
        ):
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            conn.cursor().execute(query)
        raised.append(info.value)

    def has_own_error():
        return isinstance(raised[0].__context__, errors.DivisionByZero)

    again_until(lambda: has_own_error() == query.endswith("1/0"), conn, attempt)
    assert_usable(conn)


# -- What was raised is kept in case that psycopg2 loses it, but not for long


def test_exception_that_has_closed_a_connection_does_not_outlive_its_thread(callback, own_server):
    class Local:
        pass

    conn = psycopg2.connect(own_server.dsn("tcp"))
    pid = conn.info.backend_pid
    found = []

    def work():
        local = Local()
        found.append(weakref.ref(local))
        with (
            frozen(pid),
            greenwait.installed(cancel_grace=0.1),
            pytest.raises(psycopg2.OperationalError),
            greenwait.timeout(0.1),
        ):
            conn.cursor().execute("select 1")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    gc.collect()
    assert found[0]() is None
