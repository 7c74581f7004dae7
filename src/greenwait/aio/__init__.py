"""psycopg2 in asyncio programs: its waits let the event loop run.

import asyncio, greenwait, greenwait.aio
greenwait.install()

async def main():
    conn = await greenwait.aio.connect("dbname=postgres")
    async with conn, conn.cursor() as cur:
        await cur.execute("select 1")
        print(await cur.fetchone())
    await conn.close()

``run()`` calls any synchronous code that way; ``connect()`` returns a connection whose methods
are awaited.
"""

from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Iterable,
    Iterator,
)
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar, overload

from psycopg2.extensions import Notify

from greenwait._cancel import cancel
from greenwait._connections import connect as _connect
from greenwait._connections.connection import Connection, Cursor, check_order, guarded
from greenwait._connections.large_object import LargeObject, is_class_of, large_object_class
from greenwait._connections.notifies import Listening
from greenwait._connections.replication import (
    LogicalReplicationConnection,
    PhysicalReplicationConnection,
    ReplicationCursor,
    replicating,
)
from greenwait._deadline import deadline_after
from greenwait._elsewhere import missing_name, refusing
from greenwait._psycopg.psycopg2 import ProgrammingError, connection, cursor
from greenwait._synchronous import check_synchronous
from greenwait._system.identity import publish
from greenwait._types import Self
from greenwait.aio._call import Call, await_, awaited, in_call
from greenwait.aio._files import with_async_file
from greenwait.aio._large_object import awaited_large_object
from greenwait.aio._loop import end_connection, is_inherited
from greenwait.aio._pool import AsyncPool, NewPool
from greenwait.aio._proxies import out_of_proxy, through_proxy
from greenwait.aio._psycopg2 import check_caller
from greenwait.aio._replication import AwaitedReplication, AwaitedStream, with_awaited_stream

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import TypeAlias

    from psycopg2.extensions import Xid
    from psycopg2.sql import Composable

    _Query: TypeAlias = str | bytes | Composable
    _Values: TypeAlias = Sequence[Any] | Mapping[str, Any] | None

__all__ = [
    "AsyncConnection",
    "AsyncCursor",
    "AsyncLogicalReplicationConnection",
    "AsyncPhysicalReplicationConnection",
    "AsyncPool",
    "AsyncReplicationCursor",
    "await_",
    "connect",
    "create_pool",
    "notifies",
    "run",
]

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")
_Class = TypeVar("_Class", bound=type)
_Connection = TypeVar("_Connection", bound=connection)


async def run(
    function: Callable[_Parameters, _Result],
    /,
    *args: _Parameters.args,
    **kwargs: _Parameters.kwargs,
) -> _Result:
    """Call synchronous code on this thread; while it waits for the server the event loop runs.

    :param function: called with the further arguments, in a greenlet, in a copy of the
        task's context variables: an outer ``greenwait.timeout()`` applies to it.
    :param args: passed on to it.
    :param kwargs: passed on to it.
    :returns: what it returns.
    :raises BaseException: what it raises.
    :raises TypeError: *function* is not a synchronous function.
    :raises RuntimeError: no event loop runs in this thread, it is called below ``run()``, or
        greenwait's callback is not registered.

    When the task is cancelled, the query under way is cancelled on the server, its end is
    waited for within the callback's ``cancel_grace``, and CancelledError is raised where the
    code waits: the connection stays usable. A commit is not cancelled.

    The code stops the event loop while it computes, or waits for anything else: for
    awaitables there is ``await_()``.
    """
    check_synchronous("greenwait.aio.run()", function)
    result: _Result = await Call(function, args, kwargs)
    return result


# -- Connections


class _Done:
    """An awaitable of something that is done already, and need not be awaited."""

    def __await__(self) -> Generator[Any, None, None]:
        return
        yield


_DONE = _Done()


def _of_connection(name: str) -> Any:
    """Return ``Connection``'s method, to be awaited."""
    return awaited(getattr(Connection, name), f"AsyncConnection.{name}")


def _set_if_free(name: str) -> Any:
    """Return a property that can't be set while a task is at work: that would stop the loop."""
    own: Any = getattr(Connection, name)

    def set_value(self: Any, value: Any) -> None:
        if (self._lock.is_taken or self._lock.is_left_open) and not in_call():
            raise ProgrammingError(
                f"{name}: a task is at work on this connection, and setting this does not wait; "
                "await set_session() does"
            )
        own.__set__(self, value)

    return property(own.__get__, set_value, doc=own.__doc__)


