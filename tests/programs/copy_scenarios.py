"""Scenarios of COPY, run by blocking psycopg2 or by greenwait: ``DSN MODE``.

Prints a JSON object: for each scenario what the program has seen.
"""

import io
import itertools
import json
import os
import re
import sys
from typing import Any

import psycopg2
import psycopg2.extensions
import psycopg2.extras
from psycopg2 import sql

SCENARIOS = {}


def scenario(function):
    """Register a function of a ``Lab`` that does a COPY, and returns what it has seen."""
    SCENARIOS[function.__name__] = function
    return function


class Lab:
    """A connection with a table, and what a scenario needs."""

    def __init__(self, connect, dsn):
        self.conn = connect(dsn)
        self.cur = self.conn.cursor()
        self.cur.execute("create temp table t (id int, data text)")
        self.conn.commit()
        self.connect, self.dsn = connect, dsn

    def copy(self, statement, file, *args):
        self.cur.copy_expert(statement, file, *args)
        return self.cur.rowcount

    def out(self, statement="copy t to stdout", file=None):
        file = io.BytesIO() if file is None else file
        return self.copy(statement, file), repr(file.getvalue())

    def rows(self, table="t"):
        with self.conn.cursor() as cur:
            cur.execute(f"select * from {table} order by 1")
            return repr(cur.fetchall())


def observe(lab, function):
    """Return what *function* returns or raises, and how it leaves the connection."""
    seen: dict[str, object] = {}
    try:
        seen["returned"] = repr(function(lab))
    except psycopg2.Error as exc:
        seen["raised"] = [type(exc).__name__, str(exc), exc.pgcode, exc.pgerror]
        names = (
            "severity",
            "message_primary",
            "message_detail",
            "context",
            "table_name",
            "column_name",
            "constraint_name",
            "sqlstate",
        )
        seen["diag"] = {name: getattr(exc.diag, name) for name in names}
        seen["cursor"] = exc.cursor is lab.cur
    except Exception as exc:
        seen["raised"] = [type(exc).__name__]
    seen["rowcount"] = lab.cur.rowcount
    seen["query"] = repr(lab.cur.query)
    seen["description"] = repr(lab.cur.description)
    seen["status"] = [lab.conn.status, lab.conn.info.transaction_status, lab.conn.closed]
    seen["notices"] = lab.conn.notices
    if not lab.conn.closed:
        lab.conn.rollback()
        lab.conn.autocommit = False
        lab.cur.execute("select 6 * 7")
        seen["then"] = lab.cur.fetchone()
    return seen


# -- In


@scenario
def text_in(lab):
    lab.cur.copy_from(io.StringIO("1\ta\n2\t\\N\n3\t\\\\x\\ty\n"), "t")
    return lab.cur.rowcount, lab.rows()


@scenario
def bytes_in(lab):
    lab.cur.copy_from(io.BytesIO(b"1\ta\n2\tb\n"), "t")
    return lab.cur.rowcount, lab.rows()


@scenario
def empty_in(lab):
    lab.cur.copy_from(io.StringIO(""), "t")
    return lab.cur.rowcount, lab.rows()


@scenario
def no_newline_at_the_end(lab):
    lab.cur.copy_from(io.StringIO("1\ta\n2\tb"), "t")
    return lab.cur.rowcount, lab.rows()


@scenario
def end_marker(lab):
    return lab.copy("copy t from stdin", io.StringIO("1\ta\n\\.\n")), lab.rows()


@scenario
def byte_order_mark(lab):
    return lab.copy("copy t from stdin", io.StringIO("\ufeff1\ta\n")), lab.rows()


@scenario
def one_byte_at_a_time(lab):
    lab.cur.copy_from(io.StringIO("1\ta\n2\tb\n"), "t", size=1)
    return lab.cur.rowcount, lab.rows()


@scenario
def size_zero_and_negative(lab):
    lab.cur.copy_from(io.StringIO("1\ta\n"), "t", size=-1)
    lab.cur.copy_from(io.StringIO("2\tb\n"), "t", size=0)
    return lab.cur.rowcount, lab.rows()


@scenario
def separator_and_null(lab):
    lab.cur.copy_from(io.StringIO("1|x\n2|'n\\\n"), "t", sep="|", null="'n")
    return lab.cur.query, lab.rows()


@scenario
def separator_quoted(lab):
    lab.cur.copy_from(io.StringIO("1'a\n2'''\n"), "t", sep="'", null="\\")
    return lab.cur.rowcount, lab.rows()


