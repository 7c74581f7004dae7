"""What if a wait is interrupted? Cancel on the server, drain, deliver, keep the connection.

A deadline, a signal handler that raises, an exception thrown into the greenlet that waits:
each is an exception that comes out of the wait loop. Then the query is cancelled, its end
is waited for as long as the grace lasts, and the exception is on its way to psycopg2's
caller. Raised from here, it would cost the connection; that is left for the cases in
which the connection is of no use any more.

The end of a transaction is not cancelled: what became of it is more important than a
second. Nor is a rollback cancelled by the deadline that made it necessary.
"""

from cpython.exc cimport PyErr_SetObject, PyErr_WriteUnraisable
from cpython.object cimport PyObject_TypeCheck, PyTypeObject
from cpython.pythread cimport PyThread_get_thread_ident
from libc.stdint cimport int64_t

from greenwait._cancel cimport cancel_request
from greenwait._connecting cimport wait_until_connected
from greenwait._copy cimport end_copy, has_left_copy
from greenwait._deadline cimport (
    after,
    blocks_entered,
    checked_seconds,
    learn_delegate,
    leave_blocks,
    nearest_block,
    return_to_blocks,
    timeout as timeout_block,
    to_ns,
)
from greenwait._delivery cimport deliver, pending_count, take_undelivered
from greenwait._known cimport (
    COMMIT,
    NO_ENDING,
    ROLLBACK,
    Ending,
    Known,
    is_in_query,
    is_in_transaction,
    known,
    prepare,
)
from greenwait._monotonic cimport NO_DEADLINE, monotonic_ns
from greenwait._poll cimport (
    POLL_OK,
    Options,
    Wait,
    check_pollable,
    wait_until_ok,
    wait_until_sent,
)
from greenwait._sleep cimport POLLER_POLL, WARN_IN_DEBUG_MODE
from greenwait._stats cimport counters

from greenwait import _errors, _psycopg2
from greenwait._caller import ending_of_caller
from greenwait._sleep import DeadlinePassed, HandlerRaised
from greenwait._slow import log_slow_wait

__all__ = ["cancel"]

# Module-level C variables outlive the module's dict: a query from a __del__ at
# interpreter exit still finds them.
cdef type connection_type = _psycopg2.connection
cdef object connection_info = connection_type.info
cdef object Psycopg2Error = _psycopg2.Error
cdef object OperationalError = _psycopg2.OperationalError
cdef object InterfaceError = _psycopg2.InterfaceError
cdef object ServerHasCanceled = _psycopg2.QueryCanceled
cdef object in_doubt = _errors.in_doubt
cdef object query_timeout = _errors.QueryTimeout
cdef object deadline_passed = DeadlinePassed
cdef object handler_raised = HandlerRaised
cdef object ask_caller = ending_of_caller
cdef object log_slow = log_slow_wait

# From one cancel to the next, as long as the query goes on; then twice as long, and so on.
cdef int64_t SHORTEST_PAUSE_NS = 10_000_000

cdef Options default_options
default_options.poller = POLLER_POLL
default_options.spin_auto = False
default_options.spin_ns = 0
default_options.slow_ns = -1
default_options.timeout_ns = -1
default_options.grace_ns = 1_000_000_000
default_options.on_event_loop = WARN_IN_DEBUG_MODE


cdef int wait_or_stop(object conn, const Options* options) except -1:
    """Wait for what *conn* waits for; stop that when the wait is interrupted."""
    cdef Known connection = None
    cdef timeout_block block = None
    cdef bint is_query = False
    cdef bint in_any_case = False
    cdef Wait wait
    if PyObject_TypeCheck(conn, <PyTypeObject*>connection_type):
        connection = known(conn)
        is_query = connection.is_prepared or is_in_query(conn)
        if is_query and not connection.is_prepared:
            prepare(connection, conn)
            if not connection.is_async:
                learn_delegate()
    else:
        check_pollable(conn)
    wait.options = options
    wait.deadline_ns = NO_DEADLINE
    wait.is_answered = wait.is_stopping = False
    if blocks_entered > 0 or options.timeout_ns >= 0:
        block = set_deadline(&wait, connection is None or is_query)
    if connection is not None:
        connection.is_waiting = True
    try:
        if options.slow_ns < 0:
            reason = drive(conn, connection, is_query, &wait, block, &in_any_case)
        else:
            reason = drive_and_tell(conn, connection, is_query, &wait, block, &in_any_case)
        if reason is not None:
            deliver(reason, in_any_case)  # last: the next Python code may be struck by it
    finally:
        if connection is not None:
            connection.is_waiting = False
    return 0


