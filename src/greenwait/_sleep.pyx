"""The sleep of a plain thread, in poll(2) or epoll_wait(2), without the GIL.

No other module sleeps for a plain thread. This one runs Python's signal handlers, and turns
the kernel's errors into exceptions.

Every step of every wait, in every context, calls ``sleep_until_ready()``, which checks the
clock before it sleeps. So a server that never stops sending can't delay a deadline or a
signal, and no loop above this one needs a clock of its own.
"""

cimport cython
from cpython.dict cimport PyDict_DelItem, PyDict_GetItem, PyDict_SetItem
from cpython.exc cimport PyErr_CheckSignals
from cpython.object cimport PyObject
from cpython.pystate cimport PyThreadState_GetDict
from libc.errno cimport EBADF, EINTR
from libc.stdint cimport INT64_MAX, int64_t

from greenwait._psycopg.libpq cimport libpq
from greenwait._psycopg.state cimport ConnectionState
from greenwait._stats cimport counters
from greenwait._system.clock cimport NO_DEADLINE, monotonic_ns
from greenwait._system.periods cimport CLOSED_MS, SIGNALS_MS, SIGNALS_NS
from greenwait._system.readiness cimport (
    READINESS_HAS_EPOLL,
    readiness_epoll,
    readiness_epoll_close,
    readiness_epoll_create,
    readiness_epoll_forget,
    readiness_epoll_is_set,
    readiness_now,
    readiness_poll,
    readiness_ticker_close,
    readiness_ticker_create,
)
from greenwait._system.sealed_type cimport seal_type
from greenwait._system.spin cimport spin_is_possible, spin_until_ready
from greenwait._system.threads cimport is_main_thread
from greenwait._waiter cimport Waiter, waiter_here, waiters_entered

import os
import sys

from greenwait._errors import DeadlinePassed, HandlerRaised
from greenwait._psycopg import psycopg2

__all__ = ["POLLERS"]

cdef enum:  # a thread's role
    MAIN_THREAD = 0
    OTHER_THREAD = 1

cdef int[2] SLICE_MS = [SIGNALS_MS, CLOSED_MS]  # by role

# How long the main thread may go on without the GIL while data keeps coming: a signal
# waits that long. Taking the GIL from a busy thread takes 5 ms (sys.getswitchinterval).
cdef int64_t LONGEST_WITHOUT_GIL_NS = 80_000_000
# How long a greenlet may go on before others run. Not less: the contents of the sockets' buffers,
# some megabytes, must be drained within the grace beside a greenlet that computes.
cdef int64_t LONGEST_STAY_NS = 1_000_000

cdef object Psycopg2Error = psycopg2.Error
cdef object OperationalError = psycopg2.OperationalError
cdef object strerror = os.strerror
cdef dict modules = sys.modules


cdef object deadline_passed = DeadlinePassed
cdef object handler_raised = HandlerRaised

#: The values that ``poller=`` accepts on this system.
POLLERS = ("poll", "epoll") if READINESS_HAS_EPOLL else ("poll",)


cdef int[2] tickers = [-1, -1]  # by role, shared by all threads of the role
cdef object thread_epoll_key = object()


def _after_fork_in_child():
    """Close the inherited descriptors, which are the parent's.

    At once, before the child's own code closes "all" descriptors and their numbers are
    reused. (Those of threads that slept in epoll_wait stay open in the child, unused: no
    thread is left to close them.)
    """
    cdef PyObject* thread_dict = <PyObject*>PyThreadState_GetDict()
    cdef int role
    for role in range(2):
        if tickers[role] >= 0:
            readiness_ticker_close(tickers[role])
            tickers[role] = -1
    if thread_dict is not NULL and PyDict_GetItem(<dict>thread_dict, thread_epoll_key) is not NULL:
        PyDict_DelItem(<dict>thread_dict, thread_epoll_key)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


cdef int ticker_of(int role) noexcept:
    """Return the ticker of this role's threads, made on first use; < 0 if it can't be made."""
    if tickers[role] < 0:
        tickers[role] = readiness_ticker_create(SLICE_MS[role])
    return tickers[role]


@cython.final
@cython.internal
cdef class ThreadEpoll:
    """A thread's epoll descriptor, and the ticker in its set; closed with the thread's state."""

    cdef int epfd
    cdef int ticker

    def __cinit__(self, int role):
        self.ticker = ticker_of(role) if role == MAIN_THREAD else -1
        self.epfd = readiness_epoll_create(self.ticker)

    def __dealloc__(self):
        # If the descriptor was closed, its number may have been reused.
        if self.epfd >= 0 and readiness_epoll_is_set(self.epfd):
            readiness_epoll_close(self.epfd)


