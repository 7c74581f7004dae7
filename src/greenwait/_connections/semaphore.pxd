"""A fair semaphore for threads, and for greenlets of any framework."""

from libc.stdint cimport int64_t

cdef class FairSemaphore:
    cdef Py_ssize_t free     # how many may enter
    cdef bint is_open        # everybody may enter
    cdef object waiting      # wakeups
    cdef str category        # in a trace: "lock", or "pool"
    cdef str what            # what is waited for, in its words
    cdef bint enter(self, int64_t deadline_ns) except -1
    cdef int leave(self) except -1
    cdef bint has_room(self) noexcept
    cdef int open(self) except -1
    cdef bint wake_next(self) except -1

cdef int pause_until(int64_t deadline_ns) except -1
