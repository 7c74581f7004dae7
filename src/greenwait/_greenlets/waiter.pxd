"""The waiter of a thread whose greenlets are switched by greenwait itself."""

from libc.stdint cimport int64_t

from greenwait._greenlets.scheduler cimport Scheduler, SuspendedWait
from greenwait._waiter cimport Waiter

cdef class InterruptTarget:
    cdef SuspendedWait innermost  # its innermost wait, or None
    cdef object interruption      # to be raised there, or in its next wait
    cdef object raised            # the one raised last
    cdef bint wait_for_drain      # the interruption is not raised in a wait for a drain
    cdef int64_t limit_ns         # when its waits are over, whatever they are for; 0: no limit

cdef class GreenletWaiter(Waiter):
    cdef Scheduler scheduler
    cdef unsigned long thread
    cdef object entered_by        # the greenlet to which the others return
    cdef Py_ssize_t left_of_batch  # how many of the waits that are due come before the next poll

    cdef InterruptTarget target_of(self, object here)
    cdef object next_due(self, SuspendedWait suspended)
    cdef int begin(self, object due, object here) except -1
    cdef int go_on(self, SuspendedWait suspended, object here) except -1
    cdef int make_due(self, SuspendedWait suspended) except -1
    cdef int suspend(self, SuspendedWait suspended) except -1
    cdef int raise_interruption(self, InterruptTarget target, SuspendedWait suspended) except -1
    cdef int interrupt(self, InterruptTarget target, object exc, bint wait_for_drain) except -1
