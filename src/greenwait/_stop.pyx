"""Stopping a query whose wait is interrupted: cancel, drain, keep the connection.

The query is cancelled, and its end is waited for as long as the grace lasts. The end of a
transaction is not cancelled: what became of it is more important than a second. Nor is a rollback
cancelled by the deadline that made it necessary.
"""

from cpython.object cimport PyObject
from cpython.pythread cimport PyThread_get_thread_ident
from libc.stdint cimport int64_t

from greenwait._cancel cimport cancel_request
from greenwait._connecting cimport shut_down
from greenwait._copy cimport end_copy, has_left_copy, is_stream
from greenwait._copy_data cimport CopyData, begin_copy, copy_expected, cut_copy, finish_copy
from greenwait._deadline cimport (
    after,
    call_outside_blocks,
    count_timeout,
    deadline_of,
    timeout as timeout_block,
    timeout_error,
    timeout_error_without_query,
)
from greenwait._delivery cimport raise_again
from greenwait._outcome cimport given_up_error, lost_error, no_query_error, raised_by
from greenwait._poll cimport POLL_OK, Wait, is_prepared, phase_of, wait_until_ok, wait_until_sent
from greenwait._psycopg.libpq cimport PGRES_COPY_IN, PQTRANS_ACTIVE
from greenwait._psycopg.state cimport (
    COMMIT,
    NO_ENDING,
    ROLLBACK,
    TPC_BEGIN,
    ConnectionState,
    backend_pid,
    is_in_transaction,
)
from greenwait._ranks cimport higher
from greenwait._refusal cimport has_error
from greenwait._stats cimport counters
from greenwait._system.clock cimport monotonic_ns
from greenwait._trace cimport trace_is_on, trace_span

from greenwait._caller import ending_of_caller
from greenwait._errors import DeadlinePassed, HandlerRaised
from greenwait._psycopg import psycopg2
from greenwait._stop_log import log_stop

cdef object connection_info = psycopg2.connection.info
cdef object Psycopg2Error = psycopg2.Error
cdef object OperationalError = psycopg2.OperationalError
cdef object deadline_passed = DeadlinePassed
cdef object handler_raised = HandlerRaised
cdef object ask_caller = ending_of_caller
cdef object log_stopped = log_stop

# The pauses between two cancels, while the query goes on. A request that failed is repeated soon;
# one that succeeded may have arrived before the query began, or may wait in a pooler.
cdef int64_t PAUSE_AFTER_FAILURE_NS = 10_000_000
cdef int64_t PAUSE_NS = 50_000_000
cdef int64_t LONGEST_PAUSE_NS = 1_000_000_000


cdef object stop_unless_lost(object conn, Wait* wait, object interruption):
    """Stop the query; if it is not a query's wait, raise what its caller is to get."""
    if is_prepared(wait):
        return stop_and_log(conn, wait, interruption)
    wait.cancels, wait.has_given_up = 0, False
    pid = pid_of(conn, wait)
    log_stopping(pid, wait, interruption, None, no_query_error(wait, interruption))


cdef object stop_and_log(object conn, Wait* wait, object interruption):
    """Stop the query as ``stop()`` does, and log that when it is done."""
    reason = failure = None
    pid = pid_of(conn, wait)  # which a lost connection does not know
    wait.cancels, wait.has_given_up = 0, False
    try:
        reason = stop(conn, wait, interruption)
    except BaseException as exc:
        failure = exc
    # Not in the except block, where it would become the context of everything raised.
    return log_stopping(pid, wait, interruption, reason, failure)


cdef object pid_of(object conn, Wait* wait):
    """Return the pid of the connection's backend, or None if it has none yet."""
    if wait.state is <PyObject*>None:
        return None
    return backend_pid(conn) or None


