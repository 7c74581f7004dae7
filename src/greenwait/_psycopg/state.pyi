"""The state that greenwait keeps for a connection, from one wait to the next.

It holds facts that are too slow to find out in every wait, and those learned in earlier
waits. A connection has no room for it, so a dict keeps it until the connection is freed.
"""

from typing import Literal

from psycopg2.extensions import connection

__all__ = ["begin_method", "end_method", "expect_stream"]

def begin_method(
    conn: connection,
    kind: Literal["commit", "rollback", "tpc_begin"] | None,
    keeps_interrupt: bool,
) -> None:
    """Record that this thread is in a method of *conn* that ends a transaction or sets an option.

    :param kind: ``"commit"``, ``"rollback"``, ``"tpc_begin"``, or None.
    :param keeps_interrupt: keep an interrupt for ``end_method()`` to raise. psycopg2 changes its
        own state only if the method succeeds, and the server must not be ahead of that.
    """

def end_method(conn: connection) -> None:
    """Record that the method is over; raise the interrupt that was kept, if any."""

def expect_stream(conn: connection, expects: bool) -> None:
    """Record whether *conn* is executing a statement that is to leave a COPY BOTH open."""
