"""Cancel requests, which stop queries on the server, and the public ``cancel()``.

A request under way has ``poll()`` and ``fileno()``, as a connection has, and is waited for
in the same loop: with a deadline, without the GIL, in every context.

It must be waited for to its end, when the server process has been sent the signal. A
request that is still under way may stop a later query of that process.
"""

cimport cython
from cpython.object cimport PyObject, PyObject_TypeCheck, PyTypeObject
from libc.errno cimport errno
from libc.stdint cimport int64_t

from greenwait._deadline cimport (
    after,
    block_has_expired,
    blocks_entered,
    call_outside_blocks,
    checked_seconds,
    nearest_block,
    timeout as timeout_block,
    to_ns,
)
from greenwait._options cimport default_options
from greenwait._poll cimport POLL_OK, POLL_READ, POLL_WRITE, Wait, wait_until_ok
from greenwait._psycopg.libpq cimport (
    PGRES_POLLING_FAILED,
    PGRES_POLLING_OK,
    PGRES_POLLING_READING,
    PGRES_POLLING_WRITING,
    PGcancel,
    PGcancelConn,
    PGconn,
    can_cancel,
    can_cancel_in_thread,
    libpq,
)
from greenwait._psycopg.proxy cimport without_proxy
from greenwait._psycopg.state cimport backend_pid, is_in_query, pgconn_of
from greenwait._stats cimport counters
from greenwait._system.clock cimport monotonic_ns
from greenwait._system.sealed_type cimport seal_type
from greenwait._trace cimport row_here, trace_is_on, trace_span

import os

from greenwait import _errors
from greenwait._psycopg import psycopg2
from greenwait._stop_log import log_cancel

__all__ = ["cancel"]

cdef extern from "cancel_thread.h" nogil:
    ctypedef int (*cancel_function)(void*, char*, int) noexcept nogil
    ctypedef void (*cancel_free_function)(void*) noexcept nogil
    int cancel_thread_start(
        void* request, cancel_function cancel, cancel_free_function release, int fd
    ) noexcept

cdef type connection_type = psycopg2.connection
cdef object connection_cancel = connection_type.cancel
cdef object OperationalError = psycopg2.OperationalError
cdef object InterfaceError = psycopg2.InterfaceError
cdef object log = log_cancel
cdef object deadline_passed = _errors.DeadlinePassed
cdef object handler_raised = _errors.HandlerRaised
cdef object open_pipe = os.pipe
cdef object close = os.close
cdef object read = os.read
cdef object set_blocking = os.set_blocking if hasattr(os, "set_blocking") else None
cdef object strerror = os.strerror


cdef object cancel_request(object conn):
    """Return a cancel request for the query of *conn*, ready to be waited for.

    May be called in a query's wait, by the thread that waits. Returns None where libpq
    can't be reached: then psycopg2 has cancelled already, blocking, with the GIL held.
    """
    cdef PGconn* pgconn = pgconn_of(conn)
    if can_cancel and pgconn is not NULL:
        return CancelRequest.of(pgconn)
    if can_cancel_in_thread and pgconn is not NULL:
        return ThreadedCancelRequest.of(pgconn)
    connection_cancel(conn)
    return None


@cython.final
@cython.internal
cdef class CancelRequest:
    """A cancel request of libpq 17 and later: non-blocking, and encrypted as the connection is."""

    cdef PGcancelConn* request
    cdef bint is_started

    @staticmethod
    cdef CancelRequest of(PGconn* pgconn):
        cdef CancelRequest self = CancelRequest.__new__(CancelRequest)
        self.request = libpq.cancelCreate(pgconn)
        if self.request is NULL:
            raise MemoryError
        return self

    def fileno(self):
        return libpq.cancelSocket(self.request)

    def poll(self):
        cdef int state, error
        with nogil:
            if self.is_started:
                state = libpq.cancelPoll(self.request)
            else:
                self.is_started = True
                # The manual: after PQcancelStart(), wait as if it had asked to write.
                state = (
                    PGRES_POLLING_WRITING
                    if libpq.cancelStart(self.request)
                    else PGRES_POLLING_FAILED
                )
            error = errno
        if state == PGRES_POLLING_FAILED:
            message = libpq.cancelErrorMessage(self.request).decode("utf-8", "replace").strip()
            # libpq has no message when socket(2) fails, for instance.
            raise OperationalError(
                message or f"could not connect to the server to cancel: {strerror(error)}"
            )
        if state == PGRES_POLLING_OK:
            return POLL_OK
        return POLL_READ if state == PGRES_POLLING_READING else POLL_WRITE

    def __dealloc__(self):
        if self.request is not NULL:
            libpq.cancelFinish(self.request)