@scenario
def columns(lab):
    lab.cur.copy_from(io.StringIO("a\nb\n"), "t", columns=["data"])
    return lab.cur.query, lab.rows()


@scenario
def columns_of_a_generator(lab):
    lab.cur.copy_from(io.StringIO("a\t1\n"), "t", columns=(each for each in ("data", "id")))
    return lab.cur.query, lab.rows()


@scenario
def columns_empty(lab):
    try:
        lab.cur.copy_from(io.StringIO("a\n"), "t", columns=[])
    except psycopg2.errors.SyntaxError as exc:
        lab.cur.execute("rollback; select 1")  # its text differs by a parenthesis
        return exc.pgcode


@scenario
def columns_that_raise(lab):
    lab.cur.copy_from(io.StringIO("a\n"), "t", columns=(1 / 0 for _ in range(1)))


@scenario
def columns_of_bytes(lab):
    lab.cur.copy_from(io.StringIO("a\n"), "t", columns=[b"data"])
    return lab.cur.query, lab.rows()


@scenario
def names_to_be_quoted(lab):
    lab.cur.execute('create temp table "Or""der" ("or der" int, "é" text)')
    lab.cur.copy_from(io.StringIO("1\tx\n"), 'Or"der', columns=["or der", "é"])
    return lab.cur.query, lab.rows('"Or""der"')


@scenario
def schema_in_the_name(lab):
    lab.cur.copy_from(io.StringIO("1\tx\n"), "pg_temp.t")


@scenario
def csv_in(lab):
    data = 'id,data\n1,"a ""b"", c"\n2,\n3,""\n'
    return lab.copy("copy t from stdin (format csv, header)", io.StringIO(data)), lab.rows()


@scenario
def binary_there_and_back(lab):
    lab.cur.execute("insert into t values (1, 'é'), (2, null)")
    file = io.BytesIO()
    lab.cur.copy_expert("copy t to stdout (format binary)", file)
    file.seek(0)
    lab.cur.copy_expert("copy t from stdin (format binary)", file)
    return lab.cur.rowcount, file.getvalue(), lab.rows()


@scenario
def bad_row(lab):
    lab.cur.copy_from(io.StringIO("1\ta\nx\tb\n3\tc\n"), "t")


@scenario
def bad_row_late(lab):
    lines = itertools.chain((f"{i}\ta\n" for i in range(50_000)), ["x\tb\n"])
    lab.cur.copy_from(io.StringIO("".join(lines)), "t")


@scenario
def too_many_columns(lab):
    lab.cur.copy_from(io.StringIO("1\ta\tb\n"), "t")


@scenario
def constraint(lab):
    lab.cur.execute("create temp table c (id int primary key, data text check (data <> 'x'))")
    lab.cur.copy_from(io.StringIO("1\ta\n2\tx\n"), "c")


@scenario
def duplicate_key(lab):
    lab.cur.execute("create temp table c (id int primary key)")
    lab.cur.copy_from(io.StringIO("1\n1\n"), "c")


@scenario
def deferred_constraint(lab):
    lab.cur.execute("create temp table c (id int primary key deferrable initially deferred)")
    lab.conn.commit()
    lab.conn.autocommit = True
    lab.cur.copy_from(io.StringIO("1\n1\n"), "c")


@scenario
def no_such_table(lab):
    lab.cur.copy_from(io.StringIO("1\n"), "absent")


@scenario
def failed_transaction(lab):
    try:
        lab.cur.execute("select 1 / 0")
    except psycopg2.DataError:
        lab.cur.copy_from(io.StringIO("1\ta\n"), "t")


class Reading:
    """A file whose read() does the given things in turn; an exception is raised."""

    def __init__(self, *turns):
        self.turns = list(turns)

    def read(self, _size):
        turn = self.turns.pop(0)
        if isinstance(turn, BaseException):
            raise turn
        return turn


@scenario
def read_raises(lab):
    lab.cur.copy_from(Reading(b"1\ta\n", ZeroDivisionError("of mine")), "t")


@scenario
def read_raises_at_once(lab):
    lab.cur.copy_from(Reading(ValueError("of mine")), "t")


@scenario
def read_returns_no_data(lab):
    try:
        lab.cur.copy_from(Reading(None), "t")
    except psycopg2.errors.QueryCanceled as exc:
        return exc.pgcode, str(exc).split("call")[0]


