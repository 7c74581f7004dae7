"""Looking before sleeping, and learning when that is worth it; see ``spin.h``."""

from libc.stdint cimport int64_t

cdef extern from "spin.h" nogil:
    ctypedef struct spin_t:
        pass

    int64_t spin_limit_ns(const spin_t* spin) noexcept
    void spin_learn(spin_t* spin, int64_t answer_ns) noexcept
    bint spin_is_possible() noexcept
    int spin_until_ready(int fd, int events, int64_t limit_ns) noexcept
