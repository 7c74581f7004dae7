"""The waits of a thread's greenlets: for descriptors, timers and each other."""

from libc.stdint cimport int64_t, uint32_t

from greenwait._psycopg.state cimport ConnectionState
from greenwait._system.readiness_set cimport readiness_set_t
from greenwait._waiter cimport WakeupFd

cdef class SuspendedWait:
    cdef object greenlet
    cdef bint is_due
    cdef bint draining  # it waits for the end of an interrupted query
    cdef int fd         # < 0: none
    cdef WatchedFd watched  # its descriptor's, while it is the wait for it
    cdef int revents
    cdef int64_t deadline_ns
    cdef Py_ssize_t place   # among the timers; < 0: none

cdef class WatchedFd:
    cdef SuspendedWait suspended  # the wait for it
    cdef ConnectionState state    # its connection's; None: it is in the set for one wait only
    cdef int events               # 0: it is not in the set
    cdef uint32_t generation      # tells its readiness from an earlier descriptor's of its number

cdef class DueQueue:
    cdef list slots               # a ring; their number is a power of two
    cdef Py_ssize_t first         # the slot of the first
    cdef Py_ssize_t count
    cdef int append(self, object due) except -1
    cdef int appendleft(self, object due) except -1
    cdef object popleft(self)
    cdef int clear(self) except -1
    cdef int grow(self) except -1

cdef class Timers:
    cdef list waits
    cdef int64_t first_ns(self) except -1
    cdef int add(self, SuspendedWait suspended) except -1
    cdef int remove(self, SuspendedWait suspended) except -1
    cdef SuspendedWait pop(self)
    cdef int clear(self) except -1
    cdef int put(self, SuspendedWait suspended, Py_ssize_t place) except -1
    cdef int move_up(self, SuspendedWait suspended) except -1
    cdef int move_down(self, SuspendedWait suspended) except -1

cdef class Scheduler:
    cdef DueQueue due             # waits that are over, and a hub's jobs to begin, in order
    cdef bint is_open
    cdef bint is_stale            # a descriptor in the set is closed: rebuild_set()
    cdef readiness_set_t ready_set
    cdef list watched             # by descriptor
    cdef Timers timers
    cdef uint32_t generation
    cdef int64_t last_look_ns     # the last check for closed descriptors
    cdef WakeupFd wakeup_fd       # for other threads; None until a wait depends on one
    cdef object woken             # waits that other threads have ended

    cdef int open(self) except -1
    cdef int close(self) except -1
    cdef int fileno(self) except -2
    cdef int arm(self, SuspendedWait suspended, int events, ConnectionState state) except? -1
    cdef int disarm(self, SuspendedWait suspended, ConnectionState state) except -1
    cdef WatchedFd claim(self, SuspendedWait suspended, int events)
    cdef int forget(self, WatchedFd watched, int fd) except -1
    cdef int rebuild_set(self) except -1
    cdef object new_wakeup(self)
    cdef int wake(self, object wakeup) except -1
    cdef int listen(self) except -1
    cdef int collect_woken(self) except -1
    cdef int poll(self, int64_t longest_ns) except -1
    cdef int look_for_closed(self) except -1

cdef SuspendedWait new_suspended_wait(int fd, int64_t deadline_ns)
cdef Scheduler new_scheduler()
