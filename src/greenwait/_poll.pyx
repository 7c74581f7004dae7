"""What does the connection need? The wait loop, and the sleep of a plain thread.

psycopg2 calls a wait callback with the GIL held and, in a query, with the
connection's mutex held: nothing here may call a method of the connection that
takes that mutex (``poll``, ``fileno``, ``status`` and ``cancel`` do not).

The loop keeps no state between calls. That is what lets it be entered from any
thread, again from a ``__del__`` or a signal handler that runs a query, in a
forked child, and while the interpreter shuts down.
"""

cimport cython
from cpython.dict cimport PyDict_DelItem, PyDict_GetItem, PyDict_SetItem
from cpython.exc cimport PyErr_CheckSignals, PyErr_SetInterrupt
from cpython.object cimport PyObject, PyObject_TypeCheck, PyTypeObject
from cpython.pystate cimport PyThreadState_GetDict
from cpython.pythread cimport PyThread_get_thread_ident
from libc.errno cimport EBADF, EINTR

from greenwait._readiness cimport (
    READINESS_HAS_EPOLL,
    READINESS_READ,
    READINESS_WRITE,
    readiness_epoll,
    readiness_epoll_close,
    readiness_epoll_create,
    readiness_epoll_forget,
    readiness_epoll_is_set,
    readiness_poll,
    readiness_ticker_close,
    readiness_ticker_create,
)

import _thread
import os
import threading

from greenwait import _psycopg2

cdef extern from "Python.h":
    object PyObject_CallOneArg(object callable, object argument)

__all__ = ["POLLERS", "EpollWaitCallback", "WaitCallback", "wait"]

# psycopg2 names these in psycopg2.extensions; their values are part of its API.
cdef enum:
    POLL_OK = 0
    POLL_READ = 1
    POLL_WRITE = 2

# STATUS_SETUP; 20 and above are the steps of connecting (psycopg/connection.h).
cdef enum:
    STATUS_SETUP = 0
    STATUS_CONNECTING = 20

# Nobody sleeps for ever. Python runs signal handlers in the main thread only, and a
# signal can arrive after the last look and before the sleep, or be delivered to
# another thread: so the main thread looks again this often. The other threads only
# have to notice a descriptor that was closed under them, which no poller reports.
cdef enum:  # a thread's role
    MAIN_THREAD = 0
    OTHER_THREAD = 1

cdef int[2] SLICE_MS = [50, 1000]  # by role

cdef enum Poller:
    POLLER_POLL
    POLLER_EPOLL

# Module-level C variables outlive the module's dict: a query from a __del__ at
# interpreter exit still finds them.
cdef type connection_type = _psycopg2.connection
cdef object connection_poll = _psycopg2.connection.poll
cdef object connection_fileno = _psycopg2.connection.fileno
cdef object OperationalError = _psycopg2.OperationalError
cdef object strerror = os.strerror

#: The values that ``poller=`` accepts on this system.
POLLERS = ("poll", "epoll") if READINESS_HAS_EPOLL else ("poll",)


# psycopg2's own class is called without a look-up, which is a tenth of what a wait costs
# above blocking psycopg2. A subclass or a stub may have methods of its own.

cdef inline object call_poll(object conn):
    if type(conn) is connection_type:
        return PyObject_CallOneArg(connection_poll, conn)
    return conn.poll()


cdef inline object call_fileno(object conn):
    if type(conn) is connection_type:
        return PyObject_CallOneArg(connection_fileno, conn)
    return conn.fileno()


# -- Who waits? This thread, asleep.


def _find_main_thread_ident():
    """Return the main thread's ident, the real one: gevent patches threading's."""
    if hasattr(_thread, "_get_main_thread_ident"):  # CPython 3.13
        return _thread._get_main_thread_ident()
    if threading.get_native_id() == os.getpid():  # this is it, gettid(2)
        return PyThread_get_thread_ident()
    return threading.main_thread().ident


cdef unsigned long main_thread_ident = _find_main_thread_ident()
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
    epoll = ThreadEpoll(role)
    if epoll.epfd < 0:
        return None
    PyDict_SetItem(<dict>state, thread_epoll_key, epoll)
    return epoll


cdef int sleep_until_ready(object conn, Poller poller, int events) except -1:
    """Sleep until the connection's descriptor is ready for *events*; run signal handlers."""
    cdef int role = (
        MAIN_THREAD if PyThread_get_thread_ident() == main_thread_ident else OTHER_THREAD
    )
    cdef int slice_ms = SLICE_MS[role]
    cdef ThreadEpoll epoll = thread_epoll(role) if poller == POLLER_EPOLL else None
    cdef int epfd = -1
    cdef int fd = -1
    cdef int rc = 0
    cdef int ticker, used_ticker
    if epoll is not None:
        epfd = epoll.epfd
    try:
        while True:
            # Read anew each time: libpq may have put another socket in its place.
            fd = call_fileno(conn)
            ticker = used_ticker = epoll.ticker if epfd >= 0 else ticker_of(role)
            with nogil:
                if epfd >= 0:
                    rc = readiness_epoll(epfd, fd, events, slice_ms, &ticker)
                else:
                    rc = readiness_poll(fd, events, slice_ms, &ticker)
            # Not only after EINTR: a descriptor that is always ready, a large result's
            # say, would put the handlers off until the end.
            PyErr_CheckSignals()
            if ticker != used_ticker:
                # Somebody closed it, as a daemon does with all descriptors.
                if tickers[role] == used_ticker:
                    tickers[role] = -1  # the next sleep makes another
                if epoll is not None:
                    epoll.ticker = -1  # not in this set any more: its sleeps have a timeout
            if rc > 0:
                return 0  # a hang-up or an error too: conn.poll() says what happened
            if rc == 0 or rc == -EINTR:
                continue
            if epfd < 0:
                raise_cannot_wait(fd, -rc)
            # poll(2) takes what epoll does not (a file, one watch too many), and says
            # which of the two descriptors was closed.
            if not readiness_epoll_is_set(epfd):
                epoll.epfd = -1  # abandoned: the number may be another's by now
            epfd = -1
    except BaseException:
        if epfd >= 0 and fd >= 0:
            readiness_epoll_forget(epfd, fd)
        raise


