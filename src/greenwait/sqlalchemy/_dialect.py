"""SQLAlchemy's dialects for PostgreSQL on psycopg2, with greenwait's connections."""

from functools import cache
from importlib import import_module
from typing import Any

from sqlalchemy.dialects.postgresql.psycopg2 import PGDialect_psycopg2
from sqlalchemy.exc import MissingGreenlet

from greenwait._connections.connect import connect
from greenwait._connections.connection import Cursor
from greenwait._install import check_registered
from greenwait.aio._spawned import is_spawned, register_spawned
from greenwait.sqlalchemy._engine import came_out_of_psycopg2, set_up
from greenwait.sqlalchemy._pool import AsyncFairQueuePool, FairQueuePool

__all__ = ["AsyncDialect", "Dialect"]


class Dialect(PGDialect_psycopg2):
    """``postgresql+greenwait://``: as SQLAlchemy's psycopg2 dialect, wherever greenwait waits."""

    driver = "greenwait"
    supports_statement_cache = True

    @classmethod
    def get_pool_class(cls, url: Any) -> Any:
        """Return the class of an engine's pool, unless ``poolclass`` says otherwise."""
        return FairQueuePool

    @classmethod
    def get_async_dialect_cls(cls, url: Any) -> Any:
        """Return the dialect of ``create_async_engine()``."""
        return AsyncDialect

    @classmethod
    def engine_created(cls, engine: Any) -> None:
        """Prepare a new engine."""
        set_up(engine)

    def connect(self, *args: Any, **kwargs: Any) -> Any:
        """Return a new connection."""
        return connect(*args, **kwargs)

    # An interrupt that comes out of one of these leaves the connection usable, as a rule.

    def do_execute(self, cursor: Any, statement: Any, parameters: Any, context: Any = None) -> None:
        """Execute a statement."""
        try:
            cursor.execute(statement, parameters)
        except BaseException as exc:
            came_out_of_psycopg2(exc, context)
            raise

    def do_execute_no_params(self, cursor: Any, statement: Any, context: Any = None) -> None:
        """Execute a statement without parameters, in which a percent sign is one."""
        try:
            cursor.execute(statement)
        except BaseException as exc:
            came_out_of_psycopg2(exc, context)
            raise

    def do_executemany(
        self, cursor: Any, statement: Any, parameters: Any, context: Any = None
    ) -> None:
        """Execute a statement for each of several parameters."""
        try:
            super().do_executemany(cursor, statement, parameters, context)
        except BaseException as exc:
            came_out_of_psycopg2(exc, context)
            raise

    def do_commit(self, dbapi_connection: Any) -> None:
        """Commit."""
        try:
            dbapi_connection.commit()
        except BaseException as exc:
            came_out_of_psycopg2(exc, dbapi_connection)
            raise

    def do_rollback(self, dbapi_connection: Any) -> None:
        """Roll back."""
        try:
            dbapi_connection.rollback()
        except BaseException as exc:
            came_out_of_psycopg2(exc, dbapi_connection)
            raise


class AsyncDialect(Dialect):
    """``postgresql+greenwait_async://``: the same, for ``create_async_engine()``.

    No method is adapted: psycopg2 waits in SQLAlchemy's greenlet, whose task is suspended.
    """

    driver = "greenwait_async"
    is_async = True
    has_terminate = True
    supports_statement_cache = True

    @classmethod
    def get_pool_class(cls, url: Any) -> Any:
        """Return the class of an engine's pool, unless ``poolclass`` says otherwise."""
        return AsyncFairQueuePool

    @classmethod
    def engine_created(cls, engine: Any) -> None:
        """Prepare a new engine."""
        super().engine_created(engine)
        register_spawned(_greenlet_class())

    def connect(self, *args: Any, **kwargs: Any) -> Any:
        """Return a new connection."""
        check_registered("greenwait's async dialect of SQLAlchemy")
        _check_greenlet()
        factory = kwargs.get("cursor_factory") or Cursor
        kwargs["cursor_factory"] = _async_class(factory) if isinstance(factory, type) else factory
        return connect(*args, **kwargs)

    def do_execute(self, cursor: Any, statement: Any, parameters: Any, context: Any = None) -> None:
        """Execute a statement."""
        _check_greenlet()
        super().do_execute(cursor, statement, parameters, context)

    def do_execute_no_params(self, cursor: Any, statement: Any, context: Any = None) -> None:
        """Execute a statement without parameters."""
        _check_greenlet()
        super().do_execute_no_params(cursor, statement, context)

    def do_executemany(
        self, cursor: Any, statement: Any, parameters: Any, context: Any = None
    ) -> None:
        """Execute a statement for each of several parameters."""
        _check_greenlet()
        super().do_executemany(cursor, statement, parameters, context)

    def do_commit(self, dbapi_connection: Any) -> None:
        """Commit."""
        _check_greenlet()
        super().do_commit(dbapi_connection)

    def do_rollback(self, dbapi_connection: Any) -> None:
        """Roll back."""
        _check_greenlet()
        super().do_rollback(dbapi_connection)

    def do_terminate(self, dbapi_connection: Any) -> None:
        """Close a connection without waiting."""
        dbapi_connection.close()

    def get_driver_connection(self, connection: Any) -> Any:
        """Return psycopg2's connection."""
        return connection


@cache
def _async_class(cursor_class: Any) -> Any:
    """Return a cursor class that has the one method which SQLAlchemy's results await."""

    async def _async_soft_close(self: Any) -> None:
        """Do nothing: psycopg2 has all rows of a cursor without a name, and closes it at once."""

    own = {"_async_soft_close": _async_soft_close, "__doc__": cursor_class.__doc__}
    return type(cursor_class.__name__, (cursor_class,), own)


def _check_greenlet() -> None:
    if not is_spawned():
        raise MissingGreenlet(
            "greenlet_spawn has not been called; can't wait for the server here. Was IO attempted "
            "in an unexpected place?",
            code="xd2s",
        )


def _greenlet_class() -> Any:
    """Return SQLAlchemy's class of greenlets, which is public nowhere."""
    if hasattr(import_module("sqlalchemy.util.concurrency"), "_concurrency_shim"):
        return import_module("sqlalchemy.util.concurrency")._concurrency_shim._AsyncIoGreenlet
    return import_module("sqlalchemy.util._concurrency_py3k")._AsyncIoGreenlet
