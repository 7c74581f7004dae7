/* The monotonic clock, in nanoseconds; deadlines are times on it. */
#ifndef GREENWAIT_CLOCK_H
#define GREENWAIT_CLOCK_H

#include <stdint.h>

#define NO_DEADLINE INT64_MAX

#ifdef _WIN32
#  ifndef WIN32_LEAN_AND_MEAN
#    define WIN32_LEAN_AND_MEAN
#  endif
#  include <windows.h>

static inline int64_t
monotonic_ns(void)
{
    LARGE_INTEGER ticks, per_second;
    (void)QueryPerformanceCounter(&ticks);
    (void)QueryPerformanceFrequency(&per_second);
    return ticks.QuadPart / per_second.QuadPart * 1000000000
        + ticks.QuadPart % per_second.QuadPart * 1000000000 / per_second.QuadPart;
}

#else
#  include <time.h>

static inline int64_t
monotonic_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

#endif
#endif
