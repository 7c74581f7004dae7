"""What if a wait is interrupted? Cancel on the server, drain, deliver, keep the connection.

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
from cpython.object cimport PyObject_TypeCheck, PyTypeObject
from cpython.pythread cimport PyThread_get_thread_ident
from libc.stdint cimport int64_t

from greenwait._cancel cimport cancel_request
from greenwait._connecting cimport shut_down, wait_until_connected
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
from greenwait._delivery cimport (
    deliver,
    deliver_in_query,
    forget_left,
    may_be_left,
    raise_again,
    remember_raised,
)
from greenwait._known cimport (
    COMMIT,
    NO_ENDING,
    ROLLBACK,
    TPC_BEGIN,
    Known,
    is_in_query,
    is_in_transaction,
    is_ready,
    known,
    pgconn_of,
    prepare,
)
from greenwait._libpq cimport (
    PQTRANS_ACTIVE,
    PQTRANS_IDLE,
    PQTRANS_INTRANS,
    PGconn,
    can_refuse,
    libpq,
)
from greenwait._monotonic cimport NO_DEADLINE, monotonic_ns
from greenwait._poll cimport (
    POLL_OK,
    POLL_WRITE,
    Options,
    Wait,
    check_pollable,
    sleep_for,
    wait_until_ok,
    wait_until_sent,
)
from greenwait._sleep cimport POLLER_POLL, WARN_IN_DEBUG_MODE
from greenwait._stats cimport counters
from greenwait._waiter cimport Waiter, is_hub_itself, waiter_here, waiters_entered

from greenwait import _errors, _psycopg2
from greenwait._caller import ending_of_caller
from greenwait._errors import DeadlinePassed, HandlerRaised
from greenwait._slow import log_slow_wait

__all__ = ["cancel"]

# Module-level C variables outlive the module's dict: a query from a __del__ at
# interpreter exit still finds them.
cdef type connection_type = _psycopg2.connection
cdef object connection_info = connection_type.info
cdef object connection_autocommit = connection_type.autocommit
cdef object connection_encoding = connection_type.encoding
cdef object Psycopg2Error = _psycopg2.Error
cdef object OperationalError = _psycopg2.OperationalError
cdef object InterfaceError = _psycopg2.InterfaceError
cdef object ServerHasCanceled = _psycopg2.QueryCanceled
cdef object higher = _errors.higher
cdef object in_doubt = _errors.in_doubt
cdef object lost_commit = _errors.lost_commit
cdef object query_timeout = _errors.QueryTimeout
cdef object deadline_passed = DeadlinePassed
cdef object handler_raised = HandlerRaised
cdef object ask_caller = ending_of_caller
cdef object log_slow = log_slow_wait

# From one cancel to the next, as long as the query goes on. One that the server has not taken is
# repeated soon; one that it has may have come before the query had begun, or waits in a pooler.
cdef int64_t PAUSE_AFTER_FAILURE_NS = 10_000_000
cdef int64_t PAUSE_NS = 50_000_000

# PQstatus()
cdef int CONNECTION_BAD = 1

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
    cdef Wait wait
    if may_be_left:
        forget_left()
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
    wait.is_answered = wait.is_stopping = wait.is_deadline = False
    if blocks_entered > 0 or options.timeout_ns >= 0:
        block = set_deadline(&wait, connection is None or is_query)
    if connection is not None:
        connection.is_waiting = True
        wait.was_idle = connection.transaction_status == PQTRANS_IDLE
    try:
        if connection is not None and connection.interrupted_begin is not None:
            reason = stop_at_once(conn, connection, &wait, block)
        elif options.slow_ns < 0:
            reason = drive(conn, connection, is_query, &wait, block)
        else:
            reason = drive_and_tell(conn, connection, is_query, &wait, block)
        if wait.is_stopping:
            reason = with_later(reason)
            if reason is not None and connection.is_async:
                raise_again(reason)  # psycopg2 is not told
        if reason is not None:
            hand_over(conn, connection, &wait, reason)
    except BaseException as exc:
        if wait.is_stopping and not connection.is_async:
            remember_raised(exc)
        raise
    finally:
        if connection is not None:
            connection.is_waiting = False
    return 0


cdef object drive_and_tell(
    object conn, Known connection, bint is_query, Wait* wait, timeout_block block
):
    """Say so if it took long."""
    cdef int64_t waited_ns, began_ns = monotonic_ns()
    failure = reason = interruption = None
    try:
        reason = drive(conn, connection, is_query, wait, block)
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
            interruption = exc
        finally:
            return_to_blocks(token)
    if interruption is not None:
        if failure is not None:
            failure = higher(failure, interruption)
        elif not is_query or connection.is_async:
            failure = interruption  # there is nothing to keep; or psycopg2 is not told
        else:
            interruption = begin_stopping(connection, wait, interruption)
            is_exception = isinstance(reason, BaseException)
            reason = higher(reason, interruption) if is_exception else interruption
    if failure is not None:
        raise_again(failure)
    return reason


cdef object drive(
    object conn, Known connection, bint is_query, Wait* wait, timeout_block block
):
    """Wait; return what has stopped the query, if psycopg2's caller is to get that, or None."""
    interruption = None
    try:
        if is_query:
            if waiters_entered > 0 and is_hub_itself():
                wait_in_hub(conn, connection, wait)
            else:
                wait_until_ok(conn, connection, wait)
            connection.is_failed = False
            if has_left_copy(conn, connection):
                abandon_copy(conn, connection, wait)
        elif connection is None:
            wait_until_ok(conn, None, wait)
        else:
            wait_until_connected(conn, connection, wait)
    except BaseException as exc:
        interruption = exc
    # From here on, so that nothing raised has that for its context.
    if interruption is None:
        return None
    if is_query:
        return stop(conn, connection, wait, block, interruption)
    raise_again(without_query(connection, wait, block, interruption))


