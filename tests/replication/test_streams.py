"""Replication streams: psycopg2's methods, in green mode, and what it does not have."""

import contextlib
import gc
import io
import os
import select
import signal
import threading
import time
import weakref
from datetime import datetime, timedelta

import psycopg2
import psycopg2.extras
import pytest
from psycopg2 import errors, sql
from psycopg2.extensions import TRANSACTION_STATUS_IDLE, set_wait_callback

import greenwait
from greenwait.connection import guarded
from tests.lab import servers
from tests.lab.marks import needs_streams

pytestmark = needs_streams

TRANSPORTS = servers.running().transports  # not started yet
everywhere = pytest.mark.parametrize("via", TRANSPORTS)


def words(cur, count):
    """Return the words of the next *count* transactions."""
    found = []
    for message in cur:
        if message.payload.startswith("message"):
            found.append(message.payload.rpartition("content:")[2])
        elif message.payload.startswith("COMMIT"):
            message.cursor.send_feedback(flush_lsn=message.data_start)
            count -= 1
            if count == 0:
                return found
    raise AssertionError("the stream has ended")


# -- psycopg2's methods


def test_classes_are_psycopg2_s_too(conn):
    assert isinstance(conn, psycopg2.extras.LogicalReplicationConnection)
    assert isinstance(conn, greenwait.Connection)
    assert conn.replication_type == psycopg2.extras.REPLICATION_LOGICAL
    cur = conn.cursor()
    assert isinstance(cur, psycopg2.extras.ReplicationCursor)
    assert isinstance(cur, greenwait.ReplicationCursor)


@pytest.mark.parametrize("name", ["autocommit", "isolation_level", "set_session", "reset"])
def test_what_psycopg2_takes_away_is_missing(conn, name):
    with pytest.raises(AttributeError):
        getattr(conn, name)


def test_slots_are_created_and_dropped(conn):
    cur = conn.cursor()
    name = f"made_{os.getpid()}"
    cur.create_replication_slot(name, output_plugin="test_decoding")
    assert cur.fetchone()[0] == name
    with pytest.raises(errors.DuplicateObject):
        cur.create_replication_slot(name, output_plugin="test_decoding")
    cur.drop_replication_slot(name)


def test_message_has_psycopg2_s_attributes(streaming, emit):
    emit("one")
    began, message, end = (next(streaming) for _ in range(3))
    assert isinstance(message, psycopg2.extras.ReplicationMessage)
    assert began.payload.startswith("BEGIN")
    assert message.payload.endswith("content:one")
    assert message.data_size == len(message.payload)
    assert message.cursor is streaming
    assert abs(message.send_time - datetime.now()) < timedelta(minutes=1)
    assert began.data_start <= message.data_start < end.data_start
    assert streaming.wal_end == end.wal_end
    assert repr(message).startswith("<ReplicationMessage object at 0x")
    assert f"data_size: {message.data_size}; data_start: 0/" in repr(message)


@everywhere
def test_messages_are_those_of_blocking_psycopg2(streaming, slot, emit, connect):
    emit("one", "two")
    ours = [next(streaming) for _ in range(6)]
    streaming.connection.close()
    set_wait_callback(None)
    blocking = connect(connection_factory=psycopg2.extras.LogicalReplicationConnection)
    cur = blocking.cursor()
    _until_free(blocking, slot)
    cur.start_replication(slot, decode=True)
    theirs = []

    def consume(message):
        theirs.append(message)
        if len(theirs) == len(ours):
            raise psycopg2.extras.StopReplication

    with pytest.raises(psycopg2.extras.StopReplication):
        cur.consume_stream(consume)
    for own, other in zip(ours, theirs, strict=True):
        for name in ("payload", "data_size", "data_start", "wal_end"):
            assert getattr(own, name) == getattr(other, name)


def _until_free(conn, slot):
    give_up = time.monotonic() + 10
    cur = conn.cursor()
    while True:
        cur.execute(
            sql.SQL("select active from pg_replication_slots where slot_name = {}").format(
                sql.Literal(slot)
            )
        )
        if not cur.fetchone()[0]:
            return
        assert time.monotonic() < give_up
        time.sleep(0.01)