cdef object drive_and_tell(
    object conn, Known connection, bint is_query, Wait* wait, timeout_block block,
    bint* in_any_case,
):
    """Say so if it took long."""
    cdef int64_t waited_ns, began_ns = monotonic_ns()
    failure = reason = None
    try:
        reason = drive(conn, connection, is_query, wait, block, in_any_case)
    except BaseException as exc:
        failure = exc
    waited_ns = monotonic_ns() - began_ns
    if waited_ns > wait.options.slow_ns:
        token = leave_blocks()  # a handler that queries is not to be struck by an expired one
        try:
            log_slow(conn, waited_ns / 1e9)
        except Exception as exc:
            PyErr_SetObject(type(exc), exc)
            PyErr_WriteUnraisable(log_slow)  # raised, it would cost the connection
        except BaseException as exc:  # Ctrl-C, and the wait is over
            if failure is None:
                in_any_case[0] = True
                exc.__context__, reason = reason, exc
        finally:
            return_to_blocks(token)
    if failure is not None:
        raise failure
    return reason


cdef object drive(
    object conn, Known connection, bint is_query, Wait* wait, timeout_block block,
    bint* in_any_case,
):
    """Wait; return what has stopped the query, if psycopg2's caller is to get that, or None."""
    interruption = None
    try:
        if pending_count > 0:
            raise_undelivered()
        if is_query or connection is None:
            wait_until_ok(conn, connection, wait)
        else:
            wait_until_connected(conn, connection, wait)
    except BaseException as exc:
        interruption = exc
    # From here on, so that nothing raised has that for its context.
    if interruption is None:
        if is_query:
            connection.is_failed = False
            if has_left_copy(conn, connection):
                abandon_copy(conn, connection, wait)
    elif is_query:
        return stop(conn, connection, wait, block, interruption, in_any_case)
    else:
        raise without_query(connection, wait, block, interruption)
    return None


cdef timeout_block set_deadline(Wait* wait, bint is_query):
    """Set the wait's deadline; return the block whose it is, or None if it is the callback's."""
    cdef timeout_block block = nearest_block() if blocks_entered > 0 else None
    cdef int64_t own_ns
    if block is not None:
        wait.deadline_ns = block.deadline_ns
    if is_query and wait.options.timeout_ns >= 0:
        own_ns = after(wait.options.timeout_ns)
        if own_ns < wait.deadline_ns:
            wait.deadline_ns = own_ns
            block = None
    return block


cdef int raise_undelivered() except -1:
    """Raise what interrupted this greenlet's last wait: psycopg2 waits again, not knowing of it."""
    exc = take_undelivered()
    if exc is not None:
        raise handler_raised(exc)
    return 0


# -- A query is stopped

cdef object stop(
    object conn, Known connection, Wait* wait, timeout_block block, object interruption,
    bint* in_any_case,
):
    """End the query; raise what costs the connection, or return what does not."""
    cdef Ending ending = NO_ENDING
    for _ in range(2):
        try:
            ending = ending_of(connection)
            break
        except BaseException as exc:  # an interrupt while the caller's code is looked at
            interruption = handler_raised(exc)
    cdef bint is_deadline = isinstance(interruption, deadline_passed)
    if isinstance(interruption, handler_raised):
        reason = interruption.exception
    elif is_deadline:
        reason = timed_out(wait, block, "The connection is open; rollback() ends the transaction")
    elif isinstance(interruption, Psycopg2Error):
        raise lost(connection, ending, interruption)
    else:
        reason = interruption
    wait.deadline_ns = after(wait.options.grace_ns)
    wait.is_stopping = True
    complaints = []
    failure = None
    try:
        drain(conn, connection, wait, ending, complaints)
    except BaseException as exc:
        failure = exc
    if failure is not None:
        if is_deadline:
            count_timeout(block)
        raise given_up(conn, connection, wait, ending, reason, is_deadline, failure, complaints)
    connection.is_failed = False
    if has_left_copy(conn, connection):
        abandon_copy(conn, connection, wait)
    if connection.is_async:
        if not is_deadline:
            raise reason
        return None
    in_any_case[0] = not is_deadline
    if connection_info.__get__(conn).error_message:
        connection.is_failed = is_in_transaction(conn)
        if is_deadline:
            count_timeout(block)
        return reason
    return None if is_deadline else reason  # a result that comes as the deadline passes stands


