"""Replication connections and their cursors: psycopg2's, in green mode and in every context."""

import contextlib
import weakref
from collections.abc import Callable
from datetime import datetime
from typing import Any

import psycopg2.extras
from psycopg2.extensions import POLL_OK
from psycopg2.extras import ReplicationMessage
from psycopg2.sql import Composable

from greenwait._callback import wait_at_most
from greenwait._connections.connection import Connection, Cursor
from greenwait._connections.large_object import is_class_of
from greenwait._connections.replication_keeper import keep_alive
from greenwait._connections.replication_stream import CAN_REPLICATE, Stream, next_of_cursor
from greenwait._connections.semaphore import give_way
from greenwait._psycopg.psycopg2 import DatabaseError, InterfaceError, ProgrammingError
from greenwait._psycopg.psycopg2 import ReplicationConnection as _ReplicationConnection
from greenwait._psycopg.psycopg2 import ReplicationCursor as _ReplicationCursor
from greenwait._psycopg.state import expect_stream
from greenwait._synchronous import check_synchronous

__all__ = [
    "LogicalReplicationConnection",
    "PhysicalReplicationConnection",
    "Replicating",
    "ReplicationCursor",
    "replicating",
]

_MILLISECONDS = {"ms": 1, "s": 1000, "min": 60_000, "h": 3_600_000, "d": 86_400_000}
# A walsender that was told to end a logical stream takes that for the session's next one, too
# (StartLogicalReplication in walsender.c; PostgreSQL 15 and 17). A physical stream makes it forget
# that, even one that it refuses at once. But for an error it drops temporary slots.
_FORGET_STOP = "START_REPLICATION PHYSICAL FFFFFFFF/FFFFFFFF"
_TEMPORARY_SLOTS = (
    "SELECT 1 FROM pg_catalog.pg_replication_slots"
    " WHERE temporary AND active_pid = pg_backend_pid()"
)
_NOT_REPLICATING = "{}: not replicating, call start_replication first"