@scenario
def read_returns_what_can_not_be_encoded(lab):
    lab.conn.set_client_encoding("latin1")
    try:
        lab.cur.copy_from(Reading("1\t\u20ac\n"), "t")
    except psycopg2.errors.QueryCanceled as exc:
        return exc.pgcode, str(exc).split("\\u20ac")[0]


@scenario
def latin1_text_in(lab):
    lab.conn.set_client_encoding("latin1")
    lab.cur.copy_from(io.StringIO("1\té\n"), "t")
    return lab.rows()


@scenario
def latin1_bytes_in_a_utf8_session(lab):
    lab.cur.copy_from(io.BytesIO("1\té\n".encode("latin1")), "t")


@scenario
def euc_jp(lab):
    lab.conn.set_client_encoding("euc_jp")
    lab.cur.copy_from(io.StringIO("1\t\u3042\n"), "t")
    return lab.out(), lab.out(file=io.StringIO()), lab.rows()


@scenario
def notices_of_a_trigger(lab):
    lab.cur.execute("""
        create function pg_temp.tell() returns trigger language plpgsql as
        $$begin raise notice 'row %', new.id; return new; end$$;
        create trigger tells before insert on t for each row execute function pg_temp.tell()""")
    lab.cur.copy_from(io.StringIO("".join(f"{i}\ta\n" for i in range(70))), "t")
    return lab.cur.rowcount


@scenario
def large_notices_of_a_trigger(lab):
    lab.cur.execute("""
        create function pg_temp.tell() returns trigger language plpgsql as
        $$begin raise notice '%', repeat('x', 50000); return new; end$$;
        create trigger tells before insert on t for each row execute function pg_temp.tell()""")
    lab.cur.copy_from(io.StringIO("1\ta\n" * 500), "t")
    return lab.cur.rowcount


@scenario
def trigger_that_fails(lab):
    lab.cur.execute("""
        create function pg_temp.fail() returns trigger language plpgsql as
        $$begin raise exception 'no %', new.id using errcode = 'ZZ123', detail = 'more'; end$$;
        create trigger fails before insert on t for each row execute function pg_temp.fail()""")
    lab.cur.copy_from(io.StringIO("1\ta\n"), "t")


@scenario
def autocommit(lab):
    lab.conn.autocommit = True
    lab.cur.copy_from(io.StringIO("1\ta\n"), "t")
    return lab.conn.status, lab.rows()


@scenario
def read_only_transaction(lab):
    lab.cur.execute("create temp sequence s; set transaction_read_only = on")
    lab.cur.copy_from(io.StringIO("1\n"), "pg_class")


@scenario
def freeze_outside_of_its_transaction(lab):
    return lab.copy("copy t from stdin (freeze)", io.StringIO("1\ta\n"))


@scenario
def generated_columns(lab):
    lab.cur.execute("create temp table g (id serial, d text, l int generated always as (1) stored)")
    lab.cur.copy_from(io.StringIO("a\nb\n"), "g", columns=["d"])
    return lab.out("copy g to stdout")


# -- Out


@scenario
def bytes_out(lab):
    lab.cur.execute("insert into t values (1, 'a'), (2, null), (3, 'é\t')")
    file = io.BytesIO()
    lab.cur.copy_to(file, "t")
    return lab.cur.rowcount, file.getvalue()


@scenario
def text_out(lab):
    lab.cur.execute("insert into t values (1, 'a'), (2, null), (3, 'é\t')")
    file = io.StringIO()
    lab.cur.copy_to(file, "t", sep="|", null="-", columns=["data", "id"])
    return lab.cur.rowcount, file.getvalue(), lab.cur.query


@scenario
def nothing_out(lab):
    return lab.out()


@scenario
def header_out(lab):
    return lab.out("copy t to stdout (format csv, header)")


@scenario
def latin1_out(lab):
    lab.cur.execute("insert into t values (1, 'é')")
    lab.conn.commit()
    lab.conn.set_client_encoding("latin1")
    return lab.out(), lab.out(file=io.StringIO())


@scenario
def character_that_the_session_lacks(lab):
    lab.cur.execute("insert into t values (1, U&'\\20AC')")
    lab.conn.commit()
    lab.conn.set_client_encoding("latin1")
    return lab.out()


class Writing:
    """A file that counts the calls of its write(), and raises in one of them."""

    def __init__(self, raises_in=None, exception: Any = None):
        self.calls, self.raises_in, self.exception = [], raises_in, exception

    def write(self, row):
        if len(self.calls) == self.raises_in:
            raise self.exception
        self.calls.append(row)


