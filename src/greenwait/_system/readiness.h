/* Sleeps until one descriptor is ready: poll(2), WSAPoll and epoll(7) behind one
 * return value. No Python in here: these run without the GIL.
 *
 * The sleeps return
 *     > 0      the descriptor is ready: the POLL* bits that are set
 *     0        the slice is over
 *     < 0      -errno; -EINTR when a signal came, -EBADF when the descriptor is
 *              not open (poll(2) says POLLNVAL for that)
 *
 * Every sleep is a slice of at most slice_ms, and of left_ms if that is not negative:
 * what is left of a deadline. A timeout would do, but it makes the
 * kernel set up and tear down a timer for each sleep, which is 4 % of a local
 * "select 1". A ticker is a timerfd(2) that is armed once and watched beside the
 * descriptor; it is set anew only when it has fired. With *ticker < 0 the sleep has
 * a timeout; where the ticker proves to be none (somebody closed all descriptors),
 * *ticker is set to -1. What is not noticed is a ticker that was closed without a
 * fork, and whose number then went to a descriptor that stays silent.
 */
#ifndef GREENWAIT_READINESS_H
#define GREENWAIT_READINESS_H

#include <errno.h>

#if defined(_WIN32) || defined(GREENWAIT_WINSOCK) /* make windows-rules: its rules, elsewhere */
#  ifndef WIN32_LEAN_AND_MEAN
#    define WIN32_LEAN_AND_MEAN
#  endif
#  include <winsock2.h>
#  define READINESS_IS_WINSOCK 1
#  define READINESS_READ POLLRDNORM
#  define READINESS_WRITE POLLWRNORM

/* Return 0, or -EBADF if the socket is not open. On Windows, fstat(2) takes no sockets. */
static inline int
readiness_check(int fd)
{
    int type, size = sizeof type;
    return getsockopt((SOCKET)fd, SOL_SOCKET, SO_TYPE, (char *)&type, &size) != 0
            && WSAGetLastError() == WSAENOTSOCK ? -EBADF : 0;
}

/* Has the socket's connect() failed? select() reports it in its third set. SO_ERROR would too,
 * but reading it clears it, and libpq has yet to read it. */
static inline int
readiness_has_failed(int fd)
{
    struct timeval none = {0, 0};
    fd_set failed;
    FD_ZERO(&failed);
    FD_SET((SOCKET)fd, &failed);
    return select(0, NULL, NULL, &failed, &none) > 0;
}

/* poll(2), by means of WSAPoll, which
 *  - rejects an empty array, and one without an open socket, with WSAEINVAL or WSAENOTSOCK;
 *  - reports a failed connect() only as of Windows 10 2004, says its manual. A socket watched
 *    for writing is checked for it after the sleep. */
static inline int
readiness_poll_all(struct pollfd *watched, int count, int timeout_ms)
{
    int i, n, error = 0;
    if (count == 0) {
        Sleep((DWORD)timeout_ms);
        return 0;
    }
    n = WSAPoll(watched, (ULONG)count, timeout_ms);
    if (n < 0) {
        error = WSAGetLastError();
        if (error != WSAEINVAL && error != WSAENOTSOCK)
            return error == WSAEINTR ? -EINTR : -error;
        n = 0;
    }
    for (i = 0; i < count; i++) {
        if (error)
            watched[i].revents = readiness_check((int)watched[i].fd) < 0 ? POLLNVAL : 0;
        else if (watched[i].revents)
            continue; /* counted already */
        else if (watched[i].events == READINESS_WRITE && readiness_has_failed((int)watched[i].fd))
            watched[i].revents = POLLERR;
        n += watched[i].revents != 0;
    }
    return n == 0 && error ? -error : n;
}

#else
#  include <fcntl.h>
#  include <poll.h>
#  include <sys/socket.h>
#  define READINESS_IS_WINSOCK 0
#  define READINESS_READ POLLIN
#  define READINESS_WRITE POLLOUT

/* Return 0, or -errno if the descriptor is not open. */
static inline int
readiness_check(int fd)
{
    return fcntl(fd, F_GETFD) < 0 ? -errno : 0;
}

static inline int
readiness_poll_all(struct pollfd *watched, int count, int timeout_ms)
{
    int n = poll(watched, (nfds_t)count, timeout_ms);
    return n < 0 ? -errno : n;
}

#endif
#define READINESS_ERROR POLLERR

/* Has the other side closed the connection, and is all read that it had sent? */
static inline int
readiness_is_at_end(int fd)
{
    char byte;
    return recv(fd, &byte, 1, MSG_PEEK) == 0;
}

static inline int
readiness_timeout(int slice_ms, int left_ms)
{
    return left_ms >= 0 && left_ms < slice_ms ? left_ms : slice_ms;
}

#if defined(__linux__) && !READINESS_IS_WINSOCK
#  include <sys/epoll.h>
#  include <sys/timerfd.h>
#  include <unistd.h>
#  define READINESS_HAS_EPOLL 1

/* Arm the ticker; this also makes it unready. Fails with EINVAL on any other kind
 * of descriptor, which is why it is never read(2): the number may have been reused. */
static inline int
readiness_ticker_arm(int ticker, int slice_ms)
{
    struct itimerspec once = {{0, 0}, {slice_ms / 1000, slice_ms % 1000 * 1000000L}};
    return timerfd_settime(ticker, 0, &once, NULL) < 0 ? -errno : 0;
}

