/* What greenwait's C uses of Winsock, on Linux and by the rules of Windows; make windows-rules.
 *
 * Those of WSAPoll's manual, and the worst of what is told of it: an empty array is refused, as is
 * one with a closed socket, or with something else than a socket; a hang-up is no data; no signal
 * ends it; and before Windows 10 2004 a refused connect() is not reported.
 */
#ifndef WINDOWS_RULES_WINSOCK2_H
#define WINDOWS_RULES_WINSOCK2_H

#ifndef _GNU_SOURCE
#  define _GNU_SOURCE /* for POLLRDNORM and POLLWRNORM */
#endif

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <time.h>

typedef int SOCKET;
typedef unsigned long ULONG, DWORD;
typedef struct pollfd WSAPOLLFD;

/* Other numbers than errno's: nobody is to mistake one for the other. */
#define WSAEINTR 10004
#define WSAEINVAL 10022
#define WSAENOTSOCK 10038

static __thread int winsock_error;

static inline int
WSAGetLastError(void)
{
    return winsock_error;
}

static inline void
Sleep(DWORD ms)
{
    struct timespec left = {(time_t)(ms / 1000), (long)(ms % 1000) * 1000000};
    while (nanosleep(&left, &left) != 0)
        ;
}

static inline int
winsock_getsockopt(SOCKET fd, int level, int name, char *value, int *size)
{
    if (getsockopt(fd, level, name, value, (socklen_t *)size) == 0)
        return 0;
    winsock_error = errno == EBADF || errno == ENOTSOCK ? WSAENOTSOCK : WSAEINVAL;
    return -1;
}
#define getsockopt winsock_getsockopt

/* Linux has no way to ask that leaves the error to libpq. It is not connected, and has an error:
 * so it may also be one that was reset, but nobody waits for such a one to be writable only. */
static inline int
winsock_was_refused(SOCKET fd)
{
    struct pollfd asked = {fd, POLLOUT, 0};
    struct sockaddr_storage peer;
    socklen_t size = sizeof peer;
    return poll(&asked, 1, 0) == 1 && (asked.revents & POLLERR)
        && getpeername(fd, (struct sockaddr *)&peer, &size) != 0;
}

static inline int64_t
winsock_now_ms(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static inline int
WSAPoll(WSAPOLLFD *watched, ULONG count, int timeout_ms)
{
    const short allowed = POLLRDNORM | POLLRDBAND | POLLWRNORM;
    int64_t until_ms = winsock_now_ms() + timeout_ms;
    int n, is_refused = 0;
    ULONG i;

    winsock_error = WSAEINVAL;
    if (count == 0)
        return -1;
    for (i = 0; i < count; i++) {
        int type, size = sizeof type;
        if (watched[i].events & ~allowed)
            return -1;
        if (winsock_getsockopt(watched[i].fd, SOL_SOCKET, SO_TYPE, (char *)&type, &size) != 0)
            return -1;
    }
    do {
        /* With one that is not reported, poll(2) would return at once: a little later will do. */
        int64_t left_ms = until_ms - winsock_now_ms();
        left_ms = is_refused && left_ms > 5 ? 5 : left_ms;
        if (is_refused && left_ms > 0)
            Sleep((DWORD)left_ms);
        n = poll(watched, count, is_refused || left_ms < 0 ? 0 : (int)left_ms);
        for (i = 0; n > 0 && i < count; i++) {
            int available = 1;
            if (watched[i].events == POLLWRNORM && (watched[i].revents & POLLERR)
                    && winsock_was_refused(watched[i].fd)) {
                watched[i].revents = 0;
                is_refused = 1;
                n--;
            }
            else if ((watched[i].revents & POLLRDNORM)
                    && ioctl(watched[i].fd, FIONREAD, &available) == 0 && available == 0)
                watched[i].revents = (short)((watched[i].revents & ~POLLRDNORM) | POLLHUP);
        }
    } while (n <= 0 && winsock_now_ms() < until_ms);
    if (n < 0)
        for (i = 0, n = 0; i < count; i++)
            watched[i].revents = 0;
    return n;
}

/* As Winsock's: a list, of which the first argument of select() knows nothing. */
typedef struct {
    unsigned count;
    SOCKET fds[64];
} winsock_set;

static inline int
winsock_select(winsock_set *failed)
{
    unsigned i, n = 0;
    for (i = 0; i < failed->count; i++)
        if (winsock_was_refused(failed->fds[i]))
            failed->fds[n++] = failed->fds[i];
    failed->count = n;
    return (int)n;
}

#undef FD_ZERO
#undef FD_SET
#define fd_set winsock_set
#define FD_ZERO(set) ((set)->count = 0)
#define FD_SET(fd, set) ((set)->fds[(set)->count++] = (fd))
#define select(none, to_read, to_write, failed, at_once) ((void)(at_once), winsock_select(failed))

#endif
