"""Mistakes with connections, cursors, COPY, large objects and streams; each is told what to do."""

import contextlib
import io
from collections.abc import Callable
from typing import Any

import psycopg2
import psycopg2.extras
import pytest

import greenwait
from tests.lab.mistakes import (
    NOT_NEGATIVE,
    SECONDS,
    SYNCHRONOUS,
    Lab,
    Table,
    async_many,
    async_one,
    closed,
    one,
    tell,
)


def connect(*args: Any, **options: Any) -> Callable[[Lab], Any]:
    return lambda lab: lab.any.connect(*(args or (lab.dsn,)), **options)


async def async_with_connection(lab: Lab) -> None:
    async with lab.conn:
        pass


async def async_with_cursor(lab: Lab) -> None:
    async with lab.conn.cursor():
        pass


async def async_for_cursor(lab: Lab) -> None:
    async for _ in lab.conn.cursor():
        pass


def blocks_nested(lab: Lab) -> None:
    with lab.conn, lab.conn:
        pass


def closed_cursor(lab: Lab) -> None:
    cur = lab.cur
    cur.close()
    cur.execute("select 1")


def lobject_after_commit(lab: Lab) -> None:
    found = lab.conn.lobject(0, "wb")
    lab.conn.commit()
    found.write(b"x")


def lobject_closed(lab: Lab) -> None:
    found = lab.conn.lobject(0, "wb")
    found.close()
    found.read()


def lobject_in_autocommit(lab: Lab) -> None:
    lab.conn.autocommit = True
    lab.conn.lobject()


def replicating(make: Callable[[Any], Any]) -> Callable[[Lab], None]:
    def mistake(lab: Lab) -> None:
        conn: Any = greenwait.connect(
            lab.dsn, connection_factory=greenwait.LogicalReplicationConnection
        )
        with contextlib.closing(conn):
            make(conn.cursor())

    return mistake


NO_STREAM = "not replicating, call start_replication first"
INVALID = psycopg2.ProgrammingError

