/* A file of trace events, written in parts; all but trace_file_write() is called with the GIL held.

Of two buffers one is filled while the other one is written, without the GIL. If both are full, the
disk is slower than the program: events are dropped, and counted. */
#ifndef GREENWAIT_TRACE_FILE_H
#define GREENWAIT_TRACE_FILE_H

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#ifdef _WIN32
#  include <io.h>
#  define trace_file_write_some(fd, bytes, count) _write(fd, bytes, (unsigned int)(count))
#else
#  include <unistd.h>
#  define trace_file_write_some write
#endif

#define TRACE_BUFFER ((size_t)1 << 16)

typedef struct {
    int fd;
    char *filled; /* the buffer that is being filled */
    size_t used;  /* ... so far */
    char *full;   /* the one that is being written */
    size_t left;  /* bytes of it; 0: it is free */
    int error;    /* errno of the write that failed: nothing is written any more */
    int64_t events, dropped;
    struct stat file; /* descriptors are closed, and their numbers reused */
} trace_file_t;

static char trace_groups[1000][4]; /* three digits each, and one byte */

static inline int
trace_file_open(trace_file_t *trace, int fd)
{
    int number;

    for (number = 0; number < 1000; number++) {
        trace_groups[number][0] = (char)('0' + number / 100);
        trace_groups[number][1] = (char)('0' + number / 10 % 10);
        trace_groups[number][2] = (char)('0' + number % 10);
    }
    memset(trace, 0, sizeof(*trace));
    trace->fd = fd;
    trace->filled = malloc(2 * TRACE_BUFFER);
    if (!trace->filled)
        return -ENOMEM;
    trace->full = trace->filled + TRACE_BUFFER;
    return fstat(fd, &trace->file) ? -errno : 0;
}

static inline void
trace_file_free(trace_file_t *trace)
{
    if (trace->filled)
        free(trace->filled < trace->full ? trace->filled : trace->full);
    trace->filled = trace->full = NULL;
    trace->used = trace->left = 0;
}

/* Begin a part: what was filled is to be written by trace_file_write(). */
static inline void
trace_file_swap(trace_file_t *trace)
{
    char *filled = trace->filled;

    trace->filled = trace->full;
    trace->full = filled;
    trace->left = trace->used;
    trace->used = 0;
}

/* Is the descriptor still that of the file? */
static inline int
trace_file_is_same(const trace_file_t *trace)
{
    struct stat now;

    return !fstat(trace->fd, &now) && now.st_dev == trace->file.st_dev
        && now.st_ino == trace->file.st_ino;
}

/* Write the part; called without the GIL. Returns 0 or errno. */
static inline int
trace_file_write(const trace_file_t *trace)
{
    const char *next = trace->full;
    size_t left = trace->left;

    if (!trace_file_is_same(trace))
        return EBADF;
    while (left > 0) {
        int64_t written = (int64_t)trace_file_write_some(trace->fd, next, left);
        if (written < 0 && errno != EINTR)
            return errno;
        if (written > 0) {
            next += written;
            left -= (size_t)written;
        }
    }
    return 0;
}

enum { TRACE_DIGITS = 24 }; /* of a time; as many bytes are always written, which is fastest */

/* Put a number of nanoseconds as microseconds, with three decimals. */
static inline char *
trace_put_us(char *to, int64_t ns)
{
    char digits[2 * TRACE_DIGITS];
    char *first = digits + TRACE_DIGITS - 3;
    uint64_t left = (uint64_t)ns;
    uint64_t rest = left / 1000;

    memcpy(first, trace_groups[left - rest * 1000], 4);
    *--first = '.';
    do {
        char kept = *first; /* a group has one byte more */
        left = rest;
        rest = left / 1000;
        first -= 3;
        memcpy(first, trace_groups[left - rest * 1000], 4);
        first[3] = kept;
    } while (rest > 0);
    first += (left < 100) + (left < 10);
    memcpy(to, first, TRACE_DIGITS);
    return to + (digits + TRACE_DIGITS - first);
}

enum { TRACE_TIMES = 96 }; /* the most that is added to an event's beginning */

/* Is there room for an event with such a beginning? If not, the buffer is to be written first. */
static inline int
trace_has_room(const trace_file_t *trace, size_t length)
{
    return trace->used + length + TRACE_TIMES <= TRACE_BUFFER;
}

/* Add an event: its beginning, then when it was, and for how long. */
static inline void
trace_add(trace_file_t *trace, const char *beginning, size_t length, int64_t at_ns, int64_t took_ns)
{
    char *to = trace->filled + trace->used;

    memcpy(to, beginning, length);
    to += length;
    memcpy(to, ",\"ts\":", 6);
    to = trace_put_us(to + 6, at_ns < 0 ? 0 : at_ns);
    if (took_ns >= 0) {
        memcpy(to, ",\"dur\":", 7);
        to = trace_put_us(to + 7, took_ns);
    }
    memcpy(to, "},\n", 3);
    trace->used = (size_t)(to + 3 - trace->filled);
    trace->events++;
}

/* Add a line as it is. */
static inline void
trace_add_line(trace_file_t *trace, const char *line, size_t length)
{
    memcpy(trace->filled + trace->used, line, length);
    trace->used += length;
}
#endif
