"""An interrupt that meets a success: psycopg2 raises it, and is right about the server's state."""

import contextlib
import gc
import os
import signal
import threading
import time
import weakref
from typing import Any

import psycopg2
import pytest
from psycopg2 import errors
from psycopg2.extensions import (
    STATUS_READY,
    TRANSACTION_STATUS_IDLE,
    TRANSACTION_STATUS_INERROR,
    encodings,
)

import greenwait
from greenwait._psycopg.libpq import FAST_PATHS
from tests.lab.asleep import again_until, wait_until_asleep, when_asleep
from tests.lab.freezers import frozen
from tests.lab.interrupts import Limit
from tests.lab.marks import needs_refusal
from tests.lab.queries import assert_usable, one
from tests.lab.struck import BEGIN, KINDS, Own, Plain, assert_raised
from tools.postgres import Server

pytestmark = pytest.mark.patient


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def struck(request, callback, connect):
    """A connection that can be struck, in no transaction."""
    conn = connect(connection_factory=request.param)
    conn.cursor().execute("select 1")
    conn.rollback()
    return conn


@needs_refusal
def test_query_is_rolled_back_with_its_transaction(struck):
    cur = struck.cursor()
    cur.execute("create temp table struck (n int)")
    struck.commit()
    cur.execute("insert into struck values (1)")
    raised = struck.strike()
    assert_raised(struck, raised, cur.execute, "insert into struck values (2)")
    assert raised.__context__ is None
    assert struck.info.transaction_status == TRANSACTION_STATUS_INERROR
    with pytest.raises(errors.InFailedSqlTransaction):
        cur.execute("select 1")
    struck.rollback()
    assert one(struck, "select count(*) from struck") == 0
    assert_usable(struck)


@needs_refusal
def test_query_in_autocommit_mode_stands(struck):
    struck.autocommit = True
    cur = struck.cursor()
    cur.execute("create temp table struck (n int)")
    raised = struck.strike()
    assert_raised(struck, raised, cur.execute, "insert into struck values (2)")
    assert struck.info.transaction_status == TRANSACTION_STATUS_IDLE
    assert one(struck, "select count(*) from struck") == 1


@needs_refusal
def test_query_is_stopped_whose_begin_was_interrupted(struck):
    struck.cursor().execute("create temp table struck (n int)")
    struck.commit()
    raised = struck.strike(BEGIN)
    began = time.monotonic()
    query = "insert into struck select 1 from pg_sleep(30)"
    assert_raised(struck, raised, struck.cursor().execute, query)
    assert time.monotonic() - began < 20
    assert struck.info.transaction_status == TRANSACTION_STATUS_INERROR
    struck.rollback()
    assert one(struck, "select count(*) from struck") == 0
    assert_usable(struck)


@needs_refusal
def test_query_with_an_error_of_its_own_whose_begin_was_interrupted(struck):
    raised = struck.strike(BEGIN)
    assert_raised(struck, raised, struck.cursor().execute, "select 1 from nothing")
    assert isinstance(raised.__context__, (errors.UndefinedTable, type(None)))  # or cancelled
    struck.rollback()
    assert_usable(struck)


def test_query_that_cannot_be_sent_raises_what_has_interrupted_its_begin(struck):
    def close(fd):
        assert struck.info.transaction_status != TRANSACTION_STATUS_IDLE
        os.close(fd)

    struck.before = close
    raised = struck.strike(BEGIN)
    assert_raised(struck, raised, struck.cursor().execute, "select 1")
    assert struck.closed


@needs_refusal
def test_block_of_a_named_cursor_raises_what_has_interrupted_its_begin(struck):
    raised = struck.strike(BEGIN)
    with pytest.raises(Limit) as info, struck, struck.cursor("named") as cur:
        cur.execute("select generate_series(1, 10)")
    assert info.value is raised
    assert struck.info.transaction_status == TRANSACTION_STATUS_IDLE
    assert_usable(struck)


@needs_refusal
def test_begin_of_a_block_in_autocommit_mode_is_rolled_back_and_the_query_never_sent(struck):
    struck.autocommit = True
    raised = struck.strike(BEGIN)
    with pytest.raises(Limit) as info, struck, struck.cursor() as cur:
        cur.execute("select set_config('greenwait.struck', 'sent', false)")
    assert info.value is raised
    assert struck.status == STATUS_READY
    assert struck.info.transaction_status == TRANSACTION_STATUS_IDLE
    struck.rollback()
    assert one(struck, "select current_setting('greenwait.struck', true)") in (None, "")
    assert_usable(struck)


