"""An interrupt that meets a success, where the server does not answer as usual."""

import contextlib
import signal
import time
from typing import Any

import psycopg2
import pytest

import greenwait
from greenwait._psycopg.libpq import FAST_PATHS
from tests.lab.freezers import frozen
from tests.lab.marks import needs_refusal
from tests.lab.postgres import Server
from tests.lab.queries import assert_usable, one
from tests.lab.struck import Plain, assert_raised

pytestmark = pytest.mark.patient


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
