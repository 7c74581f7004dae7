"""Stopping a query whose wait is interrupted: cancel, drain, deliver, keep the connection.

A deadline, a signal handler that raises, an exception thrown into the greenlet that waits:
each is an exception that comes out of the wait loop. Then the query is cancelled, its end
is waited for as long as the grace lasts, and psycopg2 raises the exception in the place of
the server's error. Where the server has reported success, it is sent a statement that it
refuses, so that there is an error. Raised from here, the exception would cost the connection;
that is left for the cases in which the connection is of no use any more.

The end of a transaction is not cancelled: what became of it is more important than a
second. Nor is a rollback cancelled by the deadline that made it necessary.
"""

from cpython.exc cimport PyErr_SetObject, PyErr_WriteUnraisable
from cpython.object cimport PyObject, PyObject_TypeCheck, PyTypeObject
from cpython.pythread cimport PyThread_get_thread_ident
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport int64_t

from greenwait._cancel cimport cancel_request
from greenwait._connecting cimport shut_down, wait_until_connected
from greenwait._copy cimport end_copy, has_left_copy, is_stream
from greenwait._copy_data cimport (
    CopyData,
    begin_copy,
    copy_expected,
    cut_copy,
    finish_copy,
    transfer_copy,
)
from greenwait._deadline cimport (
    after,
    blocks_entered,
    count_timeout,
    deadline_of,
    learn_delegate,
    leave_blocks,
    nearest_block,
    return_to_blocks,
    timeout as timeout_block,
    timeout_error,
    timeout_error_without_query,
)
from greenwait._delivery cimport deliver, deliver_in_query, forget_left, may_be_left, raise_again
from greenwait._options cimport Options
from greenwait._outcome cimport given_up_error, lost_error, no_query_error, raised_by, with_later
from greenwait._poll cimport (
    POLL_OK,
    Wait,
    check_pollable,
    is_prepared,
    phase_of,
    wait_until_ok,
    wait_until_sent,
)
from greenwait._psycopg.libpq cimport PGRES_COPY_IN, PQTRANS_ACTIVE, PQTRANS_IDLE
from greenwait._psycopg.state cimport (
    COMMIT,
    NO_ENDING,
    ROLLBACK,
    TPC_BEGIN,
    ConnectionState,
    is_in_query,
    is_in_transaction,
    prepare,
    state_of,
)
from greenwait._raised cimport raised_count, remember_raised, take_raised
from greenwait._ranks cimport higher
from greenwait._refusal cimport has_error, have_refused, is_begin
from greenwait._stats cimport counters
from greenwait._system.clock cimport NO_DEADLINE, monotonic_ns
from greenwait._trace cimport (
    observed_ns,
    row_here,
    row_known,
    trace_again,
    trace_is_on,
    trace_span,
    trace_wait,
)
from greenwait._waiter cimport Waiter, is_hub_itself, waiter_here, waiters_entered

from greenwait import _errors
from greenwait._caller import ending_of_caller
from greenwait._errors import DeadlinePassed, HandlerRaised
from greenwait._psycopg import psycopg2
from greenwait._slow_log import log_slow_wait
from greenwait._stop_log import log_stop

cdef extern from *:
    """
    /* A call whose exception the caller looks for, and one that raises what is pending then. */
    #define call_unchecked(function, conn, wait) function(conn, wait)
    static int
    raise_pending(void)
    {
        return -1;
    }
    """
    PyObject* call_unchecked(object (*function)(object, Wait*), object conn, Wait* wait) noexcept
    int raise_pending() except -1

cdef type connection_type = psycopg2.connection
cdef object connection_info = connection_type.info
cdef object Psycopg2Error = psycopg2.Error
cdef object OperationalError = psycopg2.OperationalError
cdef object ProgrammingError = psycopg2.ProgrammingError
cdef object query_timeout = _errors.QueryTimeout
cdef object deadline_passed = DeadlinePassed
cdef object handler_raised = HandlerRaised
cdef object ask_caller = ending_of_caller
cdef object log_slow = log_slow_wait
cdef object log_stopped = log_stop

# The pauses between two cancels, while the query goes on. A request that failed is repeated soon;
# one that succeeded may have arrived before the query began, or may wait in a pooler.
cdef int64_t PAUSE_AFTER_FAILURE_NS = 10_000_000
cdef int64_t PAUSE_NS = 50_000_000
cdef int64_t LONGEST_PAUSE_NS = 1_000_000_000