class ReplicationCursor(Cursor, psycopg2.extras.ReplicationCursor):
    """A cursor of a replication connection; its ``cursor()`` returns it.

    While a stream is open, the cursor is an iterator of its messages.

    A deadline, a signal handler's exception or a cancellation ends the wait for a message, and
    neither the stream nor a message is lost: the next call goes on. If the program takes so
    long for a message that the server would end the stream (``wal_sender_timeout``), greenwait
    sends feedback meanwhile, with the positions that were confirmed last.
    """

    _stream: Stream | None = None
    _is_consuming = False

    def create_replication_slot(
        self, slot_name: str, slot_type: int | None = None, output_plugin: str | None = None
    ) -> None:
        """Create a slot, whose name and position are the cursor's only row then.

        :param slot_name: its name.
        :param slot_type: ``psycopg2.extras.REPLICATION_LOGICAL`` or ``REPLICATION_PHYSICAL``;
            None: as the connection.
        :param output_plugin: that of a logical slot, ``"pgoutput"`` for instance.
        """
        self._check_connection("create_replication_slot")
        base: Any = super()
        base.create_replication_slot(slot_name, slot_type, output_plugin)

    def _check_connection(self, what: str) -> None:
        conn: Any = self.connection
        if not hasattr(conn, "replication_type"):
            raise ProgrammingError(
                f"{what} takes a replication connection: greenwait.connect(dsn, "
                "connection_factory=greenwait.LogicalReplicationConnection)"
            )

    def drop_replication_slot(self, slot_name: str) -> None:
        """Drop a slot.

        :param slot_name: its name.
        """
        base: Any = super()
        base.drop_replication_slot(slot_name)

    # -- The stream

    def start_replication(
        self,
        slot_name: str | None = None,
        slot_type: int | None = None,
        start_lsn: str | int = 0,
        timeline: int = 0,
        options: dict[str, Any] | None = None,
        decode: bool = False,
        status_interval: float = 10,
    ) -> None:
        """Begin a stream.

        :param slot_name: the slot; a physical stream needs none.
        :param slot_type: as of ``create_replication_slot()``.
        :param start_lsn: where to begin, if the slot is not ahead of that.
        :param timeline: that of a physical stream.
        :param options: those of a logical slot's output plugin.
        :param decode: decode the messages, which are bytes otherwise.
        :param status_interval: seconds between two feedback messages, 1 or more.
        :raises psycopg2.Error: as ``start_replication_expert()``.
        """
        self._check_connection("start_replication")
        base: Any = super()  # psycopg2's stubs have an int for the interval
        base.start_replication(
            slot_name, slot_type, start_lsn, timeline, options, decode, status_interval
        )

    def start_replication_expert(
        self,
        command: str | bytes | Composable,
        decode: bool = False,
        status_interval: float = 10,
    ) -> None:
        """Begin a stream by the given ``START_REPLICATION`` command.

        :param command: the command.
        :param decode: decode the messages, which are bytes otherwise.
        :param status_interval: seconds between two feedback messages, 1 or more.
        :raises psycopg2.ProgrammingError: a stream is open already, libpq's functions were not
            found, or the server refuses the command.
        """
        self._check_open()
        conn: Any = self.connection
        self._check_connection("start_replication")
        interval: Any = status_interval
        if isinstance(interval, bool) or not isinstance(interval, (int, float)):
            kind = type(interval).__name__
            raise TypeError(f"status_interval must be a number of seconds, not {kind!r}")
        if not status_interval >= 1:
            raise ProgrammingError("status_interval must be >= 1 (sec)")
        if not CAN_REPLICATE:
            raise ProgrammingError(
                "start_replication takes libpq's functions, which were not found; "
                "python -m greenwait says why"
            )
        timeout = _sender_timeout(conn)
        arguments = (command, decode, status_interval)
        stream = conn._lock.run(conn, "start_replication()", self._begin, *arguments)
        if timeout:
            keep_alive(stream, timeout / 3)

    def _begin(self, command: Any, decode: bool, status_interval: float) -> Stream:
        """Begin a stream, for the owner of the connection's lock."""
        conn: Any = self.connection
        if conn._streaming() is not None:
            raise ProgrammingError(
                "start_replication: a stream is open on this connection; stop_replication() ends it"
            )
        if conn._was_stopped and conn.replication_type == psycopg2.extras.REPLICATION_LOGICAL:
            self._have_stop_forgotten()
        stream = self._execute(command, decode, status_interval)
        if stream.is_over:
            raise ProgrammingError("the command has not begun a replication stream")
        return stream

    def _have_stop_forgotten(self) -> None:
        """Make it possible to begin another logical stream in the session."""
        conn: Any = self.connection
        with Cursor(conn) as cur:
            cur.execute(_TEMPORARY_SLOTS)
            if cur.fetchall():
                raise ProgrammingError(
                    "start_replication: the server begins a second logical stream in a session "
                    "only after it has dropped the session's temporary slots, of which there is "
                    "one; use a slot that is not temporary, or another connection"
                )
        stream = self._execute(_FORGET_STOP, False, 10)
        self._wait_for_message(stream)
        with contextlib.suppress(DatabaseError):
            stream.take(self)
        conn._was_stopped = False

    def _execute(self, command: Any, decode: bool, status_interval: float) -> Stream:
        """Execute a command that begins a stream, and return that."""
        conn: Any = self.connection
        # Before it begins: an interrupt must not leave a stream that nobody knows.
        stream = self._stream = Stream(self, decode, status_interval)
        conn._stream = weakref.ref(stream)  # the stream refers to the connection
        expect_stream(conn, True)
        try:
            super().execute(command)
        finally:
            expect_stream(conn, False)
            stream.settle()
        return stream

    def stop_replication(self) -> None:
        """End the stream, so that the connection can be used for something else.

        What has arrived, and was not read, is thrown away; what was not confirmed, the server
        sends again in the next stream. The server ends a stream between two transactions, and
        the wait lasts until then. If that is interrupted, call it again. After a logical stream
        of a temporary slot, the server begins no other one in the same session.

        :raises psycopg2.ProgrammingError: there is no stream.
        :raises psycopg2.Error: the server has ended the stream by an error.
        """
        stream = self._open_stream("stop_replication")
        conn: Any = self.connection
        conn._was_stopped = True
        conn._lock.run(conn, "stop_replication()", stream.stop)
        while not stream.is_over:
            self._wait_for_message(stream)
            stream.take(self)

    def read_message(self) -> ReplicationMessage | None:
        """Return the next message, or None if none has arrived completely. It does not wait.

        :raises psycopg2.ProgrammingError: there is no stream.
        :raises psycopg2.Error: the server has ended the stream by an error.
        """
        stream = self._open_stream("read_message")
        return stream.take(self) if stream.poll() == POLL_OK else None

    def consume_stream(
        self,
        consume: Callable[[ReplicationMessage], object],
        keepalive_interval: float | None = None,
    ) -> None:
        """Call *consume* for each message, until it raises an exception.

        :param consume: called with each message, whose ``cursor`` sends feedback.
            ``psycopg2.extras.StopReplication`` is an exception for its end. The stream stays
            open.
        :param keepalive_interval: seconds between two feedback messages, 1 or more; None leaves
            ``status_interval``.
        :raises psycopg2.ProgrammingError: there is no stream, or this was called in *consume*.
        :raises psycopg2.Error: the server has ended the stream by an error.

        It returns when the server ends the stream without an error.
        """
        check_synchronous("consume_stream()", consume)
        stream = self._begin_consuming(keepalive_interval)
        try:
            while True:
                stream.consume_ready(self, consume)
                if not self._prepare_next():
                    return
        except StopIteration:
            if not stream.is_over:
                raise  # the consumer's
        finally:
            self._is_consuming = False

    def send_feedback(
        self,
        write_lsn: int = 0,
        flush_lsn: int = 0,
        apply_lsn: int = 0,
        reply: bool = False,
        force: bool = False,
    ) -> None:
        """Confirm positions in the WAL, which the next feedback message tells the server.

        :param write_lsn: what was received up to here.
        :param flush_lsn: what was stored up to here: a slot does not keep it any longer.
        :param apply_lsn: what was applied up to here.
        :param reply: send the message now, and ask the server for a reply.
        :param force: send the message now.
        """
        stream = self._open_stream("send_feedback")
        stream.confirm(write_lsn, flush_lsn, apply_lsn)
        if reply or force:
            conn: Any = self.connection
            if conn._lock.run(conn, "send_feedback()", stream.send_feedback, bool(reply)):
                wait_at_most(_Flush(stream), None)

    # -- What psycopg2 keeps in fields that can't be set

    @property
    def wal_end(self) -> int:
        """The position of the WAL's end on the server, as the last message had it."""
        return 0 if self._stream is None else self._stream.wal_end

    @property
    def feedback_timestamp(self) -> datetime:
        """When the last feedback message was sent."""
        self._check_open()
        return _local_time(0 if self._stream is None else self._stream.last_feedback)

    @property
    def io_timestamp(self) -> datetime:
        """When something was last received or sent."""
        self._check_open()
        return _local_time(0 if self._stream is None else self._stream.last_io)

    # -- Iteration

    __next__ = next_of_cursor  # pyright: ignore[reportAssignmentType]

    def _next_row(self) -> Any:
        return super().__next__()

    # -- Reading

    def _prepare_next(self) -> bool:
        """Wait, or let others run; return False where there is no stream.

        :raises StopIteration: the stream has ended.
        """
        if self._has_ended():
            self._check_open()
            raise StopIteration
        if not self._is_streaming():
            return False
        stream = self._open_stream("the replication stream")
        if stream.is_turn_over():
            give_way()
            stream.begin_turn()
        else:
            self._wait_for_message(stream)
            stream.raise_failure()
        return True

    def _wait_for_message(self, stream: Stream) -> None:
        """Wait until there is a message, or the stream has ended.

        One after the other: what one of two receives does not wake the other.
        """
        stream.turns.run(stream.conn, "the replication stream", _wait_in_turn, stream)

    def _begin_consuming(self, keepalive_interval: Any) -> Stream:
        """Check and record that the stream is being consumed, and return it."""
        if keepalive_interval is not None:
            if not isinstance(keepalive_interval, (int, float)):
                raise ProgrammingError("keepalive_interval must be int or float")
            if not keepalive_interval >= 1:
                raise ProgrammingError("keepalive_interval must be >= 1 (sec)")
        self._check_open()
        if self._is_consuming:
            raise ProgrammingError("consume_stream cannot be used when already in the consume loop")
        stream = self._open_stream("consume_stream")
        if keepalive_interval is not None:
            stream.set_status_interval(keepalive_interval)
        self._is_consuming = True
        return stream

    def _is_streaming(self) -> bool:
        return self._stream is not None and not self._stream.is_over

    def _has_ended(self) -> bool:
        """Was a stream, which has ended, the last that the cursor was used for?"""
        return self._stream is not None and self._stream.is_over and self.description is None

    def _open_stream(self, what: str) -> Stream:
        """Return the cursor's stream, whose end was not taken yet."""
        self._check_open()
        stream = self._stream
        if stream is None or stream.is_over:
            raise ProgrammingError(_NOT_REPLICATING.format(what))
        return stream

    def _check_open(self) -> None:
        if self.closed:
            raise InterfaceError("cursor already closed")


