"""SQLAlchemy's dialects for PostgreSQL on psycopg2, with greenwait's connections."""

from importlib import import_module
from typing import Any

from sqlalchemy.dialects.postgresql.psycopg2 import PGDialect_psycopg2

from greenwait.aio._spawned import register_spawned
from greenwait.sqlalchemy import _statements
from greenwait.sqlalchemy._dbapi import DBAPI, AsyncDBAPI
from greenwait.sqlalchemy._engine import set_up
from greenwait.sqlalchemy._pool import AsyncFairQueuePool, FairQueuePool

__all__ = ["AsyncDialect", "Dialect"]

_Psycopg2Dialect: Any = PGDialect_psycopg2  # SQLAlchemy does not tell its types


class Dialect(PGDialect_psycopg2):
    """``postgresql+greenwait://``: as SQLAlchemy's psycopg2 dialect, wherever greenwait waits."""

    driver = "greenwait"
    supports_statement_cache = True

    @classmethod
    def import_dbapi(cls) -> Any:
        """Return psycopg2, as the dialect uses it."""
        return DBAPI()

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

    do_execute = _statements.do_execute
    do_execute_no_params = _statements.do_execute_no_params
    do_executemany: Any = _statements.do_executemany(_Psycopg2Dialect.do_executemany)
    do_commit = _statements.do_commit
    do_rollback: Any = _statements.do_rollback(_Psycopg2Dialect.do_rollback)
    do_prepare_twophase: Any = _statements.do_prepare_twophase(_Psycopg2Dialect.do_prepare_twophase)


class AsyncDialect(Dialect):
    """``postgresql+greenwait_async://``: the same, for ``create_async_engine()``.

    No method is adapted: psycopg2 waits in SQLAlchemy's greenlet, whose task is suspended.
    """

    driver = "greenwait_async"
    is_async = True
    has_terminate = True
    supports_statement_cache = True

    @classmethod
    def import_dbapi(cls) -> Any:
        """Return psycopg2, as the dialect uses it."""
        return AsyncDBAPI()

    @classmethod
    def get_pool_class(cls, url: Any) -> Any:
        """Return the class of an engine's pool, unless ``poolclass`` says otherwise."""
        return AsyncFairQueuePool

    @classmethod
    def engine_created(cls, engine: Any) -> None:
        """Prepare a new engine."""
        super().engine_created(engine)
        register_spawned(_greenlet_class())

    def do_terminate(self, dbapi_connection: Any) -> None:
        """Close a connection without waiting."""
        dbapi_connection.close()

    def get_driver_connection(self, connection: Any) -> Any:
        """Return psycopg2's connection."""
        return connection


def _greenlet_class() -> Any:
    """Return SQLAlchemy's class of greenlets, which is public nowhere."""
    concurrency = import_module("sqlalchemy.util.concurrency")
    if hasattr(concurrency, "_concurrency_shim"):
        return concurrency._concurrency_shim._AsyncIoGreenlet
    return import_module("sqlalchemy.util._concurrency_py3k")._AsyncIoGreenlet