def test_messages_are_bytes_unless_decoded(conn, slot, emit):
    cur = conn.cursor()
    cur.start_replication(slot)
    emit("é")
    assert "é".encode() in [next(cur) for _ in range(3)][1].payload


@everywhere
def test_read_message_does_not_wait(streaming, emit):
    began = time.monotonic()
    assert streaming.read_message() is None
    assert time.monotonic() - began < 5
    emit("one")
    found = []
    while len(found) < 3:
        message = streaming.read_message()
        if message is None:
            select.select([streaming], [], [], 20)
        else:
            found.append(message.payload.split()[0].rstrip(":"))
    assert found == ["BEGIN", "message", "COMMIT"]


def test_consume_stream_ends_by_the_consumer_s_exception(streaming, emit):
    emit("one", "two")
    seen = []

    def consume(message):
        with pytest.raises(psycopg2.ProgrammingError, match="already in the consume loop"):
            streaming.consume_stream(consume)
        seen.append(message)
        raise psycopg2.extras.StopReplication

    for count in (1, 2):  # the stream stays open
        with pytest.raises(psycopg2.extras.StopReplication):
            streaming.consume_stream(consume, keepalive_interval=1)
        assert len(seen) == count


def test_feedback_reaches_the_server(streaming, slot, emit, watcher):
    emit("one")
    last = [next(streaming) for _ in range(3)][-1]
    before = streaming.feedback_timestamp
    streaming.send_feedback(flush_lsn=last.data_start)
    assert streaming.feedback_timestamp == before
    streaming.send_feedback(force=True)
    assert streaming.feedback_timestamp > before
    assert streaming.io_timestamp == streaming.feedback_timestamp
    give_up = time.monotonic() + 10
    with watcher.cursor() as cur:
        while True:
            cur.execute(
                "select confirmed_flush_lsn - '0/0' from pg_replication_slots where slot_name = %s",
                (slot,),
            )
            if cur.fetchone()[0] == last.data_start:
                return
            assert time.monotonic() < give_up
            time.sleep(0.01)


def test_status_interval_sets_when_feedback_is_sent(conn, slot):
    cur = conn.cursor()
    cur.start_replication(slot, status_interval=1)
    cur.read_message()
    first = cur.feedback_timestamp
    with pytest.raises(greenwait.QueryTimeout), greenwait.timeout(2.5):
        next(cur)
    assert timedelta(seconds=0.9) < cur.feedback_timestamp - first < timedelta(seconds=2.5)


def test_server_s_request_for_a_reply_is_answered(streaming):
    streaming.send_feedback(reply=True)
    sent = streaming.wal_end
    with pytest.raises(greenwait.QueryTimeout), greenwait.timeout(1):
        next(streaming)
    assert streaming.wal_end > sent == 0  # the reply was a keepalive


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda cur: cur.read_message(), "read_message: not replicating"),
        (lambda cur: cur.consume_stream(print), "consume_stream: not replicating"),
        (lambda cur: cur.send_feedback(), "send_feedback: not replicating"),
        (lambda cur: cur.stop_replication(), "stop_replication: not replicating"),
        (lambda cur: cur.start_replication(), "slot name is required"),
        (lambda cur: cur.start_replication("s", status_interval=0.5), "status_interval must be"),
        (lambda cur: cur.start_replication_expert("select 1"), "has not begun a replication"),
    ],
)
def test_wrong_calls_are_programming_errors(conn, call, words):
    cur = conn.cursor()
    with pytest.raises(psycopg2.ProgrammingError, match=words):
        call(cur)
    cur.execute("IDENTIFY_SYSTEM")


@pytest.mark.parametrize("interval", [0.5, "1"])
def test_wrong_keepalive_intervals_are_programming_errors(streaming, interval):
    with pytest.raises(psycopg2.ProgrammingError, match="keepalive_interval must be"):
        streaming.consume_stream(print, keepalive_interval=interval)


