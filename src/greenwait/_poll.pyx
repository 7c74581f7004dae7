"""What does the connection need? The wait loop.

psycopg2 calls a wait callback with the GIL held and, in a query, with the
connection's mutex held: nothing here may call a method of the connection that
takes that mutex (``poll``, ``fileno``, ``status`` and ``cancel`` do not).

The loop keeps no state between calls, but for what is known of a connection. That is
what lets it be entered from any thread, again from a ``__del__`` or a signal handler
that runs a query, in a forked child, and while the interpreter shuts down.
"""

cimport cython
from cpython.exc cimport (
    PyErr_CheckSignals,
    PyErr_SetInterrupt,
    PyErr_SetObject,
    PyErr_WriteUnraisable,
)
from cpython.long cimport PyLong_AsLongAndOverflow
from cpython.object cimport PyObject_TypeCheck, PyTypeObject
from libc.math cimport isfinite
from libc.stdint cimport int64_t
from libc.string cimport memset

from greenwait._known cimport Known, is_in_query, known, pgconn_of, prepare
from greenwait._libpq cimport PGconn, can_see_pending, can_send, libpq
from greenwait._monotonic cimport monotonic_ns
from greenwait._readiness cimport READINESS_READ, READINESS_WRITE
from greenwait._sleep cimport POLLER_EPOLL, POLLER_POLL, Poller, Sleep, sleep_until_ready
from greenwait._spin cimport spin_learn, spin_limit_ns
from greenwait._stats cimport counters

from greenwait import _psycopg2
from greenwait._sleep import POLLERS
from greenwait._slow import log_slow_wait

cdef extern from "Python.h":
    object PyObject_CallOneArg(object callable, object argument)

__all__ = ["EpollWaitCallback", "WaitCallback", "wait"]

# psycopg2 names these in psycopg2.extensions; their values are part of its API.
cdef enum:
    POLL_OK = 0
    POLL_READ = 1
    POLL_WRITE = 2

# Module-level C variables outlive the module's dict: a query from a __del__ at
# interpreter exit still finds them.
cdef type connection_type = _psycopg2.connection
cdef object connection_poll = connection_type.poll
cdef object OperationalError = _psycopg2.OperationalError
cdef object log_slow = log_slow_wait

# What a WaitCallback was given, as C has it.
cdef struct Options:
    Poller poller
    bint spin_auto
    int64_t spin_ns
    int64_t slow_ns  # < 0: nothing is logged


cdef inline object drive(object conn, const Options* options):
    """Wait until the server has answered, and say so if that took long."""
    counters.waits += 1
    if options.slow_ns < 0:
        wait_or_cancel(conn, options)
    else:
        wait_and_tell(conn, options)
    return None


cdef int wait_and_tell(object conn, const Options* options) except -1:
    cdef int64_t waited_ns, began_ns = monotonic_ns()
    try:
        wait_or_cancel(conn, options)
    finally:
        waited_ns = monotonic_ns() - began_ns
        if waited_ns > options.slow_ns:
            try:
                log_slow(conn, waited_ns / 1e9)
            except Exception as exc:
                PyErr_SetObject(type(exc), exc)
                PyErr_WriteUnraisable(log_slow)  # raised, it would cost the connection
    return 0


cdef int wait_or_cancel(object conn, const Options* options) except -1:
    """Wait until POLL_OK; on KeyboardInterrupt cancel the query, and go on."""
    cdef bint interrupted = False
    cdef Known connection = None
    if PyObject_TypeCheck(conn, <PyTypeObject*>connection_type):
        connection = known(conn)
    else:
        check_pollable(conn)
    while True:
        try:
            wait_until_ok(conn, connection, options, interrupted)
            break
        except KeyboardInterrupt:
            if not has_query_to_cancel(conn, connection):
                raise
            # The server ends the query with an error, and that ends the wait.
            conn.cancel()
            counters.cancels += 1
            interrupted = True
    if interrupted and connection is not None and not conn.info.error_message:
        PyErr_SetInterrupt()  # the query was faster than the cancel: Ctrl-C is still to be heard
    return 0


