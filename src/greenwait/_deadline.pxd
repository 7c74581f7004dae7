"""Deadlines: times on the monotonic clock at which a wait is over."""

from libc.stdint cimport int64_t

# How many timeout() blocks are entered now, in the whole process. Most programs have
# none, and then no wait has to look for them.
cdef int blocks_entered

cdef class timeout:
    cdef object _seconds
    cdef object _token
    cdef timeout outer
    cdef int64_t deadline_ns
    cdef bint is_entered
    cdef bint has_expired

cdef timeout nearest_block()
cdef object leave_blocks()
cdef int return_to_blocks(object token) except -1
cdef int64_t after(int64_t duration_ns) noexcept nogil
cdef object checked_seconds(str option, object value, str otherwise)
cdef int64_t to_ns(double seconds) noexcept
