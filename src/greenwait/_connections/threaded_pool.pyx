"""``ThreadedConnectionPool``: psycopg2's names and exceptions, on a ``Pool``.

psycopg2's own connects, and rolls back, while it holds a ``threading.Lock``: the next greenlet of
the same thread stops all of them for ever.

It is compiled because an interrupt must not come between lending a connection and noting its key.
"""

from greenwait._connections.pool cimport Pool, lend_now

from collections.abc import Hashable
from types import GenericAlias
from typing import TypeVar

from psycopg2.extensions import connection
from psycopg2.pool import AbstractConnectionPool, PoolError

from greenwait._connections.pool import give_up
from greenwait._elsewhere import Elsewhere, refusing
from greenwait._errors import PoolTimeout

__all__ = ["ThreadedConnectionPool"]

_Connection = TypeVar("_Connection", bound=connection)


class ThreadedConnectionPool(AbstractConnectionPool):
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

    __class_getitem__ = classmethod(GenericAlias)  # as Pool has it

    def __init__(self, minconn=None, maxconn=None, *args, **kwargs):
        try:
            self.minconn, self.maxconn = int(minconn), int(maxconn)
        except (TypeError, ValueError):
            raise TypeError(
                "ThreadedConnectionPool() takes two numbers first, minconn and maxconn: "
                f"ThreadedConnectionPool(1, 10, dsn), not {minconn!r} and {maxconn!r}"
            ) from None
        if not 0 <= self.minconn <= self.maxconn or self.maxconn < 1:
            raise ValueError(
                f"minconn={minconn}, maxconn={maxconn}: from 0 to maxconn, and from 1"
            )
        names = ("dsn", "connection_factory", "cursor_factory")
        if len(args) > len(names):
            raise TypeError(f"ThreadedConnectionPool() takes {', '.join(names)} by position")
        for name, value in zip(names, args):
            if name in kwargs:
                raise TypeError(f"ThreadedConnectionPool() got two values for {name!r}")
            kwargs[name] = value
        self.closed = False
        self._used = {}   # connections by their keys
        self._keys = {}   # ... and the reverse, by their id()
        self._last_key = 0
        self._pool = Pool(min_size=self.minconn, max_size=self.maxconn, **kwargs)

    connection = Elsewhere("ThreadedConnectionPool.connection", "it is getconn(), or a Pool's")
    close = Elsewhere("ThreadedConnectionPool.close", "it is closeall()")
    __enter__ = __exit__ = refusing(
        "psycopg2's pools are not with blocks: call closeall(), or use a greenwait.Pool"
    )

    def getconn(self, key: Hashable | None = None) -> _Connection:
        """Return a connection; with a key that is in use, the one that has it.

        :param key: a hashable object of the caller's; None: a new one.
        :raises psycopg2.pool.PoolError: all *maxconn* are in use, or the pool is closed.
        :raises psycopg2.OperationalError: it could not connect.

        While it connects others go on. A signal handler's exception, a ``greenwait.timeout()`` or
        a cancellation ends that.
        """
        self._check_open()
        if key is not None and key in self._used:
            return self._used[key]
        try:
            conn = lend_now(self._pool)
        except PoolTimeout as exc:
            raise PoolError("connection pool exhausted") from exc
        if self.closed:
            give_up(self._pool, conn)
            self._check_open()
        if key is None:
            self._last_key += 1
            key = self._last_key
        elif key in self._used:  # another one has connected meanwhile
            self._pool.putconn(conn)
            return self._used[key]
        self._used[key] = conn
        self._keys[id(conn)] = key
        return conn

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
        self._check_open()
        if conn is None:
            conn = self._used.get(key)
        if conn is None or id(conn) not in self._keys:
            raise PoolError("trying to put unkeyed connection")
        self._used.pop(self._keys.pop(id(conn)), None)
        self._pool.putconn(conn, close=close)

    def closeall(self) -> None:
        """Close all connections, those in use included, and lend no more.

        :raises psycopg2.pool.PoolError: the pool is closed already.
        """
        self._check_open()
        self.closed = True
        used, self._used, self._keys = self._used, {}, {}
        for conn in used.values():
            give_up(self._pool, conn)
        try:
            self._pool.close(timeout=0)
        except PoolTimeout:
            pass  # one that is being made is closed when that is done, in getconn()

    def _check_open(self):
        if self.closed:
            raise PoolError("connection pool is closed")
