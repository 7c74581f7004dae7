"""The interface of a waiter, which waits in a thread's place: a hub, or a framework's adapter.

A greenwait hub is entered in a thread; from then on every wait there, in any greenlet, steps
aside for another greenlet. A framework has one adapter for all threads, which is asked whether
it is active in this one.
"""

cimport cython
from cpython.dict cimport PyDict_GetItemWithError, PyDict_SetItem
from cpython.object cimport PyObject
from cpython.pystate cimport PyThreadState_GetDict
from libc.stdint cimport int64_t

from greenwait._psycopg.state cimport ConnectionState
from greenwait._system.clock cimport NO_DEADLINE, monotonic_ns
from greenwait._system.finalizing cimport Py_IsFinalizing
from greenwait._system.periods cimport CLOSED_NS
from greenwait._system.readiness cimport READINESS_READ, READINESS_WRITE, readiness_check
from greenwait._system.switching cimport current_greenlet
from greenwait._system.threads cimport forks

import _socket
import os
import socket

__all__ = ["READ", "WRITE", "Adapter", "register"]

#: The events that an adapter waits for: poll(2)'s.
READ = READINESS_READ
WRITE = READINESS_WRITE

cdef str waiter_key = "greenwait's waiter"  # a str has its hash ready
cdef int waiters_entered = 0
cdef int hubs_entered = 0
cdef list adapters = []

# eventfd(2) exists on Linux only.
cdef object new_eventfd = getattr(os, "eventfd", None)
cdef object write_eventfd = getattr(os, "eventfd_write", None)
cdef object read_eventfd = getattr(os, "eventfd_read", None)
cdef object close_descriptor = os.close
# Not socket.socketpair(), which may be patched: gevent's starts an event loop in each thread.
cdef object new_pair = getattr(_socket, "socketpair", socket.socketpair)  # Windows has that one
cdef int EVENTFD_FLAGS = (os.EFD_CLOEXEC | os.EFD_NONBLOCK) if hasattr(os, "eventfd") else 0


@cython.auto_pickle(False)
cdef class Waiter:
    """The base class of hubs and adapters; see ``_waiter.pxd``."""

    def __cinit__(self):
        self.forks = forks

    cdef bint is_inherited(self) noexcept:
        """Is this a forked child of the process that made it, where its greenlets go on?"""
        return self.forks != forks

    cdef int wait_for(
        self, int fd, int events, int64_t deadline_ns, bint draining, ConnectionState state
    ) except -1:
        """Step aside until the descriptor is ready.

        Returns poll(2)'s bits for it, 0 when the deadline has passed, or -errno. An
        exception interrupts the wait. *draining*: it is a wait for the end of an interrupted
        query, which an exception would give up. *state* is None if the descriptor may
        belong to another connection the next time.
        """
        raise NotImplementedError

    cdef bint postpone(self, object exc) except -1:
        """Raise *exc* in the greenlet's next wait, or at its end; return whether that is possible.

        It must be an exception that this waiter has raised in the running greenlet.
        """
        return False

    # Waiting for another greenlet or thread, and not for a descriptor.

    cdef object new_wakeup(self):
        """Return a wakeup for one wait, for *wait_for_wakeup* and *wake*."""
        raise NotImplementedError

    cdef int wait_for_wakeup(self, object wakeup, int64_t deadline_ns) except -1:
        """Step aside until *wakeup* is woken or the deadline has passed; may return sooner."""
        raise NotImplementedError

    cdef int wake(self, object wakeup) except -1:
        """End the wait for *wakeup*, whether it has begun or not; from any thread."""
        raise NotImplementedError

    cdef object take_interruption(self, object reason):
        """Return the interrupt that was put off until the end of a query, or None.

        *reason* is the exception that stopped the query, or None.
        """
        return None

    cdef int64_t limit_waits(self, int64_t limit_ns) except -1:
        """Have QueryTimeout raised, once, where the running greenlet waits at that time.

        Whatever it waits for, if the waiter knows of that. 0 sets no limit. Returns the one before.
        """
        return 0

    cdef int trace_row(self, int first, object number) except -1:
        """Return the number of the running greenlet's row in a trace; 0 if that is the thread's.

        Those of this trace are *first* and higher. ``number(kind, thing, name)`` returns the
        number of a thing's row, or of a new one if the thing is None.
        """
        here = current_greenlet()
        return 0 if here.parent is None else number("greenlet", here, None)


@cython.auto_pickle(False)
cdef class Adapter(Waiter):
    """A framework's waiter, written in Python: a subclass has ``is_active()`` and ``wait()``."""

    cpdef bint is_active(self) except -1:
        """Return whether the framework runs this thread, and this greenlet may step aside."""
        raise NotImplementedError

    def wait(self, fd, events, seconds):
        """Step aside for at most *seconds* if not None; return the events that came, or 0."""
        raise NotImplementedError

    cpdef bint is_hub_itself(self) except -1:
        """Return whether the framework's own greenlet runs, so that a wait stops all others."""
        return False

    cdef Waiter find_waiter(self):
        """Return the waiter of this thread, or None if the framework is not active in it."""
        return self if self.is_active() else None

    cdef int wait_for(
        self, int fd, int events, int64_t deadline_ns, bint draining, ConnectionState state
    ) except -1:
        # A framework does not notice that a descriptor was closed meanwhile.
        cdef int come = self.wait(fd, events, seconds_until_look(deadline_ns))
        return come if come != 0 else readiness_check(fd)

    cdef object new_wakeup(self):
        return WakeupFd()

    cdef int wait_for_wakeup(self, object wakeup, int64_t deadline_ns) except -1:
        self.wait((<WakeupFd>wakeup).fileno(), READINESS_READ, seconds_until(deadline_ns))
        return 0

    cdef int wake(self, object wakeup) except -1:
        return (<WakeupFd>wakeup).wake()