cdef object log_stopping(
    object pid, Wait* wait, object interruption, object reason, object failure
):
    """Log how it was stopped; then raise *failure* if that is not None, or return *reason*.

    What is raised while the record is written, by a signal handler say, is an interrupt too.
    """
    cdef timeout_block block = <timeout_block>wait.block
    cdef bint is_deadline = isinstance(interruption, deadline_passed)
    cdef bint has_struck = is_deadline and not (reason is None and failure is None)
    if block is not None and block.is_internal:
        has_struck = False
    second = None
    if has_struck or wait.cancels > 0 or wait.has_given_up:
        if has_struck and block is not None:
            block.is_logged = True
        if is_deadline:
            why = deadline_of(block, wait.options.timeout_ns)
        else:
            why = type(raised_by(interruption)).__name__
        grace = wait.options.grace_ns / 1e9 if wait.has_given_up else None
        second = call_outside_blocks(log_stopped, (pid, why, wait.cancels, has_struck, grace))
        wait.deadline_ns = after(wait.options.grace_ns)  # the handler may have taken long
    if second is not None:
        if failure is not None:
            failure = higher(failure, second)
        elif (<ConnectionState>wait.state).is_async:
            failure = second  # psycopg2 does not wait, and so can't raise it
        else:
            reason = higher(reason, second) if isinstance(reason, BaseException) else second
    if failure is not None:
        raise_again(failure)
    return reason


cdef object stop(object conn, Wait* wait, object interruption):
    """End the query; raise an exception that costs the connection, or return one that does not."""
    cdef ConnectionState state = <ConnectionState>wait.state
    cdef timeout_block block = <timeout_block>wait.block
    cdef CopyData copy
    cdef bint is_deadline
    interruption = begin_stopping(wait, interruption)
    is_deadline = isinstance(interruption, deadline_passed)
    reason = failure = None
    if isinstance(interruption, Psycopg2Error):
        return lost_error(conn, wait, interruption)
    if not is_deadline:
        reason = raised_by(interruption)
    # libpq may have received the whole answer, and psycopg2 not yet taken it.
    if not (state.is_async or wait.is_answered or is_active(conn)):
        # Not called by psycopg2, which would have sent something to the server.
        if is_deadline:
            reason = timeout_error(
                block, wait.options.timeout_ns, "Nothing had been sent to the server"
            )
        raise_again(reason)
    complaints = []
    try:
        drain(conn, wait, complaints)
        state.is_failed = False
        while has_left_copy(conn, state):
            wait.has_ended_stream = wait.has_ended_stream or is_stream(state)
            copy = None if wait.has_ended_stream else copy_expected(state)
            if copy is None:
                abandon_copy(conn, wait)  # pragma: no cover: a race: a COPY begins just then
            else:
                begin_copy(wait, copy)
                drain(conn, wait, complaints)
    except BaseException as exc:
        failure = exc
    if failure is not None:
        wait.has_given_up = isinstance(failure, deadline_passed)
        if is_deadline:
            count_timeout(block)
        raise_again(given_up_error(conn, wait, reason, failure, complaints))
    if state.is_async:
        if not is_deadline:
            raise_again(reason)
        return None
    if not is_deadline:
        state.is_failed = has_error(conn) and is_in_transaction(conn)
        return reason
    if wait.has_ended_stream:
        return timeout_error_without_query(
            block, wait.options.timeout_ns, "The connection is open, without a replication stream"
        )
    if not has_error(conn):
        if wait.copy is not NULL and (<CopyData>wait.copy).is_cut:
            return timeout_error_without_query(
                block, wait.options.timeout_ns, "Not all rows were written"
            )
        return None  # a result that arrives as the deadline passes is kept
    state.is_failed = is_in_transaction(conn)
    count_timeout(block)
    wait.is_deadline = True
    return timeout_error(
        block, wait.options.timeout_ns, "The connection is open; rollback() ends the transaction"
    )


cdef object begin_stopping(Wait* wait, object interruption):
    """Start the grace now; return the interrupt, as ``find_ending()`` does."""
    wait.deadline_ns = after(wait.options.grace_ns)
    wait.draining = True
    return find_ending(wait, interruption)


cdef object find_ending(Wait* wait, object interruption):
    """Find out whether the query ends a transaction; return the interrupt of the wait.

    That may be a new exception, raised while the caller's code is read.
    """
    cdef ConnectionState state = <ConnectionState>wait.state
    wait.ending, wait.is_two_phase = NO_ENDING, False
    if state.ending != NO_ENDING and state.ending_thread == PyThread_get_thread_ident():
        if state.ending == TPC_BEGIN:
            wait.is_two_phase = True
        else:
            wait.ending = state.ending
        return interruption
    called = None
    for _ in range(0 if state.is_async else 3):
        try:
            called = ask_caller()
            break
        except BaseException as exc:
            second = exc
        if not (
            interruption is None or isinstance(interruption, (deadline_passed, Psycopg2Error))
        ):
            second = higher(raised_by(interruption), second)
        interruption = handler_raised(second)
    if called is not None:
        wait.is_two_phase = called.startswith("tpc_")
        if called not in ("tpc_begin", "tpc_prepare"):
            wait.ending = COMMIT if called.endswith("commit") else ROLLBACK
    return interruption


