"""The counters of what greenwait has done in this process, cheap enough to be always on.

They are written with the GIL held, so plain numbers do.
"""

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
