/* Sleep until one descriptor is ready: poll(2), WSAPoll and epoll(7) behind one
 * return value. No Python in here: these run without the GIL.
 *
 * Every function returns
 *     > 0      the descriptor is ready: the POLL* bits that are set
 *     0        the time has passed
 *     < 0      -errno; -EINTR when a signal came, -EBADF when the descriptor is
 *              not open (poll(2) says POLLNVAL for that)
 */
#ifndef GREENWAIT_READINESS_H
#define GREENWAIT_READINESS_H

#include <errno.h>

#ifdef _WIN32
#  ifndef WIN32_LEAN_AND_MEAN
#    define WIN32_LEAN_AND_MEAN
#  endif
#  include <winsock2.h>
#  define READINESS_READ POLLRDNORM
#  define READINESS_WRITE POLLWRNORM
#else
#  include <poll.h>
#  define READINESS_READ POLLIN
#  define READINESS_WRITE POLLOUT
#endif

#ifdef __linux__
#  include <sys/epoll.h>
#  include <unistd.h>
#  define READINESS_HAS_EPOLL 1
#else
#  define READINESS_HAS_EPOLL 0
#endif

static inline int
readiness_poll(int fd, int events, int timeout_ms)
{
    if (fd < 0) /* poll(2) would skip it and sleep; libpq has -1 for "no socket" */
        return -EBADF;
#ifdef _WIN32
    /* Before Windows 10 2004 WSAPoll did not report a connect() that failed;
     * the caller sleeps in slices and asks libpq again, so it is not lost. */
    WSAPOLLFD one = {(SOCKET)fd, (SHORT)events, 0};
    int n = WSAPoll(&one, 1, timeout_ms);
    if (n < 0) {
        int error = WSAGetLastError();
        return error == WSAENOTSOCK ? -EBADF : error == WSAEINTR ? -EINTR : -error;
    }
#else
    struct pollfd one = {fd, (short)events, 0};
    int n = poll(&one, 1, timeout_ms);
    if (n < 0)
        return -errno;
#endif
    if (n == 0)
        return 0;
    return (one.revents & POLLNVAL) ? -EBADF : (unsigned short)one.revents;
}

#if READINESS_HAS_EPOLL

static inline int
readiness_epoll_create(void)
{
    int epfd = epoll_create1(EPOLL_CLOEXEC);
    return epfd < 0 ? -errno : epfd;
}

/* EPOLLONESHOT keeps the set stateless between sleeps: a registration reports
 * once and is then silent, so whatever is left in the set (a connection that
 * nobody waits for, an outer wait of the same thread, a socket that a forked
 * child still holds open) wakes this thread once at the most, and its caller asks
 * the connection again, as after any readiness. Arming again is one EPOLL_CTL_MOD, which also finds out that the number now belongs to
 * another socket: the kernel's key is (open file, descriptor), epoll(7) Q1. */
static inline int
readiness_epoll(int epfd, int fd, int events, int timeout_ms)
{
    struct epoll_event event = {0};
    int n;

    event.events = (uint32_t)events | EPOLLONESHOT; /* EPOLLIN == POLLIN, ... */
    if (epoll_ctl(epfd, EPOLL_CTL_MOD, fd, &event) < 0
            && (errno != ENOENT || epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &event) < 0))
        return -errno;
    n = epoll_wait(epfd, &event, 1, timeout_ms);
    return n < 0 ? -errno : n == 0 ? 0 : (int)(event.events & 0xffff);
}

static inline void
readiness_epoll_forget(int epfd, int fd)
{
    struct epoll_event ignored = {0}; /* Linux before 2.6.9 wants one, epoll_ctl(2) BUGS */
    (void)epoll_ctl(epfd, EPOLL_CTL_DEL, fd, &ignored);
}

static inline void
readiness_epoll_close(int epfd)
{
    (void)close(epfd);
}

#else

static inline int readiness_epoll_create(void) { return -ENOSYS; }
static inline int readiness_epoll(int epfd, int fd, int events, int timeout_ms)
{
    (void)epfd; (void)fd; (void)events; (void)timeout_ms;
    return -ENOSYS;
}
static inline void readiness_epoll_forget(int epfd, int fd) { (void)epfd; (void)fd; }
static inline void readiness_epoll_close(int epfd) { (void)epfd; }

#endif
#endif
