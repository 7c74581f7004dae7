"""What a dialect calls psycopg2 for: statements, and the ends of transactions.

They are the dialects' methods, compiled since each statement calls one. An interrupt that comes out
of psycopg2 itself is told from one of an event hook's: it leaves the connection usable, as a rule.
"""

from greenwait._system.switching cimport current_greenlet
from greenwait._waiter cimport Waiter, waiter_here, waiters_entered
from greenwait.aio._spawned cimport is_spawned_greenlet, suspend_once

from psycopg2 import Error
from psycopg2.extensions import STATUS_PREPARED as PREPARED
from psycopg2.extensions import STATUS_READY as READY
from sqlalchemy.exc import MissingGreenlet
from sqlalchemy.pool.base import _AdhocProxiedConnection

from greenwait._connections.semaphore import give_way

__all__ = [
    "came_out_of_psycopg2",
    "check_greenlet",
    "do_commit",
    "do_execute",
    "do_execute_no_params",
    "do_executemany",
    "do_prepare_twophase",
    "do_rollback",
]

cdef object psycopg2_error = Error
cdef object first_class = _AdhocProxiedConnection  # the proxy of an engine's first connection
cdef int STATUS_READY = READY
cdef int STATUS_PREPARED = PREPARED


cdef int mark(object exc, object where) except -1:
    """Remember that psycopg2 itself has raised an exception."""
    if where is not None and not isinstance(exc, psycopg2_error):
        try:
            where._greenwait_interrupt = id(exc)
        except AttributeError:
            pass  # an engine's first connection has a proxy with slots, and is given up
    return 0


def came_out_of_psycopg2(exc, where):
    """Return whether psycopg2 itself has raised it, and no event hook.

    :param where: the context of the statement, or the proxy of the connection.
    """
    return getattr(where, "_greenwait_interrupt", None) == id(exc)


cdef int check(object dialect) except -1:
    """Raise where an asynchronous dialect can't wait."""
    if dialect.is_async:
        check_greenlet()
    return 0


cpdef int check_greenlet() except -1:
    """Raise MissingGreenlet unless a task awaits the waits of this greenlet."""
    if not is_spawned_greenlet(current_greenlet()):
        raise MissingGreenlet(
            "greenlet_spawn has not been called; can't wait for the server here. Was IO attempted "
            "in an unexpected place? The engine of this dialect is made by create_async_engine(); "
            "create_engine() takes postgresql+greenwait",
            code="xd2s",
        )
    return 0


def do_execute(self, cursor, statement, parameters, context=None):
    """Execute a statement."""
    check(self)
    try:
        cursor.execute(statement, parameters)
        if self.is_async:
            suspend_once()
    except BaseException as exc:
        mark(exc, context)
        raise


def do_execute_no_params(self, cursor, statement, context=None):
    """Execute a statement that takes no parameters, in which a percent sign is just that."""
    check(self)
    try:
        cursor.execute(statement)
        if self.is_async:
            suspend_once()
    except BaseException as exc:
        mark(exc, context)
        raise


def do_executemany(execute_many):
    """Return a method that executes a statement for each of several parameters.

    :param execute_many: SQLAlchemy's, for psycopg2.
    """

    def do_executemany(self, cursor, statement, parameters, context=None):
        """Execute the statement once for each of the parameters."""
        check(self)
        try:
            execute_many(self, cursor, statement, parameters, context)
            if self.is_async:
                suspend_once()
        except BaseException as exc:
            mark(exc, context)
            raise

    return do_executemany


def do_prepare_twophase(prepare):
    """Return a method that prepares a two-phase transaction.

    :param prepare: SQLAlchemy's.

    An interrupt is raised when the transaction has been prepared: in the next wait if that is
    possible, since SQLAlchemy takes it for one that is not, gives the connection up, and leaves the
    transaction on the server, with its locks. Otherwise it is rolled back first.
    """

    def do_prepare_twophase(self, connection, xid):
        """Prepare the transaction; an interrupt leaves none of that on the server unknown."""
        check(self)
        conn = connection.connection
        try:
            prepare(self, connection, xid)
        except BaseException as exc:
            if isinstance(exc, psycopg2_error) or conn.closed or conn.status != STATUS_PREPARED:
                raise
            if not is_postponed(exc):
                conn.tpc_rollback()
                raise

    return do_prepare_twophase


cdef bint is_ready(object conn) except -1:
    """Is there no transaction, as far as psycopg2 knows?"""
    return conn.status == STATUS_READY and not conn.closed


def do_commit(self, dbapi_connection):
    """Commit."""
    check(self)
    try:
        dbapi_connection.commit()
    except BaseException as exc:
        mark(exc, dbapi_connection)
        raise


def do_rollback(roll_back):
    """Return a method that rolls back.

    :param roll_back: SQLAlchemy's.

    An interrupt is raised in the next wait instead, if that is possible: SQLAlchemy would leave a
    connection where it is whose rollback raises, or give it up. But not of an engine's first one,
    which its greenlet would return only to be told of the interrupt.
    """

    def do_rollback(self, dbapi_connection):
        """Roll back; an interrupt is raised in the next wait, if that is possible."""
        check(self)
        try:
            roll_back(self, dbapi_connection)
            if type(dbapi_connection) is first_class:
                give_way()
        except BaseException as exc:
            if (
                isinstance(exc, psycopg2_error)
                or type(dbapi_connection) is first_class
                or not is_ready(dbapi_connection)
            ):
                raise
            if not is_postponed(exc):
                raise

    return do_rollback


cdef bint is_postponed(object exc) except -1:
    """Will the next wait of this greenlet raise it, or its end?"""
    cdef Waiter waiter = waiter_here() if waiters_entered > 0 else None
    return waiter is not None and waiter.postpone(exc)