cdef int raise_cannot_wait(int fd, int error) except -1:
    reason = OSError(error, strerror(error))
    if error == EBADF:
        raise OperationalError(
            f"descriptor {fd} was closed while greenwait waited for the server on it; "
            "the connection is lost, close it and connect again"
        ) from reason
    raise OperationalError(f"can't wait for the server on descriptor {fd}: {reason}") from reason


# -- What does the connection need?

cdef object drive(object conn, Poller poller):
    """Call ``conn.poll()`` until POLL_OK, and sleep in between."""
    cdef bint interrupted = False
    if not PyObject_TypeCheck(conn, <PyTypeObject*>connection_type):
        check_pollable(conn)
    while True:
        try:
            while True:
                state = call_poll(conn)
                if state == POLL_OK:
                    break
                if state == POLL_READ:
                    sleep_until_ready(conn, poller, READINESS_READ)
                elif state == POLL_WRITE:
                    sleep_until_ready(conn, poller, READINESS_WRITE)
                else:
                    raise OperationalError(
                        f"conn.poll() returned {state!r}, which is none of "
                        "POLL_OK (0), POLL_READ (1), POLL_WRITE (2)"
                    )
            break
        except KeyboardInterrupt:
            if not has_query_to_cancel(conn):
                raise
            # The server ends the query with an error, and that ends the loop.
            conn.cancel()
            interrupted = True
    if interrupted and succeeded(conn):
        PyErr_SetInterrupt()  # the query was faster than the cancel: Ctrl-C is still to be heard
    return None


cdef int check_pollable(object conn) except -1:
    if not (callable(getattr(conn, "poll", None)) and callable(getattr(conn, "fileno", None))):
        raise TypeError(
            "greenwait waits for a psycopg2 connection, or an object with the methods "
            f"poll() and fileno(), not {type(conn).__name__!r} "
            "(for a cursor, pass its .connection)"
        )
    return 0


cdef bint has_query_to_cancel(object conn) except -1:
    if not hasattr(conn, "cancel"):
        return False
    status = getattr(conn, "status", None)
    return not isinstance(status, int) or STATUS_SETUP < status < STATUS_CONNECTING


cdef bint succeeded(object conn) except -1:
    """Did the connection's last query end without an error?"""
    return PyObject_TypeCheck(conn, <PyTypeObject*>connection_type) and not conn.info.error_message


# -- The public names

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
    return drive(conn, POLLER_POLL)


@cython.final
cdef class WaitCallback:
    """WaitCallback(*, poller="poll")
--

    A wait callback with options: a callable that does what ``wait`` does.

    Immutable, and safe to share between threads.

    :param poller: the system call that sleeps, ``"poll"`` or (on Linux)
        ``"epoll"``. With ``"epoll"`` every thread keeps one epoll descriptor as
        long as it lives; a forked child makes its own. Where none can be had
        (EMFILE), the thread sleeps in poll(2).
    :raises ValueError: this system has no such poller.
    :raises TypeError: an option is unknown or has the wrong type.
    """

    cdef Poller _poller

    def __cinit__(self, *args, poller="poll", **unknown):
        if args:
            raise TypeError(
                "WaitCallback takes keyword options only; register an instance, "
                "set_wait_callback(greenwait.WaitCallback())"
            )
        if unknown:
            raise TypeError(
                f"WaitCallback has no option {next(iter(unknown))!r}; it accepts: poller"
            )
        if not isinstance(poller, str):
            raise TypeError(f"poller must be one of {POLLERS}, not {type(poller).__name__!r}")
        if poller not in POLLERS:
            raise ValueError(f"poller={poller!r} is not available here; this system has {POLLERS}")
        self._poller = POLLER_EPOLL if poller == "epoll" else POLLER_POLL

    @property
    def poller(self):
        """The system call that sleeps: ``"poll"`` or ``"epoll"``."""
        return "epoll" if self._poller == POLLER_EPOLL else "poll"

    def __call__(self, conn, /):
        """Wait until the server has answered; see ``greenwait.wait``."""
        return drive(conn, self._poller)

    def __repr__(self):
        return f"greenwait.WaitCallback(poller={self.poller!r})"


#: ``WaitCallback(poller="epoll")``, ready made; on a system without epoll it polls.
EpollWaitCallback = WaitCallback(poller=POLLERS[-1])
