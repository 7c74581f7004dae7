"""What is set up for each new engine: its first connection, and what an interrupt leaves of one."""

from functools import partial
from typing import Any

from psycopg2 import Error
from psycopg2.extensions import TRANSACTION_STATUS_ACTIVE, TRANSACTION_STATUS_UNKNOWN
from sqlalchemy import event

from greenwait.sqlalchemy._places import Mutex

__all__ = ["came_out_of_psycopg2", "set_up"]


def set_up(engine: Any) -> None:
    """Prepare a new engine for greenlets and interrupts.

    With a listener of the dialect's only: a single one of the engine's, and SQLAlchemy looks for
    others eleven times in each statement.
    """
    _replace_mutexes(engine.pool)
    event.listen(engine.dialect, "handle_error", _keep_connection)


def _replace_mutexes(pool: Any) -> None:
    """Let greenlets wait for a pool's first connection, where threading's lock is held.

    While that is held SQLAlchemy asks the server for its version, for instance. The pool's
    ``recreate()`` does the same for the one that takes its place.
    """
    for name in ("first_connect", "connect"):
        getattr(pool.dispatch, name).for_modify(pool.dispatch)._exec_once_mutex = Mutex()
    pool.recreate = partial(_recreate, pool.recreate)


def _recreate(recreate: Any) -> Any:
    pool = recreate()
    _replace_mutexes(pool)
    return pool


def came_out_of_psycopg2(exc: BaseException, where: Any) -> None:
    """Remember that psycopg2 itself has raised an exception, and no event hook.

    :param where: the context of the statement, or the proxy of the connection.
    """
    if not isinstance(exc, Error) and where is not None:
        where._greenwait_interrupt = id(exc)


def _keep_connection(context: Any) -> None:
    """Keep the connection where an interrupt of a query has left it usable.

    SQLAlchemy gives it up after each exception that is not an error of psycopg2's: most drivers
    leave it in an unknown state.
    """
    if not context.is_disconnect or isinstance(context.original_exception, Error):
        return
    proxy = context.connection._dbapi_connection
    where = proxy if context.execution_context is None else context.execution_context
    if getattr(where, "_greenwait_interrupt", None) == id(context.original_exception):
        conn = proxy.dbapi_connection
        if conn is not None and not conn.closed:
            status = conn.info.transaction_status
            if status not in (TRANSACTION_STATUS_ACTIVE, TRANSACTION_STATUS_UNKNOWN):
                context.is_disconnect = False
