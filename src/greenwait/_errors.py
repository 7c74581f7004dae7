"""What greenwait raises that psycopg2 does not."""

from typing import Any

from greenwait._delivery import QueryCanceled
from greenwait._psycopg2 import OperationalError

__all__ = ["CommitInDoubt", "HostTimeout", "PoolTimeout", "QueryTimeout", "in_doubt"]


class QueryTimeout(QueryCanceled):
    """A deadline has passed: the query was cancelled.

    It is a ``psycopg2.extensions.QueryCanceledError``, and an ``OperationalError``;
    ``pgcode`` is 57014. The connection is open, and usable after ``rollback()``. Raised
    while connecting, there is no connection.
    """

    #: The ``greenwait.timeout()`` block whose deadline it was; None for ``WaitCallback``'s.
    timeout: Any = None

    def __reduce__(self) -> tuple[Any, ...]:
        kind, args, *_ = super().__reduce__()
        # Without the block, which is of this process.
        return kind, args, {"pgerror": self.pgerror, "pgcode": self.pgcode}


class CommitInDoubt(OperationalError):  # noqa: N818, the fixed name
    """A commit was interrupted or lost, and nobody knows its outcome.

    The transaction may or may not have been committed; the connection is closed. Look
    whether it was before doing it again. ``__cause__`` is what came between.
    """


def in_doubt(what: str, cause: BaseException) -> CommitInDoubt:
    """Return the exception for a commit to which *what* has happened, because of *cause*."""
    exc = CommitInDoubt(
        f"{what}: the transaction may or may not have been committed. The connection is "
        "closed; connect again, and look before you repeat the transaction"
    )
    exc.__cause__ = cause
    return exc


class PoolTimeout(OperationalError):  # noqa: N818, the fixed name
    """A pool had no connection in time; the message says how it stands.

    ``__cause__`` is why the last attempt to make one failed, if that is the reason.
    """


class HostTimeout(OperationalError):  # noqa: N818, as psycopg2's are named
    """A host has not answered within ``connect_timeout``; private, an OperationalError to all."""

    #: The name, address and port of each that has not, in that order; the last one fell silent
    #: after it had accepted, and libpq would not have gone on to the next.
    places: list[tuple[str, str, int]]
