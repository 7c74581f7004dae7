"""Waits for a connection that is being made, with ``connect_timeout`` for each host.

libpq leaves ``connect_timeout`` to the caller of PQconnectPoll() (libpq manual), and with
it the step to the next host: it takes that step by itself only when the operating system
reports a failed connection. So an attempt that exceeds its time is made to fail.
"""

from libc.stdint cimport int64_t

from greenwait._poll cimport POLL_OK, POLL_WRITE, Wait, call_poll, phase_of, sleep_for
from greenwait._psycopg.libpq cimport PGconn, libpq
from greenwait._psycopg.state cimport pgconn_of
from greenwait._system.clock cimport monotonic_ns
from greenwait._system.readiness cimport READINESS_ERROR, readiness_poll

import _socket
import os

from greenwait._errors import DeadlinePassed, HostTimeout
from greenwait._psycopg import psycopg2

cdef object connection_info = psycopg2.connection.info
cdef object connection_fileno = psycopg2.connection.fileno
cdef object OperationalError = psycopg2.OperationalError
cdef object deadline_passed = DeadlinePassed
cdef object host_timeout = HostTimeout
cdef object duplicate = os.dup
cdef object socket_class = _socket.socket
cdef int64_t LONGEST_SECONDS = 1_000_000_000  # 30 years
cdef int LIBPQ_VERSION = psycopg2.LIBPQ_VERSION
cdef int SHUT_RDWR = _socket.SHUT_RDWR

# PQstatus(): libpq's enum ConnStatusType, in words.
cdef dict PHASES = {
    2: "waiting for the network connection",
    3: "about to say hello",
    4: "waiting for the server's answer to the startup packet",
    5: "waiting for the server's settings",
    7: "negotiating TLS",
    9: "asking whether it takes writes",
    10: "asking whether it takes writes",
    11: "negotiating GSSAPI encryption",
    12: "asking for the session's state",
    13: "asking whether it is a standby",
}


cdef int wait_until_connected(object conn, Wait* wait) except -1:
    """Wait until the connection is made, giving each host ``connect_timeout`` seconds.

    Raises DeadlinePassed when the wait's own deadline has passed.
    """
    cdef Wait attempt = wait[0]
    cdef int64_t timeout_ns = connect_timeout_ns(conn)
    cdef int64_t began_ns = 0
    cdef int polled
    cdef list complaints = []
    first = host_of(conn)
    host = None
    while True:
        try:
            polled = call_poll(conn, wait)
        except OperationalError as exc:
            exc.args = (with_complaints(complaints, with_host(first, str(exc))),)
            raise
        if polled == POLL_OK:
            return 0
        if host_of(conn) != host:
            host = host_of(conn)
            began_ns = monotonic_ns()
            if timeout_ns >= 0:
                attempt = phase_of(wait, began_ns + timeout_ns)
        try:
            sleep_for(conn, polled, &attempt)
        except deadline_passed:
            if monotonic_ns() >= wait.deadline_ns:
                raise
            seconds = (monotonic_ns() - began_ns) / 1e9
            complaints.append((host, complaint(conn, host, seconds)))
            # libpq would wait for ever for a host that has accepted.
            if polled != POLL_WRITE or not shut_down(conn):
                raise host_timed_out(conn, first, complaints) from None
            host = None  # the next host has its full time; it may be this one at another address


cdef int64_t connect_timeout_ns(object conn) except? -1:
    """Return the timeout of the DSN, the service file or the environment; < 0 without one."""
    # PQconninfo() has merged them, as libpq itself understands them.
    setting = connection_info.__get__(conn).dsn_parameters.get("connect_timeout")
    try:
        seconds = int(setting or 0)
    except ValueError:
        raise OperationalError(  # libpq's words; it reads the option only when it waits itself
            f'invalid integer value "{setting}" for connection option "connect_timeout"'
        ) from None
    return min(seconds, LONGEST_SECONDS) * 1_000_000_000 if seconds > 0 else -1


cdef object host_of(object conn):
    """Return the host being tried: its name or directory, its address, its port."""
    cdef PGconn* pgconn = pgconn_of(conn)
    info = connection_info.__get__(conn)
    address = ""
    if libpq.hostaddr is not NULL and pgconn is not NULL:
        address = libpq.hostaddr(pgconn).decode("utf-8", "replace")
    return info.host, address, info.port


cdef str named(tuple host):
    """Return the host as libpq names it in its messages."""
    name, address, port = host
    if name.startswith(("/", "@")):
        return f'connection to server on socket "{name}/.s.PGSQL.{port}"'
    extra = f" ({address})" if address not in ("", name) else ""
    return f'connection to server at "{name}"{extra}, port {port}'


cdef str with_host(tuple host, str message):
    """Return libpq's *message* as in blocking mode, with the host that has failed.

    libpq writes the host first, and PQsetnonblocking(), which psycopg2 calls next, clears
    it away.
    """
    if LIBPQ_VERSION < 140000 or message.startswith("connection to server "):
        return message
    return f"{named(host)} failed: {message}"


cdef str complaint(object conn, tuple host, double seconds):
    status = connection_info.__get__(conn).status
    return (
        f"{named(host)} timed out after {seconds:.1f} s (connect_timeout), "
        f"{PHASES.get(status, 'connecting')}. There is no connection; see whether the server is "
        "up, and whether a firewall is in the way"
    )


cdef str with_complaints(list complaints, str message):
    """Return *message* with *complaints* in place of libpq's words about a socket shut down."""
    for host, text in complaints:
        before, found, rest = message.partition(f"{named(host)} failed: ")
        if found:
            _, following, rest = rest.partition("connection to server ")
            message = f"{before}{text}\n{following}{rest}"
        else:  # pragma: no cover: libpq before 14 writes it otherwise
            message = f"{text}\n{message}"
    return message


cdef object host_timed_out(object conn, tuple first, list complaints):
    message = with_host(first, connection_info.__get__(conn).error_message or "")
    exc = host_timeout(with_complaints(complaints, message).strip())
    exc.places = [host for host, _ in complaints]
    return exc


cdef bint shut_down(object conn) except *:
    """Shut down a connection's socket; return whether that made an attempt to connect fail.

    On shutdown(2) Linux gives up a connect(2) that is under way, and libpq treats that as any
    other failure: it tries the next address. Elsewhere the socket reports no error: on FreeBSD
    the attempt goes on, on macOS it ends without one (docs/limits.md).
    """
    cdef int no_ticker = -1
    cdef int fd, revents
    try:
        fd = connection_fileno(conn)
        attempt = socket_class(fileno=duplicate(fd))
    except OSError:  # pragma: no cover: Windows
        return False  # on Windows a socket is not a file
    try:
        attempt.shutdown(SHUT_RDWR)
    except OSError:
        pass  # ENOTCONN: it was not connected, of course
    finally:
        attempt.close()
    revents = readiness_poll(fd, 0, 0, 0, &no_ticker)
    return revents > 0 and (revents & READINESS_ERROR) != 0