cdef int wait_or_stop(object conn, const Options* options) except -1:
    """Wait until *conn* is done; stop its query if the wait is interrupted."""
    cdef ConnectionState state = None
    cdef timeout_block block = None
    cdef Wait wait
    if may_be_left:
        forget_left()
    if raised_count > 0:
        take_raised()
    if PyObject_TypeCheck(conn, <PyTypeObject*>connection_type):
        state = state_of(conn)
        if not state.is_prepared and is_in_query(conn):
            prepare(state, conn)
            if not state.is_async:
                learn_delegate()
    else:
        check_pollable(conn)
    wait.options = options
    wait.deadline_ns = NO_DEADLINE
    wait.state = <PyObject*>state
    wait.block = <PyObject*>None
    wait.is_answered = wait.draining = wait.is_deadline = wait.has_ended_stream = False
    wait.copy = NULL
    wait.row = 0
    if blocks_entered > 0 or options.timeout_ns >= 0:
        block = set_deadline(&wait)
        wait.block = <PyObject*>block
    if state is not None:
        state.is_waiting = True
        wait.was_idle = state.transaction_status == PQTRANS_IDLE
    try:
        if state is not None and state.interrupted_begin is not None:
            reason = stop_at_once(conn, &wait)
        elif options.slow_ns < observed_ns:
            reason = wait_for_result(conn, &wait)
        else:
            reason = wait_observed(conn, &wait)
        if wait.draining:
            reason = with_later(reason)
            if reason is not None and state.is_async:
                raise_again(reason)  # psycopg2 does not wait, and so can't raise it
        if reason is not None:
            hand_over(conn, &wait, reason)
    except BaseException as exc:
        if wait.draining and not state.is_async:
            remember_raised(exc)
        raise
    finally:
        if state is not None:
            state.is_waiting = False
    return 0


cdef object wait_observed(object conn, Wait* wait):
    """Wait, record the wait in a trace, and log it if it took long.

    The ordinary wait runs no Python code for it, and catches nothing, which costs as much as half
    of the record.
    """
    cdef PyObject* result
    cdef int64_t ended_ns
    wait.interrupted_by = NULL
    wait.stops_loop = False
    wait.row = row_known()
    wait.began_ns = monotonic_ns()
    if wait.row == 0 or wait.options.slow_ns >= 0:
        return wait_and_tell(conn, wait)
    result = call_unchecked(wait_for_result, conn, wait)
    ended_ns = monotonic_ns()
    if result is NULL:
        return end_raised(conn, wait, ended_ns)
    reason = <object>result
    Py_DECREF(reason)  # held here now
    if wait.interrupted_by is NULL and trace_again(<ConnectionState>wait.state, wait, ended_ns):
        return reason
    return end_returned(conn, wait, reason, ended_ns)


cdef object wait_and_tell(object conn, Wait* wait):
    """Wait, where Python code names the row of the trace, or may have to log."""
    cdef PyObject* result
    cdef int64_t ended_ns
    failure = None
    try:
        if trace_is_on:
            wait.row = row_here(&wait.stops_loop)
    except BaseException as exc:
        failure = exc
    if failure is not None:
        return end_not_begun(conn, wait, failure)
    result = call_unchecked(wait_for_result, conn, wait)
    ended_ns = monotonic_ns()
    if result is NULL:
        return end_raised(conn, wait, ended_ns)
    reason = <object>result
    Py_DECREF(reason)  # held here now
    return end_returned(conn, wait, reason, ended_ns)


cdef object end_not_begun(object conn, Wait* wait, object interruption):
    """Stop the query, where the code that names a row has raised."""
    reason = failure = None
    try:
        reason = stop_unless_lost(conn, wait, handler_raised(interruption))
    except BaseException as exc:
        failure = exc
    return end_observed(conn, wait, reason, failure, told_of(conn, wait, monotonic_ns()))


cdef object end_raised(object conn, Wait* wait, int64_t ended_ns):
    """Tell of a wait that has raised, and raise that."""
    failure = None
    try:
        raise_pending()
    except BaseException as exc:
        failure = exc
    return end_observed(conn, wait, None, failure, told_of(conn, wait, ended_ns))


cdef object end_returned(object conn, Wait* wait, object reason, int64_t ended_ns):
    """Tell of a wait, and return what it does."""
    return end_observed(conn, wait, reason, None, told_of(conn, wait, ended_ns))


