"""Sleeps until one descriptor is ready, without the GIL.

The top of ``readiness.h`` explains the return codes and the ticker.
"""

cdef extern from "readiness.h" nogil:
    const int READINESS_READ
    const int READINESS_WRITE
    const int READINESS_ERROR
    const bint READINESS_HAS_EPOLL

    int readiness_check(int fd) noexcept
    bint readiness_is_at_end(int fd) noexcept
    int readiness_ticker_create(int slice_ms) noexcept
    void readiness_ticker_close(int ticker) noexcept
    int readiness_poll(int fd, int events, int slice_ms, int left_ms, int* ticker) noexcept
    int readiness_epoll_create(int ticker) noexcept
    int readiness_epoll(
        int epfd, int fd, int events, int slice_ms, int left_ms, int* ticker
    ) noexcept
    bint readiness_epoll_is_set(int epfd) noexcept
    void readiness_epoll_forget(int epfd, int fd) noexcept
    void readiness_epoll_close(int epfd) noexcept


cdef inline int readiness_now(int fd, int events) noexcept nogil:
    """Return the result of ``readiness_poll()`` without sleeping."""
    cdef int no_ticker = -1
    return readiness_poll(fd, events, 0, 0, &no_ticker)