static inline int
readiness_ticker_create(int slice_ms)
{
    int ticker = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (ticker < 0)
        return -errno;
    (void)readiness_ticker_arm(ticker, slice_ms);
    return ticker;
}

static inline void
readiness_ticker_close(int ticker)
{
    struct itimerspec left;
    if (timerfd_gettime(ticker, &left) == 0)
        (void)close(ticker);
}

static inline int
readiness_poll(int fd, int events, int slice_ms, int left_ms, int *ticker)
{
    struct pollfd watched[2] = {{fd, (short)events, 0}, {*ticker, POLLIN, 0}};
    int n;

    if (fd < 0) /* poll(2) would skip it and sleep; libpq has -1 for "no socket" */
        return -EBADF;
    if (*ticker == fd) /* closed, and its number reused for the connection */
        *ticker = -1;
    if (*ticker < 0)
        n = poll(watched, 1, readiness_timeout(slice_ms, left_ms));
    else
        n = poll(watched, 2, left_ms);
    if (n < 0)
        return -errno;
    if (watched[1].revents && readiness_ticker_arm(*ticker, slice_ms) < 0)
        *ticker = -1;
    return (watched[0].revents & POLLNVAL) ? -EBADF : (unsigned short)watched[0].revents;
}

/* Is the descriptor still an epoll set, or was it closed? */
static inline int
readiness_epoll_is_set(int epfd)
{
    struct epoll_event ignored;
    return epoll_wait(epfd, &ignored, 1, 0) >= 0;
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

/* The ticker, if there is one, stays in the set. It may be in one set only: the
 * first thread to see it fire arms it anew, and epoll then leaves the others asleep.
 * (With poll(2) they have at least checked their descriptors.) */
static inline int
readiness_epoll_create(int ticker)
{
    struct epoll_event event = {0};
    int epfd = epoll_create1(EPOLL_CLOEXEC);
    if (epfd < 0)
        return -errno;
    event.events = EPOLLIN;
    event.data.fd = ticker;
    if (ticker >= 0)
        (void)epoll_ctl(epfd, EPOLL_CTL_ADD, ticker, &event);
    return epfd;
}

/* EPOLLONESHOT keeps the set stateless between sleeps: a registration reports
 * once and is then silent, so whatever is left in the set (a connection that
 * nobody waits for, an outer wait of the same thread, a socket that a forked
 * child still holds open) can end a slice once, and no more. It must not count as
 * readiness: PQconnectPoll() takes a socket for connected when it is asked early.
 * Arming again is one EPOLL_CTL_MOD, which also finds out that the number now
 * belongs to another socket: the kernel's key is (open file, descriptor),
 * epoll(7) Q1. */
static inline int
readiness_epoll(int epfd, int fd, int events, int slice_ms, int left_ms, int *ticker)
{
    struct epoll_event ready[2] = {{0}, {0}};
    int i, n, revents = 0;

    ready[0].events = (uint32_t)events | EPOLLONESHOT; /* EPOLLIN == POLLIN, ... */
    ready[0].data.fd = fd;
    if (epoll_ctl(epfd, EPOLL_CTL_MOD, fd, &ready[0]) < 0
            && (errno != ENOENT || epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &ready[0]) < 0))
        return -errno;
    n = epoll_wait(epfd, ready, 2, *ticker < 0 ? readiness_timeout(slice_ms, left_ms) : left_ms);
    if (n < 0)
        return -errno;
    for (i = 0; i < n; i++) {
        if (ready[i].data.fd == fd)
            revents = (int)(ready[i].events & 0xffff);
        else if (ready[i].data.fd == *ticker && readiness_ticker_arm(*ticker, slice_ms) < 0)
            *ticker = -1;
    }
    return revents;
}

#else
#  define READINESS_HAS_EPOLL 0

static inline int
readiness_poll(int fd, int events, int slice_ms, int left_ms, int *ticker)
{
    struct pollfd watched = {fd, (short)events, 0};
    int n;

    (void)ticker;
    if (fd < 0) /* poll(2) would skip it and sleep; libpq has -1 for "no socket" */
        return -EBADF;
    n = readiness_poll_all(&watched, 1, readiness_timeout(slice_ms, left_ms));
    if (n < 0)
        return n;
    return (watched.revents & POLLNVAL) ? -EBADF : (unsigned short)watched.revents;
}

static inline int readiness_ticker_create(int slice_ms) { (void)slice_ms; return -ENOSYS; }
static inline void readiness_ticker_close(int ticker) { (void)ticker; }
static inline int readiness_epoll_create(int ticker) { (void)ticker; return -ENOSYS; }
static inline int
readiness_epoll(int epfd, int fd, int events, int slice_ms, int left_ms, int *ticker)
{
    (void)epfd; (void)fd; (void)events; (void)slice_ms; (void)left_ms; (void)ticker;
    return -ENOSYS;
}
static inline int readiness_epoll_is_set(int epfd) { (void)epfd; return 0; }
static inline void readiness_epoll_forget(int epfd, int fd) { (void)epfd; (void)fd; }
static inline void readiness_epoll_close(int epfd) { (void)epfd; }

#endif
#endif
