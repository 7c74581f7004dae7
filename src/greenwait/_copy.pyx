"""The end of a COPY that ``execute("COPY ...")`` has left open.

To ``poll()`` such a statement is done when the COPY begins. psycopg2 then raises
ProgrammingError ("use the copy_to() method instead") and leaves the COPY open: libpq
answers every later statement with "another command is already in progress". So the COPY
is ended before psycopg2 sees it.
"""

from greenwait._poll cimport Wait, new_sleep
from greenwait._psycopg.libpq cimport (
    PGRES_COPY_BOTH,
    PGRES_COPY_IN,
    PGRES_COPY_OUT,
    PQTRANS_ACTIVE,
    PGconn,
    PGresult,
    can_end_copy,
    leaves_tls_bytes,
    libpq,
)
from greenwait._psycopg.state cimport ConnectionState
from greenwait._sleep cimport CALL_AGAIN, Sleep, sleep_until_ready
from greenwait._system.readiness cimport READINESS_READ, READINESS_WRITE

from greenwait._psycopg import psycopg2

cdef object connection_info = psycopg2.connection.info
cdef object OperationalError = psycopg2.OperationalError
cdef object ProgrammingError = psycopg2.ProgrammingError

# The results of end_more() besides CALL_AGAIN.
cdef enum:
    DONE = 1
    MUST_RECEIVE
    MUST_SEND
    FAILED  # the connection is lost


cdef bint has_left_copy_unseen(object conn) except -1:
    return connection_info.__get__(conn).transaction_status == PQTRANS_ACTIVE


cdef bint is_stream(ConnectionState state) except -1:
    """Is the COPY that was left open a COPY BOTH, which START_REPLICATION begins?"""
    cdef PGresult* result
    cdef int status
    if state.has_state is NULL or libpq.isBusy(state.has_state):
        return False
    # Until the COPY ends, its result comes again and again, at once.
    result = libpq.getResult(state.has_state)
    status = libpq.resultStatus(result)
    libpq.clear(result)
    return status == PGRES_COPY_BOTH


cdef int end_copy(object conn, Wait* wait) except -1:
    """Refuse to send, or discard what arrives, until the server is ready for a query.

    The caller has cancelled the statement: a COPY to the client can be long.
    """
    cdef PGconn* pgconn = (<ConnectionState>wait.state).has_state
    cdef Sleep sleep
    cdef int events, rc = CALL_AGAIN
    if not can_end_copy:
        raise ProgrammingError(  # as psycopg2 does
            "execute() has begun a COPY, which can't be ended without libpq's functions "
            "(see python -m greenwait); the connection is closed, use copy_expert() "
            "where no wait callback is registered"
        )
    while rc != DONE:
        events = READINESS_WRITE if rc == MUST_SEND else READINESS_READ
        sleep = new_sleep(events, wait)
        sleep.recheck_tls = leaves_tls_bytes and connection_info.__get__(conn).ssl_in_use
        sleep.is_ready = rc == CALL_AGAIN
        sleep.may_stay = True
        sleep.advance = end_more
        sleep.argument = pgconn
        rc = sleep_until_ready(conn, wait.options.poller, &sleep)
        if rc == FAILED:  # pragma: no cover: lost in the middle of ending a COPY
            raise OperationalError(
                libpq.errorMessage(pgconn).decode("utf-8", "replace")
            )
        if rc == 0:  # time to try again
            rc = CALL_AGAIN
    return 0


cdef int end_more(void* argument, int revents) noexcept nogil:
    """Take one step that needs no waiting; see ``Advance``."""
    cdef PGconn* pgconn = <PGconn*>argument
    cdef PGresult* result
    cdef char* row = NULL
    cdef int status, rc
    if not libpq.consumeInput(pgconn):  # pragma: no cover: lost in the middle of ending a COPY
        return FAILED
    rc = libpq.flush(pgconn)
    if rc != 0:
        return MUST_SEND if rc == 1 else FAILED
    if libpq.isBusy(pgconn):
        return MUST_RECEIVE
    result = libpq.getResult(pgconn)
    if result is NULL:
        return DONE
    # A COPY's result comes again and again until its end, and the next COPY may begin at once.
    status = libpq.resultStatus(result)
    libpq.clear(result)
    if status == PGRES_COPY_IN or status == PGRES_COPY_BOTH:
        # A walsender ends the session if it is told of a failure (ProcessRepliesIfAny).
        if status == PGRES_COPY_BOTH:
            rc = libpq.putCopyEnd(pgconn, NULL)
        else:
            rc = libpq.putCopyEnd(pgconn, "COPY in execute() is not possible")
        if rc <= 0:
            return MUST_SEND if rc == 0 else FAILED
    elif status == PGRES_COPY_OUT:
        rc = 1
        while rc > 0:  # until the buffer is empty: it does not read from the socket
            rc = libpq.getCopyData(pgconn, &row, 1)
            if rc > 0:
                libpq.freemem(row)
        if rc == 0:
            return MUST_RECEIVE
    return CALL_AGAIN
