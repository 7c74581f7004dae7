"""What a dialect calls psycopg2 for: statements, and the ends of transactions.

They are the dialects' methods, compiled since each statement calls one. An interrupt that comes out
of psycopg2 itself is told from one of an event hook's: it leaves the connection usable, as a rule.
"""

from collections.abc import Callable
from typing import Any

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

def came_out_of_psycopg2(exc: BaseException, where: object) -> bool:
    """Return whether psycopg2 itself has raised it, and no event hook.

    :param where: the context of the statement, or the proxy of the connection.
    """

def check_greenlet() -> int:
    """Raise MissingGreenlet unless a task awaits the waits of this greenlet."""

def do_execute(
    self: object, cursor: Any, statement: Any, parameters: Any, context: Any = None
) -> None:
    """Execute a statement."""

def do_execute_no_params(self: object, cursor: Any, statement: Any, context: Any = None) -> None:
    """Execute a statement that takes no parameters, in which a percent sign is just that."""

def do_executemany(execute_many: Callable[..., None]) -> Callable[..., None]:
    """Return a method that executes a statement for each of several parameters.

    :param execute_many: SQLAlchemy's, for psycopg2.
    """

def do_commit(self: object, dbapi_connection: Any) -> None:
    """Commit."""

def do_rollback(roll_back: Callable[..., None]) -> Callable[..., None]:
    """Return a method that rolls back.

    :param roll_back: SQLAlchemy's.

    An interrupt is raised in the next wait instead, if that is possible: SQLAlchemy would leave a
    connection where it is whose rollback raises, or give it up. But not of an engine's first one,
    which its greenlet would return only to be told of the interrupt.
    """

def do_prepare_twophase(prepare: Callable[..., None]) -> Callable[..., None]:
    """Return a method that prepares a two-phase transaction.

    :param prepare: SQLAlchemy's.

    An interrupt is raised when the transaction has been prepared: in the next wait if that is
    possible, since SQLAlchemy takes it for one that is not, gives the connection up, and leaves the
    transaction on the server, with its locks. Otherwise it is rolled back first.
    """
