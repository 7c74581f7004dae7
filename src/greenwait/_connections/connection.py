"""Connections that greenlets and threads can share, and that know when they commit.

psycopg2 guards a connection with a mutex, which stops the thread that waits for it. Two
greenlets of one thread that use the same connection deadlock: the one that waits for its
answer can't be switched to any more. So each method that takes the mutex takes a fair lock
first, and lets other greenlets run while it waits for that.
"""

import functools
from collections.abc import Callable
from types import BuiltinMethodType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast, overload

from psycopg2.extensions import lobject as lobject_of_psycopg2

from greenwait._connections.copying import CopyCursor
from greenwait._connections.large_object import LargeObject, large_object_class
from greenwait._connections.lock import (
    FairLock,
    block_alone,
    block_end,
    cursor_block_end,
    cursor_with_lock,
    unless_idle,
    with_lock,
)
from greenwait._elsewhere import Elsewhere, refusing
from greenwait._errors import CommitInDoubt
from greenwait._outcome import lost_commit
from greenwait._psycopg.prototypes import ClassSignature, with_signature
from greenwait._psycopg.psycopg2 import (
    STATUS_PREPARED,
    STATUS_READY,
    TRANSACTION_STATUS_IDLE,
    DatabaseError,
    InterfaceError,
    InvalidCursorName,
    ProgrammingError,
    QueryCanceled,
    connection,
    cursor,
)
from greenwait._psycopg.state import begin_method, end_method
from greenwait._types import Self

__all__ = ["Connection", "Cursor", "check_order", "guarded"]

_Class = TypeVar("_Class", bound=type)
_Cursor = TypeVar("_Cursor", bound=cursor)
_Result = TypeVar("_Result")


def _set_with_lock(name: str, base: type) -> Any:
    """Return a property for *base*'s attribute, which is set while holding the lock."""
    own = getattr(base, name)

    set_whole = _whole(own.__set__)

    def set_value(self: Any, value: Any) -> None:
        self._lock.run(self, name, set_whole, self, value)

    return property(own.__get__, set_value, doc=own.__doc__)


def _told(
    method: Callable[..., _Result], kind: Literal["rollback", "tpc_begin"], keeps_interrupt: bool
) -> Callable[..., _Result]:
    """Return psycopg2's *method*, announced to the callback; see ``begin_method()``."""

    @functools.wraps(with_signature(method))
    def told(self: Any, *args: Any, **kwargs: Any) -> _Result:
        status = self.status
        try:
            begin_method(self, kind, keeps_interrupt)
            return method(self, *args, **kwargs)
        finally:
            if status != STATUS_READY and self.status != status:
                self._transactions += 1
            end_method(self)

    return told


def _whole(method: Callable[..., _Result]) -> Callable[..., _Result]:
    """Return psycopg2's *method*, which must not see an error where the server reported success.

    psycopg2 changes its own state, such as the encoding or the isolation level, only on success.
    An interrupt of the method is raised when it has returned.
    """
    return _told(method, "rollback", True)


_SYNCHRONOUS = (
    "this connection is a synchronous one: write 'with' and 'for'; in asyncio, "
    "greenwait.aio.connect() makes connections whose methods are awaited"
)
_BY_CURSOR = "psycopg2 executes by cursors: cur = conn.cursor(), and cur.execute()"
#: The methods that a class of psycopg2.extras has in vain behind ours in a class statement.
_OWN_METHODS = ("cursor", "execute", "executemany", "callproc", "fetchone", "fetchmany", "fetchall")


def check_order(cls: type, own: type) -> None:
    """Raise TypeError if a class of psycopg2.extras comes behind *own* among the bases of *cls*."""
    for base in cls.__mro__[cls.__mro__.index(own) :]:
        if base.__module__ == "psycopg2.extras" and not vars(base).keys().isdisjoint(_OWN_METHODS):
            raise TypeError(
                f"the methods of {base.__name__} would not be used: write {base.__name__} "
                f"before {own.__name__} among the bases"
            )


