"""An interrupt that meets a success: psycopg2 raises it, and is right about the server's state."""

import contextlib
import os
import time

import psycopg2
import pytest
from psycopg2 import errors
from psycopg2.extensions import STATUS_READY, TRANSACTION_STATUS_IDLE, TRANSACTION_STATUS_INERROR

import greenwait
from greenwait._psycopg.libpq import FAST_PATHS
from tests.lab.interrupts import Limit
from tests.lab.marks import needs_refusal
from tests.lab.queries import assert_usable, one
from tests.lab.struck import BEGIN, Own, Plain, assert_raised

pytestmark = pytest.mark.patient


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
def test_named_cursor_of_a_block_in_autocommit_mode_whose_begin_was_interrupted(struck):
    struck.autocommit = True
    raised = struck.strike(BEGIN)
    with pytest.raises(Limit) as info, struck, struck.cursor("named") as cur:
        cur.execute("select 1")
    assert info.value is raised
    struck.rollback()
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
