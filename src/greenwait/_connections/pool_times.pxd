"""How long a pool's borrowers wait, use a connection, and make one: counted until it is taken."""

from libc.stdint cimport int64_t

cdef enum:
    # Times of up to 64 ns have a step each; above, each power of two has 32 steps, up to 26 days.
    STEPS_OF_A_POWER = 32
    STEPS = 47 * STEPS_OF_A_POWER

cdef class PoolTimes:
    cdef int64_t since_ns  # what was lent before that is not counted
    cdef int64_t[STEPS] waited
    cdef int64_t[STEPS] used
    cdef int64_t[STEPS] made

cdef int count_time(int64_t* counts, int64_t duration_ns) noexcept
