"""Sleep until one descriptor is ready, without the GIL.

The return codes are listed at the top of ``readiness.h``.
"""

cdef extern from "readiness.h" nogil:
    const int READINESS_READ
    const int READINESS_WRITE
    const bint READINESS_HAS_EPOLL

    int readiness_poll(int fd, int events, int timeout_ms) noexcept
    int readiness_epoll_create() noexcept
    int readiness_epoll(int epfd, int fd, int events, int timeout_ms) noexcept
    void readiness_epoll_forget(int epfd, int fd) noexcept
    void readiness_epoll_close(int epfd) noexcept
