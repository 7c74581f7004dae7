"""The wait loop: ask the connection what it needs, and sleep, until it is done.

psycopg2 calls a wait callback with the GIL held and, in a query, with the
connection's mutex held: nothing here may call a method of the connection that
takes that mutex (``poll``, ``fileno``, ``status`` and ``cancel`` do not).

The loop keeps no state between calls, except the ConnectionState. So it can be entered
from any thread, again from a ``__del__`` or a signal handler that runs a query, in a
forked child, and while the interpreter shuts down.
"""

from cpython.long cimport PyLong_AsLongAndOverflow
from cpython.object cimport PyObject
from libc.stdint cimport int64_t

from greenwait._psycopg.libpq cimport PGconn, can_send, libpq
from greenwait._psycopg.state cimport ConnectionState, pgconn_of
from greenwait._sleep cimport CALL_AGAIN, Sleep, sleep_until_ready
from greenwait._stats cimport counters
from greenwait._system.clock cimport monotonic_ns
from greenwait._system.readiness cimport READINESS_READ, READINESS_WRITE
from greenwait._system.send_buffer cimport send_buffer_restore, send_buffer_widen
from greenwait._system.spin cimport spin_learn, spin_limit_ns

from greenwait._psycopg import psycopg2

cdef extern from *:
    """
    /* The function of a method without arguments that a C type defines; NULL: it is another one. */
    static PyCFunction
    function_of_method(PyObject *method)
    {
        PyMethodDef *definition;

        if (!Py_IS_TYPE(method, &PyMethodDescr_Type))
            return NULL;
        definition = ((PyMethodDescrObject *)method)->d_method;
        return definition->ml_flags == METH_NOARGS ? definition->ml_meth : NULL;
    }
    """
    ctypedef object (*PyCFunction)(object self, PyObject* nothing)
    PyCFunction function_of_method(object method) noexcept

cdef type connection_type = psycopg2.connection
cdef PyCFunction poll_of_psycopg2 = function_of_method(connection_type.poll)
cdef object connection_notices = connection_type.notices
cdef object connection_notifies = connection_type.notifies
cdef object OperationalError = psycopg2.OperationalError

cdef enum:
    # The larger it is, the less often libpq moves what is left of the statement to the front.
    STATEMENT_BUFFER = 8_388_608


cdef int wait_until_ok(object conn, Wait* wait) except -1:
    """Call ``conn.poll()`` until POLL_OK, and sleep in between.

    Between two calls there is a sleep, however short, which checks the clock and signals;
    only after something was sent does the next call follow at once, and then a sleep.

    ``poll()`` reads the first part of an answer, which is cheapest for most answers. libpq
    receives the rest by itself, without the GIL.
    """
    cdef bint is_received = False  # by libpq, without poll()
    cdef bint is_whole, is_same
    cdef int64_t polled_ns
    cdef bint has_sent = False     # and read what came meanwhile, which poll(2) won't show again
    cdef int64_t period_ns = LONGEST_PERIOD_NS
    cdef int64_t rested_ns = 0     # when libpq last stopped, because the period was over
    cdef tuple messages = None     # messages_of() then
    cdef int polled
    while True:
        polled = call_poll(conn, wait)
        if polled == POLL_OK:
            break
        if polled == POLL_READ:
            if has_sent:
                has_sent = False
                wait.is_answered = True
            elif not wait.is_answered:
                wait.is_answered = sleep_for_answer(conn, wait)
            elif is_native(wait):
                if rested_ns > 0:
                    polled_ns = monotonic_ns() - rested_ns
                    is_same = are_same(messages_of(conn), messages)
                    period_ns = next_period_ns(period_ns, 0 if is_same else polled_ns)
                is_whole = receive(conn, wait, period_ns)
                is_received = is_received or is_whole or not rechecks_tls(wait)
                rested_ns = 0
                if not is_whole:
                    messages = messages_of(conn)
                    rested_ns = monotonic_ns()
            else:
                sleep_for_rest(conn, wait)
        else:
            if is_native(wait) and can_send:
                send(conn, wait)
            else:
                sleep_for(conn, POLL_WRITE, wait)
            has_sent = is_prepared(wait)
    if wait.draining:
        pass  # it was not answered, but stopped
    elif is_received:
        counters.results_libpq += 1
    elif is_prepared(wait):
        counters.results_plain += 1
    return 0


