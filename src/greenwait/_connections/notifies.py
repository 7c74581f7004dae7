"""LISTEN and NOTIFY: an iterator over a connection's notifications, as they arrive."""

import time
from collections.abc import Generator
from typing import Any

from psycopg2.extensions import POLL_OK, POLL_READ, Notify

from greenwait._callback import wait_at_most
from greenwait._connections.semaphore import check_deadline, give_way
from greenwait._deadline import deadline_after
from greenwait._psycopg.proxy import without_proxy

__all__ = ["Listening", "notifies"]

# Seconds between two looks at what has arrived: another listener, or ``conn.poll()`` of the
# program's own, may have read it without a wait, and then nobody is told.
_LOOK = 1.0


class _Listener:
    """A connection, to be waited for until it has a notification."""

    def __init__(self, conn: Any) -> None:
        self._conn = conn
        self._lock = getattr(conn, "_lock", None)  # only a greenwait.Connection has one
        self.polls = 0

    def fileno(self) -> int:
        return int(self._conn.fileno())

    def poll(self) -> int:
        self.polls += 1
        if not self._conn.notifies:
            if self._lock is None:
                self._conn.poll()
            else:
                self._lock.run(self._conn, "notifies()", self._conn.poll)
        return POLL_OK if self._conn.notifies else POLL_READ


class Listening:
    """One listener on a connection, until a deadline of ``time.monotonic()``, or None.

    Others may listen on the same connection, and take the notification that this one waited for.
    """

    def __init__(self, conn: Any, deadline: float | None) -> None:
        if not hasattr(conn, "notifies"):
            raise TypeError(f"notifies() takes a psycopg2 connection, not {type(conn).__name__!r}")
        self.conn = without_proxy(conn)
        self._deadline = deadline
        self._is_over = False

    def has_next(self) -> bool:
        """Wait until there is a notification, or the time is over."""
        check_deadline()  # also where the list is never empty
        while not (self.conn.notifies or self._is_over):
            self._wait()
        return bool(self.conn.notifies)

    def take(self) -> Notify | None:
        """Return the first notification; None where another one has taken it."""
        try:
            found: Notify = self.conn.notifies.pop(0)
        except IndexError:
            return None
        return found

    def _wait(self) -> None:
        left = None if self._deadline is None else self._deadline - time.monotonic()
        self._is_over = left is not None and left <= 0  # one last check, whatever it finds
        listener = _Listener(self.conn)
        wait_at_most(listener, _LOOK if left is None else min(_LOOK, max(0.0, left)))
        if listener.polls == 1 and not self._is_over:
            # They come faster than they are taken, and there was no wait.
            give_way()


def notifies(conn: Any, timeout: float | None = None) -> Generator[Notify, None, None]:
    """Yield the notifications that *conn* gets, as they arrive.

    :param conn: a connection that has executed ``LISTEN``, and committed it.
    :param timeout: seconds after which it ends, once it has yielded what has arrived by then;
        None: never. 0 yields only what has arrived already.
    :returns: an iterator of ``psycopg2.extensions.Notify``.
    :raises psycopg2.OperationalError: the connection is lost.
    :raises ValueError: *timeout* is negative or not finite.
    :raises TypeError: *conn* is not a connection, or *timeout* is not a number.

    It waits as queries do, in every context. A signal handler's exception or an outer
    ``greenwait.timeout()`` ends the wait, and the connection stays usable. Notifications that
    arrive between two requests are kept, in ``conn.notifies``, and yielded first. The server
    sends nothing to a connection that is in a transaction. If several greenlets or threads
    listen on one connection, each notification goes to one of them.
    """
    return _notifies(Listening(conn, deadline_after("timeout", timeout)))


def _notifies(listening: Listening) -> Generator[Notify, None, None]:
    while listening.has_next():
        if (found := listening.take()) is not None:
            yield found
