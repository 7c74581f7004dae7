/* A set of descriptors to wait for: epoll(7), or poll(2) elsewhere. One thread uses it at
 * a time.
 *
 * A descriptor stays in the set until it is forgotten or closed, and is reported while it is
 * ready. Its generation tells it from an earlier descriptor of the same number: epoll's key
 * is (open file, descriptor), and epoll goes on reporting a descriptor that is closed here
 * and open elsewhere, epoll(7) Q6.
 *
 * The functions return 0 or a count, or -errno. No Python in here.
 */
#ifndef GREENWAIT_READINESS_SET_H
#define GREENWAIT_READINESS_SET_H

#include <stdint.h>
#include <stdlib.h>

#include "readiness.h"

typedef struct {
    int fd;
    int revents; /* -EBADF: it is closed; epoll does not report that */
    uint32_t generation;
} readiness_t;

#if READINESS_HAS_EPOLL
#  include <fcntl.h>

typedef struct {
    int epfd;
} readiness_set_t;

static inline int
readiness_set_open(readiness_set_t *set)
{
    set->epfd = epoll_create1(EPOLL_CLOEXEC);
    return set->epfd < 0 ? -errno : 0;
}

static inline void
readiness_set_close(readiness_set_t *set)
{
    if (set->epfd >= 0)
        (void)close(set->epfd);
    set->epfd = -1;
}

/* Return a descriptor that is readable while one in the set is ready; -1: the set has none. */
static inline int
readiness_set_fileno(const readiness_set_t *set)
{
    return set->epfd;
}

static inline int
readiness_set_watch(readiness_set_t *set, int fd, int events, uint32_t generation)
{
    struct epoll_event event = {0};
    event.events = (uint32_t)events; /* EPOLLIN == POLLIN, ... */
    event.data.u64 = (uint64_t)generation << 32 | (uint32_t)fd;
    if (epoll_ctl(set->epfd, EPOLL_CTL_MOD, fd, &event) < 0
            && (errno != ENOENT || epoll_ctl(set->epfd, EPOLL_CTL_ADD, fd, &event) < 0))
        return -errno;
    return 0;
}

static inline void
readiness_set_forget(readiness_set_t *set, int fd)
{
    readiness_epoll_forget(set->epfd, fd);
}

static inline int
readiness_set_wait(readiness_set_t *set, readiness_t *ready, int size, int timeout_ms)
{
    struct epoll_event events[128];
    int i, n = epoll_wait(set->epfd, events, size < 128 ? size : 128, timeout_ms);
    if (n < 0)
        return -errno;
    for (i = 0; i < n; i++) {
        ready[i].fd = (int)(uint32_t)events[i].data.u64;
        ready[i].generation = (uint32_t)(events[i].data.u64 >> 32);
        ready[i].revents = (int)(events[i].events & 0xffff);
    }
    return n;
}

#else

typedef struct {
    struct pollfd *watched;
    uint32_t *generations;
    int count;
    int size;
    int next; /* the index to start at, so that no descriptor starves */
} readiness_set_t;

static inline int
readiness_set_open(readiness_set_t *set)
{
    set->watched = NULL;
    set->generations = NULL;
    set->count = set->size = set->next = 0;
    return 0;
}

static inline void
readiness_set_close(readiness_set_t *set)
{
    free(set->watched);
    free(set->generations);
    (void)readiness_set_open(set);
}

static inline int
readiness_set_fileno(const readiness_set_t *set)
{
    (void)set;
    return -1;
}

static inline void
readiness_set_forget(readiness_set_t *set, int fd)
{
    int i;
    for (i = 0; i < set->count; i++) {
        if ((int)set->watched[i].fd == fd) {
            set->count--;
            set->watched[i] = set->watched[set->count];
            set->generations[i] = set->generations[set->count];
            return;
        }
    }
}

static inline int
readiness_set_watch(readiness_set_t *set, int fd, int events, uint32_t generation)
{
    readiness_set_forget(set, fd);
    if (set->count == set->size) {
        int size = set->size ? 2 * set->size : 16;
        void *watched = realloc(set->watched, size * sizeof(*set->watched));
        void *generations;
        if (watched == NULL)
            return -ENOMEM;
        set->watched = watched;
        generations = realloc(set->generations, size * sizeof(*set->generations));
        if (generations == NULL)
            return -ENOMEM;
        set->generations = generations;
        set->size = size;
    }
    set->watched[set->count].fd = fd;
    set->watched[set->count].events = (short)events;
    set->watched[set->count].revents = 0;
    set->generations[set->count++] = generation;
    return 0;
}

static inline int
readiness_set_wait(readiness_set_t *set, readiness_t *ready, int size, int timeout_ms)
{
    int i, n, found = 0;
    n = readiness_poll_all(set->watched, set->count, timeout_ms);
    if (n < 0)
        return n;
    for (n = 0; n < set->count && found < size; n++) {
        i = (set->next + n) % set->count;
        if (set->watched[i].revents == 0)
            continue;
        ready[found].fd = (int)set->watched[i].fd;
        ready[found].generation = set->generations[i];
        ready[found++].revents = set->watched[i].revents & POLLNVAL
            ? -EBADF
            : (unsigned short)set->watched[i].revents;
    }
    set->next = set->count > 0 ? (set->next + n) % set->count : 0;
    return found;
}

#endif
#endif