cdef object seconds_until_look(int64_t deadline_ns):
    """Return the seconds until the deadline, or until the next check for closed descriptors."""
    return seconds_until(min(deadline_ns, monotonic_ns() + CLOSED_NS))


cdef object seconds_until(int64_t deadline_ns):
    """Return the seconds until the deadline, at least 0; None if there is no deadline."""
    return None if deadline_ns == NO_DEADLINE else max(0, deadline_ns - monotonic_ns()) / 1e9


@cython.auto_pickle(False)
@cython.final
cdef class WakeupFd:
    """A descriptor that any thread can make readable: an eventfd(2), or a pair of sockets."""

    def __cinit__(self):
        self.fd = -1
        if new_eventfd is not None:
            self.fd = new_eventfd(0, EVENTFD_FLAGS)
        else:
            self.ends = new_pair()
            for end in self.ends:
                end.setblocking(False)

    def __del__(self):
        if self.ends is not None:
            for end in self.ends:
                end.close()

    def __dealloc__(self):
        if self.fd >= 0:
            close_descriptor(self.fd)

    cpdef int fileno(self) except -1:
        """Return the descriptor, which is readable once it has been woken."""
        return self.fd if self.fd >= 0 else self.ends[0].fileno()

    cpdef int wake(self) except -1:
        """Make it readable."""
        try:
            if self.fd >= 0:
                write_eventfd(self.fd, 1)
            else:
                self.ends[1].send(b"x")
        except BlockingIOError:
            pass  # it was woken very often
        return 0

    cdef int clear(self) except -1:
        """Make it unreadable."""
        try:
            if self.fd >= 0:
                read_eventfd(self.fd)
            else:
                self.ends[0].recv(4096)
        except BlockingIOError:
            pass
        return 0


def register(Adapter adapter):
    """Make all threads ask *adapter* from now on; a second call has no effect."""
    global waiters_entered
    if adapter in adapters:
        return
    adapters.append(adapter)
    waiters_entered += 1


cdef int register_first(Adapter adapter) except -1:
    """Make all threads ask *adapter* before the others, which may be active around it."""
    global waiters_entered
    if adapter not in adapters:
        adapters.insert(0, adapter)
        waiters_entered += 1
    return 0


cdef Waiter waiter_here():
    """Return the waiter of this thread, or None."""
    cdef Waiter waiter
    cdef PyObject* thread_dict
    cdef PyObject* found = NULL
    if Py_IsFinalizing():
        return None  # its other greenlets never run again
    thread_dict = <PyObject*>PyThreadState_GetDict()
    if thread_dict is not NULL:
        found = PyDict_GetItemWithError(<dict>thread_dict, waiter_key)
    if found is not NULL:
        return <Waiter>found
    for adapter in adapters:
        waiter = (<Adapter>adapter).find_waiter()
        if waiter is not None:
            return waiter
    return None


cdef bint is_hub_itself() except -1:
    """Is a framework's own greenlet running, so that a wait stops all others?"""
    if Py_IsFinalizing():
        return False
    for adapter in adapters:
        if (<Adapter>adapter).is_hub_itself():
            return True
    return False


cdef int enter_waiter(Waiter waiter) except -1:
    """Make it this thread's waiter."""
    global hubs_entered, waiters_entered
    PyDict_SetItem(<dict><PyObject*>PyThreadState_GetDict(), waiter_key, waiter)
    waiters_entered += 1
    hubs_entered += 1
    return 0


cdef int leave_waiter() except -1:
    """Make this thread wait by itself again."""
    global hubs_entered, waiters_entered
    waiters_entered -= 1
    hubs_entered -= 1
    # An ending thread loses its dict first; then a generator that it kept may be closed.
    (<dict><PyObject*>PyThreadState_GetDict()).pop(waiter_key, None)
    return 0


cdef int keep_waiter(Waiter waiter) except -1:
    """Keep it this thread's waiter, even if the thread is ending and has lost its dict."""
    PyDict_SetItem(<dict><PyObject*>PyThreadState_GetDict(), waiter_key, waiter)
    return 0


def _after_fork_in_child():
    """Forget the hubs: those of other threads are gone, and this thread's is the parent's."""
    global hubs_entered, waiters_entered
    cdef dict thread_dict = <dict><PyObject*>PyThreadState_GetDict()
    waiters_entered = len(adapters)
    hubs_entered = 0
    thread_dict.pop(waiter_key, None)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
