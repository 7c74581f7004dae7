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
#define TRACE_SECOND 16 /* bytes of a time's whole seconds; as many are always copied */

typedef struct {
    int fd;
    char *filled; /* the buffer that is being filled */
    size_t used;  /* ... so far */
    char *full;   /* the one that is being written */
    size_t left;  /* bytes of it; 0: it is free */
    int error;    /* errno of the write that failed: nothing is written any more */
    int64_t events, dropped;
    char second[TRACE_SECOND]; /* the text of some event's whole seconds */
    size_t second_length;
    int64_t second_ns;
    struct stat file; /* descriptors are closed, and their numbers reused */
} trace_file_t;

/* Numbers below 1,000: their three digits, and without zeros before them, and how many these are. */
static struct {
    char digits[4], number[4];
} trace_groups[1000];

static inline int
trace_file_open(trace_file_t *trace, int fd)
{
    int number, zeros;

    for (number = 0; number < 1000; number++) {
        char *digits = trace_groups[number].digits;
        digits[0] = (char)('0' + number / 100);
        digits[1] = (char)('0' + number / 10 % 10);
        digits[2] = (char)('0' + number % 10);
        zeros = (number < 100) + (number < 10);
        memcpy(trace_groups[number].number, digits + zeros, (size_t)(3 - zeros));
        trace_groups[number].number[3] = (char)(3 - zeros);
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

/* Note the text of a number's whole seconds: those of the events that follow are mostly the same. */
static inline void
trace_file_note_second(trace_file_t *trace, int64_t ns)
{
    char digits[TRACE_SECOND];
    size_t first = sizeof(digits);
    uint64_t left = (uint64_t)ns / 1000000000;

    trace->second_ns = (int64_t)(left * 1000000000);
    do {
        digits[--first] = (char)('0' + left % 10);
        left /= 10;
    } while (left > 0);
    trace->second_length = sizeof(digits) - first;
    memcpy(trace->second, digits + first, trace->second_length);
}

static inline char *
trace_put_digits(char *to, uint32_t group)
{
    memcpy(to, trace_groups[group].digits, 4);
    return to + 3;
}

static inline char *
trace_put_number(char *to, uint32_t group)
{
    memcpy(to, trace_groups[group].number, 4);
    return to + trace_groups[group].number[3];
}

/* Put a number of nanoseconds as microseconds, with three decimals. Some bytes after it are written
   too: to copy as many each time is fastest. */
static inline char *
trace_put_us(trace_file_t *trace, char *to, int64_t ns)
{
    const int has_seconds = ns >= 1000000000;
    uint32_t rest, ms, us;

    if (has_seconds) {
        if ((uint64_t)(ns - trace->second_ns) >= 1000000000)
            trace_file_note_second(trace, ns);
        memcpy(to, trace->second, TRACE_SECOND);
        to += trace->second_length;
        ns -= trace->second_ns;
    }
    rest = (uint32_t)ns;
    ms = rest / 1000000;
    rest -= ms * 1000000;
    us = rest / 1000;
    if (has_seconds)
        to = trace_put_digits(trace_put_digits(to, ms), us);
    else if (ms > 0)
        to = trace_put_digits(trace_put_number(to, ms), us);
    else
        to = trace_put_number(to, us);
    *to = '.';
    return trace_put_digits(to + 1, rest - us * 1000);
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
    memcpy(to, ",\"ts\":\0", 8);
    to = trace_put_us(trace, to + 6, at_ns < 0 ? 0 : at_ns);
    if (took_ns >= 0) {
        memcpy(to, ",\"dur\":", 8);
        to = trace_put_us(trace, to + 7, took_ns);
    }
    memcpy(to, "},\n", 4);
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