cdef int drain(
    object conn, Known connection, Wait* wait, Ending ending, list complaints
) except -1:
    """Cancel the query, if it is one to be cancelled, and wait for its end."""
    cdef int64_t grace_ns = wait.deadline_ns
    cdef int64_t pause_ns = SHORTEST_PAUSE_NS // 2
    cdef int64_t began_ns
    # The server takes no notice of a cancel before it has the whole statement.
    if wait_until_sent(conn, connection, wait) == POLL_OK:
        return 0
    wait.is_answered = True
    if ending != NO_ENDING or (connection.is_failed and is_in_transaction(conn)):
        return wait_until_ok(conn, connection, wait)
    while True:
        began_ns = monotonic_ns()
        send_cancel(conn, wait, complaints)
        pause_ns = max(2 * pause_ns, monotonic_ns() - began_ns)
        wait.deadline_ns = min(grace_ns, after(pause_ns))
        try:
            return wait_until_ok(conn, connection, wait)
        except deadline_passed:
            # One that comes before the server has begun with the query stops nothing.
            if monotonic_ns() >= grace_ns:
                raise
        wait.deadline_ns = grace_ns


cdef int send_cancel(object conn, Wait* wait, list complaints) except -1:
    """Cancel what *conn* is doing: when this returns, the server process has been told."""
    counters.cancels += 1
    try:
        request = cancel_request(conn)
        if request is not None:
            wait_until_ok(request, None, wait)
    except Psycopg2Error as exc:  # refused: the query may end by itself
        complaints[:] = [str(exc).strip()]
    return 0


cdef int abandon_copy(object conn, Known connection, Wait* wait) except -1:
    """End the COPY that ``execute()`` has begun, and leave the rest to psycopg2."""
    wait.deadline_ns = after(wait.options.grace_ns)
    failure = None
    try:
        send_cancel(conn, wait, [])
        end_copy(conn, connection, wait)
    except BaseException as exc:
        failure = exc
    if isinstance(failure, deadline_passed):
        raise OperationalError(
            "execute() has begun a COPY, which did not end within "
            f"{wait.options.grace_ns / 1e9:g} s; the connection is closed, use copy_expert()"
        )
    if failure is not None:
        raise failure.exception if isinstance(failure, handler_raised) else failure
    return 0


cdef Ending ending_of(Known connection) except *:
    """Is it the end of a transaction that is waited for?"""
    if connection.ending != NO_ENDING and connection.ending_thread == PyThread_get_thread_ident():
        return connection.ending
    called = None if connection.is_async else ask_caller()
    return COMMIT if called == "commit" else ROLLBACK if called == "rollback" else NO_ENDING


# -- What is raised: these return it

cdef object timed_out(Wait* wait, timeout_block block, str state):
    cdef int64_t limit_ns = wait.options.timeout_ns
    name = f"WaitCallback(timeout={limit_ns / 1e9:g})" if block is None else repr(block)
    exc = query_timeout(f"the query was cancelled: the deadline of {name} has passed. {state}")
    exc.timeout = block
    return exc


cdef int count_timeout(timeout_block block) noexcept:
    counters.timeouts += 1
    if block is not None:
        block.has_expired = True
    return 0


cdef object without_query(
    Known connection, Wait* wait, timeout_block block, object interruption
):
    """While connecting, or before that: there is nothing to cancel, and nothing to keep."""
    if isinstance(interruption, handler_raised):
        return interruption.exception
    if not isinstance(interruption, deadline_passed):
        return interruption
    count_timeout(block)
    exc = timed_out(
        wait,
        block,
        "Nothing had been sent to the server" if connection is None
        else "It was still connecting; nothing is left of that",
    )
    exc.__setstate__({"pgcode": "57014"})
    return exc


cdef object block_has_expired(timeout_block block):
    """Return what a wait that is not for the server raises then."""
    cdef Wait wait
    wait.options = &default_options
    return without_query(None, &wait, block, deadline_passed())


cdef object lost(Known connection, Ending ending, object exc):
    """The connection was lost, which nobody caused here."""
    if ending == COMMIT and isinstance(exc, OperationalError):
        return in_doubt("the connection was lost during the commit", exc)
    return exc