cdef object stop_at_once(object conn, Known connection, Wait* wait, timeout_block block):
    """Stop a query whose BEGIN was interrupted; return what has stopped it."""
    exc, connection.interrupted_begin = connection.interrupted_begin, None
    return stop(conn, connection, wait, block, handler_raised(exc))


cdef int wait_in_hub(object conn, Known connection, Wait* wait) except -1:
    """Wait in the greenlet of a framework's hub, which stops all others of the thread.

    A finalizer's rollback may come to that. It has the grace and no more: closing the connection
    ends the transaction too. Any other statement takes as long as it takes.
    """
    cdef int64_t deadline_ns = wait.deadline_ns
    wait.deadline_ns = min(deadline_ns, after(wait.options.grace_ns))
    try:
        return wait_until_ok(conn, connection, wait)
    except deadline_passed:
        if monotonic_ns() >= deadline_ns:
            raise
    interruption = find_ending(connection, wait, None)
    if interruption is not None:
        raise interruption
    if wait.ending == ROLLBACK:
        raise OperationalError(
            f"the server has not answered a rollback within {wait.options.grace_ns / 1e9:g} s. "
            "It was called in the event loop's own greenlet, by a finalizer for instance, and "
            "stops all others there. The connection is closed, which ends the transaction"
        )
    wait.deadline_ns = deadline_ns
    return wait_until_ok(conn, connection, wait)


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


# -- A query is stopped

cdef object stop(
    object conn, Known connection, Wait* wait, timeout_block block, object interruption
):
    """End the query; raise what costs the connection, or return what does not."""
    cdef bint is_deadline
    interruption = begin_stopping(connection, wait, interruption)
    is_deadline = isinstance(interruption, deadline_passed)
    reason = failure = None
    if isinstance(interruption, handler_raised):
        reason = interruption.exception
    elif isinstance(interruption, Psycopg2Error):
        return lost(conn, connection, wait, interruption)
    elif not is_deadline:
        reason = interruption
    if not (connection.is_async or is_active(conn)):
        # It was not psycopg2 that called: it would have asked the server for something.
        raise_again(timed_out(wait, block, "The server was asked for nothing") if is_deadline
                    else reason)
    complaints = []
    try:
        drain(conn, connection, wait, complaints)
        connection.is_failed = False
        if has_left_copy(conn, connection):
            abandon_copy(conn, connection, wait)
    except BaseException as exc:
        failure = exc
    if failure is not None:
        if is_deadline:
            count_timeout(block)
        raise_again(given_up(conn, connection, wait, block, reason, failure, complaints))
    if connection.is_async:
        if not is_deadline:
            raise_again(reason)
        return None
    if not is_deadline:
        connection.is_failed = has_error(conn) and is_in_transaction(conn)
        return reason
    if not has_error(conn):
        return None  # a result that comes as the deadline passes stands
    connection.is_failed = is_in_transaction(conn)
    count_timeout(block)
    wait.is_deadline = True
    return timed_out(wait, block, "The connection is open; rollback() ends the transaction")


