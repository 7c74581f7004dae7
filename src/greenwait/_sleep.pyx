"""Who waits? This thread, asleep in poll(2) or epoll_wait(2) without the GIL.

The one place that sleeps for a plain thread: it runs Python's signal handlers, and
turns the kernel's errors into exceptions.

Each step of each wait comes through ``sleep_until_ready()``, in every context, and that looks
at the clock before it sleeps. So a server that always has something to say can't hold off a
deadline or a signal, and no loop above this one needs a clock of its own.
"""

cimport cython
from cpython.dict cimport PyDict_DelItem, PyDict_GetItem, PyDict_SetItem
from cpython.exc cimport PyErr_CheckSignals
from cpython.object cimport PyObject
from cpython.pystate cimport PyThreadState_GetDict
from cpython.pythread cimport PyThread_get_thread_ident
from libc.errno cimport EBADF, EINTR
from libc.stdint cimport INT64_MAX, int64_t

from greenwait._known cimport Known
from greenwait._libpq cimport libpq
from greenwait._monotonic cimport NO_DEADLINE, monotonic_ns
from greenwait._readiness cimport (
    READINESS_HAS_EPOLL,
    READINESS_READ,
    readiness_epoll,
    readiness_epoll_close,
    readiness_epoll_create,
    readiness_epoll_forget,
    readiness_epoll_is_set,
    readiness_poll,
    readiness_ticker_close,
    readiness_ticker_create,
)
from greenwait._sealed_type cimport seal_type
from greenwait._spin cimport spin_is_possible, spin_until_ready
from greenwait._stats cimport counters
from greenwait._waiter cimport Waiter, waiter_here, waiters_entered

import _signal
import _thread
import os
import sys
import threading

from greenwait import _psycopg2
from greenwait._errors import DeadlinePassed, HandlerRaised

__all__ = ["POLLERS"]

# Nobody sleeps for ever. Python runs signal handlers in the main thread only, and a
# signal can arrive after the last look and before the sleep, or be delivered to
# another thread: so the main thread looks again this often. The other threads only
# have to notice a descriptor that was closed under them, which no poller reports.
cdef enum:  # a thread's role
    MAIN_THREAD = 0
    OTHER_THREAD = 1

cdef int[2] SLICE_MS = [50, 1000]  # by role

# How long the main thread may go on without the GIL while data keeps coming: a signal
# waits that long. Taking the GIL from a busy thread takes 5 ms (sys.getswitchinterval).
cdef int64_t LONGEST_WITHOUT_GIL_NS = 80_000_000
# ... and how long a greenlet may, before others have their turn. Not less: what is in the
# sockets' buffers, some megabytes, is to be drained within the grace beside one that computes.
cdef int64_t LONGEST_STAY_NS = 1_000_000

# Module-level C variables outlive the module's dict: a query from a __del__ at
# interpreter exit still finds them.
cdef object Psycopg2Error = _psycopg2.Error
cdef object OperationalError = _psycopg2.OperationalError
cdef object strerror = os.strerror
cdef dict modules = sys.modules


cdef object deadline_passed = DeadlinePassed
cdef object handler_raised = HandlerRaised

#: The values that ``poller=`` accepts on this system.
POLLERS = ("poll", "epoll") if READINESS_HAS_EPOLL else ("poll",)


def _find_main_thread_ident():
    """Return the main thread's ident, the real one: gevent patches threading's."""
    if hasattr(_thread, "_get_main_thread_ident"):  # CPython 3.13
        return _thread._get_main_thread_ident()
    try:
        _signal.signal(_signal.SIGINT, None)
    except TypeError:  # None is not a handler; another thread is refused before that is seen
        return PyThread_get_thread_ident()
    except ValueError:
        return threading.main_thread().ident


cdef unsigned long main_thread_ident = _find_main_thread_ident()


cdef bint is_main_thread() noexcept:
    """Is this the thread that runs Python's signal handlers?"""
    return PyThread_get_thread_ident() == main_thread_ident


cdef int[2] tickers = [-1, -1]  # by role, shared by all threads of the role
cdef object thread_epoll_key = object()