@scenario
def a_row_each(lab):
    file = Writing()
    lab.cur.copy_expert("copy (select g from generate_series(1, 2000) g) to stdout", file)
    return lab.cur.rowcount, file.calls


@scenario
def write_raises(lab):
    """Blocking psycopg2 leaves the COPY open: it is ended by rollback(), by way of PQexec()."""
    lab.cur.execute("insert into t select g, 'x' from generate_series(1, 10000) g")
    file = Writing(3, ZeroDivisionError("of mine"))
    try:
        lab.cur.copy_to(file, "t")
    except ZeroDivisionError as exc:
        lab.conn.rollback()
        return str(exc), file.calls


@scenario
def file_on_a_full_disk(lab):
    lab.cur.execute("insert into t select g, 'x' from generate_series(1, 10000) g")
    if not os.path.exists("/dev/full"):
        return None
    with open("/dev/full", "wb", buffering=0) as file:
        try:
            lab.cur.copy_to(file, "t")
        except OSError as exc:
            lab.conn.rollback()  # as above
            return exc.errno
    return "no error"


@scenario
def lock_that_is_not_given(lab):
    lab.cur.execute("set client_min_messages = error; drop table if exists locked")
    lab.cur.execute("create table locked (id int)")
    lab.conn.commit()
    other = lab.connect(lab.dsn)
    other.cursor().execute("lock table locked")
    lab.cur.execute("set local lock_timeout = 50")
    try:
        lab.cur.copy_from(io.StringIO("1\n"), "locked")
    finally:
        other.close()


@scenario
def statement_timeout(lab):
    """The server is at work on a row as it ends the statement."""
    lab.cur.execute("""
        create function pg_temp.nap() returns trigger language plpgsql as
        $$begin perform pg_sleep(10); return new; end$$;
        create trigger naps before insert on t for each row execute function pg_temp.nap();
        set local statement_timeout = 100""")
    lab.cur.copy_from(io.StringIO("1\ta\n"), "t")


@scenario
def row_of_20_megabytes(lab):
    size = 20_000_000
    file = io.BytesIO()
    lab.cur.copy_expert(f"copy (select 1, repeat('x', {size})) to stdout", file)
    assert len(file.getvalue()) == size + 3
    file.seek(0)
    lab.cur.copy_expert("copy t from stdin", file, size)
    lab.cur.execute("select id, length(data) from t")
    return lab.cur.fetchall()


@scenario
def win1252(lab):
    lab.conn.set_client_encoding("win1252")
    lab.cur.copy_from(io.StringIO("1\t\u20ac\n"), "t")
    return lab.out(), lab.out(file=io.StringIO()), lab.rows()


@scenario
def sql_ascii(lab):
    lab.conn.set_client_encoding("sql_ascii")
    lab.cur.copy_from(io.BytesIO("1\té\n".encode()), "t")
    return lab.out()


@scenario
def row_that_fails(lab):
    lab.cur.copy_expert(
        "copy (select 1 / (5000 - g) from generate_series(1, 9000) g) to stdout", Writing()
    )


@scenario
def large_rows(lab):
    statement = "copy (select repeat('x', 3000000) from generate_series(1, 3)) to stdout"
    file = io.BytesIO()
    lab.cur.copy_expert(statement, file)
    return lab.cur.rowcount, len(file.getvalue())


@scenario
def notices_of_a_function(lab):
    lab.cur.execute("""create function pg_temp.tell(i int) returns int language plpgsql as
        $$begin raise notice 'row %', i; return i; end$$""")
    return lab.out("copy (select pg_temp.tell(g) from generate_series(1, 60) g) to stdout")


@scenario
def returning(lab):
    return lab.out("copy (insert into t values (1, 'a') returning id) to stdout"), lab.rows()


# -- What is no COPY, and wrong calls


@scenario
def no_copy_at_all(lab):
    lab.cur.copy_expert("select 1 as one", io.StringIO())
    return lab.cur.fetchall()


@scenario
def empty_statement(lab):
    lab.cur.copy_expert("", io.StringIO())


@scenario
def syntax_error(lab):
    lab.cur.copy_expert("copy t into stdin", io.StringIO())


@scenario
def percent_sign(lab):
    return lab.out("copy (select '100%', '%s') to stdout")


@scenario
def composed(lab):
    statement = sql.SQL("copy {} from stdin").format(sql.Identifier("t"))
    lab.cur.copy_expert(statement, io.StringIO("1\ta\n"))
    return lab.rows()