cdef object begin_stopping(Known connection, Wait* wait, object interruption):
    """Give the server the grace from now on; return what interrupts the wait."""
    wait.deadline_ns = after(wait.options.grace_ns)
    wait.is_stopping = True
    return find_ending(connection, wait, interruption)


cdef object find_ending(Known connection, Wait* wait, object interruption):
    """Find out whether the end of a transaction is waited for; return what interrupts the wait.

    That may be another exception, which comes as the caller's code is looked at.
    """
    wait.ending, wait.is_two_phase = NO_ENDING, False
    if connection.ending != NO_ENDING and connection.ending_thread == PyThread_get_thread_ident():
        if connection.ending == TPC_BEGIN:
            wait.is_two_phase = True
        else:
            wait.ending = connection.ending
        return interruption
    called = None
    for _ in range(0 if connection.is_async else 3):
        try:
            called = ask_caller()
            break
        except BaseException as exc:
            second = exc
        if isinstance(interruption, handler_raised):
            second = higher(interruption.exception, second)
        elif not (
            interruption is None or isinstance(interruption, (deadline_passed, Psycopg2Error))
        ):
            second = higher(interruption, second)
        interruption = handler_raised(second)
    if called is not None:
        wait.is_two_phase = called.startswith("tpc_")
        if called not in ("tpc_begin", "tpc_prepare"):
            wait.ending = COMMIT if called.endswith("commit") else ROLLBACK
    return interruption


cdef object later_than(object reason):
    """Return an interrupt that has left the drain to its end, or None.

    A job's cancel() does, and a task's. Raised in the next wait, it would come after a statement.
    """
    cdef Waiter waiter = waiter_here() if waiters_entered > 0 else None
    return None if waiter is None else waiter.take_interruption(reason)


cdef object with_later(object reason):
    """Return what is to be raised, *reason* and what has come since considered."""
    later = later_than(reason)
    if later is None:
        return reason
    return later if reason is None else higher(reason, later)


cdef bint is_active(object conn) except -1:
    """Is the server at work for the connection, or is there an answer still to be read?"""
    return connection_info.__get__(conn).transaction_status == PQTRANS_ACTIVE


cdef bint has_error(object conn) except -1:
    """Will psycopg2 find an error in the server's answer?"""
    return bool(connection_info.__get__(conn).error_message)


cdef int drain(object conn, Known connection, Wait* wait, list complaints) except -1:
    """Cancel the query, if it is one to be cancelled, and wait for its end."""
    cdef int64_t grace_ns = wait.deadline_ns
    cdef int64_t pause_ns = 0
    cdef int64_t began_ns
    # The server takes no notice of a cancel before it has the whole statement.
    if wait_until_sent(conn, connection, wait) == POLL_OK:
        return 0
    wait.is_answered = True
    if wait.ending != NO_ENDING or (connection.is_failed and is_in_transaction(conn)):
        return wait_until_ok(conn, connection, wait)
    while True:
        began_ns = monotonic_ns()
        send_cancel(conn, wait, complaints)
        pause_ns = max(
            4 * pause_ns,
            PAUSE_AFTER_FAILURE_NS if complaints else PAUSE_NS,
            monotonic_ns() - began_ns,
        )
        wait.deadline_ns = min(grace_ns, after(pause_ns))
        try:
            return wait_until_ok(conn, connection, wait)
        except deadline_passed:
            # One that comes before the server has begun with the query stops nothing.
            if monotonic_ns() >= grace_ns:
                raise
        finally:
            wait.deadline_ns = grace_ns


cdef int send_cancel(object conn, Wait* wait, list complaints) except -1:
    """Cancel what *conn* is doing: when this returns, the server process has been told."""
    counters.cancels += 1
    complaints.clear()
    cdef bint was_stopping = wait.is_stopping
    first = later = None
    try:
        request = cancel_request(conn)
        while request is not None:
            try:
                wait_until_ok(request, None, wait)
                break
            except Psycopg2Error:
                raise
            except BaseException as exc:
                if was_stopping or (first is None and isinstance(exc, deadline_passed)):
                    raise  # which costs the connection
                later = exc
            # That one goes on to be used, and this request must not strike a later query.
            if first is not None:
                shut_down(conn)
                break
            first, later = later, None
            wait.is_stopping = True
    except Psycopg2Error as exc:  # refused: the query may end by itself
        complaints.append(str(exc).strip())
    finally:
        wait.is_stopping = was_stopping
    if first is not None:
        raise_again(first if later is None or isinstance(later, deadline_passed)
                    else handler_raised(higher(raised_by(first), raised_by(later))))
    return 0