MISTAKES: Table = {
    # Connecting
    "connect(123)": (TypeError, "dsn must be a connection string, not 'int': one as 'dbname=shop'",
        connect(123)),
    "connect(b'...')": (TypeError, "not 'bytes'", connect(b"dbname=x")),
    "connect({...})": (TypeError, "not 'dict': .*its parts are passed by name",
        connect({"dbname": "x"})),
    "connect('localhost')": (INVALID, "a connection string is 'dbname=shop", connect("localhost")),
    "connect(SQLAlchemy's URL)": (INVALID, "it is SQLAlchemy's URL; libpq's begins with",
        connect("postgresql+psycopg2://localhost/x")),
    "connect(conninfo=)": (INVALID, "\"conninfo\": it is dsn", connect(conninfo="dbname=x")),
    "connect(autocommit=)": (INVALID, "set conn.autocommit", connect(autocommit=True)),
    "connect(row_factory=)": (INVALID, "it is cursor_factory", connect(row_factory=dict)),
    "connect(timeout=)": (INVALID, r"it is connect_timeout; queries have greenwait.timeout\(\)",
        connect(timeout=1)),
    "connect(command_timeout=)": (INVALID, r"it is greenwait.timeout\(\)",
        connect(command_timeout=1)),
    "connect(ssl=)": (INVALID, "it is sslmode", connect(ssl=True)),
    "connect(server_settings=)": (INVALID, "it is options='-c", connect(server_settings="x")),
    "connect(prepare_threshold=)": (INVALID, "psycopg2 prepares no statements",
        connect(prepare_threshold=5)),
    "connect(max_size=)": (INVALID, "that is greenwait.Pool's", connect(max_size=5)),
    "connect(conect_timeout=)": (INVALID, "did you mean connect_timeout?",
        connect(conect_timeout=5)),
    "connect(xyzzy=)": (INVALID, "libpq has no such option", connect(xyzzy=5)),
    "connect(connect_timeout='x')": (psycopg2.OperationalError,
        'invalid integer value "x" for connection option "connect_timeout"',
        connect(connect_timeout="x")),
    "connect(connection_factory=1)": (TypeError, "connection_factory must be a class .*not 'int'",
        connect(connection_factory=1)),
    "connect(connection_factory=dict)": (TypeError, "must be a subclass of connection, not dict",
        connect(connection_factory=dict)),
    "connect(cursor_factory=1)": (TypeError, "cursor_factory must be a class .*not 'int'",
        connect(cursor_factory=1)),
    "connect(cursor_factory=dict)": (TypeError, "must be a subclass of cursor, not dict",
        connect(cursor_factory=dict)),
    # Connections and cursors
    "conn.execute()": (AttributeError, r"cur = conn.cursor\(\), and cur.execute\(\)",
        lambda lab: lab.conn.execute("select 1")),
    "conn.fetchrow()": (AttributeError, r"and its fetchone\(\)",
        lambda lab: lab.conn.fetchrow("select 1")),
    "conn.transaction()": (AttributeError, "it is 'with conn:'",
        lambda lab: lab.conn.transaction()),
    "conn.set_autocommit()": (AttributeError, "set conn.autocommit = True",
        lambda lab: lab.conn.set_autocommit(True)),
    "conn.add_listener()": (AttributeError, r"it is greenwait.notifies\(conn\)",
        lambda lab: lab.conn.add_listener("x", one)),
    "conn.is_closed()": (AttributeError, "it is the attribute closed",
        lambda lab: lab.conn.is_closed()),
    "cur.fetchval()": (AttributeError, r"it is fetchone\(\)\[0\]", lambda lab: lab.cur.fetchval()),
    "cur.copy()": (AttributeError, r"it is copy_expert\(\)", lambda lab: lab.cur.copy("copy t")),
    "cur.stream()": (AttributeError, r"conn.cursor\('a name'\)",
        lambda lab: lab.cur.stream("select 1")),
    "cur.execute_values()": (AttributeError, "it is psycopg2.extras.execute_values",
        lambda lab: lab.cur.execute_values("x", [])),
    "cursor(DictCursor)": (TypeError, r"write cursor\(cursor_factory=DictCursor\)",
        lambda lab: lab.conn.cursor(psycopg2.extras.DictCursor)),
    "cursor(1)": (TypeError, "a cursor's name must be str, not 'int'",
        lambda lab: lab.conn.cursor(1)),
    "cursor(row_factory=)": (TypeError, "it is cursor_factory",
        lambda lab: lab.conn.cursor(row_factory=dict)),
    "async with conn": (TypeError, "synchronous one: write 'with'.*greenwait.aio.connect",
        async_with_connection),
    "async with cur": (TypeError, "synchronous one: write 'with'.*greenwait.aio.connect",
        async_with_cursor),
    "async for row in cur": (TypeError, "write 'with' and 'for'", async_for_cursor),
    "with conn, conn": (psycopg2.ProgrammingError, "is open already.*use a connection for each",
        blocks_nested),
    "closed.cursor()": (psycopg2.InterfaceError, "connection already closed",
        lambda lab: closed(lab).cursor()),
    "closed.commit()": (psycopg2.InterfaceError, "connection already closed",
        lambda lab: closed(lab).commit()),
    "a closed cursor": (psycopg2.InterfaceError, "cursor already closed", closed_cursor),
    "fetchone() before execute()": (psycopg2.ProgrammingError, "no results to fetch",
        lambda lab: lab.cur.fetchone()),
    "class C(Connection, LoggingConnection)": (
        TypeError, "write LoggingConnection before Connection",
        lambda lab: type("C", (greenwait.Connection, psycopg2.extras.LoggingConnection), {})),
    "class C(Cursor, DictCursor)": (TypeError, "write DictCursor before Cursor",
        lambda lab: type("C", (greenwait.Cursor, psycopg2.extras.DictCursor), {})),
    # Notifications and cancels
    "notifies()": (TypeError, "'conn'", lambda lab: lab.any.notifies()),
    "notifies(None)": (TypeError, r"notifies\(\) takes a psycopg2 connection, not 'NoneType'",
        lambda lab: list(lab.any.notifies(None))),
    "notifies('channel')": (TypeError, "takes a psycopg2 connection, not 'str'",
        lambda lab: lab.any.notifies("channel")),
    "notifies(cursor)": (TypeError, "takes a psycopg2 connection, not 'Cursor'",
        lambda lab: lab.any.notifies(lab.cur)),
    "notifies(closed)": (psycopg2.InterfaceError, "connection already closed",
        lambda lab: list(greenwait.notifies(closed(lab)))),
    "notifies(conn, 'x')": (TypeError, "timeout " + SECONDS,
        lambda lab: lab.any.notifies(lab.conn, "x")),
    "notifies(conn, -1)": (ValueError, "timeout=-1: " + NOT_NEGATIVE,
        lambda lab: greenwait.notifies(lab.conn, -1)),
    "cancel(None)": (TypeError, r"cancel\(\) takes a psycopg2 connection, not 'NoneType'",
        lambda lab: lab.any.cancel(None)),
    "cancel(cursor)": (TypeError, "takes a psycopg2 connection, not 'Cursor'",
        lambda lab: lab.any.cancel(lab.conn.cursor())),
    "cancel(pid)": (TypeError, "takes a psycopg2 connection, not 'int'",
        lambda lab: lab.any.cancel(lab.conn.info.backend_pid)),
    "cancel(conn, '1')": (TypeError, "timeout " + SECONDS,
        lambda lab: lab.any.cancel(lab.conn, "1")),
    "cancel(conn, -1)": (ValueError, NOT_NEGATIVE, lambda lab: lab.any.cancel(lab.conn, -1)),
    "cancel(closed)": (psycopg2.InterfaceError, "nothing to cancel: the connection is closed",
        lambda lab: lab.any.cancel(closed(lab))),
    # COPY
    "copy_from('1')": (TypeError, r"io.StringIO\(text\) has, not 'str'",
        lambda lab: lab.cur.copy_from("1\n", "t")),
    "copy_from([...])": (TypeError, r"io.StringIO\(text\) has, not 'list'",
        lambda lab: lab.cur.copy_from(["1"], "t")),
    "copy_from(file, 1)": (TypeError, "table, sep and null must be str, not int",
        lambda lab: lab.cur.copy_from(io.StringIO("1"), 1)),
    "copy_from(async generator)": (TypeError, "not 'async_generator'",
        lambda lab: lab.cur.copy_from(async_many(), "t")),
    "copy_to('file')": (TypeError, r"io.BytesIO\(\) has, not 'str'",
        lambda lab: lab.cur.copy_to("file", "t")),
    "copy_expert(file, sql)": (TypeError, "file must be a readable file-like object",
        lambda lab: lab.cur.copy_expert(io.StringIO("1"), "copy t from stdin")),
    "execute('copy')": (psycopg2.ProgrammingError, r"use the copy_from\(\) method instead",
        lambda lab: lab.cur.execute("create temp table t (a int); copy t from stdin")),
    # Large objects
    "lobject() in autocommit": (psycopg2.ProgrammingError, "outside of transactions",
        lobject_in_autocommit),
    "lobject(mode='q')": (ValueError, "bad mode for lobject: 'q'",
        lambda lab: lab.conn.lobject(0, "q")),
    "lobject().write(1)": (TypeError, "requires a string; got int",
        lambda lab: lab.conn.lobject(0, "wb").write(1)),
    "a closed lobject": (psycopg2.InterfaceError, "lobject already closed", lobject_closed),
    "lobject after commit": (psycopg2.ProgrammingError, "isn't valid anymore",
        lobject_after_commit),
    # Streams
    "start_replication() of a plain connection": (psycopg2.ProgrammingError,
        "connection_factory=greenwait.LogicalReplicationConnection",
        lambda lab: lab.conn.cursor(
            cursor_factory=greenwait.ReplicationCursor).start_replication("slot")),
    "start_replication(status_interval='x')": (TypeError, "status_interval " + SECONDS,
        replicating(lambda cur: cur.start_replication("slot", status_interval="x"))),
    "start_replication(status_interval=0)": (psycopg2.ProgrammingError,
        r"status_interval must be >= 1 \(sec\)",
        replicating(lambda cur: cur.start_replication("slot", status_interval=0))),
    "start_replication('none')": (psycopg2.ProgrammingError, "does not exist",
        replicating(lambda cur: cur.start_replication("none"))),
    "consume_stream(async)": (TypeError, r"consume_stream\(\) " + SYNCHRONOUS,
        replicating(lambda cur: cur.consume_stream(async_one))),
    "consume_stream(None)": (TypeError, "takes a function, not 'NoneType'",
        replicating(lambda cur: cur.consume_stream(None))),
    "consume_stream() of no stream": (psycopg2.ProgrammingError, NO_STREAM,
        replicating(lambda cur: cur.consume_stream(one))),
    "read_message() of no stream": (psycopg2.ProgrammingError, NO_STREAM,
        replicating(lambda cur: cur.read_message())),
    "send_feedback() of no stream": (psycopg2.ProgrammingError, NO_STREAM,
        replicating(lambda cur: cur.send_feedback())),
    "stop_replication() of no stream": (psycopg2.ProgrammingError, NO_STREAM,
        replicating(lambda cur: cur.stop_replication())),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake(server: Any, mistake: str) -> None:
    tell(server, MISTAKES, mistake)