def _lobject(
    self: Any,
    oid: int = 0,
    mode: str | None = "",
    new_oid: int = 0,
    new_file: str | None = None,
    lobject_factory: Any = None,
) -> Any:
    """Return a large object, whose methods are awaited; see ``greenwait.Connection.lobject()``."""
    factory = awaited_large_object(large_object_class(lobject_factory or LargeObject))
    return Connection.lobject(self, oid, mode, new_oid, new_file, factory)


class _AwaitedMethods:
    """The awaited methods of an ``AsyncConnection``."""

    if TYPE_CHECKING:  # psycopg2's, awaitable

        def commit(self) -> Awaitable[None]:
            """Commit the transaction; see ``greenwait.Connection.commit()``."""
            ...

        def rollback(self) -> Awaitable[None]:
            """Roll the transaction back; see ``greenwait.Connection.rollback()``."""
            ...

        def reset(self) -> Awaitable[None]:
            """Roll back, and set the connection's settings to their defaults."""
            ...

        def set_session(
            self,
            isolation_level: str | int | None = None,
            readonly: bool | Literal["default"] | None = None,
            deferrable: bool | Literal["default"] | None = None,
            autocommit: bool | None = None,
        ) -> Awaitable[None]:
            """Set parameters of the next transactions, as psycopg2 does."""
            ...

        def set_isolation_level(self, level: int | None, /) -> Awaitable[None]:
            """Set the isolation level of the next transactions, as psycopg2 does."""
            ...

        def set_client_encoding(self, encoding: str, /) -> Awaitable[None]:
            """Set the client's encoding, as psycopg2 does."""
            ...

        def lobject(
            self,
            oid: int = 0,
            mode: str | None = "",
            new_oid: int = 0,
            new_file: str | None = None,
            lobject_factory: Any = None,
        ) -> Awaitable[Any]:
            """Return a large object, whose methods are awaited."""
            ...

        def tpc_begin(self, xid: str | Xid, /) -> Awaitable[None]:
            """Begin a two-phase transaction."""
            ...

        def tpc_prepare(self) -> Awaitable[None]:
            """Do the first phase of a two-phase transaction."""
            ...

        def tpc_commit(self, xid: str | Xid = ..., /) -> Awaitable[None]:
            """Commit a two-phase transaction."""
            ...

        def tpc_rollback(self, xid: str | Xid = ..., /) -> Awaitable[None]:
            """Roll a two-phase transaction back."""
            ...

        def tpc_recover(self) -> Awaitable[list[Xid]]:
            """Return the ids of the transactions that are prepared."""
            ...

    else:
        commit = _of_connection("commit")
        rollback = _of_connection("rollback")
        reset = _of_connection("reset")
        set_session = _of_connection("set_session")
        set_isolation_level = _of_connection("set_isolation_level")
        set_client_encoding = _of_connection("set_client_encoding")
        lobject = awaited(_lobject, "AsyncConnection.lobject")
        tpc_begin = _of_connection("tpc_begin")
        tpc_prepare = _of_connection("tpc_prepare")
        tpc_commit = _of_connection("tpc_commit")
        tpc_rollback = _of_connection("tpc_rollback")
        tpc_recover = _of_connection("tpc_recover")