cdef object raised_by(object interruption):
    return interruption.exception if isinstance(interruption, handler_raised) else interruption


cdef int abandon_copy(object conn, Known connection, Wait* wait) except -1:
    """End the COPY that ``execute()`` has begun, and leave the rest to psycopg2."""
    if not wait.is_stopping:
        wait.deadline_ns = after(wait.options.grace_ns)
    try:
        send_cancel(conn, wait, [])
        end_copy(conn, connection, wait)
    except deadline_passed:
        raise OperationalError(
            "execute() has begun a COPY, which did not end within "
            f"{wait.options.grace_ns / 1e9:g} s; the connection is closed, use copy_expert()"
        ) from None
    return 0


# -- An exception is handed over to psycopg2

cdef int hand_over(object conn, Known connection, Wait* wait, object reason) except -1:
    """Have psycopg2 raise *reason*; raise it here where it can't, which costs the connection."""
    cdef bint is_refused = False
    failure = None
    if not has_error(conn):
        if connection.keeps_interrupt:
            connection.kept = (
                reason if connection.kept is None else higher(connection.kept, reason)
            )
            return 0
        if is_begin(conn, wait):
            return deliver_in_query(reason, connection)
        if wait.ending == ROLLBACK and is_postponed(reason):
            return 0
        try:
            is_refused = have_refused(conn, connection, wait)
        except BaseException as exc:
            failure = exc
        if failure is not None:
            raise_again(given_up(conn, connection, wait, None, reason, failure, []))
        reason = with_later(reason)
        if not is_refused:
            raise_again(reason)
    return deliver(reason, wait.is_deadline and isinstance(reason, query_timeout), is_refused)


cdef bint is_begin(object conn, Wait* wait) except -1:
    """Was it psycopg2's own BEGIN, after which it sends the query at once?

    If the server were behind that, or had failed the transaction, psycopg2 would not know. A
    transaction of two phases has no such query.
    """
    return (
        is_ready(conn)
        and not wait.is_two_phase
        and not connection_autocommit.__get__(conn)
        and connection_info.__get__(conn).transaction_status == PQTRANS_INTRANS
    )


cdef bint is_postponed(object reason) except -1:
    """Will the next wait raise it? Then a rollback succeeds, and leaves no transaction open."""
    waiter = waiter_here() if waiters_entered > 0 else None
    return waiter is not None and (<Waiter>waiter).postpone(reason)


# The server refuses it whatever its state: for what it says, or since the transaction has failed
# before, or since it takes no queries. Its log has the text.
cdef const char* REFUSED = b"select 'greenwait: a statement was interrupted as it succeeded'::int"
cdef const char* ROLLED_BACK = (
    b"rollback; select 'greenwait: a transaction was interrupted as it began'::int"
)
cdef const char* BEGUN = (
    b"begin; select 'greenwait: a rollback was interrupted as it succeeded'::int"
)


cdef bint have_refused(object conn, Known connection, Wait* wait) except -1:
    """Have the server refuse a statement, so that psycopg2 finds an error and no success.

    ``poll()`` may be called when the answer is there ("just check for notifications",
    ``_conn_poll_query`` in psycopg2), and then replaces the result that psycopg2 will look at,
    unless that is an error. Returns whether there is one.
    """
    cdef PGconn* pgconn = pgconn_of(conn)
    cdef const char* statement
    cdef bint is_idle_then
    if not can_refuse or pgconn is NULL:
        return False
    statement = statement_to_refuse(conn, pgconn, wait)
    if statement is NULL:
        return False
    is_idle_then = statement is ROLLED_BACK or (
        statement is REFUSED and libpq.transactionStatus(pgconn) == PQTRANS_IDLE
    )
    wait.ending = NO_ENDING  # it has ended
    while True:
        if not libpq.sendQuery(pgconn, statement):
            return False
        while libpq.flush(pgconn) == 1:  # of an error poll() tells
            sleep_for(conn, connection, POLL_WRITE, wait)
        wait.is_answered = False
        wait_until_ok(conn, connection, wait)
        connection.transaction_status = libpq.transactionStatus(pgconn)
        if not has_error(conn):
            return False
        if is_idle_then == (connection.transaction_status == PQTRANS_IDLE):
            connection.is_failed = is_in_transaction(conn)
            return True
        # The query's cancel has struck the first of the two statements.


