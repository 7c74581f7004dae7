"""Who waits, if not this thread? Whatever runs greenlets in it.

A hub of ours is entered in a thread; from then on every wait there, in whichever greenlet,
steps aside in favour of another one. Other frameworks have an adapter, for all threads,
which is asked whether it is at home in this one.
"""

cimport cython
from cpython.dict cimport PyDict_DelItem, PyDict_GetItem, PyDict_SetItem
from cpython.object cimport PyObject
from cpython.pystate cimport PyThreadState_GetDict
from libc.stdint cimport int64_t

import os

from greenwait._known cimport Known
from greenwait._monotonic cimport NO_DEADLINE, monotonic_ns

__all__ = ["Adapter", "adopt"]

cdef object waiter_key = object()
cdef int waiters_entered = 0
cdef list adapters = []


@cython.auto_pickle(False)
cdef class Waiter:
    """See ``_waiter.pxd``."""

    cdef int wait_for(
        self, int fd, int events, int64_t deadline_ns, bint is_stopping, Known connection
    ) except -1:
        """Step aside until the descriptor is ready.

        Returns poll(2)'s bits for it, or 0 when the deadline has passed. What it raises
        interrupts the wait; *is_stopping* says that this is a wait for the end of a query
        that was interrupted, and that it will be given up then. *connection* is None where
        the descriptor may be another one's the next time.
        """
        raise NotImplementedError


@cython.auto_pickle(False)
cdef class Adapter(Waiter):
    """A framework's waits, written in Python: a subclass has these two methods."""

    def is_here(self):
        """Does the framework run this thread, and may this greenlet step aside?"""
        raise NotImplementedError

    def wait(self, fd, events, seconds, known):
        """Step aside for at most *seconds*, or None; return the events that have come.

        *known* is None, or has a place, ``kept``, for what the next wait can use again.
        """
        raise NotImplementedError

    cdef int wait_for(
        self, int fd, int events, int64_t deadline_ns, bint is_stopping, Known connection
    ) except -1:
        seconds = None
        if deadline_ns != NO_DEADLINE:
            seconds = max(0, deadline_ns - monotonic_ns()) / 1e9
        return self.wait(fd, events, seconds, connection)


def adopt(Adapter adapter):
    """Have all threads ask *adapter*, from now on; again makes no difference."""
    global waiters_entered
    if adapter in adapters:
        return
    adapters.append(adapter)
    waiters_entered += 1


cdef Waiter waiter_here():
    """Return the waiter of this thread, or None."""
    cdef PyObject* state = <PyObject*>PyThreadState_GetDict()
    cdef PyObject* found = NULL
    if state is not NULL:
        found = PyDict_GetItem(<dict>state, waiter_key)
    if found is not NULL:
        return <Waiter>found
    for adapter in adapters:
        if adapter.is_here():
            return <Waiter>adapter
    return None


cdef int enter_waiter(Waiter waiter) except -1:
    """Make it this thread's."""
    global waiters_entered
    PyDict_SetItem(<dict><PyObject*>PyThreadState_GetDict(), waiter_key, waiter)
    waiters_entered += 1
    return 0


cdef int leave_waiter() except -1:
    """Have this thread wait for itself again."""
    global waiters_entered
    waiters_entered -= 1
    PyDict_DelItem(<dict><PyObject*>PyThreadState_GetDict(), waiter_key)
    return 0


def _after_fork_in_child():
    """Those of other threads are gone; that of this one is the parent's."""
    global waiters_entered
    cdef dict state = <dict><PyObject*>PyThreadState_GetDict()
    waiters_entered = len(adapters)
    state.pop(waiter_key, None)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
