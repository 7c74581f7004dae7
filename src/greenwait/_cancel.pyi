"""Cancel requests, which stop queries on the server, and the public ``cancel()``.

A request under way has ``poll()`` and ``fileno()``, as a connection has, and is waited for
in the same loop: with a deadline, without the GIL, in every context.

It must be waited for to its end, when the server process has been sent the signal. A
request that is still under way may stop a later query of that process.
"""

from psycopg2.extensions import connection

__all__ = ["cancel"]

def cancel(conn: connection, /, timeout: float = 1.0) -> None:
    """Cancel the query of *conn* on the server.

    :param conn: a psycopg2 connection, or the proxy of one that a library for tracing has made.
    :param timeout: seconds to wait until the server has taken the request; the deadline of
        an outer ``greenwait.timeout()`` may be nearer.
    :raises psycopg2.OperationalError: the connection is still being made, the server refused
        the request, or it did not take the request in time. In the last case it may still
        take it, and cancel a later query of the connection.
    :raises QueryTimeout: an outer ``greenwait.timeout()`` has expired. Here too the server may
        still take the request.
    :raises psycopg2.InterfaceError: the connection is closed.
    :raises TypeError: *conn* is not a psycopg2 connection, or *timeout* is not a number.
    :raises ValueError: *timeout* is negative or not finite.

    Unlike ``conn.cancel()`` it does not block other threads, and is encrypted as the
    connection is (libpq 17 and later; ``python -m greenwait`` says what this one can do).
    When it returns, the server process has been signalled: a later query is not affected.
    The cancelled query raises psycopg2's ``QueryCanceled``. If there was no query, nothing
    happens.

    May be called from any thread or greenlet, also while another one waits for the query,
    but not during the connection's ``close()``. A signal handler's exception ends the wait.
    """
