"""COPY with greenwait's cursors: which classes, what is refused, and what psycopg2 lacks."""

import io
import sys
import threading
import time
from typing import Any

import psycopg2
import psycopg2.extensions
import psycopg2.extras
import pytest

import greenwait
from greenwait._psycopg.libpq import FAST_PATHS
from tests.lab.marks import needs_copy, needs_session

pytestmark = needs_session

ROWS = "1\ta\n2\tb\n"


@needs_copy
def test_cursor_of_a_plain_connection(callback, connect):
    conn = connect()
    cur = conn.cursor(cursor_factory=greenwait.Cursor)
    cur.execute("create temp table t (id int, data text)")
    cur.copy_from(io.StringIO(ROWS), "t")
    assert (cur.rowcount, cur.statusmessage) == (2, "COPY 2")
    file = io.StringIO()
    cur.copy_to(file, "t")
    assert file.getvalue() == ROWS


@needs_copy
def test_connection_with_greenwait_s_class_as_its_default(callback, server):
    conn = psycopg2.connect(server.dsn(server.transports[0]), cursor_factory=greenwait.Cursor)
    file = io.BytesIO()
    conn.cursor().copy_expert("copy (select 1) to stdout", file)
    assert file.getvalue() == b"1\n"
    conn.close()


@needs_copy
@pytest.mark.parametrize(
    "factory",
    [
        psycopg2.extras.RealDictCursor,
        psycopg2.extras.LoggingCursor,
        psycopg2.extras.NamedTupleCursor,
        psycopg2.extras.DictCursor,
    ],
)
def test_class_of_psycopg2_extras(copying, factory):
    copying.initialize = lambda: None
    copying.log = lambda *args: None
    cur = copying.cursor(cursor_factory=factory)
    assert isinstance(cur, factory)
    cur.copy_from(io.StringIO(ROWS), "t")
    assert cur.rowcount == 2


@needs_copy
def test_class_of_the_program_calls_greenwait_s_by_super(copying):
    class Own(psycopg2.extensions.cursor):
        def copy_expert(self, sql: Any, file, size=8192):
            return super().copy_expert(sql.replace("TABLE", "t"), file, size)

    cur = copying.cursor(cursor_factory=Own)
    cur.copy_expert("copy TABLE from stdin", io.StringIO(ROWS))
    assert isinstance(cur, Own)
    assert cur.rowcount == 2


@needs_copy
def test_class_with_slots(copying):
    class Own(psycopg2.extensions.cursor):
        __slots__ = ("own",)

    cur = copying.cursor(cursor_factory=Own)
    cur.copy_from(io.StringIO(ROWS), "t")
    assert cur.rowcount == 2


def test_without_a_callback_it_is_psycopg2_s_own(connect):
    psycopg2.extensions.set_wait_callback(None)
    conn = connect(connection_factory=greenwait.Connection)
    cur = conn.cursor()
    cur.execute("create temp table t (id int, data text)")
    cur.copy_from(io.StringIO(ROWS), "t")
    file = io.StringIO()
    cur.copy_to(file, "t")
    cur.copy_expert("copy t to stdout", file)
    assert file.getvalue() == ROWS * 2
    assert conn.info.transaction_status == psycopg2.extensions.TRANSACTION_STATUS_INTRANS


def test_with_another_callback_psycopg2_refuses_it(connect):
    psycopg2.extensions.set_wait_callback(psycopg2.extras.wait_select)
    conn = connect(connection_factory=greenwait.Connection)
    with pytest.raises(psycopg2.ProgrammingError, match="with an asynchronous callback"):
        conn.cursor().copy_expert("copy (select 1) to stdout", io.BytesIO())
    assert conn.info.transaction_status == psycopg2.extensions.TRANSACTION_STATUS_IDLE


@needs_copy
def test_callback_that_calls_greenwait_s(connect):
    psycopg2.extensions.set_wait_callback(lambda conn: greenwait.wait(conn))
    conn = connect(connection_factory=greenwait.Connection)
    cur = conn.cursor()
    cur.execute("select 1")  # greenwait has been called by it since
    file = io.BytesIO()
    cur.copy_expert("copy (select 1) to stdout", file)
    assert file.getvalue() == b"1\n"


@pytest.mark.skipif(FAST_PATHS["COPY"] == "on", reason="it is transferred by libpq's functions")
def test_without_libpq_s_functions_nothing_is_sent(copying):
    with pytest.raises(psycopg2.ProgrammingError, match="nothing has been sent"):
        copying.cursor().copy_expert("copy t from stdin", io.StringIO(ROWS))
    assert copying.info.transaction_status == psycopg2.extensions.TRANSACTION_STATUS_IDLE


@needs_copy
@pytest.mark.parametrize(
    "statement",
    [
        "copy t from stdin; copy t from stdin",
        "copy t to stdout; copy t to stdout",
        "copy t to stdout; copy t from stdin",
        "copy t from stdin; copy (select generate_series(1, 1000000)) to stdout",
    ],
)
def test_two_copies_in_one_statement_are_refused(copying, count, statement):
    class Both(io.BytesIO):
        def write(self, data):
            return len(data)

    with pytest.raises(psycopg2.ProgrammingError, match="begins a second COPY"):
        copying.cursor().copy_expert(statement, Both(ROWS.encode()))
    copying.rollback()
    assert count(copying) == 0