cdef const char* statement_to_refuse(object conn, PGconn* pgconn, Wait* wait) except? NULL:
    """Return the statement after which psycopg2 is right about the server's state, or NULL.

    psycopg2 takes for granted that a statement that has failed has changed nothing, but for
    commit(), after which it sees no transaction in any case (``pq_commit``).
    """
    cdef int state = libpq.transactionStatus(pgconn)
    if has_other_encoding(conn):
        return NULL
    if is_in_transaction(conn):
        if state != PQTRANS_IDLE:
            return REFUSED
        if wait.is_two_phase or wait.ending == NO_ENDING:
            return NULL  # psycopg2 may go on with it, or not: it does not tell
        return REFUSED if wait.ending == COMMIT else BEGUN
    if not is_ready(conn):
        return NULL  # a prepared transaction is ended, or not
    if state == PQTRANS_INTRANS and wait.was_idle:
        return ROLLED_BACK
    return REFUSED


cdef bint has_other_encoding(object conn) except -1:
    """Has the server another encoding by now than psycopg2, which was to be told on success?"""
    found = connection_info.__get__(conn).parameter_status("client_encoding")
    return bool(found) and plain_name(found) != plain_name(connection_encoding.__get__(conn))


cdef object plain_name(str encoding):
    return encoding.upper().replace("_", "").replace("-", "")


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


cdef object lost(object conn, Known connection, Wait* wait, object exc):
    """The connection was lost, which nobody caused here: raise that, or leave it to psycopg2.

    psycopg2 has the server's last words and their SQLSTATE, if there were any, which say what
    has become of a commit. So returned is a function for ``deliver()``, or None where a method of
    a Connection calls it.
    """
    if wait.ending != COMMIT or not isinstance(exc, OperationalError):
        raise_again(exc)
    if connection_info.__get__(conn).status != CONNECTION_BAD:
        raise_again(lost_commit(exc))
    return None if connection.ending == COMMIT else lost_commit


cdef object given_up(
    object conn, Known connection, Wait* wait, timeout_block block, object reason,
    object failure, list complaints,
):
    """The query could not be stopped, or a second interrupt does not want to wait for that.

    *reason* is None where it was to be stopped because of a deadline.
    """
    cdef str grace = f"{wait.options.grace_ns / 1e9:g} s"
    cdef bint is_deadline = reason is None
    if is_deadline:
        reason = timed_out(
            wait, block,
            "Another interrupt ended the wait for the server's answer; the connection is closed",
        )
    later = later_than(reason)
    if later is not None:
        reason, is_deadline = higher(reason, later), False
    if isinstance(failure, handler_raised):
        failure = failure.exception
    elif isinstance(failure, Psycopg2Error):
        if connection.is_async and not conn.closed:  # poll() raises the server's answer
            return answered(reason, is_deadline, failure)
        return unanswered(
            wait, "the connection was lost during the commit", reason, is_deadline, failure)
    elif isinstance(failure, deadline_passed):
        why = f" (the cancel request failed: {complaints[0]})" if complaints else ""
        failure = OperationalError(
            f"the server has not answered within {grace} of the "
            f"{'deadline' if is_deadline else 'interrupt'}{why}. The connection is closed; "
            "the server may still be at work on the query, so look before you repeat it"
        )
        if connection.is_async:
            conn.close()  # else psycopg2 does, because of what is raised
        return unanswered(
            wait, f"the commit was not answered within {grace} of an interrupt or a deadline",
            reason, is_deadline, failure)
    if connection.is_async:
        conn.close()
    if wait.ending != COMMIT:
        return higher(reason, failure)
    doubt = in_doubt("a second interrupt ended the wait for a commit", None)
    # A QueryTimeout would say that the transaction has failed.
    raised = higher(doubt if is_deadline else reason, failure)
    if raised.__cause__ is None:
        raised.__cause__ = failure if raised is doubt else doubt
    return raised


cdef object unanswered(Wait* wait, str what, object reason, bint is_deadline, object failure):
    """The server has not answered, and will not."""
    if wait.ending == COMMIT:
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
