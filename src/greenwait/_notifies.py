"""LISTEN and NOTIFY: what others have to say, as it comes, without asking for it."""

import time
from collections.abc import Generator
from typing import Any

from psycopg2.extensions import POLL_OK, POLL_READ, Notify

from greenwait._callback import wait_at_most
from greenwait._deadline import deadline_after

__all__ = ["has_notify", "notifies"]


class _Listener:
    """A connection that is waited for until it has a notification."""

    def __init__(self, conn: Any) -> None:
        self._conn = conn
        self._turn = getattr(conn, "_turn", None)  # of a greenwait.Connection, that is

    def fileno(self) -> int:
        return int(self._conn.fileno())

    def poll(self) -> int:
        if not self._conn.notifies:
            if self._turn is None:
                self._conn.poll()
            else:
                self._turn.run(self._conn, "notifies()", self._conn.poll)
        return POLL_OK if self._conn.notifies else POLL_READ


def has_notify(conn: Any, deadline: float | None) -> bool:
    """Wait until it has, or the deadline, of ``time.monotonic()``, has passed."""
    if not conn.notifies:
        seconds = None if deadline is None else max(0.0, deadline - time.monotonic())
        wait_at_most(_Listener(conn), seconds)
    return bool(conn.notifies)


def notifies(conn: Any, timeout: float | None = None) -> Generator[Notify, None, None]:
    """Yield the notifications that *conn* gets, as they come.

    :param conn: a connection that has executed ``LISTEN``, and committed it.
    :param timeout: seconds after which it ends; None: never. 0 gives what is there already.
    :returns: an iterator of ``psycopg2.extensions.Notify``.
    :raises psycopg2.OperationalError: the connection is lost.
    :raises ValueError: *timeout* is negative or not finite.
    :raises TypeError: it is not a number.

    It waits as queries do, in every context. A signal handler's exception or an outer
    ``greenwait.timeout()`` ends the wait, and the connection stays usable. What comes while
    nobody asks for the next one is kept, in ``conn.notifies``, and given first. The server
    sends nothing to a connection that is in a transaction.
    """
    return _notifies(conn, deadline_after("timeout", timeout))


def _notifies(conn: Any, deadline: float | None) -> Generator[Notify, None, None]:
    while has_notify(conn, deadline):
        yield conn.notifies.pop(0)
