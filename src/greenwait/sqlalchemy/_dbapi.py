"""What SQLAlchemy takes for the driver: psycopg2, whose ``connect()`` is greenwait's."""

from collections.abc import Awaitable, Callable
from typing import Any

import psycopg2
from sqlalchemy.util import await_only

from greenwait._connections.connect import connect
from greenwait._connections.connection import Connection, Cursor
from greenwait._install import check_registered
from greenwait.aio import AsyncConnection
from greenwait.sqlalchemy._statements import check_greenlet

__all__ = ["DBAPI", "AsyncDBAPI"]


class DBAPI:
    """psycopg2, but for ``connect()``."""

    def __getattr__(self, name: str) -> Any:
        return getattr(psycopg2, name)

    def connect(self, *args: Any, **kwargs: Any) -> Any:
        """Return a new connection, as ``greenwait.connect()`` does."""
        return _checked(connect(*args, **kwargs))


class AsyncDBAPI(DBAPI):
    """The driver of the async dialect."""

    def connect(
        self,
        *args: Any,
        async_creator_fn: Callable[..., Awaitable[Any]] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Return a new connection.

        :param async_creator_fn: the ``async_creator`` of ``create_async_engine()``, which makes a
            connection that is a ``greenwait.Connection``.
        """
        check_registered("greenwait's async dialect of SQLAlchemy")
        check_greenlet()
        if async_creator_fn is not None:
            conn = await_only(async_creator_fn(*args, **kwargs))
        else:
            conn = connect(*args, **{"connection_factory": AdaptedConnection, **kwargs})
        factory = _checked(conn).cursor_factory or Cursor
        if isinstance(factory, type):
            conn.cursor_factory = _adapted(factory)
        return conn


def _checked(conn: Any) -> Any:
    """Return the connection, unless its methods are awaited, which SQLAlchemy does not do."""
    if isinstance(conn, AsyncConnection):
        conn.close()
        raise TypeError(
            "SQLAlchemy, its async engines too, takes a connection whose methods are not awaited: "
            "one of greenwait.connect(), in an async_creator by greenwait.aio.run(), and not of "
            "greenwait.aio.connect()"
        )
    return conn


class AdaptedConnection(Connection):
    """A connection with the methods of SQLAlchemy's ``AdaptedConnection``."""

    @property
    def driver_connection(self) -> "AdaptedConnection":
        """The connection itself: nothing is adapted."""
        return self

    def run_async(self, fn: Callable[[Any], Awaitable[Any]]) -> Any:
        """Await what the function returns for the connection, in an event hook for instance."""
        return await_only(fn(self))

    def terminate(self) -> None:
        """Close it without waiting."""
        self.close()


_adapted_classes: dict[Any, Any] = {}


def _adapted(cursor_class: Any) -> Any:
    """Return a cursor class with the one method that SQLAlchemy awaits of each result's."""
    if cursor_class in _adapted_classes:
        return _adapted_classes[cursor_class]

    async def _async_soft_close(self: Any) -> None:
        """Do nothing: psycopg2 has all rows of a cursor without a name."""

    own = {"_async_soft_close": _async_soft_close, "__doc__": cursor_class.__doc__}
    found = _adapted_classes[cursor_class] = type(cursor_class.__name__, (cursor_class,), own)
    return found