seal_type(ThreadEpoll, "a thread that waits makes it")


cdef ThreadEpoll thread_epoll(int role):
    """Return this thread's epoll set, made on first use.

    None if it can't be made (no more descriptors, or the thread's state is gone):
    the caller sleeps in poll(2), which needs nothing.
    """
    cdef PyObject* found
    cdef PyObject* thread_dict = <PyObject*>PyThreadState_GetDict()
    cdef ThreadEpoll epoll
    if thread_dict is NULL:  # pragma: no cover: the thread's state is gone already
        return None
    found = PyDict_GetItem(<dict>thread_dict, thread_epoll_key)
    if found is not NULL and (<ThreadEpoll>found).epfd >= 0:
        return <ThreadEpoll>found
    epoll = ThreadEpoll.__new__(ThreadEpoll, role)
    if epoll.epfd < 0:
        return None
    PyDict_SetItem(<dict>thread_dict, thread_epoll_key, epoll)
    return epoll


# -- Without the GIL

# The part of a sleep between two checks of Python's signals.
cdef struct SleepStep:
    int fd
    int epfd             # < 0: poll(2)
    int ticker           # set to -1 if it proves to be closed
    int slice_ms
    int64_t longest_ns
    # out:
    int rc               # of the last sleep, as in readiness.h
    int done             # nonzero: the result of the sleep
    int sleeps
    int64_t asleep_ns
    int64_t spun_ns
    int64_t now_ns


cdef void sleep_step(Sleep* sleep, SleepStep* step) noexcept nogil:
    """Spin, sleep and advance until the sleep is over, or Python code has to run."""
    cdef int64_t until_ns = sleep.deadline_ns
    step.now_ns = monotonic_ns()
    if sleep.began_ns == 0:
        sleep.began_ns = step.now_ns
    if step.now_ns >= sleep.deadline_ns:
        return
    if step.longest_ns != INT64_MAX:
        until_ns = min(until_ns, step.now_ns + step.longest_ns)
    until_ns = min(until_ns, sleep.rest_ns)
    if sleep.is_ready:
        sleep.is_ready = False
        step.rc = sleep.events
    elif sleep.spin_ns > 0:
        spin(sleep, step)
        if step.rc <= 0 and sleep.spin_ns > 0:
            return
    while True:
        if step.rc == 0:
            sleep_slice(sleep, step)
        if step.rc <= 0:
            return
        if sleep.advance is NULL:
            step.done = 1
            return
        step.done = advance_until(until_ns, sleep, step.rc)
        if step.done != 0:
            return
        step.now_ns = monotonic_ns()
        if step.now_ns >= until_ns:
            return
        step.rc = 0


cdef int advance_until(int64_t until_ns, Sleep* sleep, int revents) noexcept nogil:
    """Advance until it takes a sleep, or until *until_ns*. Returns the sleep's result, or 0."""
    cdef int done = sleep.advance(sleep.argument, revents)
    while done == CALL_AGAIN:
        if monotonic_ns() >= until_ns:
            sleep.is_ready = True
            return 0
        done = sleep.advance(sleep.argument, revents)
    return done


cdef inline void spin(Sleep* sleep, SleepStep* step) noexcept nogil:
    cdef int64_t began_ns = step.now_ns
    cdef int64_t slice_ns = min(step.slice_ms * <int64_t>1_000_000, sleep.deadline_ns - began_ns)
    cdef int64_t limit_ns = min(sleep.spin_ns, slice_ns)
    if not spin_is_possible():
        sleep.spin_ns = 0
        return
    step.rc = spin_until_ready(step.fd, sleep.events, limit_ns)
    step.now_ns = monotonic_ns()
    step.spun_ns = step.now_ns - began_ns
    sleep.spin_ns = 0 if step.rc > 0 else sleep.spin_ns - step.spun_ns