def test_closed_cursor_is_an_interface_error(streaming):
    streaming.close()
    with pytest.raises(psycopg2.InterfaceError, match="cursor already closed"):
        streaming.read_message()
    with pytest.raises(psycopg2.InterfaceError, match="cursor already closed"):
        _ = streaming.io_timestamp


def test_command_that_the_server_refuses_leaves_the_connection_open(conn, slot, emit):
    cur = conn.cursor()
    emit("one")
    with pytest.raises(errors.UndefinedObject):
        cur.start_replication("no_such_slot")
    with pytest.raises(psycopg2.DataError, match="no_such_option"):
        cur.start_replication(slot, options={"no_such_option": "1"})
        next(cur)
    cur.start_replication_expert(
        sql.SQL("START_REPLICATION SLOT {} LOGICAL 0/0").format(sql.Identifier(slot)), decode=True
    )
    assert words(cur, 1) == ["one"]


def test_user_s_class_of_cursors_is_kept(conn, slot, emit):
    class Own(psycopg2.extras.ReplicationCursor):
        def start_replication_expert(self, command, decode=False, status_interval=10):
            self.started = command
            super().start_replication_expert(command, decode, status_interval)

    cur = conn.cursor(cursor_factory=Own)
    assert isinstance(cur, Own)
    cur.start_replication(slot, decode=True)
    assert cur.started.startswith("START_REPLICATION SLOT")
    emit("one")
    assert words(cur, 1) == ["one"]
    assert type(conn.cursor(cursor_factory=Own)) is type(cur)


def test_guarded_class_streams(conn, slot, emit):
    class Own(psycopg2.extras.ReplicationCursor):
        pass

    cur = conn.cursor(cursor_factory=guarded(Own))
    assert isinstance(cur, Own)
    cur.start_replication(slot, decode=True)
    emit("one")
    assert words(cur, 1) == ["one"]


def test_cursor_copies_before_a_stream_and_after_it(conn, slot):
    cur = conn.cursor()
    for _ in range(2):
        file = io.BytesIO()
        cur.copy_expert("copy (select 1) to stdout", file)
        assert file.getvalue() == b"1\n"
        cur.start_replication(slot)
        cur.stop_replication()


def test_copy_can_t_begin_a_stream(conn, slot):
    cur = conn.cursor()
    command = f"START_REPLICATION SLOT {slot} LOGICAL 0/0"
    with pytest.raises(psycopg2.ProgrammingError, match="can't begin a replication stream"):
        cur.copy_expert(command, io.BytesIO())
    cur.execute("IDENTIFY_SYSTEM")


def test_copy_beside_a_stream_is_refused(streaming, emit):
    with pytest.raises(psycopg2.Error, match="another command is already in progress"):
        streaming.copy_expert("copy (select 1) to stdout", io.BytesIO())
    emit("one")
    assert words(streaming, 1) == ["one"]


def test_asynchronous_connection_is_psycopg2_s_own(slot, emit, connect):
    set_wait_callback(None)
    conn = connect(connection_factory=greenwait.LogicalReplicationConnection, async_=1)
    greenwait.wait(conn)
    cur = conn.cursor()
    cur.start_replication(slot)
    greenwait.wait(conn)
    emit("one")
    while (message := cur.read_message()) is None:
        select.select([cur], [], [], 20)
    assert message.payload.startswith(b"BEGIN")


# -- The end of a stream


@everywhere
def test_stopped_stream_leaves_a_usable_connection(streaming, slot, emit):
    conn = streaming.connection
    for word in ("one", "two", "three"):
        emit(word)
        next(streaming)
        streaming.stop_replication()
        assert conn.info.transaction_status == TRANSACTION_STATUS_IDLE
        streaming.execute("IDENTIFY_SYSTEM")
        assert len(list(streaming)) == 1
        streaming.start_replication(slot, decode=True)
        assert words(streaming, 1) == [word]  # it was not confirmed, and comes again
        streaming.send_feedback(force=True)