@scenario
def statement_of_bytes(lab):
    return lab.copy(b"copy t from stdin", io.StringIO("1\ta\n"))


@scenario
def statement_of_another_type(lab):
    lab.cur.copy_expert(12, io.StringIO())


@scenario
def file_without_methods(lab):
    lab.cur.copy_expert("copy t from stdin", object())


@scenario
def file_without_read(lab):
    lab.cur.copy_from(Writing(), "t")


@scenario
def file_without_write(lab):
    lab.cur.copy_to(Reading(b""), "t")


@scenario
def table_of_another_type(lab):
    lab.cur.copy_to(io.BytesIO(), 12)


@scenario
def closed_cursor(lab):
    cur = lab.conn.cursor()
    cur.close()
    cur.copy_to(io.BytesIO(), "t")


@scenario
def closed_connection(lab):
    conn = lab.connect(lab.dsn)
    cur = conn.cursor()
    conn.close()
    cur.copy_expert("copy t from stdin", io.StringIO())


@scenario
def prepared_transaction(lab):
    conn = lab.connect(lab.dsn)
    conn.tpc_begin(conn.xid(1, "copy", lab.conn.info.backend_pid and "scenario"))
    conn.cursor().execute("select 1")
    try:
        conn.tpc_prepare()
    except psycopg2.Error as exc:
        conn.close()
        return exc.pgcode
    try:
        conn.cursor().copy_to(io.BytesIO(), "t")
    finally:
        conn.tpc_rollback()
        conn.close()


@scenario
def named_cursor(lab):
    cur = lab.conn.cursor("named")
    file = io.BytesIO()
    cur.copy_expert("copy (select 1) to stdout", file)
    return file.getvalue()


class Own(psycopg2.extensions.cursor):
    """A program's class with a method of its own."""

    def copy_expert(self, sql: Any, file, size=8192):
        super().copy_expert(sql.replace("TABLE", "t"), file, size)


@scenario
def class_of_the_program(lab):
    cur = lab.conn.cursor(cursor_factory=Own)
    cur.copy_expert("copy TABLE from stdin", io.StringIO("1\ta\n"))
    return cur.rowcount, lab.rows()


@scenario
def class_of_extras(lab):
    seen = []
    for factory in (
        psycopg2.extras.RealDictCursor,
        psycopg2.extras.NamedTupleCursor,
        psycopg2.extras.DictCursor,
    ):
        cur = lab.conn.cursor(cursor_factory=factory)
        cur.copy_from(io.StringIO("1\ta\n"), "t")
        cur.execute("select * from t")
        seen.append((cur.rowcount, repr(cur.fetchone())))
    return seen


@scenario
def statement_after_the_copy(lab):
    lab.cur.copy_expert("copy t from stdin; insert into t values (2, 'b')", io.StringIO("1\ta\n"))
    return lab.cur.rowcount, lab.rows()


@scenario
def statement_before_the_copy(lab):
    lab.cur.copy_expert("insert into t values (2, 'b'); copy t from stdin", io.StringIO("1\ta\n"))
    return lab.cur.rowcount, lab.rows()


@scenario
def several_in_turn(lab):
    for number in range(20):
        lab.cur.copy_from(io.StringIO(f"{number}\tx\n" * 3), "t")
    return lab.cur.rowcount, lab.out()


@scenario
def temporary_file(lab):
    import tempfile

    with tempfile.TemporaryFile() as file:
        lab.cur.execute("insert into t select g, 'x' from generate_series(1, 1000) g")
        lab.cur.copy_to(file, "t")
        file.seek(0)
        lab.cur.copy_from(file, "t")
    return lab.cur.rowcount


@scenario
def partitioned_table(lab):
    lab.cur.execute("""create temp table p (id int) partition by range (id);
        create temp table p1 partition of p for values from (0) to (10)""")
    lab.cur.copy_from(io.StringIO("1\n2\n11\n"), "p")


def main():
    """Run them all."""
    dsn, mode = sys.argv[-2:]
    connect: Any = psycopg2.connect
    if mode != "blocking":
        import greenwait

        poller: Any = mode
        greenwait.install(poller=poller, cancel_grace=20)
        connect = greenwait.connect
    outcomes = {}
    for name, function in SCENARIOS.items():
        lab = Lab(connect, dsn)
        outcomes[name] = observe(lab, function)
        lab.conn.close()
    # The schema's number is the session's.
    print(re.sub(r"pg_temp_\d+", "pg_temp", json.dumps(outcomes)))


if __name__ == "__main__":
    main()
