"""How long a pool's borrowers wait, use a connection, and make one: counted until it is taken.

A histogram of OpenTelemetry takes a lock, and is Python code. Within the pool, a finalizer or a
signal handler that gives a connection back could wait for a lock of its own thread, and an
interrupt could come between two steps. So the pool counts here, and who exports takes the counts.

They are kept in steps of 3 % and less: the memory is the same for a million times as for one.
"""

cimport cython
from libc.stdint cimport int64_t
from libc.string cimport memset

__all__ = ["PoolTimes"]


@cython.auto_pickle(False)
@cython.final
cdef class PoolTimes:
    """The times of one pool."""

    def take(self):
        """Return the times since the last call: of waiting, of use, of making a connection.

        :returns: three lists of pairs, seconds and how often.
        """
        return taken(self.waited), taken(self.used), taken(self.made)

    def forget(self):
        """Count anew: a forked child does, whose parent counts what was before."""
        memset(self.waited, 0, sizeof(self.waited))
        memset(self.used, 0, sizeof(self.used))
        memset(self.made, 0, sizeof(self.made))


cdef int count_time(int64_t* counts, int64_t duration_ns) noexcept:
    cdef int64_t left = max(0, duration_ns)
    cdef int64_t power = 0
    while left >= 2 * STEPS_OF_A_POWER:
        left >>= 1
        power += 1
    counts[min(power * STEPS_OF_A_POWER + left, STEPS - 1)] += 1
    return 0


cdef list taken(int64_t* counts):
    """Return the counts with the middles of their steps, and set them to zero."""
    cdef list found = []
    cdef int64_t step, power, least, count
    for step in range(STEPS):
        count, counts[step] = counts[step], 0  # before memory is allocated: finalizers may run
        if count > 0:
            power = max(0, step // STEPS_OF_A_POWER - 1)
            least = (step - power * STEPS_OF_A_POWER) << power
            found.append(((least + ((<int64_t>1 << power) - 1) / 2.0) / 1e9, count))
    return found