@everywhere
def test_stop_does_not_wait_for_the_program_to_read(streaming, emit, watcher):
    with watcher.cursor() as cur:
        cur.execute(
            "select count(pg_logical_emit_message(true, 'words', repeat('x', 1000)))"
            " from generate_series(1, 20000)"
        )
    next(streaming)
    streaming.stop_replication()
    streaming.execute("IDENTIFY_SYSTEM")


def test_temporary_slot_survives_the_attempt_to_begin_again(conn, emit):
    cur = conn.cursor()
    cur.execute("CREATE_REPLICATION_SLOT passing TEMPORARY LOGICAL test_decoding")
    cur.start_replication("passing")
    cur.stop_replication()
    with pytest.raises(psycopg2.ProgrammingError, match="temporary slots"):
        cur.start_replication("passing")
    cur.execute("select 1 from pg_replication_slots where slot_name = 'passing'")
    assert cur.fetchall() == [(1,)]


@everywhere
def test_cancel_ends_the_stream_and_keeps_the_connection(streaming, slot, emit):
    greenwait.cancel(streaming.connection)
    with pytest.raises(errors.QueryCanceled) as caught:
        next(streaming)
    assert caught.value.pgcode == "57014"
    assert str(caught.value.pgerror).startswith("ERROR:  canceling statement")
    assert str(caught.value) == "canceling statement due to user request\n"
    assert caught.value.diag.message_primary == "canceling statement due to user request"
    assert id(caught.value.cursor) == id(streaming)
    with pytest.raises(psycopg2.ProgrammingError, match="not replicating"):
        streaming.read_message()
    streaming.start_replication(slot, decode=True)
    emit("one")
    assert words(streaming, 1) == ["one"]


@everywhere
def test_lost_connection_is_an_operational_error(streaming, watcher):
    with watcher.cursor() as cur:
        cur.execute("select pg_terminate_backend(%s)", (streaming.connection.info.backend_pid,))
    with pytest.raises(errors.AdminShutdown, match="terminating connection") as caught:
        next(streaming)
    assert caught.value.pgcode == "57P01"
    assert caught.value.diag.severity == "FATAL"
    assert streaming.connection.closed == 2
    with pytest.raises(psycopg2.InterfaceError):
        next(streaming)


def test_closed_connection_ends_the_wait(streaming):
    def close():
        time.sleep(0.3)
        streaming.connection.close()

    thread = threading.Thread(target=close)
    thread.start()
    with pytest.raises((psycopg2.InterfaceError, psycopg2.OperationalError)):
        next(streaming)
    thread.join()


def test_statements_are_refused_while_it_streams(streaming, emit):
    with pytest.raises(psycopg2.Error):
        streaming.execute("IDENTIFY_SYSTEM")
    with pytest.raises(psycopg2.Error):
        streaming.connection.cursor().start_replication("other")
    emit("one")
    assert words(streaming, 1) == ["one"]


def test_iteration_ends_where_another_thread_stops_the_stream(streaming):
    def stop():
        time.sleep(0.3)
        streaming.stop_replication()

    thread = threading.Thread(target=stop)
    thread.start()
    assert list(streaming) == []
    thread.join()
    assert list(streaming) == []
    streaming.execute("IDENTIFY_SYSTEM")
    assert len(list(streaming)) == 1


# -- Interrupts


@everywhere
def test_deadline_keeps_stream_and_messages(streaming, emit):
    for word in ("one", "two"):
        with pytest.raises(greenwait.QueryTimeout), greenwait.timeout(0.1):
            next(streaming)
        emit(word)
        assert words(streaming, 1) == [word]


def test_deadline_holds_where_messages_never_pause(streaming, watcher):
    with watcher.cursor() as cur:
        cur.execute(
            "select count(pg_logical_emit_message(true, 'words', 'x'))"
            " from generate_series(1, 100000)"
        )
    seen = 0
    with pytest.raises(greenwait.QueryTimeout), greenwait.timeout(0.2):
        for _ in streaming:
            seen += 1
            time.sleep(0.001)  # the server is faster
    next(streaming)
    assert seen < 100_000
    streaming.connection.close()  # or the server's process could be slow to end