class _Flush:
    """A stream that has something left to send, to be waited for until it is sent."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.fileno = stream.fileno
        self.poll = stream.poll_flush


def _wait_in_turn(stream: Stream) -> None:
    while not wait_at_most(stream, stream.seconds_to_wait()):
        pass  # feedback is due
    stream.begin_turn()


def _local_time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds)


def _sender_timeout(conn: Any) -> float:
    """Return the server's ``wal_sender_timeout`` in seconds, or 0 if it waits for ever."""
    with Cursor(conn) as cur:
        cur.execute("SHOW wal_sender_timeout")
        text = str(cur.fetchall()[0][0])
    digits = text.rstrip("abcdefghijklmnopqrstuvwxyz")
    return int(digits) * _MILLISECONDS.get(text[len(digits) :], 1) / 1000


_classes: dict[type, type] = {
    psycopg2.extras.ReplicationCursor: ReplicationCursor,
    _ReplicationCursor: ReplicationCursor,
}


def replicating(factory: Any) -> Any:
    """Return *factory* itself, or if it is a class of psycopg2's streams, a class of ours."""
    if not is_class_of(factory, _ReplicationCursor) or is_class_of(factory, ReplicationCursor):
        return factory
    if "_is_guarded" in vars(factory):  # guarded() has made it, as Cursor is made
        return replicating(factory.__mro__[1])
    if factory not in _classes:
        own = {"__doc__": factory.__doc__, "__module__": factory.__module__}
        bases: Any = (factory, ReplicationCursor)
        _classes[factory] = type(factory.__name__, bases, own)
    return _classes[factory]