@needs_refusal
def test_begin_by_hand_in_autocommit_mode_is_rolled_back(struck):
    struck.autocommit = True
    assert_raised(struck, struck.strike(), struck.cursor().execute, "begin")
    assert struck.info.transaction_status == TRANSACTION_STATUS_IDLE


@needs_refusal
def test_query_in_a_transaction_by_hand_fails_it(struck):
    struck.autocommit = True
    struck.cursor().execute("begin")
    assert_raised(struck, struck.strike(), struck.cursor().execute, "select 1")
    assert struck.info.transaction_status == TRANSACTION_STATUS_INERROR
    struck.cursor().execute("rollback")
    assert one(struck, "select 6 * 7") == 42


@needs_refusal
def test_commit_stands(struck):
    cur = struck.cursor()
    cur.execute("create temp table struck (n int)")
    assert_raised(struck, struck.strike(), lambda: struck.commit())
    assert struck.status == STATUS_READY
    assert struck.info.transaction_status == TRANSACTION_STATUS_IDLE
    assert one(struck, "select count(*) from struck") == 0
    assert_usable(struck)


@needs_refusal
def test_commit_of_a_failed_transaction_leaves_none(struck):
    with contextlib.suppress(psycopg2.Error):
        struck.cursor().execute("select 1/0")
    assert_raised(struck, struck.strike(), lambda: struck.commit())
    assert struck.info.transaction_status == TRANSACTION_STATUS_IDLE
    assert_usable(struck)


@needs_refusal
def test_rollback_leaves_nothing_that_could_be_committed(struck):
    """psycopg2 believes that it is still in a transaction, if it is told of a failure."""
    cur = struck.cursor()
    cur.execute("create temp table struck (n int)")
    struck.commit()
    cur.execute("select 1")
    assert_raised(struck, struck.strike(), lambda: struck.rollback())
    if isinstance(struck, Plain):
        with pytest.raises(errors.InFailedSqlTransaction):
            cur.execute("insert into struck values (1)")
    else:
        assert struck.status == STATUS_READY
        cur.execute("insert into struck values (1)")
    struck.rollback()
    assert one(struck, "select count(*) from struck") == 0
    assert_usable(struck)


def test_method_that_ends_a_transaction_unseen_costs_the_connection_or_nothing(struck):
    """Called by a reference, of psycopg2's own class nobody knows what it will make of an error."""
    struck.cursor().execute("create temp table struck (n int)")
    commit = struck.commit
    assert_raised(struck, struck.strike(), commit)
    assert bool(struck.closed) == isinstance(struck, Plain)
    if not struck.closed:
        assert_usable(struck)


@pytest.mark.parametrize("step", [1, 2])
def test_reset_ends_in_a_connection_that_is_usable(struck, step):
    cur = struck.cursor()
    cur.execute("select 1")
    raised = struck.strike(step)
    assert_raised(struck, raised, lambda: struck.reset())
    if FAST_PATHS["interrupt"] == "on" or isinstance(struck, Own):
        assert_usable(struck)
    else:
        assert struck.closed


@pytest.mark.parametrize("name", ["LATIN1", "UTF8"])
def test_encoding_of_both_sides_stays_the_same(struck, name):
    struck.set_client_encoding("LATIN1" if name == "UTF8" else "UTF8")
    raised = struck.strike()
    assert_raised(struck, raised, struck.set_client_encoding, name)
    if struck.closed:
        assert isinstance(struck, Plain)
    else:
        assert one(struck, "show client_encoding") == struck.encoding
        assert one(struck, "select %s", "\xe4") == "\xe4"


@needs_refusal
@pytest.mark.parametrize(
    "execute",
    [
        lambda cur: cur.executemany("select set_config('greenwait.struck', %s, false)", "123"),
        lambda cur: cur.callproc("set_config", ("greenwait.struck", "1", False)),
    ],
    ids=["executemany", "callproc"],
)
def test_next_statement_is_not_executed(struck, execute):
    struck.autocommit = True
    assert_raised(struck, struck.strike(), execute, struck.cursor())
    assert one(struck, "select current_setting('greenwait.struck', true)") == "1"


@needs_refusal
def test_fetch_of_a_named_cursor(struck):
    cur = struck.cursor("struck")
    cur.execute("select generate_series(1, 10)")
    assert_raised(struck, struck.strike(), cur.fetchmany, 2)
    assert_usable(struck)


@needs_refusal
def test_end_of_with_connection(struck):
    def work():
        with struck:
            struck.cursor().execute("create temp table struck (n int)")
            struck.strike()

    with pytest.raises(Limit):
        work()
    assert one(struck, "select count(*) from struck") == 0
    assert_usable(struck)