cdef int wait_until_ok(
    object conn, Known connection, const Options* options, bint is_answered
) except -1:
    """Call ``conn.poll()`` until POLL_OK, and sleep in between.

    *is_answered* says that some of the answer may have arrived before.

    It is called for the first that arrives of an answer, which is cheapest for most
    answers. Where more is to come, libpq takes that in by itself, without the GIL.
    """
    cdef bint is_received = False  # by libpq, the whole answer
    cdef bint has_sent = False     # and read what came meanwhile, which poll(2) won't show again
    cdef int state
    while True:
        state = call_poll(conn)
        if state == POLL_OK:
            break
        if connection is not None and not connection.is_prepared and is_in_query(conn):
            prepare(connection, conn)
        if state == POLL_READ:
            if has_sent:
                has_sent = False
                is_answered = True
            elif not is_answered:
                is_answered = sleep_for_answer(conn, connection, options)
            elif is_native(connection):
                is_received = receive(conn, connection, options) or is_received
            else:
                sleep_for_rest(conn, connection, options)
        else:
            if is_native(connection) and can_send:
                send(conn, options)
            else:
                sleep_to_write(conn, options)
            has_sent = connection is not None and connection.is_prepared
    if is_received:
        counters.results_libpq += 1
    elif connection is None or connection.is_prepared:
        counters.results_plain += 1
    return 0