def test_handler_s_exception_keeps_stream_and_messages(streaming, emit, on_signal):
    class Struck(Exception):
        pass

    def strike(*_):
        raise Struck

    on_signal(signal.SIGALRM, strike)
    for word in ("one", "two"):
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(Struck):
            next(streaming)
        emit(word)
        assert words(streaming, 1) == [word]


@everywhere
# Now and then a finalizer is struck, and swallows it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_interrupts_at_any_moment_lose_no_message(streaming, emit, on_signal):
    class Struck(Exception):
        pass

    def strike(*_):
        if armed:
            raise Struck

    on_signal(signal.SIGALRM, strike)
    found, armed, struck, delay = [], False, 0, 0.0
    emit(*(str(number) for number in range(300)))
    while len(found) < 900 or struck < 20:
        struck += 1
        delay = (delay + 0.0003) % 0.01  # some leave time for a message, on a busy machine
        with contextlib.suppress(Struck):
            try:
                armed = True
                signal.setitimer(signal.ITIMER_REAL, delay + 0.0003, 0.05)
                # Not a for loop, which would lose what the handler finds on its way.
                streaming.consume_stream(found.append)
            finally:
                armed = False
    signal.setitimer(signal.ITIMER_REAL, 0)
    words = [each.payload for each in found if each.payload.startswith("message")]
    assert [each.rpartition("content:")[2] for each in words] == [str(n) for n in range(300)]


def test_interrupted_start_leaves_a_usable_connection(conn, slot, emit, watcher):
    """A transaction that began before it, and goes on, delays the start of nothing but a slot."""
    blocker = watcher
    with blocker.cursor() as own:
        own.execute("begin; select pg_current_xact_id()")
        cur = conn.cursor()
        with pytest.raises(greenwait.QueryTimeout), greenwait.timeout(0.3):
            cur.create_replication_slot(f"late_{os.getpid()}", output_plugin="test_decoding")
        own.execute("commit")
    cur.start_replication(slot, decode=True)
    emit("one")
    assert words(cur, 1) == ["one"]


def test_deadline_that_has_passed_begins_no_stream(conn, slot, emit):
    cur = conn.cursor()
    with greenwait.timeout(0.0), pytest.raises(greenwait.QueryTimeout):
        cur.start_replication(slot)
    with pytest.raises(psycopg2.ProgrammingError, match="not replicating"):
        cur.read_message()
    cur.start_replication(slot, decode=True)
    emit("one")
    assert words(cur, 1) == ["one"]


# -- Others


def test_execute_can_t_begin_a_stream(conn, slot):
    cur = conn.cursor()
    with pytest.raises(psycopg2.ProgrammingError, match=r"use start_replication\(\)"):
        cur.execute(f"START_REPLICATION SLOT {slot} LOGICAL 0/0")
    cur.execute("IDENTIFY_SYSTEM")
    assert len(cur.fetchall()) == 1


def test_two_threads_share_a_stream(streaming, emit):
    found, lock = [], threading.Lock()

    def read():
        with greenwait.timeout(30):
            for message in streaming:
                with lock:
                    found.append(message.payload)
                if len(found) >= 300:
                    return

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    emit(*(str(number) for number in range(101)))
    for thread in threads:
        thread.join()
    assert len(found) == len(set(found)) >= 300


@everywhere
def test_large_message(streaming, emit):
    emit("x" * 5_000_000)
    assert words(streaming, 1) == ["x" * 5_000_000]


def test_stream_without_any_callback(conn, slot, emit):
    set_wait_callback(None)
    cur = conn.cursor()
    cur.start_replication(slot, decode=True)
    emit("one")
    assert words(cur, 1) == ["one"]
    cur.stop_replication()
    cur.execute("IDENTIFY_SYSTEM")


def test_dropped_connection_is_closed_at_once(server, slot):
    conn = psycopg2.connect(server.dsn(), connection_factory=greenwait.LogicalReplicationConnection)
    cur = conn.cursor()
    cur.start_replication(slot)
    cur.read_message()
    freed = weakref.ref(conn)
    gc.disable()
    try:
        del conn, cur
        assert freed() is None
    finally:
        gc.enable()