class TestTwoPhases:
    @pytest.fixture(autouse=True)
    def _needs_prepared_transactions(self, server, connect):
        conn = connect()
        if one(conn, "show max_prepared_transactions") == "0":
            pytest.skip("the server keeps no prepared transactions")

    def begun(self, struck):
        xid = struck.xid(1, f"greenwait {id(struck)}", "struck")
        struck.tpc_begin(xid)
        struck.cursor().execute("select 1")
        return xid

    def is_prepared(self, connect, xid):
        return any(str(found) == str(xid) for found in connect().tpc_recover())

    def test_begin_is_rolled_back(self, struck):
        xid = struck.xid(1, "greenwait begun", "struck")
        assert_raised(struck, struck.strike(), lambda: struck.tpc_begin(xid))
        if not struck.closed:
            assert struck.info.transaction_status == TRANSACTION_STATUS_IDLE
            assert_usable(struck)

    def test_begin_by_reference_is_raised_there_or_by_the_connection_s_next_statement(
        self, struck, connect
    ):
        """psycopg2's own class does not tell for what its BEGIN is."""
        other = connect()
        begin = struck.tpc_begin
        raised, found = struck.strike(), None
        with greenwait.Hub() as hub:
            job = hub.spawn(begin, struck.xid(1, "greenwait begun", "struck"))
            try:
                job.result()
            except Limit as exc:
                found = exc
            assert hub.spawn(one, other, "select 6 * 7").result() == 42
        assert one(other, "select 6 * 7") == 42
        if isinstance(struck, Plain) and not struck.closed:
            assert_raised(struck, raised, one, struck, "select 6 * 7")
            if not struck.closed:
                struck.tpc_rollback()
        else:
            assert found is raised
        if not struck.closed:
            assert_usable(struck)

    @pytest.mark.parametrize("name", ["tpc_commit", "tpc_rollback"])
    def test_prepared_transaction_is_ended_and_known_to_be(self, struck, connect, name):
        xid = self.begun(struck)
        struck.tpc_prepare()
        raised = struck.strike()
        with pytest.raises(Limit) as info:
            getattr(struck, name)()
        assert info.value is raised
        assert not self.is_prepared(connect, xid)
        assert bool(struck.closed) == isinstance(struck, Plain)
        if not struck.closed:
            assert_usable(struck)

    def test_prepared_transaction_can_be_rolled_back_or_recovered(self, struck, connect):
        xid = self.begun(struck)
        assert_raised(struck, struck.strike(), lambda: struck.tpc_prepare())
        assert self.is_prepared(connect, xid)
        assert bool(struck.closed) == isinstance(struck, Plain)
        (connect() if struck.closed else struck).tpc_rollback(*([xid] if struck.closed else []))
        assert not self.is_prepared(connect, xid)

    @pytest.mark.parametrize("name", ["commit", "rollback"])
    def test_one_phase_is_ended_and_known_to_be(self, struck, name):
        self.begun(struck)
        raised = struck.strike()
        with pytest.raises(Limit) as info:
            if name == "commit":
                struck.tpc_commit()
            else:
                struck.tpc_rollback()
        assert info.value is raised
        assert bool(struck.closed) == isinstance(struck, Plain)
        if not struck.closed:
            assert struck.status == STATUS_READY
            assert_usable(struck)


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


# -- Where the server does not answer as usual


def struck_in_autocommit(connect, **keywords):
    conn = connect(connection_factory=Plain, **keywords)
    conn.autocommit = True
    conn.cursor().execute("select 1")
    return conn


def test_connection_that_is_lost_before_the_statement_is_refused(callback, connect):
    conn = struck_in_autocommit(connect)
    watcher = connect()

    def terminate(fd):
        one(watcher, "select pg_terminate_backend(%s, 20000)", conn.info.backend_pid)

    conn.before = terminate
    raised = conn.strike()
    assert_raised(conn, raised, conn.cursor().execute, "select 1")
    assert (
        isinstance(raised.__cause__, psycopg2.OperationalError) or FAST_PATHS["interrupt"] != "on"
    )
    assert conn.closed


@needs_refusal
@pytest.mark.parametrize("replication", ["database", "true"])
def test_replication_connection(callback, connect, server, replication):
    """A physical one knows no SQL, and refuses it."""
    try:
        conn = connect(connection_factory=Plain, replication=replication)
    except psycopg2.Error as exc:
        pytest.skip(f"no replication connection: {exc}")
    conn.autocommit = True
    command = "IDENTIFY_SYSTEM"
    conn.cursor().execute(command)
    assert_raised(conn, conn.strike(), conn.cursor().execute, command)
    conn.cursor().execute(command)