# -- Connections


_TAKEN_AWAY: dict[str, Any] = {**_ReplicationConnection.__dict__}


class Replicating(Connection):
    """What the two classes of replication connections have in common."""

    _stream: weakref.ref[Stream] | None = None
    _was_stopped = False

    def cursor(
        self,
        name: str | bytes | None = None,
        cursor_factory: Callable[..., Any] | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Return a new cursor, a ``ReplicationCursor`` by default.

        :param name: the name of a server-side cursor.
        :param cursor_factory: its class; of one that derives from psycopg2's
            ``ReplicationCursor`` a subclass is made that does what greenwait's does.
        :param kwargs: further arguments for the class.
        """
        factory = cursor_factory or self.cursor_factory
        if not self.async_:  # there psycopg2's own works, if no callback is registered
            factory = replicating(factory)
        return super().cursor(name, factory, *args, **kwargs)

    def _streaming(self) -> Stream | None:
        """Return the stream that is open, or None."""
        stream = None if self._stream is None else self._stream()
        return None if stream is None or stream.is_over else stream

    # psycopg2 takes these away from replication connections.
    autocommit: Any = _TAKEN_AWAY["autocommit"]
    isolation_level: Any = _TAKEN_AWAY["isolation_level"]
    set_session: Any = _TAKEN_AWAY["set_session"]
    set_isolation_level: Any = _TAKEN_AWAY["set_isolation_level"]
    reset: Any = _TAKEN_AWAY["reset"]


class LogicalReplicationConnection(  # pyright: ignore[reportIncompatibleMethodOverride]
    Replicating, psycopg2.extras.LogicalReplicationConnection
):
    """A connection for logical replication. To be used as ``connection_factory``.

    It is a ``greenwait.Connection`` and a ``psycopg2.extras.LogicalReplicationConnection``. Its
    cursors are ``ReplicationCursor``. It needs libpq's functions, which are not found on Windows.
    """


class PhysicalReplicationConnection(  # pyright: ignore[reportIncompatibleMethodOverride]
    Replicating, psycopg2.extras.PhysicalReplicationConnection
):
    """A connection for physical replication; otherwise like the logical one."""
