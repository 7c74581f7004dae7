"""The monotonic clock, as 64-bit nanoseconds; usable without the GIL."""

from libc.stdint cimport int64_t

cdef extern from "monotonic.h" nogil:
    int64_t monotonic_ns() noexcept