# The checkers complain about the very difference: psycopg2's methods are not awaited.
class AsyncConnection(  # type: ignore[misc]  # pyright: ignore[reportIncompatibleMethodOverride]
    _AwaitedMethods, Connection
):
    """A psycopg2 connection whose methods are awaited. To be used as ``connection_factory``.

    Its cursors are of the class ``AsyncCursor``, or of a subclass of the class requested.
    ``async with conn:`` is a transaction, in autocommit mode too: it commits, or rolls back on
    an exception. Where tasks share the connection, its methods wait for each other, but its
    blocks do not: entered while another one is open, a block raises
    ``psycopg2.ProgrammingError``. Methods not named here are psycopg2's own. Below ``run()``,
    where code is synchronous, it works as a ``greenwait.Connection``, and so do its cursors.

    Besides those below these are awaited, and otherwise psycopg2's: ``reset()``,
    ``set_session()``, ``set_isolation_level()``, ``set_client_encoding()``, ``lobject()``,
    ``tpc_begin()``, ``tpc_prepare()``, ``tpc_commit()``, ``tpc_rollback()`` and
    ``tpc_recover()``. ``autocommit``, ``isolation_level``, ``readonly`` and ``deferrable``
    are set without waiting: while a task is at work on the connection, setting them raises
    ``psycopg2.ProgrammingError``.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        check_order(cls, AsyncConnection)  # before that of Connection
        super().__init_subclass__(**kwargs)

    _event_loop: Any = None
    _proxy: Any = None  # of a library that traces

    @overload  # a factory's class is not that of its cursors
    def cursor(
        self,
        name: str | bytes | None = None,
        cursor_factory: None = None,
        withhold: bool = False,
        scrollable: bool | None = None,
    ) -> "AsyncCursor": ...
    @overload
    def cursor(
        self,
        name: str | bytes | None = None,
        cursor_factory: Callable[..., Any] | None = None,
        withhold: bool = False,
        scrollable: bool | None = None,
    ) -> Any: ...
    def cursor(
        self,
        name: str | bytes | None = None,
        cursor_factory: Callable[..., Any] | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Return a new cursor, whose methods are awaited; this method itself is not.

        :param name: the name of a server-side cursor, which fetches ``itersize`` rows at a time.
        :param cursor_factory: its class; a subclass of that is made, with awaited methods.
        :param kwargs: further arguments for the class.
        """
        factory = cursor_factory or self.cursor_factory
        if factory is cursor and not in_call():
            check_caller()
        if factory is None:
            factory = AsyncCursor
        elif isinstance(factory, type):
            factory = _with_awaited(factory)
        if self._proxy is not None and isinstance(factory, type):
            factory = through_proxy(factory)
        if args or kwargs:
            return super().cursor(name, factory, *args, **kwargs)
        return super().cursor(name, factory)

    @staticmethod
    def _out_of_proxy(found: Any) -> Any:
        return out_of_proxy(found)

    def close(self) -> Any:
        """Close it now, or when the task that is at work on it is done. May be awaited, or not.

        If that task's event loop is closed, it is closed now. In a forked child that runs on in
        its parent's event loop, it is never closed: the parent goes on using it.
        """
        if is_inherited(self) or end_connection(self):
            return _DONE
        if in_call() or not self._lock.is_taken:
            super().close()
            return _DONE
        return Call(super().close, (), {}).begin()

    def cancel(self) -> Any:
        """Cancel the query under way, as ``greenwait.cancel()`` does."""
        return cancel(self) if in_call() else run(cancel, self)

    autocommit = _set_if_free("autocommit")
    isolation_level = _set_if_free("isolation_level")
    readonly = _set_if_free("readonly")
    deferrable = _set_if_free("deferrable")

    def __enter__(self) -> Any:
        if not in_call():
            raise TypeError("write 'async with conn:', since its end waits for the server")
        return super().__enter__()

    async def __aenter__(self) -> Self:
        while self._lock.is_left_open:
            await self.rollback()
        super().__enter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if is_inherited(self) or (kind is GeneratorExit and self.closed):
            return  # it is the parent process's, or was lost with its event loop
        await _end_of_block(self, kind, exc, traceback)


_end_of_block = _of_connection("__exit__")


# -- Cursors

_METHODS = ("execute", "executemany", "callproc")
# ... and the parameters that are files.
_COPIES = {"copy_from": 0, "copy_to": 0, "copy_expert": 1}
_METHODS_OF_NAMED = ("fetchone", "fetchmany", "fetchall", "scroll")