@needs_refusal
def test_read_only_transaction_without_any_language(callback, connect):
    conn = connect(connection_factory=Plain, options="-c default_transaction_read_only=on")
    assert_raised(conn, conn.strike(2), conn.cursor().execute, "select 1")
    assert_usable(conn)


@needs_refusal
@pytest.mark.parametrize(
    ("text", "autocommit", "strike"),
    [
        ("a statement was interrupted as it succeeded", True, lambda conn: one(conn, "select 1")),
        (
            "a transaction was interrupted as it began",
            True,
            lambda conn: conn.cursor().execute("begin"),
        ),
        ("a statement was interrupted as it succeeded", False, lambda conn: conn.commit()),
        ("a rollback was interrupted as it succeeded", False, lambda conn: conn.rollback()),
    ],
    ids=["statement", "begin", "commit", "rollback"],
)
def test_server_s_log_says_what_the_refused_statement_is(
    callback, own_server, text, autocommit, strike
):
    dsn = own_server.dsn("unix", options="-c log_min_messages=error")
    with contextlib.closing(psycopg2.connect(dsn, connection_factory=Plain)) as conn:
        conn.autocommit = autocommit
        conn.cursor().execute("select 1")
        before = len(own_server.log())
        assert_raised(conn, conn.strike(), strike, conn)
    said = own_server.log()[before:]
    [error] = [line for line in said.splitlines() if "ERROR:" in line]
    assert f'ERROR:  invalid input syntax for type integer: "greenwait: {text}"' in error


@needs_refusal
def test_database_without_plpgsql(callback, own_server):
    with contextlib.closing(psycopg2.connect(own_server.dsn("unix"))) as admin:
        admin.autocommit = True
        admin.cursor().execute("create database bare")
    dsn = own_server.dsn("unix", dbname="bare")
    try:
        with contextlib.closing(psycopg2.connect(dsn, connection_factory=Plain)) as conn:
            conn.cursor().execute("drop extension plpgsql")
            conn.commit()
            with pytest.raises(psycopg2.Error, match="plpgsql"):
                conn.cursor().execute("do $$begin end$$")
            conn.rollback()
            assert_raised(conn, conn.strike(2), conn.cursor().execute, "select 1")
            assert_usable(conn)
    finally:
        with contextlib.closing(psycopg2.connect(own_server.dsn("unix"))) as admin:
            admin.autocommit = True
            admin.cursor().execute("drop database bare")


@pytest.fixture
def standby():
    """A server in recovery, which has nobody to follow; it takes queries."""
    with Server() as server:
        (server.directory / "data" / "standby.signal").touch()
        server.restart(signal.SIGINT)
        give_up = time.monotonic() + 30
        while True:
            try:
                psycopg2.connect(server.dsn("unix")).close()
                break
            except psycopg2.OperationalError:
                assert time.monotonic() < give_up, server.log()
                time.sleep(0.05)
        yield server


@needs_refusal
def test_standby(callback, standby):
    with contextlib.closing(
        psycopg2.connect(standby.dsn("unix"), connection_factory=Plain)
    ) as conn:
        assert one(conn, "select pg_is_in_recovery()")
        conn.rollback()
        assert_raised(conn, conn.strike(2), conn.cursor().execute, "select 1")
        assert_usable(conn)
        conn.autocommit = True
        assert_raised(conn, conn.strike(), conn.cursor().execute, "select 1")
        assert_usable(conn)


@needs_refusal
@pytest.mark.parametrize("is_deadline", [False, True], ids=["interrupt", "deadline"])
def test_silence_at_the_refused_statement_ends_with_the_grace(connect, own_server, is_deadline):
    # A deadline is to pass after it was interrupted, and before the end of the grace.
    grace = 3 if is_deadline else 0.5
    with (
        contextlib.closing(
            psycopg2.connect(own_server.dsn("unix"), connection_factory=Plain)
        ) as conn,
        contextlib.ExitStack() as silence,
        greenwait.installed(cancel_grace=grace),
    ):
        conn.autocommit = True
        conn.cursor().execute("select 1")
        struck: Any = conn
        struck.before = lambda fd: silence.enter_context(frozen(conn.info.backend_pid))
        raised = conn.strike()
        began = time.monotonic()
        with contextlib.ExitStack() as block:
            if is_deadline:  # which the refused statement has nothing to do with
                block.enter_context(greenwait.timeout(2))
            assert_raised(conn, raised, conn.cursor().execute, "select 1")
        took = time.monotonic() - began
        assert grace <= took < grace + 5
        assert conn.closed
        assert isinstance(raised.__cause__, psycopg2.OperationalError)
        assert f"within {grace} s of the interrupt" in str(raised.__cause__)


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
