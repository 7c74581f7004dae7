"""A COPY in one of the contexts: ``DSN CONTEXT CASE``."""

import io
import signal
import sys
import time

import psycopg2

import greenwait
from tests.lab.contexts import CONTEXTS

DSN, CONTEXT, CASE = sys.argv[-3:]
ROWS = 100_000
DATA = b"".join(b"%d\tx%d\n" % (number, number) for number in range(ROWS))
TRIGGER = """
create function pg_temp.nap() returns trigger language plpgsql as
$$begin perform pg_sleep(20); return new; end$$;
create trigger naps before insert on t for each row execute function pg_temp.nap()"""
# Rows come as they are made, and each is sent at once: see the manual's parallel and jit settings.
ENDLESS = "copy (select generate_series(1, 1000000000)) to stdout"


class SlowFile:
    """A file without an end, whose methods take a while."""

    def __init__(self, interrupt_in=None):
        self.calls, self.interrupt_in = 0, interrupt_in

    def step(self):
        self.calls += 1
        if self.calls == self.interrupt_in:
            signal.raise_signal(signal.SIGINT)
        time.sleep(0.001)

    def read(self, _size):
        self.step()
        return b"1\ta\n" * 100

    def write(self, _row):
        self.step()


def new_connection():
    conn = greenwait.connect(DSN)
    cur = conn.cursor()
    cur.execute("set jit = off; create temp table t (id int, data text)")
    conn.commit()
    return conn, cur


class Stopped:
    """A COPY that something stops: the connection survives it, and nothing is copied."""

    def __init__(self, statement, file, prepare="", seconds=None):
        self.conn, cur = new_connection()
        self.caught = None
        if prepare:
            cur.execute(prepare)
            self.conn.commit()
        began = time.monotonic()
        try:
            with greenwait.timeout(seconds):
                cur.copy_expert(statement, file)
        except BaseException as exc:
            self.caught = exc
        assert time.monotonic() - began < 15

    def check(self, expected):
        assert type(self.caught) is expected, repr(self.caught)
        assert not self.conn.closed
        self.conn.rollback()
        cur = self.conn.cursor()
        cur.execute("select count(*) from t")
        assert cur.fetchone() == (0,)
        self.conn.close()


# -- The cases


def rows_in_and_out(context):
    conn, cur = new_connection()
    cur.copy_from(io.BytesIO(DATA), "t")
    assert (cur.rowcount, cur.statusmessage) == (ROWS, f"COPY {ROWS}")
    file = io.BytesIO()
    cur.copy_to(file, "t")
    assert (cur.rowcount, cur.statusmessage) == (ROWS, f"COPY {ROWS}")
    assert file.getvalue() == DATA
    conn.commit()
    conn.close()


def deadline_in(context):
    file = SlowFile()
    Stopped("copy t from stdin", file, seconds=0.5).check(greenwait.QueryTimeout)
    assert file.calls > 1


def deadline_out(context):
    file = SlowFile()
    Stopped(ENDLESS, file, seconds=0.5).check(greenwait.QueryTimeout)
    assert file.calls > 1


def deadline_in_a_trigger(context):
    file = io.StringIO("1\ta\n")
    Stopped("copy t from stdin", file, TRIGGER, 0.5).check(greenwait.QueryTimeout)


def interrupt_in_read(context):
    Stopped("copy t from stdin", SlowFile(interrupt_in=5)).check(KeyboardInterrupt)


def interrupt_in_write(context):
    Stopped(ENDLESS, SlowFile(interrupt_in=5)).check(KeyboardInterrupt)


def server_that_fails_early(context):
    class Bad(SlowFile):
        def read(self, size):
            return b"x\ta\n" + super().read(size)

    file = Bad()
    conn, cur = new_connection()
    try:
        cur.copy_from(file, "t")
    except psycopg2.DataError as exc:
        assert exc.pgcode == "22P02"
        assert "line 1, column id" in str(exc.diag.context)
    conn.rollback()
    conn.close()


def many_at_once(context):
    def work(number):
        conn, cur = new_connection()
        rows = 500 + number
        data = "".join(f"{each}\t{number}\n" for each in range(rows))
        cur.copy_from(io.StringIO(data), "t")
        assert cur.rowcount == rows
        file = io.StringIO()
        cur.copy_to(file, "t")
        assert file.getvalue() == data
        conn.close()
        return number

    assert context.many(work, 40, 20) == list(range(40))
    assert context.many(work, 16, 8) == list(range(16))


def killed(context, *arguments):
    found = []
    context.kill(lambda: found.append(Stopped(*arguments)), 0.5)
    context.run(lambda: found[0].check(context.killed_by))


def killed_in(context):
    killed(context, "copy t from stdin", SlowFile())


def killed_out(context):
    killed(context, ENDLESS, SlowFile())


def killed_in_a_trigger(context):
    killed(context, "copy t from stdin", io.StringIO("1\ta\n"), TRIGGER)


BY_THEMSELVES = (many_at_once, killed_in, killed_out, killed_in_a_trigger)
CASES = (
    rows_in_and_out,
    deadline_in,
    deadline_out,
    deadline_in_a_trigger,
    interrupt_in_read,
    interrupt_in_write,
    server_that_fails_early,
    *BY_THEMSELVES,
)


def main():
    signal.signal(signal.SIGINT, signal.default_int_handler)
    context = CONTEXTS[CONTEXT](cancel_grace=20)
    (case,) = [each for each in CASES if each.__name__ == CASE]
    if case in BY_THEMSELVES:
        case(context)
    else:
        context.run(lambda: case(context))
    print("well")


if __name__ == "__main__":
    main()