if TYPE_CHECKING:

    class _CursorMethods:
        """The methods that _with_awaited_methods() makes."""

        def execute(  # psycopg2 calls it so
            self,
            query: _Query,
            vars: _Values = None,  # noqa: A002
        ) -> Awaitable[None]:
            """Execute a statement."""
            ...

        def executemany(self, query: _Query, vars_list: Iterable[_Values]) -> Awaitable[None]:
            """Execute a statement once for each of the parameters."""
            ...

        def callproc(self, procname: str, parameters: _Values = None, /) -> Awaitable[None]:
            """Call a function of the database."""
            ...

        def copy_from(
            self,
            file: Any,
            table: str,
            sep: str = "\t",
            null: str = "\\N",
            size: int = 8192,
            columns: Iterable[str] | None = None,
        ) -> Awaitable[None]:
            """Copy a file to a table; see ``greenwait.Cursor.copy_from()``."""
            ...

        def copy_to(
            self,
            file: Any,
            table: str,
            sep: str = "\t",
            null: str = "\\N",
            columns: Iterable[str] | None = None,
        ) -> Awaitable[None]:
            """Copy a table to a file; see ``greenwait.Cursor.copy_to()``."""
            ...

        def copy_expert(self, sql: _Query, file: Any, size: int = 8192) -> Awaitable[None]:
            """Execute a COPY statement with a file; see ``greenwait.Cursor.copy_expert()``."""
            ...

        def fetchone(self) -> Awaitable[tuple[Any, ...] | None]:
            """Return the next row, or None."""
            ...

        def fetchmany(self, size: int | None = None) -> Awaitable[list[tuple[Any, ...]]]:
            """Return the next rows: *size*, or ``arraysize``."""
            ...

        def fetchall(self) -> Awaitable[list[tuple[Any, ...]]]:
            """Return the other rows."""
            ...

        def scroll(
            self, value: int, mode: Literal["relative", "absolute"] = "relative"
        ) -> Awaitable[None]:
            """Move the cursor."""
            ...

else:
    _CursorMethods = object


class _Awaited(_CursorMethods):
    """The other methods of a cursor whose methods are awaited."""

    _is_awaited = True
    _base: Any  # the cursor class that it derives from
    name: Any

    def close(self) -> Any:
        """Close it; to be awaited if it has a name, since then it waits for the server."""
        if self.name is not None and not in_call():
            return self._closing()
        self._base.close(self)
        return _DONE

    def _closing(self) -> Any:
        raise NotImplementedError

    if not TYPE_CHECKING:
        __await__ = refusing("cursor() is not awaited: write 'cur = conn.cursor()'")

    def __enter__(self) -> "Self":
        if self.name is not None and not in_call():
            raise TypeError("write 'async with cursor:', since its end waits for the server")
        found: Self = self._base.__enter__(self)
        return found

    def __next__(self) -> Any:
        if self.name is not None and not in_call():
            raise TypeError("write 'async for row in cursor', since it waits for the server")
        return self._base.__next__(self)

    def __aiter__(self) -> AsyncIterator[tuple[Any, ...]]:
        return _Rows(self.name is None, self._base.__iter__(self))

    def mogrify(self, *args: Any, **kwargs: Any) -> Any:
        """Return a query as it would be sent, with its parameters, as bytes."""
        if not in_call():
            check_caller()
        return self._base.mogrify(self, *args, **kwargs)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()


def _with_awaited_methods(cls: _Class) -> _Class:
    """Make the methods of the cursor class *cls* awaited ones."""
    base: Any = cls.__mro__[2]

    def own_awaited(name: str, *, only_named: bool) -> Any:
        full_name = f"{cls.__name__}.{name}"
        return awaited(getattr(base, name), full_name, of_cursor=True, only_named=only_named)

    for name in _METHODS:
        setattr(cls, name, own_awaited(name, only_named=False))
    for name, position in _COPIES.items():
        method = with_async_file(getattr(base, name), position)
        setattr(cls, name, awaited(method, f"{cls.__name__}.{name}", of_cursor=True))
    for name in _METHODS_OF_NAMED:
        setattr(cls, name, own_awaited(name, only_named=True))
    own: Any = cls
    own._base, own._closing = base, own_awaited("close", only_named=True)
    return cls


_END = object()


class _Rows:
    """The iterator of an ``async for`` over a cursor."""

    def __init__(self, is_local: bool, rows: Iterator[Any]) -> None:
        self._is_local = is_local
        self._rows = rows

    def __aiter__(self) -> "_Rows":
        return self

    async def __anext__(self) -> Any:
        arguments = (self._rows, _END)
        row = next(*arguments) if self._is_local else await Call(next, arguments, {})
        if row is _END:
            raise StopAsyncIteration
        return row