cdef object told_of(object conn, Wait* wait, int64_t ended_ns):
    """Tell of the wait; return what Python code has raised meanwhile, or None."""
    try:
        tell_of_wait(conn, wait, ended_ns)
    except BaseException as exc:
        return exc
    return None


cdef object end_observed(
    object conn, Wait* wait, object reason, object failure, object interruption
):
    """Return or raise what the wait does, or *interruption*, raised when it was over."""
    if isinstance(interruption, Exception):
        PyErr_SetObject(type(interruption), interruption)
        PyErr_WriteUnraisable(log_slow)  # raised, it would cost the connection
        interruption = None
    if interruption is not None:  # Ctrl-C, and the wait is over
        if failure is not None:
            failure = higher(failure, interruption)
        elif not is_prepared(wait) or (<ConnectionState>wait.state).is_async:
            failure = interruption  # there is nothing to keep; or psycopg2 does not wait
        else:
            interruption = begin_stopping(wait, interruption)
            is_exception = isinstance(reason, BaseException)
            reason = higher(reason, interruption) if is_exception else interruption
    if failure is not None:
        raise_again(failure)
    return reason


cdef int tell_of_wait(object conn, Wait* wait, int64_t ended_ns) except -1:
    interrupted_by = None
    if wait.interrupted_by is not NULL:
        interrupted_by = <object>wait.interrupted_by
        Py_DECREF(interrupted_by)  # held here now
    if wait.row > 0:
        trace_wait(conn, <ConnectionState>wait.state, wait, ended_ns)
    if 0 <= wait.options.slow_ns < ended_ns - wait.began_ns:
        token = leave_blocks()  # an expired block must not end the queries of a log handler
        try:
            log_slow(conn, (ended_ns - wait.began_ns) / 1e9)
        finally:
            return_to_blocks(token)
    return 0


cdef object wait_for_result(object conn, Wait* wait):
    """Wait; return what psycopg2's caller is to get in place of the answer, or None."""
    cdef ConnectionState state = <ConnectionState>wait.state
    cdef CopyData copy
    interruption = None
    try:
        if is_prepared(wait):
            if waiters_entered > 0 and is_hub_itself():
                wait_in_hub(conn, wait)
            else:
                wait_until_ok(conn, wait)
            state.is_failed = False
            if has_left_copy(conn, state):
                wait.has_ended_stream = is_stream(state)
                if wait.has_ended_stream and state.expects_stream:
                    wait.has_ended_stream = False
                    return None
                copy = None if wait.has_ended_stream else copy_expected(state)
                if copy is None:
                    abandon_copy(conn, wait)
                else:
                    transfer_copy(conn, wait, copy)
                if wait.has_ended_stream:  # psycopg2 takes that for a success
                    return ProgrammingError(
                        "execute() can't begin a replication stream: use start_replication() of "
                        "a greenwait.LogicalReplicationConnection's cursor"
                    )
        elif state is None:
            wait_until_ok(conn, wait)
        else:
            wait_until_connected(conn, wait)
    except BaseException as exc:
        interruption = exc
    # Not in the except block, where it would become the context of everything raised.
    if interruption is None:
        return None
    if wait.row > 0:
        kind = type(interruption)
        if kind is handler_raised:
            kind = type(raised_by(interruption))
        wait.interrupted_by = <PyObject*>kind
        Py_INCREF(kind)
        wait.interrupted_ns = monotonic_ns()
    return stop_unless_lost(conn, wait, interruption)


cdef object stop_unless_lost(object conn, Wait* wait, object interruption):
    """Stop the query; raise *interruption* if it is not a query's wait."""
    if is_prepared(wait):
        return stop_and_log(conn, wait, interruption)
    failure = no_query_error(wait, interruption)
    if isinstance(interruption, deadline_passed):
        wait.cancels, wait.has_given_up = 0, False
        log_stopping(pid_of(conn, wait), wait, interruption, None, failure)
    raise_again(failure)


cdef object stop_at_once(object conn, Wait* wait):
    """Stop a query whose BEGIN was interrupted; return what psycopg2's caller is to get."""
    cdef ConnectionState state = <ConnectionState>wait.state
    exc, state.interrupted_begin = state.interrupted_begin, None
    return stop_and_log(conn, wait, handler_raised(exc))


