"""A replication stream in one context: python streams.py DSN CONTEXT SITUATION."""

import os
import sys
import time

import psycopg2
import psycopg2.errors
import psycopg2.extras

import greenwait
from tests.lab.contexts import CONTEXTS

DSN, CONTEXT, SITUATION = sys.argv[1:4]
SLOT = f"stream_{os.getpid()}"
OPTIONS = {"include-xids": "off", "skip-empty-xacts": "on"}  # autovacuum has empty ones
SHORT = "-c wal_sender_timeout=2s"


class Stream:
    """A cursor that streams what the function ``write`` writes, in messages that are decoded."""

    def __init__(self, **options):
        self.conn = psycopg2.connect(
            DSN, connection_factory=greenwait.LogicalReplicationConnection, **options
        )
        self.cur = self.conn.cursor()
        self.cur.create_replication_slot(SLOT, output_plugin="test_decoding")
        self.cur.start_replication(SLOT, decode=True, options=OPTIONS)
        self.writer = psycopg2.connect(DSN)
        self.writer.autocommit = True

    def write(self, *words):
        with self.writer.cursor() as cur:
            for word in words:
                cur.execute("select pg_logical_emit_message(true, 'words', %s)", (word,))

    def read(self, count):
        """Return the words of the next *count* transactions."""
        found = []
        for message in self.cur:
            if message.payload.startswith("message"):
                found.append(message.payload.rpartition("content:")[2])
            elif message.payload.startswith("COMMIT"):
                message.cursor.send_feedback(flush_lsn=message.data_start, force=True)
                count -= 1
            if count == 0:
                break
        return found

    def close(self):
        self.conn.close()
        with self.writer.cursor() as cur:
            # The server's process may still be at its end.
            cur.execute(
                "select pg_terminate_backend(active_pid, 5000) from pg_replication_slots"
                " where slot_name = %s and active",
                (SLOT,),
            )
            cur.execute("select pg_drop_replication_slot(%s)", (SLOT,))
        self.writer.close()


def messages():
    stream = Stream()
    stream.write("one", "two", "three")
    assert stream.read(3) == ["one", "two", "three"]
    stream.cur.stop_replication()
    stream.cur.execute("IDENTIFY_SYSTEM")
    assert stream.cur.fetchone()[3] is not None
    stream.cur.start_replication(SLOT, decode=True, options=OPTIONS)
    stream.write("four")
    assert stream.read(1) == ["four"]
    stream.close()


def many_messages():
    stream = Stream()
    words = [str(number) for number in range(2000)]
    with stream.writer.cursor() as cur:
        cur.execute(
            "select count(pg_logical_emit_message(true, 'words', g::text))"
            " from generate_series(0, 1999) g"
        )
    assert stream.read(1) == words
    stream.close()


def deadline():
    """It costs neither the stream nor a message."""
    stream = Stream()
    for word in ("one", "two", "three"):
        began = time.monotonic()
        try:
            with greenwait.timeout(0.2):
                stream.read(1)
            raise AssertionError("no deadline")
        except greenwait.QueryTimeout:
            assert time.monotonic() - began < 5
        stream.write(word)
        assert stream.read(1) == [word]
    stream.close()


def idle():
    """The server's keepalives are answered during the wait."""
    stream = Stream(options=SHORT)
    try:
        with greenwait.timeout(5):
            stream.read(1)
        raise AssertionError("no deadline")
    except greenwait.QueryTimeout:
        pass
    stream.write("one")
    assert stream.read(1) == ["one"]
    stream.close()


def slow():
    """The program does not come back for longer than the server waits."""
    stream = Stream(options=SHORT)
    stream.write("one", "two")
    assert stream.read(1) == ["one"]
    time.sleep(5)
    assert stream.read(1) == ["two"]
    stream.close()


def backlog():
    """The server's requests for an answer lie behind many messages."""
    stream = Stream(options=SHORT)
    stream.write(*(str(number) for number in range(25)))
    for number in range(25):
        assert stream.read(1) == [str(number)]
        time.sleep(0.2)
    stream.close()


def consumer():
    stream = Stream()
    stream.write("one")
    found = []

    def consume(message):
        found.append(message.payload)
        if len(found) == 3:
            raise psycopg2.extras.StopReplication

    try:
        stream.cur.consume_stream(consume, keepalive_interval=1)
        raise AssertionError("not stopped")
    except psycopg2.extras.StopReplication:
        assert (found[0], found[2]) == ("BEGIN", "COMMIT")
    stream.close()


def ended():
    """The server's error is psycopg2's exception."""
    stream = Stream()
    with stream.writer.cursor() as cur:
        cur.execute("select pg_terminate_backend(%s)", (stream.conn.info.backend_pid,))
    try:
        stream.read(1)
        raise AssertionError("not ended")
    except psycopg2.errors.AdminShutdown as exc:
        assert exc.pgcode == "57P01"
        assert exc.diag.severity == "FATAL"
    assert stream.conn.closed
    stream.close()


def physical():
    conn = psycopg2.connect(DSN, connection_factory=greenwait.PhysicalReplicationConnection)
    cur = conn.cursor()
    cur.execute("IDENTIFY_SYSTEM")
    cur.start_replication(start_lsn=cur.fetchone()[2])
    with psycopg2.connect(DSN) as writer, writer.cursor() as other:
        other.execute("select pg_logical_emit_message(true, 'words', 'physical-' || 1)")
    writer.close()
    size = 0
    for message in cur:
        size += message.data_size
        if b"physical-1" in message.payload:
            break
    assert size > 0
    cur.stop_replication()
    cur.execute("IDENTIFY_SYSTEM")
    assert len(cur.fetchall()) == 1
    conn.close()


def beside():
    """Others run while it waits."""
    stream = context.run(Stream)
    jobs = [lambda: stream.read(1)[0], *[asked] * 4, lambda: later(stream)]
    assert context.together(jobs) == ["late", 0.3, 0.3, 0.3, 0.3, None]
    context.run(stream.close)


def asked():
    with psycopg2.connect(DSN) as conn, conn.cursor() as cur:
        cur.execute("select 0.3::float from pg_sleep(0.3)")
        ((found,),) = cur.fetchall()
    conn.close()
    return found


def later(stream):
    asked()
    stream.write("late")


context = CONTEXTS[CONTEXT](cancel_grace=20)
if SITUATION == "beside":
    beside()
else:
    context.run(globals()[SITUATION])
print("well")
