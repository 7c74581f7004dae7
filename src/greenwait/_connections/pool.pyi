"""A connection pool, fair to greenlets, tasks and threads alike.

A borrower makes its connection itself, if none is idle and the pool is not full: so it is made
in the borrower's context, and the pool has no thread or greenlet of its own. The semaphore
counts places, not connections; a place is taken before a connection is looked for, and given
back after the connection.

It is compiled because an interrupt must not come between two of its steps: a place that is
lost that way is lost for good.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from types import GenericAlias, TracebackType
from typing import Any, Generic, final, overload

import psycopg2.extensions
from typing_extensions import Self, TypeVar

from greenwait._connections.connection import Connection
from greenwait._connections.pool_stats import PoolStats

__all__ = ["Pool", "empty_pool", "fill", "give_up"]

_Connection = TypeVar("_Connection", bound=psycopg2.extensions.connection, default=Connection)

@final
class Pool(Generic[_Connection]):
    """A pool of connections that threads, greenlets and jobs borrow.

    :param dsn: the connection string, as for ``greenwait.connect()``, which makes them.
    :param min_size: how many are made now, and kept however long they are idle.
    :param max_size: how many there may be.
    :param timeout: seconds to wait for one.
    :param max_idle: seconds after which an idle connection is closed; None: never.
    :param max_lifetime: seconds after which a connection that is not in use is closed; None:
        never.
    :param check: a function that is called with each connection before it is lent again, and
        raises a psycopg2.Error if that is to be closed. Without it, the pool finds out,
        at no cost, whether the server has closed the connection.
    :param configure: a function that is called once with each new connection, before it is lent:
        to set autocommit, to register types. What it leaves open is committed. If it raises, the
        connection is closed, and that is the borrower's exception, or an attempt to connect that
        failed if it is a psycopg2.OperationalError.
    :param reset: a function that is called with each connection that is given back, in autocommit
        mode, after a rollback: ``lambda conn: conn.cursor().execute("discard all")``, say. If it
        raises, the connection is closed; what is not a psycopg2.Error is raised where the
        connection is given back.
    :param kwargs: further arguments of ``greenwait.connect()``. With a *connection_factory* the
        connections are of its class.
    :raises psycopg2.Error: one of the first *min_size* connections failed.
    :raises TypeError: an argument is of the wrong type, or neither a pool's nor libpq's.
    :raises ValueError: an argument is out of its range.

    First come, first served, in any context: a plain thread, a job of a hub, a gevent or
    eventlet greenlet. A borrower that waits stops no one else. Idle connections are checked
    when one is lent or given back. A forked child does not get its parent's connections; its
    pool makes new ones.
    """
    @overload
    def __new__(
        cls,
        dsn: str | None = None,
        *,
        min_size: int = 0,
        max_size: int = 10,
        timeout: float = 30.0,
        max_idle: float | None = 600.0,
        max_lifetime: float | None = 3600.0,
        check: Callable[[Connection], object] | None = None,
        configure: Callable[[Connection], object] | None = None,
        reset: Callable[[Connection], object] | None = None,
        connection_factory: None = None,
        **kwargs: Any,
    ) -> Pool[Connection]: ...
    @overload
    def __new__(
        cls,
        dsn: str | None = None,
        *,
        min_size: int = 0,
        max_size: int = 10,
        timeout: float = 30.0,
        max_idle: float | None = 600.0,
        max_lifetime: float | None = 3600.0,
        check: Callable[[_Connection], object] | None = None,
        configure: Callable[[_Connection], object] | None = None,
        reset: Callable[[_Connection], object] | None = None,
        connection_factory: Callable[..., _Connection],
        **kwargs: Any,
    ) -> Pool[_Connection]: ...
    def __class_getitem__(cls, item: Any, /) -> GenericAlias: ...
    def connection(self, timeout: float | None = None) -> AbstractContextManager[_Connection, None]:
        """Return a ``with`` block with a connection; it commits, or rolls back on an exception.

        :param timeout: seconds to wait for one, instead of the pool's.
        :raises PoolTimeout: on entering, there was none in that time; the message has the counts.
        :raises psycopg2.OperationalError: on entering, the pool could not make a first connection.
        :raises QueryTimeout: on entering, an outer ``greenwait.timeout()`` has expired.
        :raises psycopg2.InterfaceError: the pool is closed.
        :raises CommitInDoubt: on leaving, the outcome of the commit is unknown.

        A signal handler's exception, an outer ``greenwait.timeout()`` or a cancellation ends
        the wait, and the next borrower moves up. A lost connection is not lent again.
        """
    def getconn(self, timeout: float | None = None) -> _Connection:
        """Return a connection, to be given back by ``putconn()``.

        :param timeout: seconds to wait for one, instead of the pool's.
        :raises PoolTimeout: there was none in that time; the message has the counts.
        :raises psycopg2.OperationalError: the pool could not make its first connection.
        :raises QueryTimeout: an outer ``greenwait.timeout()`` has expired.
        :raises psycopg2.InterfaceError: the pool is closed.

        The wait ends as in ``connection()``.
        """
    def putconn(self, conn: psycopg2.extensions.connection, *, close: bool = False) -> None:
        """Give a connection back. Uncommitted changes are rolled back.

        :param conn: a connection that ``getconn()`` has returned.
        :param close: close it, without waiting for the server.
        :raises ValueError: it does not belong to this pool, was given back already, or will be
            by the ``with`` block of ``connection()``.
        """
    def stats(self) -> PoolStats:
        """Return the pool's counts, a ``PoolStats``; it takes no lock."""
    def close(self, timeout: float = 30.0) -> None:
        """Lend no more, close what is idle, and wait for what is in use.

        :param timeout: seconds to wait for that.
        :raises PoolTimeout: there are still some in use; each is closed when it is given back.

        A borrower that waits for a connection gets psycopg2.InterfaceError. It may be called
        again.
        """
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

def empty_pool(dsn: str | None = None, *, min_size: int = 0, **options: Any) -> Pool[Any]:
    """Return a ``Pool`` whose first connections are made by ``fill()``."""

def fill(pool: Pool[Any]) -> None:
    """Make the first connections; close the pool if one fails."""

def give_up(pool: Pool[Any], conn: Any) -> None:
    """Close a connection that *pool* has lent and that is never given back; it does not wait.

    It is logged later, by the next who uses the pool: what a log handler raises would keep the
    caller from giving up the others.
    """
