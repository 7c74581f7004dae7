"""What stops a COPY costs no connection, and a COPY FROM copies all or nothing."""

import io
import signal
import time

import psycopg2
import psycopg2.extensions
import pytest

import greenwait
from tests.lab.asleep import when_asleep
from tests.lab.freezers import frozen
from tests.lab.interrupts import LIMIT, Limit, raising, send
from tests.lab.marks import needs_backend_pid, needs_copy, needs_session
from tests.lab.servers import running

pytestmark = [needs_copy, needs_session]

TRIGGER = """
create function pg_temp.nap() returns trigger language plpgsql as
$$begin perform pg_sleep(20); return new; end$$;
create trigger naps before insert on t for each row execute function pg_temp.nap()"""
#: Its rows come as they are made.
ENDLESS = "copy (select generate_series(1, 1000000000)) to stdout"

EXCEPTIONS = [
    ZeroDivisionError("of mine"),
    psycopg2.DataError("of another connection"),
    psycopg2.OperationalError("of another connection"),
]


class File:
    """A file without an end that raises in one of its methods' calls."""

    def __init__(self, exception=None, raises_in=5):
        self.calls, self.exception, self.raises_in = 0, exception, raises_in

    def step(self):
        self.calls += 1
        if self.calls == self.raises_in and self.exception is not None:
            raise self.exception
        if self.calls < 1000:  # much is still in the sockets' buffers when a server is gone
            time.sleep(0.001)

    def read(self, _size):
        self.step()
        return b"1\ta\n" * 100

    def write(self, _row):
        self.step()


class Freezing(File):
    """One that freezes the server in a call."""

    def __init__(self, freezing):
        super().__init__()
        self.freezing = freezing

    def step(self):
        super().step()
        if self.calls == 3:
            self.freezing.__enter__()


def assert_usable(conn, count):
    assert not conn.closed
    conn.rollback()
    assert count(conn) == 0
    conn.cursor().copy_from(io.StringIO("1\ta\n"), "t")
    assert count(conn) == 1


@pytest.mark.timeout(300)
@pytest.mark.parametrize("transport", running().transports)
def test_random_interrupts_copy_all_or_nothing(run_program, transport):
    found = run_program("copy_interrupts", "700", transport=transport, timeout=200)
    interrupted, copied = map(int, found.split())
    assert interrupted > 70
    assert copied > 7


@pytest.mark.parametrize("exception", EXCEPTIONS)
def test_exception_of_read_is_the_cause_of_the_server_s_error(copying, count, exception):
    cur = copying.cursor()
    with pytest.raises(psycopg2.errors.QueryCanceled, match="COPY from stdin failed") as info:
        cur.copy_from(File(exception), "t")
    assert info.value.__cause__ is exception
    assert info.value.pgcode == "57014"
    assert "CONTEXT:  COPY t, line" in str(info.value.pgerror)
    assert_usable(copying, count)


@pytest.mark.parametrize("exception", EXCEPTIONS)
def test_exception_of_write_is_raised_itself(copying, count, exception):
    with pytest.raises(type(exception)) as info:
        copying.cursor().copy_expert(ENDLESS, File(exception))
    assert info.value is exception
    assert_usable(copying, count)


@pytest.mark.parametrize("exception", [KeyboardInterrupt(), GeneratorExit(), SystemExit(3)])
@pytest.mark.parametrize("statement", ["copy t from stdin", ENDLESS])
def test_interrupt_in_the_file_s_method_is_raised_itself(copying, count, statement, exception):
    with pytest.raises(type(exception)) as info:
        copying.cursor().copy_expert(statement, File(exception))
    assert info.value is exception
    assert_usable(copying, count)


@pytest.mark.parametrize("statement", ["copy t from stdin", ENDLESS])
def test_deadline_includes_the_time_of_the_file(copying, count, statement):
    file = File()
    began = time.monotonic()
    with pytest.raises(greenwait.QueryTimeout) as info, greenwait.timeout(0.3):
        copying.cursor().copy_expert(statement, file)
    assert time.monotonic() - began < 10
    assert info.value.pgcode == "57014"
    assert file.calls > 1
    assert_usable(copying, count)


@pytest.mark.parametrize("statement", ["copy t from stdin", "copy (select 1) to stdout"])
@pytest.mark.parametrize("swallows", [False, True])
def test_deadline_in_a_method_that_waits_in_the_hub(copying, count, statement, swallows):
    waits: list[object] = []

    class Waiting:
        def wait(self, _):
            try:
                waits.append(True)
                hub.sleep(20)
            except greenwait.QueryTimeout:
                if not swallows:
                    raise
                hub.sleep(0.1)  # it is raised once
                waits.append("again")
            return b"1\ta\n"

        read = write = wait

    def copy():
        with greenwait.timeout(0.3):
            copying.cursor().copy_expert(statement, Waiting())

    began = time.monotonic()
    with greenwait.Hub() as hub:
        job = hub.spawn(copy)
        with pytest.raises(greenwait.QueryTimeout) as info:
            job.result()
        hub.spawn(hub.sleep, 0.1).result()
    assert time.monotonic() - began < 10
    assert waits == ([True, "again"] if swallows else [True])
    assert info.value.pgcode == "57014"
    assert_usable(copying, count)