cdef int wait_in_hub(object conn, Wait* wait) except -1:
    """Wait in a framework's hub greenlet, which stops all others of the thread.

    A finalizer's rollback may run there. It is given no more than the grace: closing the connection
    ends the transaction too. Any other statement has no such limit.
    """
    cdef Wait grace = phase_of(wait, after(wait.options.grace_ns))
    try:
        return wait_until_ok(conn, &grace)
    except deadline_passed:
        if monotonic_ns() >= wait.deadline_ns:
            raise
    wait.is_answered = grace.is_answered
    interruption = find_ending(wait, None)
    if interruption is not None:
        raise interruption
    if wait.ending == ROLLBACK:
        raise OperationalError(
            f"the server has not answered a rollback within {wait.options.grace_ns / 1e9:g} s. "
            "It was called in the event loop's own greenlet, by a finalizer for instance, and "
            "stops all others there. The connection is closed, which ends the transaction"
        )
    return wait_until_ok(conn, wait)


cdef timeout_block set_deadline(Wait* wait):
    """Set the wait's deadline; return the block that sets it, or None if the callback does."""
    cdef bint is_connecting = wait.state is not <PyObject*>None and not is_prepared(wait)
    cdef timeout_block block = nearest_block() if blocks_entered > 0 else None
    cdef int64_t own_ns
    if block is not None:
        wait.deadline_ns = block.deadline_ns
    if wait.options.timeout_ns >= 0 and not is_connecting:
        own_ns = after(wait.options.timeout_ns)
        if own_ns < wait.deadline_ns:
            wait.deadline_ns = own_ns
            block = None
    return block


# -- A query is stopped

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
    return connection_info.__get__(conn).backend_pid or None


cdef object log_stopping(
    object pid, Wait* wait, object interruption, object reason, object failure
):
    """Log how it was stopped; then raise *failure* if that is not None, or return *reason*.

    What is raised while the record is written, by a signal handler say, is an interrupt too.
    """
    cdef timeout_block block = <timeout_block>wait.block
    cdef bint is_deadline = isinstance(interruption, deadline_passed)
    if is_deadline:
        why = deadline_of(block, wait.options.timeout_ns)
        if block is not None:
            block.is_logged = True
    else:
        why = type(raised_by(interruption)).__name__
    second = None
    token = leave_blocks()  # an expired block must not end the queries of a log handler
    try:
        log_stopped(
            pid, why, wait.cancels,
            is_deadline and not (reason is None and failure is None),
            wait.options.grace_ns / 1e9 if wait.has_given_up else None,
        )
    except BaseException as exc:
        second = exc
    return_to_blocks(token)
    if second is not None:
        if failure is not None:
            failure = higher(failure, second)
        elif (<ConnectionState>wait.state).is_async:
            failure = second  # psycopg2 does not wait, and so can't raise it
        else:
            wait.deadline_ns = after(wait.options.grace_ns)
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
    wait.cancels += 1
    complaints.clear()
    cdef Wait sending = wait[0]
    sending.state = <PyObject*>None
    first = later = None
    cdef int64_t began_ns = monotonic_ns() if wait.row > 0 else 0
    try:
        request = cancel_request(conn)
        while request is not None:
            try:
                wait_until_ok(request, &sending)
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


# -- An exception is handed over to psycopg2

cdef int hand_over(object conn, Wait* wait, object reason) except -1:
    """Make psycopg2 raise *reason*; raise it here if it can't, which costs the connection."""
    cdef ConnectionState state = <ConnectionState>wait.state
    cdef bint is_refused = False
    failure = None
    if wait.has_ended_stream or not has_error(conn):
        if state.keeps_interrupt:
            state.kept = reason if state.kept is None else higher(state.kept, reason)
            return 0
        if is_begin(conn, wait):
            return deliver_in_query(reason, state)
        if wait.ending == ROLLBACK and is_postponed(reason):
            return 0
        try:
            is_refused = have_refused(conn, wait)
        except BaseException as exc:
            failure = exc
        if failure is not None:
            wait.has_given_up = isinstance(failure, deadline_passed)
            wait.cancels = 0
            failure = given_up_error(conn, wait, reason, failure, [])
            log_stopping(pid_of(conn, wait), wait, reason, reason, failure)
        reason = with_later(reason)
        if not is_refused:
            raise_again(reason)
    return deliver(reason, wait.is_deadline and isinstance(reason, query_timeout), is_refused)


cdef bint is_postponed(object reason) except -1:
    """Will the next wait raise it? Then a rollback succeeds, and leaves no transaction open."""
    waiter = waiter_here() if waiters_entered > 0 else None
    return waiter is not None and (<Waiter>waiter).postpone(reason)