def _after_fork_in_child():
    """The thread that forked is the child's main thread; inherited descriptors are the parent's.

    They are closed here and now, before the child's own code closes "all" descriptors
    and their numbers go to others. (Of threads that slept in epoll_wait they stay open
    in the child, unused: nobody is left to let go of them.)
    """
    global main_thread_ident
    cdef PyObject* state = <PyObject*>PyThreadState_GetDict()
    cdef int role
    main_thread_ident = PyThread_get_thread_ident()
    for role in range(2):
        if tickers[role] >= 0:
            readiness_ticker_close(tickers[role])
            tickers[role] = -1
    if state is not NULL and PyDict_GetItem(<dict>state, thread_epoll_key) is not NULL:
        PyDict_DelItem(<dict>state, thread_epoll_key)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


cdef int ticker_of(int role) noexcept:
    """Return the ticker of this role's threads, made on first use; < 0 where there is none."""
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
        # The number may be another's by now, if somebody closed it.
        if self.epfd >= 0 and readiness_epoll_is_set(self.epfd):
            readiness_epoll_close(self.epfd)


seal_type(ThreadEpoll, "a thread that waits makes it")


cdef ThreadEpoll thread_epoll(int role):
    """Return this thread's epoll set, made on first use.

    None where there is none to be had (no more descriptors, the thread's state
    is already gone): the caller sleeps in poll(2), which needs nothing.
    """
    cdef PyObject* found
    cdef PyObject* state = <PyObject*>PyThreadState_GetDict()
    cdef ThreadEpoll epoll
    if state is NULL:
        return None
    found = PyDict_GetItem(<dict>state, thread_epoll_key)
    if found is not NULL and (<ThreadEpoll>found).epfd >= 0:
        return <ThreadEpoll>found
    epoll = ThreadEpoll.__new__(ThreadEpoll, role)
    if epoll.epfd < 0:
        return None
    PyDict_SetItem(<dict>state, thread_epoll_key, epoll)
    return epoll


# -- Without the GIL

# From one look at Python's signals to the next.
cdef struct Turn:
    int fd
    int epfd             # < 0: poll(2)
    int ticker           # set to -1 where it proves to be none
    int slice_ms
    int64_t longest_ns
    # out:
    int rc               # of the last sleep, as in readiness.h
    int done             # nonzero: what the sleep shall return
    int sleeps
    int64_t asleep_ns
    int64_t spun_ns
    int64_t now_ns


cdef void take_turn(Sleep* sleep, Turn* turn) noexcept nogil:
    """Spin, sleep and advance until that is done, or Python is wanted."""
    cdef int64_t until_ns = sleep.deadline_ns
    turn.now_ns = monotonic_ns()
    if sleep.began_ns == 0:
        sleep.began_ns = turn.now_ns
    if turn.now_ns >= sleep.deadline_ns:
        return
    if turn.longest_ns != INT64_MAX:
        until_ns = min(until_ns, turn.now_ns + turn.longest_ns)
    until_ns = min(until_ns, sleep.rest_ns)
    if sleep.is_ready:
        sleep.is_ready = False
        turn.rc = sleep.events
    elif sleep.spin_ns > 0:
        spin(sleep, turn)
        if turn.rc <= 0 and sleep.spin_ns > 0:
            return
    while True:
        if turn.rc == 0:
            sleep_slice(sleep, turn)
        if turn.rc <= 0:
            return
        if sleep.advance is NULL:
            turn.done = 1
            return
        turn.done = advance_until(until_ns, sleep, turn.rc)
        if turn.done != 0:
            return
        turn.now_ns = monotonic_ns()
        if turn.now_ns >= until_ns:
            return
        turn.rc = 0


cdef int advance_until(int64_t until_ns, Sleep* sleep, int revents) noexcept nogil:
    """Advance as long as that takes no sleep, or until then. Returns what ends the sleep, or 0."""
    cdef int done = sleep.advance(sleep.argument, revents)
    while done == CALL_AGAIN:
        if monotonic_ns() >= until_ns:
            sleep.is_ready = True
            return 0
        done = sleep.advance(sleep.argument, revents)
    return done


cdef inline void spin(Sleep* sleep, Turn* turn) noexcept nogil:
    cdef int64_t began_ns = turn.now_ns
    cdef int64_t slice_ns = min(turn.slice_ms * <int64_t>1_000_000, sleep.deadline_ns - began_ns)
    cdef int64_t limit_ns = min(sleep.spin_ns, slice_ns)
    if not spin_is_possible():
        sleep.spin_ns = 0
        return
    turn.rc = spin_until_ready(turn.fd, sleep.events, limit_ns)
    turn.now_ns = monotonic_ns()
    turn.spun_ns = turn.now_ns - began_ns
    sleep.spin_ns = 0 if turn.rc > 0 else sleep.spin_ns - turn.spun_ns