def test_deadline_that_passes_in_the_last_read_copies_nothing(copying, count):
    turns = [b"1\ta\n", b""]

    class Late:
        def read(self, _size):
            if len(turns) == 1:
                time.sleep(0.4)
            return turns.pop(0)

    with pytest.raises(greenwait.QueryTimeout), greenwait.timeout(0.3):
        copying.cursor().copy_from(Late(), "t")
    assert_usable(copying, count)


def test_deadline_after_the_server_s_end_raises_if_rows_were_not_written(copying, count):
    """The server has succeeded by then, and the rows are here."""

    class Slow:
        def write(self, _row):
            time.sleep(0.4)

    with pytest.raises(greenwait.QueryTimeout) as info, greenwait.timeout(0.3):
        copying.cursor().copy_expert("copy (select generate_series(1, 3)) to stdout", Slow())
    assert info.value.pgcode == "57014"
    assert_usable(copying, count)


def test_deadline_of_the_callback(copying, count):
    psycopg2.extensions.set_wait_callback(greenwait.WaitCallback(timeout=0.3, cancel_grace=20))
    with pytest.raises(greenwait.QueryTimeout):
        copying.cursor().copy_from(File(), "t")
    psycopg2.extensions.set_wait_callback(greenwait.wait)
    assert_usable(copying, count)


@needs_backend_pid
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGUSR1])
def test_signal_while_the_server_is_at_work_on_a_row(copying, count, watcher, on_signal, number):
    expected: type[BaseException] = KeyboardInterrupt
    if number == signal.SIGUSR1:
        on_signal(number, raising(LIMIT))
        expected = Limit
    copying.cursor().execute(TRIGGER)
    copying.commit()
    began = time.monotonic()
    with pytest.raises(expected), when_asleep(watcher, copying, send(number)):
        copying.cursor().copy_from(io.StringIO("1\ta\n"), "t")
    assert time.monotonic() - began < 15
    assert not copying.closed
    copying.rollback()
    assert count(copying) == 0


@needs_backend_pid
def test_frozen_server_is_given_up_after_the_grace(copying):
    psycopg2.extensions.set_wait_callback(greenwait.WaitCallback(cancel_grace=0.5))
    for statement in ("copy t from stdin", ENDLESS):
        conn = greenwait.connect(copying.dsn)
        conn.cursor().execute("create temp table t (id int, data text)")
        freezing = frozen(conn.info.backend_pid)
        began = time.monotonic()
        try:
            with pytest.raises(psycopg2.OperationalError), greenwait.timeout(0.5):
                conn.cursor().copy_expert(statement, Freezing(freezing))
        finally:
            freezing.__exit__(None, None, None)
        assert time.monotonic() - began < 10
        assert conn.closed


@needs_backend_pid
def test_server_that_freezes_in_a_copy_takes_little_of_the_file(copying, transport):
    """What it does not read stays in the file, but for the sockets' buffers."""
    psycopg2.extensions.set_wait_callback(greenwait.WaitCallback(cancel_grace=0.5))
    conn = greenwait.connect(copying.dsn)
    conn.cursor().execute("create temp table t (id int, data text)")
    sent = []

    class Rows:
        def read(self, size):
            if not sent:
                freezing.__enter__()
            data = (b"1\t" + b"x" * 61 + b"\n") * (size // 64)
            sent.append(len(data))
            return data

    freezing = frozen(conn.info.backend_pid)
    try:
        with pytest.raises(psycopg2.OperationalError), greenwait.timeout(1):
            conn.cursor().copy_from(Rows(), "t")
    finally:
        freezing.__exit__(None, None, None)
    assert sum(sent) < (1_000_000 if transport == "unix" else 12_000_000)


def test_server_that_fails_early_ends_the_reading(copying, count):
    """It is 500 MB that would be read: psycopg2's issue 37."""

    class Rows:
        calls = 0

        def read(self, size):
            self.calls += 1
            line = b"x\ta\n" if self.calls == 1 else b"1\ta\n"
            return line * (size // 4) if self.calls < 65_000 else b""

    file = Rows()
    with pytest.raises(psycopg2.DataError) as info:
        copying.cursor().copy_from(file, "t")
    assert info.value.pgcode == "22P02"
    assert "COPY t, line 1, column id" in str(info.value.diag.context)
    assert file.calls < 5_000
    assert_usable(copying, count)


@needs_backend_pid
@pytest.mark.parametrize("statement", ["copy t from stdin", ENDLESS])
def test_server_process_that_is_ended(copying, watcher, statement):
    pid = copying.info.backend_pid

    class Ending(File):
        def step(self):
            super().step()
            if self.calls == 3:
                watcher.cursor().execute("select pg_terminate_backend(%s)", (pid,))

    with pytest.raises(psycopg2.OperationalError):
        copying.cursor().copy_expert(statement, Ending())
    assert copying.closed