class Connection(connection):
    """A psycopg2 connection that greenlets can share, and that knows when it commits.

    Use it as ``connection_factory``; ``greenwait.connect()`` does. A method waits while another
    greenlet or thread uses the connection. In a signal handler or a ``__del__`` that interrupts
    the connection's own work it can't wait, and raises ``psycopg2.ProgrammingError``.
    ``cancel()`` is always possible.

    ``with conn:`` is psycopg2's, and does not wait: entered while another block of the connection
    is open, in any greenlet or thread, it raises ``psycopg2.ProgrammingError``. If the end of a
    block is interrupted while it waits, the next user of the connection rolls the block back.

    Its cursors are guarded in the same way, whatever their class.
    Besides the methods below these wait too, and are otherwise psycopg2's:
    ``close()``, ``reset()``, ``set_session()``, ``set_isolation_level()``,
    ``set_client_encoding()``, ``tpc_begin()``, ``tpc_prepare()``,
    ``tpc_recover()``, and setting ``autocommit``, ``isolation_level``, ``readonly`` or
    ``deferrable``.

    A commit that is interrupted or whose connection is lost raises
    ``greenwait.CommitInDoubt`` if its outcome is unknown. With psycopg2's own class that is
    promised only for ``conn.commit()`` and ``with conn:``, and only for a deadline or an
    interrupt.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        check_order(cls, Connection)

    _lock: FairLock
    _transactions = 0  # those that have ended

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        # Not in __init__, which connects: the traceback of its exception would keep the
        # connection, and with it the socket.
        self = super().__new__(cls, *args, **kwargs)
        self._lock = FairLock()
        return self

    @overload
    def cursor(
        self,
        name: str | bytes | None = None,
        cursor_factory: None = None,
        withhold: bool = False,
        scrollable: bool | None = None,
    ) -> "Cursor": ...
    @overload
    def cursor(
        self,
        name: str | bytes | None = None,
        *,
        cursor_factory: Callable[..., _Cursor],
        withhold: bool = False,
        scrollable: bool | None = None,
    ) -> _Cursor: ...
    @overload
    def cursor(
        self,
        name: str | bytes | None,
        cursor_factory: Callable[..., _Cursor],
        withhold: bool = False,
        scrollable: bool | None = None,
    ) -> _Cursor: ...
    def cursor(
        self,
        name: str | bytes | None = None,
        cursor_factory: Callable[..., Any] | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Return a new cursor, as psycopg2 does, of a class that waits for the connection.

        :param name: the name of a server-side cursor, which fetches ``itersize`` rows at a time.
        :param cursor_factory: its class; a subclass of that is made, which waits.
        :param kwargs: further arguments for the class.
        """
        factory = cursor_factory or self.cursor_factory
        if factory is None:
            factory = Cursor
        elif isinstance(factory, type):
            factory = guarded(factory)
        new_cursor = super().cursor
        try:
            if not (args or kwargs) and type(new_cursor) is BuiltinMethodType:  # psycopg2's own
                return new_cursor(name, factory)  # that costs least
            if args:
                return new_cursor(name, factory, *args, **kwargs)
            # By keyword: psycopg2.extras.LoggingConnection's takes it so.
            return new_cursor(name, cursor_factory=factory, **kwargs)
        except TypeError:
            _check_arguments_of_cursor(name, kwargs)
            raise

    if not TYPE_CHECKING:
        __aenter__ = __aexit__ = refusing(_SYNCHRONOUS)
        execute = Elsewhere("Connection.execute", _BY_CURSOR)
        executemany = Elsewhere("Connection.executemany", _BY_CURSOR)
        fetch = Elsewhere("Connection.fetch", _BY_CURSOR + ", and its fetchall()")
        fetchrow = Elsewhere("Connection.fetchrow", _BY_CURSOR + ", and its fetchone()")
        fetchval = Elsewhere("Connection.fetchval", _BY_CURSOR + ", and fetchone()[0]")
        add_listener = Elsewhere("Connection.add_listener", "it is greenwait.notifies(conn)")
        is_closed = Elsewhere("Connection.is_closed", "it is the attribute closed")
        pipeline = Elsewhere("Connection.pipeline", "psycopg2 has none")
        prepare = Elsewhere("Connection.prepare", "psycopg2 prepares no statements")
        set_autocommit = Elsewhere("Connection.set_autocommit", "set conn.autocommit = True")
        transaction = Elsewhere(
            "Connection.transaction", "it is 'with conn:', or 'async with conn:' in asyncio"
        )

    @unless_idle  # the end of a pool's block asks for it, also after a query in autocommit mode
    def commit(self) -> None:
        """Commit all changes to the database.

        A deadline or an interrupt does not cancel it: the outcome is waited for.

        :raises CommitInDoubt: the outcome is unknown: none came within the callback's
            ``cancel_grace``, or the connection was lost.
        """
        self._lock.run(self, "commit()", _end, self, "commit", super().commit)

    @unless_idle
    def rollback(self) -> None:
        """Roll back all changes to the database; it is not cancelled either."""
        self._lock.run(self, "rollback()", _end, self, "rollback", super().rollback)

    def tpc_commit(self, *xid: Any) -> None:
        """Commit a two-phase transaction; otherwise like ``commit()``.

        :param xid: the id of a recovered transaction, if it is one.
        """
        self._lock.run(self, "tpc_commit()", _end, self, "commit", super().tpc_commit, *xid)

    def tpc_rollback(self, *xid: Any) -> None:
        """Roll back a two-phase transaction; otherwise like ``rollback()``.

        :param xid: the id of a recovered transaction, if it is one.
        """
        self._lock.run(self, "tpc_rollback()", _end, self, "rollback", super().tpc_rollback, *xid)

    def lobject(
        self,
        oid: int = 0,
        mode: str | None = "",
        new_oid: int = 0,
        new_file: str | None = None,
        lobject_factory: Callable[..., Any] | None = None,
    ) -> Any:
        """Return a large object, by SQL where psycopg2 takes functions that can't wait.

        :param oid: its OID; 0 makes a new one.
        :param mode: ``"r"``, ``"w"``, ``"rw"`` or ``"n"``, with ``"t"`` for text, ``"b"`` for
            bytes.
        :param new_oid: the OID of a new one; 0: the server chooses.
        :param new_file: the file whose contents a new one gets.
        :param lobject_factory: its class; a subclass of that is made, which waits.
        :returns: a ``LargeObject``, which is a ``psycopg2.extensions.lobject``.
        :raises psycopg2.OperationalError: the server refuses it, or the file can't be read.
        :raises psycopg2.ProgrammingError: the connection is in autocommit mode.
        """
        if self.closed:
            raise InterfaceError("connection already closed")
        if self.async_:
            raise ProgrammingError("lobject cannot be used in asynchronous mode")
        if self.status == STATUS_PREPARED:
            raise ProgrammingError("lobject cannot be used with a prepared two-phase transaction")
        factory = large_object_class(lobject_factory or LargeObject)
        arguments = (oid, mode, new_oid, *([] if new_file is None else [new_file]))
        found = self._lock.run(self, "lobject()", factory, self, *arguments)
        if not isinstance(found, lobject_of_psycopg2):
            raise TypeError("lobject factory must be subclass of psycopg2.extensions.lobject")
        return found

    def _plain_cursor(self) -> "Cursor":
        return Cursor(self)

    # Guarded by themselves: the end of a block is more than a call of a method above.
    __enter__ = block_alone(connection.__enter__)
    __exit__ = block_end(connection.__exit__)
    close = with_lock(connection.close, "close")
    reset = with_lock(_whole(connection.reset), "reset")
    set_session = with_lock(_whole(connection.set_session), "set_session")
    set_isolation_level = with_lock(_whole(connection.set_isolation_level), "set_isolation_level")
    set_client_encoding = with_lock(_whole(connection.set_client_encoding), "set_client_encoding")
    tpc_begin = with_lock(_told(connection.tpc_begin, "tpc_begin", False), "tpc_begin")
    tpc_prepare = with_lock(_whole(connection.tpc_prepare), "tpc_prepare")
    tpc_recover = with_lock(connection.tpc_recover, "tpc_recover")
    autocommit = _set_with_lock("autocommit", connection)
    isolation_level: Any = _set_with_lock("isolation_level", connection)
    readonly: Any = _set_with_lock("readonly", connection)
    deferrable: Any = _set_with_lock("deferrable", connection)


