"""A scheduler of greenlets that wait for descriptors, timers and each other."""

from libc.stdint cimport int64_t, uint32_t

from greenwait._psycopg.state cimport ConnectionState
from greenwait._system.readiness_set cimport readiness_set_t
from greenwait._waiter cimport Waiter, WakeupFd

cdef class SuspendedWait:
    cdef object greenlet
    cdef bint is_due
    cdef bint draining  # it waits for the end of an interrupted query
    cdef int fd         # < 0: none
    cdef int revents
    cdef int64_t deadline_ns

cdef class InterruptTarget:
    cdef SuspendedWait innermost  # its innermost wait, or None
    cdef object interruption      # to be raised there, or in its next wait
    cdef object raised            # the one raised last
    cdef bint wait_for_drain      # the interruption is not raised in a wait for a drain

cdef class WatchedFd:
    cdef SuspendedWait suspended  # the wait for it
    cdef ConnectionState state    # its connection's; None: it is in the set for one wait only
    cdef int events               # 0: it is not in the set
    cdef uint32_t generation      # tells its readiness from an earlier descriptor's of its number

cdef class Scheduler(Waiter):
    cdef readiness_set_t ready_set
    cdef bint is_open
    cdef unsigned long thread
    cdef bint is_main_thread
    cdef object entered_by        # the greenlet that entered it
    cdef InterruptTarget target   # that greenlet's
    cdef object due               # waits that are over, and jobs or calls to begin, in order
    cdef Py_ssize_t left_of_batch
    cdef list watched             # by descriptor
    cdef list timers              # a heap
    cdef uint32_t generation
    cdef Py_ssize_t timers_left   # their number when they were last cleared
    cdef int64_t last_look_ns     # the last check for closed descriptors
    cdef WakeupFd wakeup_fd       # for other threads; None until a wait depends on one
    cdef object woken             # waits that other threads have ended

    cdef InterruptTarget target_of(self, object here)
    cdef bint may_begin(self, object due) except -1
    cdef int begin(self, object due, object here) except -1

    cdef int wait_beside(self, SuspendedWait suspended, int events) except -1
    cdef int open(self) except -1
    cdef int close(self) except -1
    cdef int listen(self) except -1
    cdef int collect_woken(self) except -1
    cdef WatchedFd watched_at(self, int fd)
    cdef int watch(self, int fd, int events, uint32_t generation) except? -1
    cdef int forget(self, WatchedFd watched, int fd) except -1
    cdef int rebuild_set(self) except -1
    cdef int suspend(self, SuspendedWait suspended) except -1
    cdef int raise_interruption(self, InterruptTarget target, SuspendedWait suspended) except -1
    cdef object take_interruption(self, object reason)
    cdef int go_on(self, object due, object here) except -1
    cdef int interrupt(self, InterruptTarget target, object exc, bint wait_for_drain) except -1
    cdef int make_due(self, SuspendedWait suspended) except -1
    cdef int set_timer(self, SuspendedWait suspended) except -1
    cdef SuspendedWait pop_timer(self)
    cdef object next_due(self, SuspendedWait suspended)
    cdef int poll(self, bint may_sleep) except -1
    cdef int timeout_ms(self, int64_t now_ns) except -1
    cdef int look_for_closed(self) except -1

cdef SuspendedWait new_suspended_wait(int fd, int64_t deadline_ns)