cdef int wait_until_sent(object conn, Wait* wait) except -1:
    """Wait until all is sent. Returns what ``poll()`` returns then: POLL_READ or POLL_OK."""
    cdef int polled
    while True:
        polled = call_poll(conn, wait)
        if polled != POLL_WRITE:
            return polled
        sleep_for(conn, POLL_WRITE, wait)


cdef int sleep_for(object conn, int polled, Wait* wait) except -1:
    """Sleep until the descriptor is ready for what ``poll()`` has returned."""
    cdef int events = READINESS_READ if polled == POLL_READ else READINESS_WRITE
    cdef Sleep sleep = new_sleep(events, wait)
    sleep_until_ready(conn, wait.options.poller, &sleep)
    return 0


cdef int call_poll(object conn, const Wait* wait) except -1:
    """Return ``conn.poll()``.

    psycopg2's own is called without a look-up, which is a tenth of what a wait costs above
    blocking psycopg2. A subclass or a stub may have another one.
    """
    cdef long number
    cdef int overflow
    cdef bint is_own = type(conn) is connection_type or (
        is_prepared(wait) and (<ConnectionState>wait.state).has_poll
    )
    if is_own and poll_of_psycopg2 is not NULL:
        polled = poll_of_psycopg2(conn, NULL)
    else:
        polled = conn.poll()
    if isinstance(polled, int):
        number = PyLong_AsLongAndOverflow(polled, &overflow)
        if POLL_OK <= number <= POLL_WRITE:
            return number
    raise OperationalError(
        f"conn.poll() returned {polled!r}, which is not one of "
        "POLL_OK (0), POLL_READ (1), POLL_WRITE (2)"
    )


cdef int check_pollable(object conn) except -1:
    if not (callable(getattr(conn, "poll", None)) and callable(getattr(conn, "fileno", None))):
        raise TypeError(
            "greenwait waits for a psycopg2 connection, or an object with the methods "
            f"poll() and fileno(), not {type(conn).__name__!r} "
            "(for a cursor, pass its .connection)"
        )
    return 0


cdef inline bint is_native(const Wait* wait) noexcept:
    """May libpq be called for this connection, in this wait?"""
    return is_prepared(wait) and not (<ConnectionState>wait.state).is_plain


# -- One step of a wait: a sleep, and what is done without the GIL when it ends

cdef bint sleep_for_answer(object conn, Wait* wait) except -1:
    """Sleep, or spin, until the first part of the answer arrives."""
    cdef Sleep sleep = new_sleep(READINESS_READ, wait)
    cdef bint learns = wait.options.spin_auto and is_prepared(wait)
    if learns:
        sleep.spin_ns = spin_limit_ns(&(<ConnectionState>wait.state).spin)
    elif wait.state is <PyObject*>None or is_prepared(wait):  # connecting takes too long
        sleep.spin_ns = wait.options.spin_ns
    # The program may have polled an async_=1 connection before.
    if rechecks_tls(wait) and (<ConnectionState>wait.state).is_async:
        sleep.recheck_tls = True
    if not sleep_until_ready(conn, wait.options.poller, &sleep):
        return False
    if learns:
        spin_learn(&(<ConnectionState>wait.state).spin, sleep.answer_ns)
    return True


cdef int sleep_for_rest(object conn, Wait* wait) except -1:
    cdef Sleep sleep = new_sleep(READINESS_READ, wait)
    sleep.recheck_tls = rechecks_tls(wait)
    sleep.may_stay = True
    sleep_until_ready(conn, wait.options.poller, &sleep)
    return 0


# The results of an advance besides 0, "go on sleeping", and CALL_AGAIN.
cdef enum:
    DONE = 1
    FAILED = 2  # the connection is lost


