/* A larger send buffer for a Unix socket, while much is sent.
 *
 * Each time that the buffer is full, the sender sleeps until three quarters of it are free again
 * (unix_writable(), net/unix/af_unix.c in Linux), and libpq moves what is left to the front. A TCP
 * socket's buffer grows by itself, unless somebody sets its size (tcp(7), tcp_wmem).
 */
#ifndef GREENWAIT_SEND_BUFFER_H
#define GREENWAIT_SEND_BUFFER_H

#ifdef __linux__
#include <sys/socket.h>

/* Make it at least *size* bytes, or as much as the kernel allows (socket(7), wmem_max). Returns
 * the former size for send_buffer_restore(), or 0: it is as it was. */
static inline int
send_buffer_widen(int fd, int size)
{
    int domain, former, half = size / 2; /* the kernel doubles it (socket(7), SO_SNDBUF) */
    socklen_t length = sizeof(domain);

    if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &length) || domain != AF_UNIX)
        return 0;
    length = sizeof(former);
    if (getsockopt(fd, SOL_SOCKET, SO_SNDBUF, &former, &length) || former >= size)
        return 0;
    return setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &half, sizeof(half)) ? 0 : former;
}

static inline void
send_buffer_restore(int fd, int former)
{
    int half = former / 2;

    if (former)
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &half, sizeof(half));
}
#else
static inline int
send_buffer_widen(int fd, int size)
{
    (void)fd;
    (void)size;
    return 0;
}

static inline void
send_buffer_restore(int fd, int former)
{
    (void)fd;
    (void)former;
}
#endif
#endif
