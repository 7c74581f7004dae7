"""Connections that tell the callback what they are doing."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from greenwait._errors import CommitInDoubt, in_doubt
from greenwait._known import begin_ending, end_ending
from greenwait._psycopg2 import STATUS_READY, OperationalError, connection

__all__ = ["Connection"]


class Connection(connection):
    """A psycopg2 connection that loses track of no commit.

    To be used as ``connection_factory``; ``greenwait.connect()`` does. A commit that is
    interrupted or whose connection is lost raises ``greenwait.CommitInDoubt`` when nobody
    knows whether the transaction was committed. Of psycopg2's own class that is promised
    for ``conn.commit()`` and ``with conn:`` only, and for a deadline or an interrupt.
    """

    def commit(self) -> None:
        """Commit all changes to the database.

        A deadline or an interrupt does not cancel it: the outcome is waited for.

        :raises CommitInDoubt: there was none, within the callback's ``cancel_grace``.
        """
        with _ending(self, "commit"):
            super().commit()

    def rollback(self) -> None:
        """Roll back all changes done to the database; it is not cancelled either."""
        with _ending(self, "rollback"):
            super().rollback()

    def tpc_commit(self, *xid: Any) -> None:
        """Commit a transaction of two phases; otherwise like ``commit()``."""
        with _ending(self, "commit"):
            super().tpc_commit(*xid)

    def tpc_rollback(self, *xid: Any) -> None:
        """Abort a transaction of two phases; otherwise like ``rollback()``."""
        with _ending(self, "rollback"):
            super().tpc_rollback(*xid)


@contextmanager
def _ending(conn: connection, kind: Literal["commit", "rollback"]) -> Iterator[None]:
    """In the block, *conn* ends a transaction."""
    has_transaction = conn.status != STATUS_READY
    begin_ending(conn, kind)
    try:
        yield
    except OperationalError as exc:
        if (
            kind == "commit"
            and has_transaction
            and conn.closed
            and not isinstance(exc, CommitInDoubt)
        ):
            raise in_doubt("the connection was lost during the commit", exc) from exc
        raise
    finally:
        end_ending(conn)