cdef inline int call_poll(object conn) except -1:
    """Return ``conn.poll()``.

    psycopg2's own class is called without a look-up, which is a tenth of what a wait
    costs above blocking psycopg2. A subclass or a stub may have methods of its own.
    """
    cdef long number
    cdef int overflow
    if type(conn) is connection_type:
        state = PyObject_CallOneArg(connection_poll, conn)
    else:
        state = conn.poll()
    if isinstance(state, int):
        number = PyLong_AsLongAndOverflow(state, &overflow)
        if POLL_OK <= number <= POLL_WRITE:
            return number
    raise OperationalError(
        f"conn.poll() returned {state!r}, which is none of "
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


cdef bint has_query_to_cancel(object conn, Known connection) except -1:
    return is_in_query(conn) if connection is not None else hasattr(conn, "cancel")


cdef inline bint is_native(Known connection) noexcept:
    """May libpq be called for this connection, in this wait?"""
    return connection is not None and connection.is_prepared and not connection.is_plain


# -- One step of a wait: a sleep, and what is done without the GIL when it ends

cdef inline Sleep a_sleep(int events) noexcept:
    cdef Sleep sleep
    memset(&sleep, 0, sizeof(sleep))
    sleep.events = events
    return sleep


cdef bint sleep_for_answer(object conn, Known connection, const Options* options) except -1:
    """Sleep until the first of the answer is there, or spin for it."""
    cdef Sleep sleep = a_sleep(READINESS_READ)
    cdef bint learns = options.spin_auto and connection is not None and connection.is_prepared
    if learns:
        sleep.spin_ns = spin_limit_ns(&connection.spin)
    elif connection is None or connection.is_prepared:  # connecting takes longer than any spin
        sleep.spin_ns = options.spin_ns
    # Whoever waits for an async_=1 connection may have polled it before.
    sleep.look_again = connection is not None and connection.look_again and connection.is_async
    if not sleep_until_ready(conn, options.poller, &sleep):
        return False
    if learns:
        spin_learn(&connection.spin, sleep.answer_ns)
    return True


cdef int sleep_for_rest(object conn, Known connection, const Options* options) except -1:
    cdef Sleep sleep = a_sleep(READINESS_READ)
    sleep.look_again = connection is not None and connection.look_again
    sleep_until_ready(conn, options.poller, &sleep)
    # A descriptor that is always ready would put the handlers off until the end.
    PyErr_CheckSignals()
    return 0


cdef int sleep_to_write(object conn, const Options* options) except -1:
    cdef Sleep sleep = a_sleep(READINESS_WRITE)
    sleep_until_ready(conn, options.poller, &sleep)
    PyErr_CheckSignals()
    return 0


# What an advance returns; 0 is "go on sleeping".
cdef enum:
    DONE = 1
    FAILED = 2  # the connection is lost


cdef bint receive(object conn, Known connection, const Options* options) except -1:
    """Let libpq take in the rest of a result. Returns whether it has."""
    cdef Sleep sleep = a_sleep(READINESS_READ)
    cdef PGconn* pgconn = pgconn_of(conn)
    cdef int rc
    if pgconn is NULL or has_pending(pgconn):
        return False  # poll() says that it is closed, or goes on reading
    sleep.look_again = connection.look_again
    sleep.advance = receive_more
    sleep.argument = pgconn
    rc = sleep_until_ready(conn, options.poller, &sleep)
    if rc == FAILED:
        raise_lost(pgconn)
    return rc == DONE


cdef int receive_more(void* argument, int revents) noexcept nogil:
    cdef PGconn* pgconn = <PGconn*>argument
    while True:
        if not libpq.consumeInput(pgconn):
            return FAILED
        if not libpq.isBusy(pgconn):
            return DONE
        if not has_pending(pgconn):
            return 0


cdef int send(object conn, const Options* options) except -1:
    """Let libpq send the rest of a statement."""
    # It reads as well when it can't send (pqSendSome): a server that has something to
    # say, and finds nobody reading, stops to read itself (libpq manual, PQflush).
    cdef Sleep sleep = a_sleep(READINESS_READ | READINESS_WRITE)
    cdef PGconn* pgconn = pgconn_of(conn)
    if pgconn is NULL:
        return 0
    sleep.advance = send_more
    sleep.argument = pgconn
    if sleep_until_ready(conn, options.poller, &sleep) == FAILED:
        raise_lost(pgconn)
    return 0


cdef int send_more(void* argument, int revents) noexcept nogil:
    cdef int rc = libpq.flush(<PGconn*>argument)
    return 0 if rc == 1 else DONE if rc == 0 else FAILED


cdef inline bint has_pending(PGconn* pgconn) noexcept nogil:
    """Has OpenSSL decrypted bytes that libpq has not read? poll(2) does not see these."""
    cdef void* ssl = libpq.getssl(pgconn) if can_see_pending else NULL
    return ssl is not NULL and libpq.SSL_pending(ssl) > 0


cdef int raise_lost(PGconn* pgconn) except -1:
    """Raise what psycopg2's ``poll()`` would have raised in the place of libpq's function.

    Asked now, it would call that a second time, and libpq add "connection not open".
    """
    raise OperationalError(libpq.errorMessage(pgconn).decode("utf-8", "replace"))


# -- The public names

cdef double LONGEST_SECONDS = 1e9  # 30 years; more would not fit into 64 bits of nanoseconds

cdef Options default_options
default_options.poller = POLLER_POLL
default_options.spin_auto = False
default_options.spin_ns = 0
default_options.slow_ns = -1


def wait(conn, /):
    """Wait until the server has answered: the wait callback.

    Register it once, ``psycopg2.extensions.set_wait_callback(greenwait.wait)``,
    and psycopg2 calls it wherever it would block. Call it yourself to wait for
    an ``async_=1`` connection, after connecting and after every ``execute``.

    :param conn: a psycopg2 connection, or any object with ``poll()`` and
        ``fileno()``.
    :returns: None, once ``conn.poll()`` has returned ``POLL_OK``.
    :raises TypeError: *conn* has not the two methods.
    :raises psycopg2.InterfaceError: the connection is closed.
    :raises psycopg2.OperationalError: the descriptor was closed during the wait
        (chained from the OSError), or ``poll()`` returned an unknown state.

    The thread sleeps in poll(2) with the GIL released. A signal's Python handler
    runs at once (within 50 ms where the signal arrives just before the sleep, or
    in another thread), then the wait goes on; an exception that the handler
    raises ends the wait, and psycopg2 then closes the connection. On
    KeyboardInterrupt the query is cancelled on the server, and its ``execute()``
    raises the server's QueryCanceled, or KeyboardInterrupt if the query succeeded
    all the same; while connecting, KeyboardInterrupt is raised as it is. There is
    no timeout.

    May be called from any thread, in a forked child (with the child's own
    connections), from a ``__del__`` or a signal handler during another
    connection's wait, and at interpreter exit.
    """
    return drive(conn, &default_options)


@cython.final
cdef class WaitCallback:
    """WaitCallback(*, poller="poll", spin=0.0, slow=None)
--

    A wait callback with options: a callable that does what ``wait`` does.

    Immutable, and safe to share between threads.

    :param poller: the system call that sleeps, ``"poll"`` or (on Linux)
        ``"epoll"``. With ``"epoll"`` every thread keeps one epoll descriptor as
        long as it lives; a forked child makes its own. Where none can be had
        (EMFILE), the thread sleeps in poll(2).
    :param spin: seconds to look for the answer of a query before sleeping, without
        the GIL, and giving up the CPU between two looks. It saves the wake-up, which
        can take longer than the query, and costs CPU time. 0.0 sleeps at once.
        ``"auto"`` learns, for every connection on its own, how long answers take:
        while they come within 100 us, it spins for at most twice that time, and
        ever more rarely if they don't. A thread that may use only one CPU
        (sched_setaffinity(2)) never spins.
    :param slow: seconds; a wait that took longer is logged as a warning by the logger
        ``greenwait``, with the backend's pid and the Python line that waited. None
        logs nothing. A handler of that logger must leave this connection alone.
    :raises ValueError: this system has no such poller, or a time is negative or
        not finite.
    :raises TypeError: an option is unknown or has the wrong type.
    """

    cdef Options _options
    cdef object _spin
    cdef object _slow

    def __cinit__(self, *args, poller="poll", spin=0.0, slow=None, **unknown):
        if args:
            raise TypeError(
                "WaitCallback takes keyword options only; register an instance, "
                "set_wait_callback(greenwait.WaitCallback())"
            )
        if unknown:
            raise TypeError(
                f"WaitCallback has no option {next(iter(unknown))!r}; "
                "it accepts: poller, spin, slow"
            )
        if not isinstance(poller, str):
            raise TypeError(f"poller must be one of {POLLERS}, not {type(poller).__name__!r}")
        if poller not in POLLERS:
            raise ValueError(f"poller={poller!r} is not available here; this system has {POLLERS}")
        self._options.poller = POLLER_EPOLL if poller == "epoll" else POLLER_POLL
        self._spin = spin if spin == "auto" else checked_seconds("spin", spin, ', or "auto"')
        self._options.spin_auto = spin == "auto"
        self._options.spin_ns = 0 if spin == "auto" else to_ns(self._spin)
        self._slow = None if slow is None else checked_seconds("slow", slow, ", or None")
        self._options.slow_ns = -1 if slow is None else to_ns(self._slow)

    @property
    def poller(self):
        """The system call that sleeps: ``"poll"`` or ``"epoll"``."""
        return "epoll" if self._options.poller == POLLER_EPOLL else "poll"

    @property
    def spin(self):
        """Seconds to look before sleeping, or ``"auto"``."""
        return self._spin

    @property
    def slow(self):
        """Seconds after which a wait is logged, or None."""
        return self._slow

    def __call__(self, conn, /):
        """Wait until the server has answered; see ``greenwait.wait``."""
        return drive(conn, &self._options)

    def __repr__(self):
        return (
            f"greenwait.WaitCallback(poller={self.poller!r}, spin={self.spin!r}, "
            f"slow={self.slow!r})"
        )


cdef object checked_seconds(str option, object value, str otherwise):
    """Return *value* as a float; raise if it is not a length of time."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(
            f"{option} must be a number of seconds{otherwise}, not {type(value).__name__!r}"
        )
    seconds = float(value)
    if not (0.0 <= seconds and isfinite(seconds)):
        raise ValueError(f"{option}={value!r}: it must be 0 or more seconds{otherwise}")
    return seconds


cdef int64_t to_ns(double seconds) noexcept:
    return <int64_t>(min(seconds, LONGEST_SECONDS) * 1e9)


#: ``WaitCallback(poller="epoll")``, ready made; on a system without epoll it polls.
EpollWaitCallback = WaitCallback(poller=POLLERS[-1])