def _check_arguments_of_cursor(name: object, options: dict[str, Any]) -> None:
    """Raise a TypeError that says what cursor() takes, if that is why psycopg2 has raised one."""
    if isinstance(name, type):
        raise TypeError(
            f"cursor() takes a name first: write cursor(cursor_factory={name.__name__})"
        ) from None
    if not (name is None or isinstance(name, (str, bytes))):
        raise TypeError(f"a cursor's name must be str, not {type(name).__name__!r}") from None
    if "row_factory" in options:
        raise TypeError(
            "cursor() has no row_factory: it is cursor_factory, a class of cursors, of "
            "psycopg2.extras for instance"
        ) from None


def _end(
    conn: Connection, kind: Literal["commit", "rollback"], method: Callable[..., None], *xid: Any
) -> None:
    """End a transaction by *method*."""
    has_transaction = conn.status != STATUS_READY or bool(xid)
    conn._transactions += has_transaction  # pyright: ignore[reportPrivateUsage]
    try:
        begin_method(conn, kind, True)  # an interrupt may come as soon as it has returned
        method(*xid)
    except DatabaseError as exc:
        if (
            kind == "commit"
            and has_transaction
            and conn.closed
            and exc.__cause__ is None
            and not isinstance(exc, (CommitInDoubt, QueryCanceled))
        ):
            raise lost_commit(exc) from exc
        raise
    finally:
        end_method(conn)


