"""Who waits, if not this thread? Whatever runs greenlets in it.

A waiter is the thread's: while it is entered, every wait of that thread, in whichever
greenlet, steps aside in favour of another one.
"""

from cpython.dict cimport PyDict_DelItem, PyDict_GetItem, PyDict_SetItem
from cpython.object cimport PyObject
from cpython.pystate cimport PyThreadState_GetDict
from libc.stdint cimport int64_t

import os

cdef object waiter_key = object()
cdef int waiters_entered = 0


cdef class Waiter:
    """See ``_waiter.pxd``."""

    cdef int wait_for(self, int fd, int events, int64_t deadline_ns, bint is_stopping) except -1:
        """Step aside until the descriptor is ready.

        Returns poll(2)'s bits for it, or 0 when the deadline has passed. What it raises
        interrupts the wait; *is_stopping* says that this is a wait for the end of a query
        that was interrupted, and that it will be given up then.
        """
        raise NotImplementedError


cdef Waiter waiter_here():
    """Return the waiter of this thread, or None."""
    cdef PyObject* state = <PyObject*>PyThreadState_GetDict()
    cdef PyObject* found
    if state is NULL:
        return None
    found = PyDict_GetItem(<dict>state, waiter_key)
    return None if found is NULL else <Waiter>found


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
    if waiters_entered > 0:
        waiters_entered = 0
        if waiter_here() is not None:
            PyDict_DelItem(<dict><PyObject*>PyThreadState_GetDict(), waiter_key)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