# How long libpq receives a result before ``poll()`` is called in between. Only ``poll()`` decodes
# the notices and notifications that have arrived, all of them with the GIL held. It is not called
# sooner without need, because it also reads, as long as the server keeps up.
cdef int64_t LONGEST_PERIOD_NS = 100_000_000
cdef int64_t SHORTEST_PERIOD_NS = 1_000_000


cdef inline int64_t next_period_ns(int64_t period_ns, int64_t polled_ns) noexcept:
    """Return the next period, if ``poll()`` decoded for *polled_ns* after the last one."""
    if 4 * polled_ns > period_ns:
        return max(period_ns // 4, SHORTEST_PERIOD_NS)
    return min(2 * period_ns, LONGEST_PERIOD_NS)


cdef tuple messages_of(object conn):
    """Return a value that changes when notices or notifications are decoded."""
    notices = connection_notices.__get__(conn)
    notifies = connection_notifies.__get__(conn)
    return (
        notices[-1] if type(notices) is list and notices else None,  # the oldest are dropped
        len(notifies) if type(notifies) is list else 0,
    )


cdef bint receive(object conn, Wait* wait, int64_t period_ns) except -1:
    """Let libpq receive the rest of a result. Returns False if it is time to poll() before."""
    cdef Sleep sleep = new_sleep(READINESS_READ, wait)
    cdef PGconn* pgconn = pgconn_of(conn)
    cdef int rc
    if pgconn is NULL:
        return False  # poll() says that it is closed
    sleep.is_ready = has_pending(pgconn)
    sleep.may_stay = True
    sleep.rest_ns = monotonic_ns() + period_ns
    sleep.recheck_tls = rechecks_tls(wait)
    sleep.advance = receive_more
    sleep.argument = pgconn
    rc = sleep_until_ready(conn, wait.options.poller, &sleep)
    if rc == FAILED:
        raise_lost(pgconn)
    return rc == DONE


cdef int receive_more(void* argument, int revents) noexcept nogil:
    cdef PGconn* pgconn = <PGconn*>argument
    if not libpq.consumeInput(pgconn):
        return FAILED
    if not libpq.isBusy(pgconn):
        return DONE
    return CALL_AGAIN if has_pending(pgconn) else 0


cdef int send(object conn, Wait* wait) except -1:
    """Let libpq send the rest of a statement."""
    # It reads as well when it can't send (pqSendSome): a server that has something to
    # say, and finds nobody reading, stops to read itself (libpq manual, PQflush).
    cdef Sleep sleep = new_sleep(READINESS_READ | READINESS_WRITE, wait)
    cdef PGconn* pgconn = pgconn_of(conn)
    cdef int former
    if pgconn is NULL:
        return 0
    sleep.advance = send_more
    sleep.argument = pgconn
    former = send_buffer_widen(libpq.socket(pgconn), STATEMENT_BUFFER)
    try:
        if sleep_until_ready(conn, wait.options.poller, &sleep) == FAILED:
            raise_lost(pgconn)  # pragma: no cover: lost while it sends
    finally:
        restore_send_buffer(conn, former)
    return 0


cdef int restore_send_buffer(object conn, int former) except -1:
    cdef PGconn* pgconn = pgconn_of(conn) if former else NULL
    if pgconn is not NULL:  # the statement may have lost the connection
        send_buffer_restore(libpq.socket(pgconn), former)
    return 0


cdef int send_more(void* argument, int revents) noexcept nogil:
    cdef int rc = libpq.flush(<PGconn*>argument)
    if rc == 1:
        libpq.isBusy(<PGconn*>argument)  # it parses what flush() has read, a part at a time
        return 0
    return DONE if rc == 0 else FAILED


cdef int raise_lost(PGconn* pgconn) except -1:
    """Raise the error that psycopg2's ``poll()`` would have raised.

    Called now, it would call libpq's function again, which adds "connection not open".
    """
    raise OperationalError(libpq.errorMessage(pgconn).decode("utf-8", "replace"))