@needs_copy
@pytest.mark.parametrize("statement", ["copy t from stdin", "copy (select 1) to stdout"])
@pytest.mark.parametrize("method", ["commit", "rollback", "execute", "copy_to", "close"])
def test_connection_can_not_be_used_in_the_file_s_methods(copying, method, statement):
    caught = []

    class Using:
        def use(self, _):
            cur = copying.cursor()
            try:
                if method == "execute":
                    cur.execute("select 1")
                elif method == "copy_to":
                    cur.copy_to(io.BytesIO(), "t")
                else:
                    getattr(copying, method)()
            except psycopg2.ProgrammingError as exc:
                caught.append(exc)
            return b""

        read = write = use

    copying.cursor().copy_expert(statement, Using())
    assert len(caught) == 1


@needs_copy
def test_query_on_a_plain_connection_in_read_is_refused(callback, connect):
    conn = connect()
    cur = conn.cursor(cursor_factory=greenwait.Cursor)
    cur.execute("create temp table t (id int, data text)")

    class Using:
        def read(self, _size):
            conn.cursor().execute("select 1")

    with pytest.raises(psycopg2.errors.QueryCanceled) as info:
        cur.copy_from(Using(), "t")
    assert isinstance(info.value.__cause__, psycopg2.ProgrammingError)


@needs_copy
def test_other_connection_is_copied_from_in_read(copying, connect, count):
    """From one server to another, a row at a time."""
    source = connect(connection_factory=greenwait.Connection)
    numbers = iter(range(5))

    class Relay:
        def read(self, _size):
            number = next(numbers, None)
            if number is None:
                return b""
            file = io.BytesIO()
            source.cursor().copy_expert(f"copy (select {number}, 'x') to stdout", file)
            return file.getvalue()

    copying.cursor().copy_from(Relay(), "t")
    assert count(copying) == 5


@needs_copy
def test_notices_arrive_during_the_copy(copying):
    copying.cursor().execute("""
        create function pg_temp.tell() returns trigger language plpgsql as
        $$begin raise notice '%', repeat('x', 100); return new; end$$;
        create trigger tells before insert on t for each row execute function pg_temp.tell()""")
    give_up = time.monotonic() + 20
    seen = []

    class Rows:
        def read(self, _size):
            seen[:] = copying.notices
            return b"" if seen or time.monotonic() > give_up else b"1\ta\n" * 2000

    copying.cursor().copy_from(Rows(), "t")
    assert seen
    assert len(copying.notices) == 50  # psycopg2 keeps as many


@needs_copy
def test_notices_in_a_list_of_the_program(copying, count):
    class Notices:
        def __init__(self):
            self.all = []

        def append(self, notice):
            self.all.append(notice)

    copying.cursor().execute("""
        create function pg_temp.tell() returns trigger language plpgsql as
        $$begin raise notice 'x'; return new; end$$;
        create trigger tells before insert on t for each row execute function pg_temp.tell()""")
    copying.notices = Notices()
    copying.cursor().copy_from(io.StringIO("1\ta\n" * 50_000), "t")
    assert count(copying) == 50_000
    assert len(copying.notices.all) == 50_000


@needs_copy
def test_chunks_of_all_sizes(copying):
    sizes = [0, 1, 8191, 8192, 65_535, 65_536, 65_537, 1_000_000, 20_000_000, 3]
    text = b"".join(b"%d\t%s\n" % (size, b"x" * size) for size in sizes)
    cur = copying.cursor()
    cur.copy_from(io.BytesIO(text), "t", size=len(text))
    file = io.BytesIO()
    cur.copy_to(file, "t")
    assert file.getvalue() == text


@needs_copy
@pytest.mark.timeout(200)
def test_row_of_200_megabytes(run_program):
    assert run_program("copy_large_row", timeout=150).strip() == "well"


@pytest.fixture
def switches_often():
    """Let the threads have the GIL in turn as often as that goes."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@needs_copy
def test_threads_that_share_a_plain_connection(callback, connect, switches_often):
    """psycopg2's mutex lets one of them copy at a time, each with its own file."""
    conn = connect()
    conn.cursor().execute("create temp table t (id int, data text)")
    counts, failures = [], []

    def work(number):
        rows = 50 + number
        for _ in range(30):
            cur = conn.cursor(cursor_factory=greenwait.Cursor)
            try:
                cur.copy_from(io.StringIO(f"{number}\ta\n" * rows), "t")
                counts.append(cur.rowcount == rows)
            except psycopg2.ProgrammingError:
                pass  # another one is at it
            except BaseException as exc:
                failures.append(exc)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(counts) > 0
    assert all(counts)


@needs_copy
def test_replication_stream_is_refused(callback, server):
    conn = psycopg2.connect(
        server.dsn(server.transports[0]),
        connection_factory=psycopg2.extras.PhysicalReplicationConnection,
    )
    cur = psycopg2.extensions.cursor(conn)
    cur.execute("IDENTIFY_SYSTEM")
    position = cur.fetchall()[0][2]
    with pytest.raises(psycopg2.ProgrammingError, match="replication stream"):
        cur.execute(f"START_REPLICATION {position}")
    assert not conn.closed
    cur.execute("IDENTIFY_SYSTEM")
    assert cur.fetchall()[0][2]
    conn.close()
