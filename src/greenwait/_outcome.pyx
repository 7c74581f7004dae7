"""The exceptions of a wait that was interrupted, or whose connection was lost.

These functions return the exception to raise; if a query was interrupted twice, both interrupts are
in one chain of contexts. They are compiled, as ``_ranks`` is: no signal handler strikes before the
exception is raised.
"""

from cpython.object cimport PyObject

from greenwait._deadline cimport timeout, timeout_error, timeout_error_without_query
from greenwait._delivery cimport raise_again
from greenwait._poll cimport Wait
from greenwait._psycopg.state cimport COMMIT, ConnectionState
from greenwait._ranks cimport higher
from greenwait._waiter cimport Waiter, waiter_here, waiters_entered

from greenwait import _errors
from greenwait._psycopg import psycopg2

__all__ = ["lost_commit"]

cdef object connection_info = psycopg2.connection.info
cdef object Psycopg2Error = psycopg2.Error
cdef object OperationalError = psycopg2.OperationalError
cdef object ServerHasCanceled = psycopg2.QueryCanceled
cdef object CommitInDoubt = _errors.CommitInDoubt
cdef object deadline_passed = _errors.DeadlinePassed
cdef object handler_raised = _errors.HandlerRaised

# PQstatus()
cdef int CONNECTION_BAD = 1


cdef object no_query_error(Wait* wait, object interruption):
    """Return the exception of a wait without a query: there is nothing to cancel or to keep."""
    if not isinstance(interruption, deadline_passed):
        return raised_by(interruption)
    return timeout_error_without_query(
        <timeout>wait.block,
        wait.options.timeout_ns,
        "Nothing had been sent to the server" if wait.state is <PyObject*>None
        else "It was still connecting; nothing is left of that",
    )


cdef object lost_error(object conn, Wait* wait, object exc):
    """Raise the error of a connection that was lost by itself, or leave it to psycopg2.

    psycopg2 has the server's last message and its SQLSTATE, if there was one, which tell the
    outcome of a commit. To leave the error to psycopg2, return a function for ``deliver()``, or
    None if a method of a Connection will call that function.
    """
    if wait.ending != COMMIT or not isinstance(exc, OperationalError):
        raise_again(exc)
    if connection_info.__get__(conn).status != CONNECTION_BAD:
        raise_again(lost_commit(exc))
    return None if (<ConnectionState>wait.state).ending == COMMIT else lost_commit


cdef object given_up_error(
    object conn, Wait* wait, object reason, object failure, list complaints
):
    """Return the exception for a query that was not stopped in time, or was interrupted twice.

    *reason* is None if it was to be stopped because of a deadline.
    """
    cdef bint is_async = (<ConnectionState>wait.state).is_async
    cdef str grace = f"{wait.options.grace_ns / 1e9:g} s"
    cdef bint is_deadline = reason is None
    if is_deadline:
        reason = timeout_error(
            <timeout>wait.block,
            wait.options.timeout_ns,
            "Another interrupt ended the wait for the server's answer; the connection is closed",
        )
    later = later_than(reason)
    if later is not None:
        reason, is_deadline = higher(reason, later), False
    if isinstance(failure, handler_raised):
        failure = raised_by(failure)
    elif isinstance(failure, Psycopg2Error):
        if is_async and not conn.closed:  # poll() raises the server's answer
            return answered_error(reason, is_deadline, failure)
        return unanswered_error(
            wait, "the connection was lost during the commit", reason, is_deadline, failure)
    elif isinstance(failure, deadline_passed):
        why = f" (the cancel request failed: {complaints[0]})" if complaints else ""
        failure = OperationalError(
            f"the server has not answered within {grace} of the "
            f"{'deadline' if is_deadline else 'interrupt'}{why}. The connection is closed; "
            "the server may still be at work on the query, so look before you repeat it"
        )
        if is_async:
            conn.close()  # otherwise psycopg2 does, because of the exception
        return unanswered_error(
            wait, f"the commit was not answered within {grace} of an interrupt or a deadline",
            reason, is_deadline, failure)
    if is_async:
        conn.close()
    if wait.ending != COMMIT:
        return higher(reason, failure)
    doubt = in_doubt("a second interrupt ended the wait for a commit", None)
    # A QueryTimeout would mean that the transaction has failed.
    raised = higher(doubt if is_deadline else reason, failure)
    if raised.__cause__ is None:
        raised.__cause__ = failure if raised is doubt else doubt
    return raised


cdef object unanswered_error(Wait* wait, str what, object reason, bint is_deadline, object failure):
    """Return the exception for a query that the server has not answered, and will not answer."""
    if wait.ending == COMMIT:
        return in_doubt(what, failure if is_deadline else reason)
    if is_deadline:
        return failure
    if reason.__cause__ is None:
        reason.__cause__ = failure
    return reason


cdef object answered_error(object reason, bint is_deadline, object answer):
    """Return the exception for an async connection's query that the server has ended."""
    if not is_deadline:
        return reason
    if not isinstance(answer, ServerHasCanceled):  # pragma: no cover: a race at the deadline
        return answer
    reason.__setstate__({"pgerror": answer.pgerror, "pgcode": answer.pgcode})
    return reason


cdef object later_than(object reason):
    """Return an interrupt that was put off until the end of the drain, or None.

    A job's cancel() is, and a task's. Raised only in the next wait, it would come a statement late.
    """
    cdef Waiter waiter = waiter_here() if waiters_entered > 0 else None
    return None if waiter is None else waiter.take_interruption(reason)


cdef object with_later(object reason):
    """Return the exception to raise: *reason*, or an interrupt that has come since."""
    later = later_than(reason)
    if later is None:
        return reason
    return later if reason is None else higher(reason, later)


cdef object raised_by(object interruption):
    """Return the interrupt itself: for HandlerRaised, the psycopg2 error that it carries."""
    return interruption.args[0] if isinstance(interruption, handler_raised) else interruption


cdef object in_doubt(str what, object cause):
    """Return the exception for a commit to which *what* has happened, because of *cause*."""
    exc = CommitInDoubt(
        f"{what}: the transaction may or may not have been committed. The connection is "
        "closed; connect again, and look before you repeat the transaction"
    )
    exc.__cause__ = cause
    return exc


# The server ends a session for these only while it waits for a statement (PostgreSQL manual,
# idle_in_transaction_session_timeout, idle_session_timeout).
cdef tuple ENDED_WHILE_IDLE = ("25P03", "57P05")


def lost_commit(error):
    """Return the exception for a commit during which the connection was lost, as *error* says."""
    words = " ".join(str(error).split())
    if error.pgcode is not None:
        words = f"{words} (SQLSTATE {error.pgcode})"
    if error.pgcode in ENDED_WHILE_IDLE:
        exc = OperationalError(
            "nothing was committed: the server had ended the session while it was idle: "
            f"{words}. The connection is closed; connect again, and repeat the transaction"
        )
        exc.__cause__ = error
        return exc
    return in_doubt(f"the connection was lost during the commit: {words}", error)