# -- Cursors

_METHODS = ("execute", "executemany", "callproc", "copy_from", "copy_to", "copy_expert")
# These wait only for server-side cursors.
_METHODS_OF_NAMED = ("fetchone", "fetchmany", "fetchall", "scroll", "__next__", "close")


def _close_if_there(close: Callable[[Any], None]) -> Callable[[Any], None]:
    """Return a cursor's *close* that accepts that the server has no such cursor.

    It has none if the statement that declares it has failed, or the BEGIN before that, and
    psycopg2 asks for the end of it nevertheless: the answer would replace what a block raises.
    A transaction has failed with that answer, and so its error is not kept from the caller.
    """

    @functools.wraps(with_signature(close))
    def close_if_there(self: Any) -> None:
        try:
            close(self)
        except InvalidCursorName:
            if self.connection.info.transaction_status != TRANSACTION_STATUS_IDLE:
                raise

    return close_if_there


def _guard(cls: _Class) -> _Class:
    """Make the methods of the cursor class *cls* wait for the connection."""
    base = cast(Any, super(cls, cls))
    for name in _METHODS:
        setattr(cls, name, cursor_with_lock(getattr(base, name), name))
    for name in _METHODS_OF_NAMED:
        method = getattr(base, name)
        named = _close_if_there(method) if name == "close" else method
        setattr(cls, name, cursor_with_lock(named, name, nameless=method))
    if base.__exit__ is cursor.__exit__:
        cast(Any, cls).__exit__ = cursor_block_end
    return cls


@_guard
class Cursor(CopyCursor):
    """A psycopg2 cursor that waits while others use its ``greenwait.Connection``.

    Use it as ``cursor_factory``. ``Connection.cursor()`` makes such a class of any other.
    The methods are psycopg2's, and those of COPY work while greenwait's callback is registered.
    Those that wait for the server wait for the connection first; the fetching methods of a cursor
    without a name do not.
    """

    _is_guarded = True
    __signature__ = ClassSignature()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        check_order(cls, Cursor)

    if not TYPE_CHECKING:
        __aenter__ = __aexit__ = __aiter__ = refusing(_SYNCHRONOUS)
        copy = Elsewhere("Cursor.copy", "it is copy_expert(), with a file")
        execute_values = Elsewhere(
            "Cursor.execute_values", "it is psycopg2.extras.execute_values(cursor, ...)"
        )
        fetch = Elsewhere("Cursor.fetch", "it is execute(), and fetchall()")
        fetchval = Elsewhere("Cursor.fetchval", "it is fetchone()[0]")
        stream = Elsewhere("Cursor.stream", "it is conn.cursor('a name'), and execute()")


_guarded_classes: dict[type, type] = {}


def guarded(factory: type) -> type:
    """Return *factory* itself if it waits for the connection, or a subclass that does.

    :param factory: a cursor class. ``Connection.cursor()`` calls this by itself.
    :returns: the class, the same one each time.
    """
    if hasattr(factory, "_is_guarded"):
        return factory
    if factory not in _guarded_classes:
        own = {
            "_is_guarded": True,
            "__doc__": factory.__doc__,
            "__module__": factory.__module__,
        }
        # With CopyCursor behind it, whose copy_expert() its own may call by super().
        bases = (CopyCursor,) if issubclass(CopyCursor, factory) else (factory, CopyCursor)
        _guarded_classes[factory] = _guard(type(factory.__name__, bases, own))
    return _guarded_classes[factory]
