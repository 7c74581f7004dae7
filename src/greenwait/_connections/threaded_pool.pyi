"""``ThreadedConnectionPool``: psycopg2's names and exceptions, on a ``Pool``.

psycopg2's own connects, and rolls back, while it holds a ``threading.Lock``: the next greenlet of
the same thread stops all of them for ever.

It is compiled because an interrupt must not come between lending a connection and noting its key.
"""

from collections.abc import Callable, Hashable
from types import GenericAlias
from typing import Any, Generic, overload

from psycopg2.extensions import connection
from psycopg2.pool import AbstractConnectionPool
from typing_extensions import TypeVar

from greenwait._connections.connection import Connection

__all__ = ["ThreadedConnectionPool"]

_Connection = TypeVar("_Connection", bound=connection, default=Connection)

class ThreadedConnectionPool(AbstractConnectionPool, Generic[_Connection]):
    """psycopg2's ``ThreadedConnectionPool``, which greenlets and jobs may use, too.

    :param minconn: how many connections are made now, and kept however long they are idle.
    :param maxconn: how many there may be.
    :param args: ``dsn``, ``connection_factory`` and ``cursor_factory``, as for
        ``greenwait.connect()``.
    :param kwargs: these by name, and further options of libpq.
    :raises psycopg2.Error: one of the first *minconn* connections failed.
    :raises TypeError: there is no such option.
    :raises ValueError: *minconn* is negative or more than *maxconn*, or *maxconn* less than 1.

    What is different: a connection beyond *minconn* that is given back is not closed at once, but
    after it has been idle for ten minutes; one that the server has closed is not lent again; and
    connections come back as they were made, autocommit and isolation level included. A forked
    child makes connections of its own. ``greenwait.Pool`` waits where this one raises.
    """
    def __class_getitem__(cls, item: Any, /) -> GenericAlias: ...
    @overload
    def __init__(
        self: ThreadedConnectionPool[Connection],
        minconn: int,
        maxconn: int,
        dsn: str | None = None,
        connection_factory: None = None,
        cursor_factory: Callable[..., Any] | None = None,
        **kwargs: Any,
    ) -> None: ...
    @overload
    def __init__(
        self,
        minconn: int,
        maxconn: int,
        dsn: str | None = None,
        *,
        connection_factory: Callable[..., _Connection],
        cursor_factory: Callable[..., Any] | None = None,
        **kwargs: Any,
    ) -> None: ...
    @overload
    def __init__(
        self,
        minconn: int,
        maxconn: int,
        dsn: str | None,
        connection_factory: Callable[..., _Connection],
        cursor_factory: Callable[..., Any] | None = None,
        **kwargs: Any,
    ) -> None: ...
    def getconn(self, key: Hashable | None = None) -> _Connection:
        """Return a connection; with a key that is in use, the one that has it.

        :param key: a hashable object of the caller's; None: a new one.
        :raises psycopg2.pool.PoolError: all *maxconn* are in use, or the pool is closed.
        :raises psycopg2.OperationalError: it could not connect.

        While it connects others go on. A signal handler's exception, a ``greenwait.timeout()`` or
        a cancellation ends that.
        """
    def putconn(
        self, conn: connection | None = None, key: Hashable | None = None, close: bool = False
    ) -> None:
        """Give a connection back; what is not committed is rolled back.

        :param conn: the connection; None: that of the key.
        :param key: the key with which it was taken; None: that is known.
        :param close: close it.
        :raises psycopg2.pool.PoolError: it is not one that this pool has lent, or the pool is
            closed.
        """
    def closeall(self) -> None:
        """Close all connections, those in use included, and lend no more.

        :raises psycopg2.pool.PoolError: the pool is closed already.
        """