cdef bint is_active(object conn) except -1:
    """Is the server executing a query, or is its answer still to be read?"""
    return connection_info.__get__(conn).transaction_status == PQTRANS_ACTIVE


cdef int drain(object conn, Wait* wait, list complaints) except -1:
    """Cancel the query, unless it ends a transaction, and wait for its end."""
    cdef ConnectionState state = <ConnectionState>wait.state
    cdef Wait attempt
    cdef int64_t pause_ns = 0
    cdef int64_t began_ns
    cdef bint is_refused = False
    if wait.copy is not NULL:
        cut_copy(wait)
        # The server cancels by itself, unless it is busy with what it has.
        is_refused = (<CopyData>wait.copy).kind == PGRES_COPY_IN
    # The server ignores a cancel until it has the whole statement.
    elif wait_until_sent(conn, wait) == POLL_OK:
        return 0
    wait.is_answered = True
    if wait.ending != NO_ENDING or (state.is_failed and is_in_transaction(conn)):
        return wait_until_ok(conn, wait)
    while True:
        began_ns = monotonic_ns()
        if is_refused:
            is_refused = False
        else:
            send_cancel(conn, wait, complaints)
        pause_ns = max(
            min(4 * pause_ns, LONGEST_PAUSE_NS),
            PAUSE_AFTER_FAILURE_NS if complaints else PAUSE_NS,
            monotonic_ns() - began_ns,
        )
        attempt = phase_of(wait, after(pause_ns))
        try:
            if wait.copy is not NULL:
                return finish_copy(conn, &attempt)
            return wait_until_ok(conn, &attempt)
        except deadline_passed:
            # A cancel that arrives before the server has begun the query stops nothing.
            if monotonic_ns() >= wait.deadline_ns:
                raise


cdef int send_cancel(object conn, Wait* wait, list complaints) except -1:
    """Send a cancel request for *conn*, and wait for its end.

    When this returns, the server process has been signalled, or *complaints* says why not.
    """
    counters.cancels += 1
    complaints.clear()
    cdef Wait sending = wait[0]
    sending.state = <PyObject*>None
    first = later = None
    cdef int64_t began_ns = monotonic_ns() if wait.row > 0 else 0
    try:
        request = cancel_request(conn)
        wait.cancels += request is None  # psycopg2 has sent it
        while request is not None:
            try:
                wait_until_ok(request, &sending)
                wait.cancels += 1
                break
            except Psycopg2Error:
                raise
            except BaseException as exc:
                if wait.draining or (first is None and isinstance(exc, deadline_passed)):
                    raise  # which costs the connection
                later = exc
            # The connection would stay in use, and this request must not strike a later query.
            if first is not None:
                shut_down(conn)
                break
            first, later = later, None
            sending.draining = True
    except Psycopg2Error as exc:  # refused: the query may end by itself
        complaints.append(str(exc).strip())
    if wait.row > 0 and trace_is_on:
        trace_span(wait.row, "cancel", "cancel", began_ns)
    if first is not None:
        raise_again(first if later is None or isinstance(later, deadline_passed)
                    else handler_raised(higher(raised_by(first), raised_by(later))))
    return 0


cdef int abandon_copy(object conn, Wait* wait) except -1:
    """End the COPY that ``execute()`` has begun, and leave the rest to psycopg2."""
    cdef Wait ending = wait[0]
    if not wait.draining:
        ending.deadline_ns = after(wait.options.grace_ns)
        ending.cancels = 0
    try:
        send_cancel(conn, &ending, [])
        end_copy(conn, &ending)
    except deadline_passed:  # pragma: no cover: the server freezes while it ends a COPY
        raise OperationalError(
            "execute() has begun a COPY, which did not end within "
            f"{wait.options.grace_ns / 1e9:g} s; the connection is closed, use copy_expert()"
        ) from None
    finally:
        wait.cancels = ending.cancels
    return 0