@cython.final
@cython.internal
cdef class ThreadedCancelRequest:
    """A cancel request before libpq 17, which blocks, and so runs in a thread of its own.

    If it is dropped while under way, the thread goes on: the connection must not be used
    again, because the request may cancel a later query.
    """

    cdef PGcancel* request
    cdef int fd  # the end of the pipe to read from

    def __cinit__(self):
        self.fd = -1

    @staticmethod
    cdef ThreadedCancelRequest of(PGconn* pgconn):
        cdef ThreadedCancelRequest self = ThreadedCancelRequest.__new__(ThreadedCancelRequest)
        self.request = libpq.getCancel(pgconn)
        if self.request is NULL:  # pragma: no cover: want of memory
            raise OperationalError("libpq has no cancel request for this connection")
        return self

    def fileno(self):
        return self.fd

    def poll(self):
        if self.request is not NULL:
            self.start()
            return POLL_READ
        try:
            answer = read(self.fd, 1000)
        except BlockingIOError:  # pragma: no cover: its pipe is read before something is in it
            return POLL_READ
        if answer[:1] == b"\1":
            return POLL_OK
        raise OperationalError(answer[1:].decode("utf-8", "replace").strip())

    cdef int start(self) except -1:
        cdef int rc
        try:
            self.fd, fd = open_pipe()
        except OSError as exc:
            raise OperationalError(f"can't make a pipe for the cancelling thread: {exc}") from exc
        set_blocking(self.fd, False)
        rc = cancel_thread_start(
            self.request, <cancel_function>libpq.cancel, <cancel_free_function>libpq.freeCancel, fd
        )
        if rc < 0:  # pragma: no cover: no thread can be started
            close(fd)
            raise OperationalError(f"can't start a thread to cancel in: {strerror(-rc)}")
        self.request = NULL  # the thread owns it
        return 0

    def __dealloc__(self):
        if self.request is not NULL:  # pragma: no cover: given up before it has begun
            libpq.freeCancel(self.request)
        if self.fd >= 0:
            close(self.fd)


seal_type(CancelRequest, "it is made by cancel()")
seal_type(ThreadedCancelRequest, "it is made by cancel()")


def cancel(conn: psycopg2.connection, /, timeout: float = 1.0) -> None:
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
    cdef timeout_block block = nearest_block() if blocks_entered > 0 else None
    cdef Wait wait
    seconds = checked_seconds("timeout", timeout, "")
    conn = without_proxy(conn)
    if not PyObject_TypeCheck(conn, <PyTypeObject*>connection_type):
        raise TypeError(f"cancel() takes a psycopg2 connection, not {type(conn).__name__!r}")
    if conn.closed:
        raise InterfaceError("there is nothing to cancel: the connection is closed")
    if not is_in_query(conn):
        raise OperationalError("there is nothing to cancel: the connection is still connecting")
    pid = backend_pid(conn)  # now: what is cancelled may close it at once
    wait.options = &default_options
    wait.state = wait.block = <PyObject*>None
    wait.deadline_ns = after(to_ns(seconds))
    wait.is_answered = wait.draining = False
    if block is not None:
        wait.deadline_ns = min(wait.deadline_ns, block.deadline_ns)
    counters.cancels += 1
    cdef int64_t began_ns = 0
    cdef bint stops_loop
    cdef int row = 0
    if trace_is_on:
        row = row_here(&stops_loop)
        began_ns = monotonic_ns()
    try:
        request = cancel_request(conn)
        if request is not None:
            wait_until_ok(request, &wait)
    except deadline_passed:
        failure = OperationalError(
            f"the server has not taken the cancel request within {seconds:g} s. It may yet, and "
            "stop whatever the connection does then: wait for its query before you use it again"
        )
        if block is not None and wait.deadline_ns == block.deadline_ns:
            raise block_has_expired(block) from None
        raise failure from None
    except handler_raised as exc:
        raise exc.args[0] from None
    finally:
        if row > 0 and trace_is_on:
            trace_span(row, "cancel", "cancel", began_ns)
    raised = call_outside_blocks(log, (pid,))
    if raised is not None:
        raise raised
