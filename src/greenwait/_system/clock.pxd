"""The monotonic clock, as 64-bit nanoseconds; usable without the GIL."""

from libc.stdint cimport int64_t

cdef extern from "clock.h" nogil:
    const int64_t NO_DEADLINE
    int64_t monotonic_ns() noexcept