cdef object given_up(
    object conn, Known connection, Wait* wait, Ending ending, object reason, bint is_deadline,
    object failure, list complaints,
):
    """The query could not be stopped, or a second interrupt does not want to wait for that."""
    cdef str grace = f"{wait.options.grace_ns / 1e9:g} s"
    if isinstance(failure, Psycopg2Error):
        if connection.is_async and not conn.closed:  # poll() raises the server's answer
            return answered(reason, is_deadline, failure)
        what = "the connection was lost during the commit"
    elif isinstance(failure, deadline_passed):
        why = f" (the cancel request failed: {complaints[0]})" if complaints else ""
        failure = OperationalError(
            f"the server has not answered within {grace} of the "
            f"{'deadline' if is_deadline else 'interrupt'}{why}. The connection is closed; "
            "the server may still be at work on the query, so look before you repeat it"
        )
        what = f"the commit was not answered within {grace} of an interrupt or a deadline"
    else:
        what = None
        failure = failure.exception if isinstance(failure, handler_raised) else failure
    if connection.is_async:
        conn.close()  # else psycopg2 does, because of what is raised
    if what is None:
        if ending == COMMIT:
            failure.__cause__ = in_doubt("a second interrupt ended the wait for a commit", reason)
        return failure
    if ending == COMMIT:
        return in_doubt(what, failure if is_deadline else reason)
    if is_deadline:
        return failure
    if reason.__cause__ is None:
        reason.__cause__ = failure
    return reason


cdef object answered(object reason, bint is_deadline, object answer):
    """What the caller of an async connection's wait gets, the server having ended the query."""
    if not is_deadline:
        return reason
    if not isinstance(answer, ServerHasCanceled):
        return answer
    reason.__setstate__({"pgerror": answer.pgerror, "pgcode": answer.pgcode})
    return reason


# -- A public name

def cancel(conn, /, timeout=1.0):
    """Cancel what *conn* is doing on the server.

    :param conn: a psycopg2 connection.
    :param timeout: seconds to wait for the server to have taken the request; an outer
        ``greenwait.timeout()`` may be nearer.
    :raises psycopg2.OperationalError: the server refused the request, or did not take it
        in time. Then it may still do so, and stop whatever the connection is doing by then.
        Or the connection is still being made, and there is nothing to cancel.
    :raises QueryTimeout: an outer ``greenwait.timeout()`` has expired; so it may be then too.
    :raises psycopg2.InterfaceError: the connection is closed.
    :raises TypeError: *conn* is no psycopg2 connection, or *timeout* no number.
    :raises ValueError: *timeout* is negative or not finite.

    Unlike ``conn.cancel()`` it does not block other threads, and is encrypted as the
    connection is (libpq 17 and later; ``python -m greenwait`` says what this one can do).
    When it returns, the server process has been told: a later query is safe from it. The
    query that was cancelled raises psycopg2's ``QueryCanceled``. If there was none, nothing
    happens.

    May be called from any thread or greenlet, also while another one waits for the query;
    not during the connection's ``close()``. A signal handler's exception ends the wait.
    """
    cdef timeout_block block = nearest_block() if blocks_entered > 0 else None
    cdef Wait wait
    seconds = checked_seconds("timeout", timeout, "")
    if not PyObject_TypeCheck(conn, <PyTypeObject*>connection_type):
        raise TypeError(f"cancel() takes a psycopg2 connection, not {type(conn).__name__!r}")
    if conn.closed:
        raise InterfaceError("there is nothing to cancel: the connection is closed")
    if not is_in_query(conn):
        raise OperationalError("there is nothing to cancel: the connection is still connecting")
    wait.options = &default_options
    wait.deadline_ns = after(to_ns(seconds))
    wait.is_answered = wait.is_stopping = False
    if block is not None:
        wait.deadline_ns = min(wait.deadline_ns, block.deadline_ns)
    counters.cancels += 1
    request = cancel_request(conn)
    if request is None:
        return
    try:
        wait_until_ok(request, None, &wait)
    except deadline_passed:
        failure = OperationalError(
            f"the server has not taken the cancel request within {seconds:g} s. It may yet, and "
            "stop whatever the connection does then: wait for its query before you use it again"
        )
        if block is not None and wait.deadline_ns == block.deadline_ns:
            raise block_has_expired(block) from None
        raise failure from None
    except handler_raised as exc:
        raise exc.exception from None