cdef inline void sleep_slice(Sleep* sleep, SleepStep* step) noexcept nogil:
    cdef int64_t began_ns = step.now_ns
    cdef int left_ms = -1
    if sleep.deadline_ns != NO_DEADLINE:
        # Rounded up: the deadline must have passed when the sleep ends. Capped far above a slice.
        left_ms = <int>max(0, min((sleep.deadline_ns - began_ns + 999_999) // 1_000_000, 100_000))
    if step.epfd >= 0:
        step.rc = readiness_epoll(
            step.epfd, step.fd, sleep.events, step.slice_ms, left_ms, &step.ticker)
    else:
        step.rc = readiness_poll(step.fd, sleep.events, step.slice_ms, left_ms, &step.ticker)
    step.now_ns = monotonic_ns()
    step.asleep_ns += step.now_ns - began_ns
    step.sleeps += 1


# -- With the GIL

cdef inline int fileno_of(object conn, Sleep* sleep) except? -1:
    """Return the connection's descriptor; -1: libpq has closed it."""
    if sleep.has_socket is not NULL:
        return libpq.socket(sleep.has_socket)
    return conn.fileno()


# The result of sleep_in_epoll() if epoll can't wait for the descriptor.
cdef enum:
    TAKE_POLL = -2


cdef int run_signal_handlers() except -1:
    """Run Python's handlers of the signals that have arrived."""
    try:
        PyErr_CheckSignals()
    except Psycopg2Error as exc:
        raise handler_raised(exc) from None
    return 0


cdef int sleep_until_ready(object conn, Poller poller, Sleep* sleep) except -1:
    """Sleep until the connection's descriptor is ready.

    Returns 1 when it is, 0 when it is time to check again (``recheck_tls``, ``rest_ns``), or
    the result of ``advance``. Signal handlers run during the sleep, and in the main thread also
    before it returns. Raises DeadlinePassed if the deadline had passed before, even if the
    descriptor is ready; a readiness that comes during the sleep is returned.
    """
    if waiters_entered > 0:
        waiter = waiter_here()
        if waiter is not None:
            return step_aside(conn, sleep, waiter)
    # Has asyncio been imported since the last check?
    if not sleep.draining and (tell is not None or len(modules) != modules_seen):
        warn_blocks_event_loop(sleep.on_event_loop)
    return sleep_here(conn, poller, sleep)


cdef object running_loop = None  # set once asyncio is imported
cdef object tell = None
cdef Py_ssize_t modules_seen = 0


cdef int warn_blocks_event_loop(OnEventLoop what) except -1:
    """Warn, or raise, if the sleep will stop an event loop that runs in this thread."""
    global modules_seen, running_loop, tell
    if tell is None:
        modules_seen = len(modules)
        if "asyncio.events" not in modules:
            return 0
        try:
            from greenwait._event_loop_warning import running_loop as found, tell as teller
        except ImportError:  # pragma: no cover: at interpreter exit
            return 0
        running_loop, tell = found, teller
    if running_loop() is not None:
        tell(what == RAISE_ERROR, what == WARN_IN_DEBUG_MODE)
    return 0


cdef int step_aside(object conn, Sleep* sleep, Waiter waiter) except -1:
    """Sleep without stopping the thread."""
    cdef int64_t began_ns = monotonic_ns()
    cdef int64_t now_ns = began_ns
    cdef int64_t until_ns = sleep.deadline_ns
    cdef int fd, revents, done
    if sleep.recheck_tls:
        until_ns = min(until_ns, began_ns + SIGNALS_NS)
    while True:
        if now_ns >= sleep.deadline_ns:
            raise deadline_passed
        fd = fileno_of(conn, sleep)
        if fd < 0:  # pragma: no cover: a connection that was closed just before
            raise_cannot_wait(fd, EBADF)
        revents = 0
        if sleep.may_stay and now_ns < waiter.stay_until_ns:
            revents = sleep.events if sleep.is_ready else readiness_now(fd, sleep.events)
        if revents == 0:
            try:
                revents = waiter.wait_for(
                    fd,
                    sleep.events,
                    now_ns if sleep.is_ready else until_ns,
                    sleep.draining,
                    None if sleep.state is NULL else <ConnectionState>sleep.state,
                )
            except Psycopg2Error as exc:
                raise handler_raised(exc) from None
            counters.sleeps += 1
            now_ns = monotonic_ns()
            waiter.stay_until_ns = now_ns + LONGEST_STAY_NS
        # Handlers run in Python code, of which a thread that is never idle may run none: a hub or
        # an event loop in C is not, nor is this.
        run_signal_handlers()
        sleep.answer_ns = now_ns - began_ns
        if revents < 0:
            raise_cannot_wait(fd, -revents)
        if sleep.is_ready and revents == 0:
            revents = sleep.events
        sleep.is_ready = False
        if revents > 0:
            if sleep.advance is NULL:
                return 1
            with nogil:
                done = advance_until(
                    min(waiter.stay_until_ns, sleep.deadline_ns), sleep, revents)
            if done != 0:
                return done
            now_ns = monotonic_ns()
            if now_ns >= sleep.rest_ns and now_ns < sleep.deadline_ns:
                return 0
        elif sleep.recheck_tls and now_ns < sleep.deadline_ns:
            return 0


cdef int sleep_here(object conn, Poller poller, Sleep* sleep) except -1:
    """Sleep in this thread, which stops it."""
    cdef int role = MAIN_THREAD if is_main_thread() else OTHER_THREAD
    cdef SleepStep step
    cdef int done = TAKE_POLL
    # Only the main thread's ticker fires often enough for recheck_tls.
    step.slice_ms = SLICE_MS[MAIN_THREAD if sleep.recheck_tls else role]
    step.longest_ns = LONGEST_WITHOUT_GIL_NS if role == MAIN_THREAD else INT64_MAX
    sleep.began_ns = 0
    if poller == POLLER_EPOLL:
        done = sleep_in_epoll(conn, role, sleep, &step)
    if done == TAKE_POLL:
        done = sleep_in_poll(conn, role, sleep, &step)
    sleep.answer_ns = step.now_ns - sleep.began_ns
    if role == MAIN_THREAD and done != 0:
        # A signal that has arrived must not strike the Python code with which psycopg2 decodes
        # a notification: psycopg2 would lose both.
        run_signal_handlers()
    return done


cdef int sleep_in_poll(object conn, int role, Sleep* sleep, SleepStep* step) except -1:
    cdef int ticker
    step.epfd = -1
    while True:
        # Read anew each time: libpq may have put another socket in its place.
        step.fd = fileno_of(conn, sleep)
        ticker = -1 if sleep.recheck_tls and role == OTHER_THREAD else ticker_of(role)
        step.ticker = ticker
        release_gil(sleep, step)
        if step.ticker != ticker:
            forget_ticker(role, ticker)
        if step.done != 0:
            return step.done  # for a hang-up or an error too: poll() says what happened
        look_up(sleep, step)
        if step.rc < 0 and step.rc != -EINTR:
            raise_cannot_wait(step.fd, -step.rc)
        if is_to_rest(sleep, step):
            return 0


cdef int sleep_in_epoll(object conn, int role, Sleep* sleep, SleepStep* step) except -1:
    cdef ThreadEpoll epoll = thread_epoll(role)
    cdef int ticker
    if epoll is None:
        return TAKE_POLL
    step.epfd = epoll.epfd
    step.fd = -1
    try:
        while True:
            step.fd = fileno_of(conn, sleep)
            step.ticker = ticker = epoll.ticker
            release_gil(sleep, step)
            if step.ticker != ticker:  # pragma: no cover: lost to somebody's close(2)
                forget_ticker(role, ticker)
                epoll.ticker = -1  # not in this set any more: its sleeps have a timeout
            if step.done != 0:
                return step.done
            look_up(sleep, step)
            if step.rc < 0 and step.rc != -EINTR:
                # poll(2) takes what epoll does not (a file, one watch too many), and says
                # which of the two descriptors was closed.
                if not readiness_epoll_is_set(step.epfd):
                    epoll.epfd = -1  # abandoned: its number may have been reused
                return TAKE_POLL
            if is_to_rest(sleep, step):
                return 0
    except BaseException:
        if step.fd >= 0:
            readiness_epoll_forget(step.epfd, step.fd)
        raise


cdef inline int look_up(Sleep* sleep, SleepStep* step) except -1:
    """Check, between two steps, for what else ends the wait: a signal handler, the deadline."""
    run_signal_handlers()
    if step.now_ns >= sleep.deadline_ns:
        raise deadline_passed
    return 0


cdef inline bint is_to_rest(Sleep* sleep, SleepStep* step) noexcept:
    """Is it time for the caller to check by itself?"""
    return sleep.recheck_tls if step.rc == 0 else step.rc > 0 and step.now_ns >= sleep.rest_ns


cdef inline void release_gil(Sleep* sleep, SleepStep* step) noexcept:
    """Take a step without the GIL, and count it."""
    step.rc = step.done = step.sleeps = 0
    step.asleep_ns = step.spun_ns = 0
    with nogil:
        sleep_step(sleep, step)
    counters.sleeps += step.sleeps
    counters.asleep_ns += step.asleep_ns
    if step.spun_ns > 0:
        counters.spinning_ns += step.spun_ns
        if step.sleeps > 0:
            counters.spin_misses += 1
        elif step.rc > 0:
            counters.spin_hits += 1


cdef void forget_ticker(int role, int ticker) noexcept:
    """Forget a ticker that was closed, as a daemon closes all; the next sleep makes another."""
    if tickers[role] == ticker:
        tickers[role] = -1


cdef int raise_cannot_wait(int fd, int error) except -1:
    reason = OSError(error, strerror(error))
    if error == EBADF:
        raise OperationalError(
            f"descriptor {fd} was closed while greenwait waited for the server on it; "
            "the connection is lost, close it and connect again"
        ) from reason
    raise OperationalError(f"can't wait for the server on descriptor {fd}: {reason}") from reason
