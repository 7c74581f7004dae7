"""The counters of this process. Written with the GIL held, so plain numbers do."""

from libc.stdint cimport int64_t

cdef struct Counters:
    int64_t waits
    int64_t sleeps
    int64_t asleep_ns
    int64_t spin_hits
    int64_t spin_misses
    int64_t spinning_ns
    int64_t results_plain
    int64_t results_libpq
    int64_t cancels
    int64_t timeouts

cdef Counters counters
