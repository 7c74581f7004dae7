"""What greenwait raises that psycopg2 does not."""

from typing import Any

from greenwait._delivery import QueryCanceled
from greenwait._psycopg2 import OperationalError

__all__ = ["CommitInDoubt", "HostTimeout", "QueryTimeout"]


class QueryTimeout(QueryCanceled):
    """A deadline has passed: the query was cancelled.

    It is a ``psycopg2.extensions.QueryCanceledError``, and an ``OperationalError``;
    ``pgcode`` is 57014. The connection is open, and usable after ``rollback()``. Raised
    while connecting, there is no connection.
    """

    #: The ``greenwait.timeout()`` block whose deadline it was; None for ``WaitCallback``'s.
    timeout: Any = None

    def __reduce__(self) -> tuple[Any, ...]:
        # Pickled without the block, which is this process's.
        return (_rebuild, (self.args, self.pgerror, "57014"))


def _rebuild(args: tuple[Any, ...], pgerror: str | None, pgcode: str) -> QueryTimeout:
    exc = QueryTimeout(*args)
    exc.__setstate__({"pgerror": pgerror, "pgcode": pgcode})  # psycopg2.Error's own
    return exc


class CommitInDoubt(OperationalError):
    """A commit was interrupted or lost, and nobody knows its outcome.

    The transaction may or may not have been committed; the connection is closed. Look
    whether it was before doing it again. ``__cause__`` is what came between.
    """


class HostTimeout(OperationalError):
    """A host has not answered within ``connect_timeout``; private, an OperationalError to all."""

    host: str
    hostaddr: str
    port: int