cdef inline void sleep_slice(Sleep* sleep, Turn* turn) noexcept nogil:
    cdef int64_t began_ns = turn.now_ns
    cdef int left_ms = -1
    if sleep.deadline_ns != NO_DEADLINE:
        # Rounded up: it must have passed when the sleep is over. Longer than a slice is long.
        left_ms = <int>max(0, min((sleep.deadline_ns - began_ns + 999_999) // 1_000_000, 100_000))
    if turn.epfd >= 0:
        turn.rc = readiness_epoll(
            turn.epfd, turn.fd, sleep.events, turn.slice_ms, left_ms, &turn.ticker)
    else:
        turn.rc = readiness_poll(turn.fd, sleep.events, turn.slice_ms, left_ms, &turn.ticker)
    turn.now_ns = monotonic_ns()
    turn.asleep_ns += turn.now_ns - began_ns
    turn.sleeps += 1


# -- With it

cdef inline int fileno_of(object conn, Sleep* sleep) except? -1:
    """Return the connection's descriptor; -1 is one that was closed, to libpq."""
    if sleep.has_socket is not NULL:
        return libpq.socket(sleep.has_socket)
    return conn.fileno()


# What sleep_in_epoll() returns where epoll can't do it.
cdef enum:
    TAKE_POLL = -2


cdef int run_signal_handlers() except -1:
    """Run Python's handlers of the signals that have come."""
    try:
        PyErr_CheckSignals()
    except Psycopg2Error as exc:
        raise handler_raised(exc) from None
    return 0


cdef int look(int fd, int events) noexcept:
    """Return what ``readiness_poll()`` does, without sleeping."""
    cdef int no_ticker = -1
    return readiness_poll(fd, events, 0, 0, &no_ticker)


cdef bint has_input(int fd) noexcept:
    """Is there something to read, or an end? Without sleeping."""
    return look(fd, READINESS_READ) != 0


cdef int sleep_until_ready(object conn, Poller poller, Sleep* sleep) except -1:
    """Sleep until the connection's descriptor is ready.

    Returns 1 when it is, 0 when it is time to look again (``look_again``, ``rest_ns``), or
    what ``advance`` returned. Signal handlers run as often as it takes, and before it returns if
    this is the main thread, whoever waits. Raises DeadlinePassed, also where the descriptor
    is ready, if the deadline had passed before: what comes during the sleep stands.
    """
    if waiters_entered > 0:
        waiter = waiter_here()
        if waiter is not None:
            return step_aside(conn, sleep, waiter)
    # Has asyncio been imported since the last look?
    if not sleep.is_stopping and (tell is not None or len(modules) != modules_seen):
        tell_of_event_loop(sleep.on_event_loop)
    return sleep_here(conn, poller, sleep)


cdef object running_loop = None  # as soon as asyncio is imported
cdef object tell = None
cdef Py_ssize_t modules_seen = 0


cdef int tell_of_event_loop(OnEventLoop what) except -1:
    """Say so if an event loop runs in this thread, which the sleep will stop."""
    global modules_seen, running_loop, tell
    if tell is None:
        modules_seen = len(modules)
        if "asyncio.events" not in modules:
            return 0
        try:
            from greenwait._event_loop import running_loop as found, tell as teller
        except ImportError:  # at interpreter exit
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
    if sleep.look_again:
        until_ns = min(until_ns, began_ns + SLICE_MS[MAIN_THREAD] * <int64_t>1_000_000)
    while True:
        if now_ns >= sleep.deadline_ns:
            raise deadline_passed
        fd = fileno_of(conn, sleep)
        if fd < 0:
            raise_cannot_wait(fd, EBADF)
        revents = 0
        if sleep.may_stay and now_ns < waiter.stay_until_ns:
            revents = sleep.events if sleep.is_ready else look(fd, sleep.events)
        if revents == 0:
            try:
                revents = waiter.wait_for(
                    fd,
                    sleep.events,
                    now_ns if sleep.is_ready else until_ns,
                    sleep.is_stopping,
                    None if sleep.known is NULL else <Known>sleep.known,
                )
            except Psycopg2Error as exc:
                raise handler_raised(exc) from None
            counters.sleeps += 1
            waiter.stay_until_ns = monotonic_ns() + LONGEST_STAY_NS
        # A thread that is never idle may run no Python code of its own, which is where handlers
        # run: a hub or an event loop in C, and us.
        run_signal_handlers()
        now_ns = monotonic_ns()
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
        elif sleep.look_again and now_ns < sleep.deadline_ns:
            return 0


cdef int sleep_here(object conn, Poller poller, Sleep* sleep) except -1:
    """Stop the thread for as long."""
    cdef int role = MAIN_THREAD if is_main_thread() else OTHER_THREAD
    cdef Turn turn
    cdef int done = TAKE_POLL
    # Only the main thread's ticker is fast enough to look again by.
    turn.slice_ms = SLICE_MS[MAIN_THREAD if sleep.look_again else role]
    turn.longest_ns = LONGEST_WITHOUT_GIL_NS if role == MAIN_THREAD else INT64_MAX
    sleep.began_ns = 0
    if poller == POLLER_EPOLL:
        done = sleep_in_epoll(conn, role, sleep, &turn)
    if done == TAKE_POLL:
        done = sleep_in_poll(conn, role, sleep, &turn)
    sleep.answer_ns = turn.now_ns - sleep.began_ns
    if role == MAIN_THREAD and done != 0:
        # What has come by now is not to strike the Python code that psycopg2 decodes a
        # notification with: it would lose both.
        run_signal_handlers()
    return done


cdef int sleep_in_poll(object conn, int role, Sleep* sleep, Turn* turn) except -1:
    cdef int ticker
    turn.epfd = -1
    while True:
        # Read anew each time: libpq may have put another socket in its place.
        turn.fd = fileno_of(conn, sleep)
        ticker = -1 if sleep.look_again and role == OTHER_THREAD else ticker_of(role)
        turn.ticker = ticker
        release_gil(sleep, turn)
        if turn.ticker != ticker:
            forget_ticker(role, ticker)
        if turn.done != 0:
            return turn.done  # for a hang-up or an error too: poll() says what happened
        look_up(sleep, turn)
        if turn.rc < 0 and turn.rc != -EINTR:
            raise_cannot_wait(turn.fd, -turn.rc)
        if is_to_rest(sleep, turn):
            return 0


cdef int sleep_in_epoll(object conn, int role, Sleep* sleep, Turn* turn) except -1:
    cdef ThreadEpoll epoll = thread_epoll(role)
    cdef int ticker
    if epoll is None:
        return TAKE_POLL
    turn.epfd = epoll.epfd
    turn.fd = -1
    try:
        while True:
            turn.fd = fileno_of(conn, sleep)
            turn.ticker = ticker = epoll.ticker
            release_gil(sleep, turn)
            if turn.ticker != ticker:
                forget_ticker(role, ticker)
                epoll.ticker = -1  # not in this set any more: its sleeps have a timeout
            if turn.done != 0:
                return turn.done
            look_up(sleep, turn)
            if turn.rc < 0 and turn.rc != -EINTR:
                # poll(2) takes what epoll does not (a file, one watch too many), and says
                # which of the two descriptors was closed.
                if not readiness_epoll_is_set(turn.epfd):
                    epoll.epfd = -1  # abandoned: the number may be another's by now
                return TAKE_POLL
            if is_to_rest(sleep, turn):
                return 0
    except BaseException:
        if turn.fd >= 0:
            readiness_epoll_forget(turn.epfd, turn.fd)
        raise


cdef inline int look_up(Sleep* sleep, Turn* turn) except -1:
    """Between two turns: whatever else ends the wait."""
    run_signal_handlers()
    if turn.now_ns >= sleep.deadline_ns:
        raise deadline_passed
    return 0


cdef inline bint is_to_rest(Sleep* sleep, Turn* turn) noexcept:
    """Is it time for the caller to look for itself?"""
    return sleep.look_again if turn.rc == 0 else turn.rc > 0 and turn.now_ns >= sleep.rest_ns


cdef inline void release_gil(Sleep* sleep, Turn* turn) noexcept:
    """Take a turn without the GIL, and count it."""
    turn.rc = turn.done = turn.sleeps = 0
    turn.asleep_ns = turn.spun_ns = 0
    with nogil:
        take_turn(sleep, turn)
    counters.sleeps += turn.sleeps
    counters.asleep_ns += turn.asleep_ns
    if turn.spun_ns > 0:
        counters.spinning_ns += turn.spun_ns
        if turn.sleeps > 0:
            counters.spin_misses += 1
        elif turn.rc > 0:
            counters.spin_hits += 1


cdef void forget_ticker(int role, int ticker) noexcept:
    """Somebody closed it, as a daemon does with all descriptors: the next sleep makes another."""
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