@_with_awaited_methods
class AsyncCursor(  # type: ignore[misc]  # pyright: ignore[reportIncompatibleMethodOverride]
    _Awaited, Cursor
):
    """A psycopg2 cursor whose methods are awaited; ``AsyncConnection.cursor()`` returns them.

    Awaited are ``execute()``, ``executemany()``, ``callproc()``, ``copy_from()``,
    ``copy_to()``, ``copy_expert()``, and of a cursor with a name ``close()``. ``fetchone()``,
    ``fetchmany()``, ``fetchall()`` and ``scroll()`` are to be awaited with any cursor; they
    wait for the server where it has a name.

    The file of a COPY may be an asynchronous one, whose ``read()`` or ``write()`` returns an
    awaitable. ``copy_from()`` and ``copy_expert()`` also take an iterable, or an asynchronous one,
    of bytes or str in its place.

    ``async with`` closes it. ``async for`` yields its rows, which a server-side cursor fetches
    ``itersize`` at a time.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        check_order(cls, AsyncCursor)
        super().__init_subclass__(**kwargs)


_awaited_classes: dict[type, type] = {}


def _with_awaited(factory: type) -> type:
    """Return *factory* itself if its methods are awaited, or a subclass whose methods are."""
    if hasattr(factory, "_is_awaited"):
        return factory
    if factory not in _awaited_classes:
        own = {"__doc__": factory.__doc__, "__module__": factory.__module__}
        _awaited_classes[factory] = _with_awaited_methods(
            type(factory.__name__, (_Awaited, guarded(factory)), own)
        )
    return _awaited_classes[factory]


@overload
async def connect(
    dsn: str | None = None,
    connection_factory: None = None,
    cursor_factory: None = None,
    **kwargs: Any,
) -> AsyncConnection: ...
@overload
async def connect(
    dsn: str | None = None,
    *,
    connection_factory: Callable[..., _Connection],
    cursor_factory: None = None,
    **kwargs: Any,
) -> _Connection: ...
@overload
async def connect(
    dsn: str | None,
    connection_factory: Callable[..., _Connection],
    cursor_factory: None = None,
    **kwargs: Any,
) -> _Connection: ...
@overload
async def connect(  # no type knows the class of its cursors
    dsn: str | None = None,
    connection_factory: Callable[..., Any] | None = None,
    cursor_factory: Callable[..., Any] | None = None,
    **kwargs: Any,
) -> Any: ...
async def connect(
    dsn: str | None = None,
    connection_factory: Callable[..., Any] | None = None,
    cursor_factory: Callable[..., Any] | None = None,
    **kwargs: Any,
) -> Any:
    """Connect as ``greenwait.connect()`` does, while the event loop runs.

    :param dsn: the connection string, as a list of options or a URI.
    :param connection_factory: the connection's class, ``AsyncConnection`` by default.
    :param cursor_factory: the class of its cursors, ``AsyncCursor`` by default.
    :param kwargs: further libpq options.
    :returns: the connection, an ``AsyncConnection`` by default.
    :raises psycopg2.OperationalError: no host has accepted the connection.
    :raises RuntimeError: greenwait's callback is not registered.
    :raises asyncio.CancelledError: the task was cancelled; nothing is left of the connection.

    Names are looked up in threads, so that a slow name server delays no other task.
    """
    if connection_factory is None:
        connection_factory = AsyncConnection
    if kwargs.get("async_") or kwargs.get("async"):
        raise TypeError("greenwait.aio.connect() waits for the connection: leave async_ out")
    made: list[Any] = []

    def make() -> None:
        made.append(_connect.connect(dsn, connection_factory, cursor_factory, **kwargs))

    try:
        await Call(make, (), {})
    except BaseException:
        for conn in made:  # a cancellation came just then
            conn.close()
        raise
    return made.pop()


async def notifies(conn: Any, timeout: float | None = None) -> AsyncGenerator[Notify, None]:
    """Yield the notifications that *conn* gets; see ``greenwait.notifies()``.

    :param conn: a connection that has executed ``LISTEN``, and committed it.
    :param timeout: seconds after which it ends, once it has yielded what has arrived by then;
        None: never. 0 yields only what has arrived already.
    :returns: an asynchronous iterator of ``psycopg2.extensions.Notify``.
    :raises psycopg2.OperationalError: the connection is lost.
    :raises ValueError: *timeout* is negative or not finite.
    :raises TypeError: *timeout* is not a number.

    When the task is cancelled no notification is lost: the next iterator begins with it. If
    several tasks listen on one connection, each notification goes to one of them.
    """
    listening = Listening(conn, deadline_after("timeout", timeout))
    while await Call(listening.has_next, (), {}):
        # Here, and not in the call, where it would be lost if the task was cancelled.
        if (found := listening.take()) is not None:
            yield found


# -- Replication


@with_awaited_stream(ReplicationCursor)
class AsyncReplicationCursor(  # type: ignore[misc]  # pyright: ignore[reportIncompatibleMethodOverride]
    AwaitedStream, AsyncCursor, ReplicationCursor
):
    """A ``greenwait.ReplicationCursor`` whose methods are awaited; see there.

    Awaited are, besides those of an ``AsyncCursor``, ``create_replication_slot()``,
    ``drop_replication_slot()``, ``start_replication()``, ``start_replication_expert()``,
    ``stop_replication()``, ``read_message()``, ``send_feedback()`` and ``consume_stream()``.
    While a stream is open, ``async for`` yields its messages.
    """


_replicating_classes: dict[type, type] = {ReplicationCursor: AsyncReplicationCursor}


class _AsyncReplicating(AwaitedReplication, AsyncConnection):  # type: ignore[misc]
    """What the two classes of replication connections have in common."""

    def cursor(
        self,
        name: str | bytes | None = None,
        cursor_factory: Callable[..., Any] | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Return a new cursor, an ``AsyncReplicationCursor`` by default.

        :param name: the name of a server-side cursor.
        :param cursor_factory: its class; a subclass of that is made, with awaited methods.
        :param kwargs: further arguments for the class.
        """
        factory = replicating(cursor_factory or self.cursor_factory)
        if is_class_of(factory, ReplicationCursor):
            factory = _with_awaited_stream(factory)
        return super().cursor(name, factory, *args, **kwargs)


