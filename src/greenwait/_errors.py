"""greenwait's own exceptions, public and private."""

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
    """A signal handler raised a psycopg2 error. Never leaves the callback.

    The argument is that error. Any other psycopg2 error that a wait raises means that the
    connection has failed.
    """


class QueryTimeout(QueryCanceled):
    """A deadline has passed: the query was cancelled.

    It is a ``psycopg2.extensions.QueryCanceledError``, and an ``OperationalError``;
    ``pgcode`` is 57014. The connection is open, and usable after ``rollback()``. If the
    deadline passed while connecting, there is no connection. ``timeout`` is the block whose
    deadline it was.
    """

    timeout: Any = None
    """The ``timeout()`` block whose deadline passed; None for that of ``WaitCallback``."""

    def __init__(self, *args: object) -> None:
        """Leave *args* as they are: psycopg2 calls this again, with the server's message."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Without the block, which belongs to this process.
        return type(self), self.args, {"pgerror": self.pgerror, "pgcode": self.pgcode}


class CommitInDoubt(OperationalError):  # noqa: N818, the fixed name
    """A commit was interrupted, or its connection lost, and its outcome is unknown.

    The transaction may or may not have been committed; the connection is closed. Look
    before you repeat the transaction. ``__cause__`` is the interrupt or the error.
    """


class PoolTimeout(OperationalError):  # noqa: N818, the fixed name
    """A pool had no connection in time; the message says how many there are, and their use.

    ``__cause__`` is the error of the last attempt to connect, if that is the reason.
    """


class HostTimeout(OperationalError):  # noqa: N818, as psycopg2's are named
    """A host has not answered within ``connect_timeout``; private: users see OperationalError."""

    #: The name, address and port of each host that has not, in order. The last one accepted
    #: before it fell silent, and libpq would not have tried the next.
    places: list[tuple[str, str, int]]
