"""A set of descriptors to wait for, without the GIL; see ``readiness_set.h``."""

from libc.stdint cimport uint32_t

cdef extern from "readiness_set.h" nogil:
    ctypedef struct readiness_t:
        int fd
        int revents
        uint32_t generation

    ctypedef struct readiness_set_t:
        pass

    int readiness_set_open(readiness_set_t* set) noexcept
    void readiness_set_close(readiness_set_t* set) noexcept
    int readiness_set_fileno(const readiness_set_t* set) noexcept
    int readiness_set_watch(readiness_set_t* set, int fd, int events, uint32_t generation) noexcept
    void readiness_set_forget(readiness_set_t* set, int fd) noexcept
    int readiness_set_wait(
        readiness_set_t* set, readiness_t* ready, int size, int timeout_ms
    ) noexcept
