"""A wait, and what psycopg2's caller gets in place of the answer if it is interrupted.

A deadline, a signal handler that raises, an exception thrown into the greenlet that waits:
each is an exception that comes out of the wait loop. Then ``_stop`` ends the query, and psycopg2
raises the exception in the place of the server's error. Where the server has reported success, it
is sent a statement that it refuses, so that there is an error. Raised from here, the exception
would cost the connection; that is left for the cases in which the connection is of no use any more.
"""

from cpython.exc cimport PyErr_SetObject, PyErr_WriteUnraisable
from cpython.object cimport PyObject, PyObject_TypeCheck, PyTypeObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport int64_t

from greenwait._connecting cimport wait_until_connected
from greenwait._copy cimport has_left_copy, is_stream
from greenwait._copy_data cimport CopyData, copy_expected, transfer_copy
from greenwait._deadline cimport (
    after,
    blocks_entered,
    call_outside_blocks,
    learn_delegate,
    nearest_block,
    timeout as timeout_block,
)
from greenwait._delivery cimport deliver, deliver_in_query, forget_left, may_be_left, raise_again
from greenwait._options cimport Options
from greenwait._outcome cimport given_up_error, raised_by, with_later
from greenwait._poll cimport Wait, check_pollable, is_prepared, phase_of, wait_until_ok
from greenwait._psycopg.libpq cimport PQTRANS_IDLE
from greenwait._psycopg.state cimport ROLLBACK, ConnectionState, is_in_query, prepare, state_of
from greenwait._raised cimport raised_count, remember_raised, take_raised
from greenwait._ranks cimport higher
from greenwait._refusal cimport has_error, have_refused, is_begin
from greenwait._stop cimport (
    abandon_copy,
    begin_stopping,
    find_ending,
    log_stopping,
    pid_of,
    stop_and_log,
    stop_unless_lost,
)
from greenwait._system.clock cimport NO_DEADLINE, monotonic_ns
from greenwait._trace cimport observed_ns, row_here, row_known, trace_again, trace_is_on, trace_wait
from greenwait._waiter cimport Waiter, is_hub_itself, waiter_here, waiters_entered

from greenwait import _errors
from greenwait._errors import DeadlinePassed, HandlerRaised
from greenwait._psycopg import psycopg2
from greenwait._slow_log import log_slow_wait

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
cdef object OperationalError = psycopg2.OperationalError
cdef object ProgrammingError = psycopg2.ProgrammingError
cdef object query_timeout = _errors.QueryTimeout
cdef object deadline_passed = DeadlinePassed
cdef object handler_raised = HandlerRaised
cdef object log_slow = log_slow_wait


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
    cdef bint is_ordinary
    wait.interrupted_by = NULL
    wait.stops_loop = False
    wait.row = row_known()
    is_ordinary = wait.row > 0 and wait.options.slow_ns < 0
    wait.began_ns = monotonic_ns()
    if not is_ordinary:
        failure = find_row(wait)
        if failure is not None:
            return end_not_begun(conn, wait, failure)
    result = call_unchecked(wait_for_result, conn, wait)
    ended_ns = monotonic_ns()
    if result is NULL:
        return end_raised(conn, wait, ended_ns)
    reason = <object>result
    Py_DECREF(reason)  # held here now
    if (
        is_ordinary
        and wait.interrupted_by is NULL
        and trace_again(<ConnectionState>wait.state, wait, ended_ns)
    ):
        return reason
    return end_observed(conn, wait, reason, None, told_of(conn, wait, ended_ns))


cdef object find_row(Wait* wait):
    """Find the wait's row of the trace; return what Python code that names it raises, or None."""
    try:
        if trace_is_on:
            wait.row = row_here(&wait.stops_loop)
    except BaseException as exc:
        return exc
    return None


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


cdef object told_of(object conn, Wait* wait, int64_t ended_ns):
    """Tell of the wait; return what Python code has raised meanwhile, or None."""
    interrupted_by = raised = None
    if wait.interrupted_by is not NULL:
        interrupted_by = <object>wait.interrupted_by
        Py_DECREF(interrupted_by)  # held here now
    if wait.row > 0:
        try:
            trace_wait(conn, <ConnectionState>wait.state, wait, ended_ns)
        except BaseException as exc:
            raised = exc
    if raised is None and 0 <= wait.options.slow_ns < ended_ns - wait.began_ns:
        raised = call_outside_blocks(log_slow, (conn, (ended_ns - wait.began_ns) / 1e9))
    return raised


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
