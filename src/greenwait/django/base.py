"""The backend that ``ENGINE = "greenwait.django"`` names."""

from contextlib import suppress
from types import ModuleType
from typing import Any
from weakref import WeakSet

import psycopg2
from psycopg2.extensions import TRANSACTION_STATUS_IDLE

from greenwait._connections.connect import connect as greenwait_connect
from greenwait._connections.pool import Pool, give_up
from greenwait._connections.pool_stats import PoolStats
from greenwait._greenlets.local import scope
from greenwait.connection import Connection, Cursor
from greenwait.django import _connections, _pools
from greenwait.django._async_check import let_calls_through
from greenwait.django._django import VERSION, DjangoCreation, DjangoWrapper
from greenwait.django._test_case import AtomicBlocks, Savepoints, shared_wrappers

__all__ = ["DatabaseCreation", "DatabaseWrapper"]


def _connect(lent: Any = None, **params: Any) -> Any:
    """Return a connection that a pool has lent, or a new one."""
    return greenwait_connect(**params) if lent is None else lent


def _with_connect(module: ModuleType) -> ModuleType:
    """Return psycopg2 as Django's backend calls it."""
    copy = ModuleType(module.__name__, module.__doc__)
    vars(copy).update(vars(module), connect=_connect)
    return copy


class DatabaseCreation(DjangoCreation):
    """Django's, which leaves no session in a database that is to be dropped or copied."""

    def _destroy_test_db(self, test_database_name: str, verbosity: int) -> Any:
        self._end_sessions()
        return super()._destroy_test_db(test_database_name, verbosity)

    def _clone_test_db(self, suffix: str, verbosity: int, keepdb: bool = False) -> Any:
        self._end_sessions()
        return super()._clone_test_db(suffix, verbosity, keepdb)

    def _end_sessions(self) -> None:
        """Close the connections to the database that any job, call, greenlet or thread has left."""
        for wrapper in list(_wrappers):
            if wrapper.alias == self.connection.alias:
                wrapper.end()
        self.connection.close_pool()


_wrappers: "WeakSet[DatabaseWrapper]" = WeakSet()


class DatabaseWrapper(DjangoWrapper):
    """Django's connection, of the job, call, greenlet or thread that asks for it."""

    Database = _with_connect(psycopg2)
    creation_class = DatabaseCreation
    #: The pool that ``self.connection`` is of, if it is.
    _lender: Pool | None = None
    #: That of the ``TestCase`` whose transaction is open.
    test_scope = 0
    _savepoints: Savepoints | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _wrappers.add(self)

    # -- The pool

    @property
    def pool(self) -> None:
        """None: Django's own pool is psycopg_pool's; see ``pool_stats()`` for that of greenwait."""
        return None

    def pool_stats(self) -> PoolStats | None:
        """Return the counts of this database's pool; None as long as it has no pool."""
        pool = _pools.find_pool(self.alias)
        return None if pool is None else pool.stats()

    def close_pool(self) -> None:
        """Close the pool of this database; the next connection is of a new one."""
        _pools.close_pool(self.alias)

    def get_connection_params(self) -> dict[str, Any]:
        """Return the arguments for ``greenwait.connect()``."""
        settings = self.settings_dict
        options = settings["OPTIONS"]
        if "pool" in options:  # Django would refuse it
            without = {name: value for name, value in options.items() if name != "pool"}
            self.settings_dict = {**settings, "OPTIONS": without}
        try:
            params = super().get_connection_params()
        finally:
            self.settings_dict = settings
        params.setdefault("connection_factory", Connection)
        if "cursor_factory" not in options:
            params["cursor_factory"] = Cursor
        return params

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        """Return a connection, from the pool if there is one."""
        pool = _pools.pool_for(self.alias, self.settings_dict, conn_params)
        if pool is None:
            return super().get_new_connection(conn_params)
        lent = pool.getconn()
        try:
            conn = super().get_new_connection({"lent": lent})
        except BaseException:
            pool.putconn(lent)
            raise
        self._lender = pool
        return conn

    # -- The end

    def _close(self) -> None:
        pool, conn = self._lender, self.connection
        if pool is None or conn is None:
            super()._close()
            return
        self._lender = None
        if self.in_atomic_block and VERSION < (5, 1):
            # That would open another one within the block, if this one were not there.
            give_up(pool, conn)
            return
        self.connection = None
        with self.wrap_database_errors:
            pool.putconn(conn)

    def end(self) -> None:
        """Close the connection, or give it back, without waiting for the server."""
        pool, conn = self._lender, self.connection
        self._lender = self.connection = None
        if conn is None:
            return
        if pool is None:
            with suppress(psycopg2.Error):
                conn.close()
        elif conn.closed == 0 and conn.info.transaction_status == TRANSACTION_STATUS_IDLE:
            pool.putconn(conn)
        else:
            give_up(pool, conn)

    def is_usable(self) -> bool:
        """Return whether there is a connection, and the server answers on it."""
        return self.connection is not None and super().is_usable()

    # -- The transaction of a TestCase

    @property
    def atomic_blocks(self) -> list[Any]:
        """The ``atomic()`` blocks that are open."""
        return self._atomic_blocks

    @atomic_blocks.setter
    def atomic_blocks(self, blocks: list[Any]) -> None:  # Django only ever sets an empty list
        before = getattr(self, "_atomic_blocks", None)
        if before is not None:
            before.forget()
        self._atomic_blocks = AtomicBlocks(self)

    @property
    def _is_shared(self) -> bool:
        """Is its transaction a ``TestCase``'s, and so everybody's?"""
        return shared_wrappers.get(self.alias) is self

    @property
    def _is_borrowed(self) -> bool:
        """Is it so, and another job, call or greenlet asks?"""
        return self._is_shared and self.test_scope != scope()

    def validate_thread_sharing(self) -> None:
        """Raise an error if this is another thread's, unless its transaction is a TestCase's."""
        if not self._is_shared:
            super().validate_thread_sharing()

    def close(self) -> None:
        """Close it, or give it back to the pool; not one of a ``TestCase`` from a job."""
        if not self._is_borrowed:
            super().close()

    def savepoint(self) -> Any:
        """Make a savepoint, and return its name."""
        if not self._is_borrowed:
            return super().savepoint()
        if self._savepoints is None:
            self._savepoints = Savepoints()
        return self._savepoints.make(super().savepoint)

    def savepoint_commit(self, sid: str) -> None:
        """Release a savepoint."""
        try:
            super().savepoint_commit(sid)
        finally:
            if self._savepoints is not None:
                self._savepoints.remove(sid)


_connections.replace()
let_calls_through()
