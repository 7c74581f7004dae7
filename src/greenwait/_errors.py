"""The exceptions that greenwait raises and psycopg2 does not."""

from typing import Any

from greenwait._psycopg.psycopg2 import OperationalError, QueryCanceled

__all__ = [
    "CommitInDoubt",
    "DeadlinePassed",
    "HandlerRaised",
    "HostTimeout",
    "PoolTimeout",
    "QueryTimeout",
]


class DeadlinePassed(BaseException):
    """A sleep's deadline has passed. Never leaves the callback."""


class HandlerRaised(BaseException):
    """A signal handler raised an error of psycopg2's. Never leaves the callback.

    What it raised is the argument. Any other error of psycopg2's that comes out of a wait says that
    the connection has failed.
    """


class QueryTimeout(QueryCanceled):
    """A deadline has passed: the query was cancelled.

    It is a ``psycopg2.extensions.QueryCanceledError``, and an ``OperationalError``;
    ``pgcode`` is 57014. The connection is open, and usable after ``rollback()``. Raised
    while connecting, there is no connection.
    """

    #: The ``greenwait.timeout()`` block whose deadline it was; None for ``WaitCallback``'s.
    timeout: Any = None

    def __init__(self, *args: object) -> None:
        """Leave *args* as they are: psycopg2 calls this again, with what the server has said."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Without the block, which is of this process.
        return type(self), self.args, {"pgerror": self.pgerror, "pgcode": self.pgcode}


class CommitInDoubt(OperationalError):  # noqa: N818, the fixed name
    """A commit was interrupted or lost, and nobody knows its outcome.

    The transaction may or may not have been committed; the connection is closed. Look
    whether it was before doing it again. ``__cause__`` is what came between.
    """


class PoolTimeout(OperationalError):  # noqa: N818, the fixed name
    """A pool had no connection in time; the message says how it stands.

    ``__cause__`` is why the last attempt to make one failed, if that is the reason.
    """


class HostTimeout(OperationalError):  # noqa: N818, as psycopg2's are named
    """A host has not answered within ``connect_timeout``; private, an OperationalError to all."""

    #: The name, address and port of each that has not, in that order; the last one fell silent
    #: after it had accepted, and libpq would not have gone on to the next.
    places: list[tuple[str, str, int]]