def _with_awaited_stream(factory: Any) -> Any:
    """Return the class of *factory*'s streams whose methods are awaited."""
    if issubclass(factory, AwaitedStream):
        return factory
    if factory not in _replicating_classes:
        own = {"__doc__": factory.__doc__, "__module__": factory.__module__}
        bases = (AwaitedStream, _with_awaited(factory))
        _replicating_classes[factory] = with_awaited_stream(factory)(
            type(factory.__name__, bases, own)
        )
    return _replicating_classes[factory]


class AsyncLogicalReplicationConnection(  # type: ignore[misc]  # pyright: ignore[reportIncompatibleMethodOverride]
    _AsyncReplicating, LogicalReplicationConnection
):
    """A ``greenwait.LogicalReplicationConnection`` whose methods are awaited."""


class AsyncPhysicalReplicationConnection(  # type: ignore[misc]  # pyright: ignore[reportIncompatibleMethodOverride]
    _AsyncReplicating, PhysicalReplicationConnection
):
    """A ``greenwait.PhysicalReplicationConnection`` whose methods are awaited."""


# -- The pool


@overload
def create_pool(
    dsn: str | None = None, *, connection_factory: None = None, **options: Any
) -> NewPool[AsyncConnection]: ...
@overload
def create_pool(
    dsn: str | None = None, *, connection_factory: Callable[..., _Connection], **options: Any
) -> NewPool[_Connection]: ...
def create_pool(dsn: str | None = None, **options: Any) -> NewPool[Any]:
    """Make a pool of ``AsyncConnection``, to be awaited, or entered by ``async with``.

    :param dsn: the connection string.
    :param options: those of ``greenwait.Pool``; ``check``, ``configure`` and ``reset`` may be
        asynchronous functions, too.
    :returns: what is to be awaited, which gives the ``AsyncPool`` with its first ``min_size``
        connections; or entered, and closed in the end.
    :raises psycopg2.Error: when awaited, one of the first ``min_size`` connections failed.
    :raises TypeError: at once, an option is of the wrong type, or neither a pool's nor libpq's.
    :raises ValueError: at once, an option is out of its range.
    """
    if options.get("connection_factory") is None:
        options["connection_factory"] = AsyncConnection
    return NewPool(dsn, options)


def __getattr__(name: str) -> Any:
    raise missing_name(__name__, name)


publish(__name__, [globals()[name] for name in __all__])
