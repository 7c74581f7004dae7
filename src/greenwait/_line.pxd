"""Who comes first is served first."""

from libc.stdint cimport int64_t

cdef class Line:
    cdef Py_ssize_t free     # how many may enter
    cdef object waiting      # tickets
    cdef bint enter(self, int64_t deadline_ns) except -1
    cdef int leave(self) except -1
    cdef int call_all(self) except -1

cdef int pause_until(int64_t deadline_ns) except -1
