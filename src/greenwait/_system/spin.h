/* Looking before sleeping, and learning when that is worth it. No Python in here.
 *
 * A thread that sleeps has to be woken, and where that costs more than the query (on
 * a virtual machine: 50 us and more) it pays to look at the descriptor again and again
 * for a moment first. The looks burn a CPU. So the automatic mode learns from each
 * answer, for every connection on its own, and looks only while an answer is due:
 *
 *  - usual_ns is a moving average of the answers that came within SPIN_LONGEST_NS; a
 *    spin lasts twice that, and SPIN_LONGEST_NS at most;
 *  - an answer later than that is a miss, and 1, 3, 7, ... answers after it are slept
 *    for; one that comes in time ends the pause;
 *  - the first answer of a connection is slept for.
 *
 * An answer that was slept for seems later than it was, by the wake-up. So it may make
 * a spin too long, once, until a hit tells the true time; and when a pause is over a
 * spin is tried without evidence, or else a connection on a machine whose wake-ups
 * alone take SPIN_LONGEST_NS would never begin.
 */
#ifndef GREENWAIT_SPIN_H
#define GREENWAIT_SPIN_H

#ifndef _GNU_SOURCE
#  define _GNU_SOURCE /* for sched_getaffinity(2) */
#endif

#include <stdint.h>

#include "clock.h"
#include "readiness.h"

#ifdef _WIN32
#  include <windows.h>
#else
#  include <sched.h>
#  include <unistd.h>
#endif

#define SPIN_LONGEST_NS 100000
#define SPIN_MOST_MISSES 10 /* a pause of 1023 answers */

typedef struct {
    int64_t usual_ns; /* 0: not known yet */
    unsigned misses;  /* since the last answer in time */
    unsigned pause;   /* answers still to be slept for */
} spin_t;

/* How long to look for the next answer; 0: don't. */
static inline int64_t
spin_limit_ns(const spin_t *spin)
{
    if (spin->pause > 0 || (spin->usual_ns == 0 && spin->misses == 0))
        return 0;
    if (spin->usual_ns == 0 || 2 * spin->usual_ns > SPIN_LONGEST_NS)
        return SPIN_LONGEST_NS;
    return 2 * spin->usual_ns;
}

/* The answer came after answer_ns, however it was waited for. */
static inline void
spin_learn(spin_t *spin, int64_t answer_ns)
{
    if (answer_ns <= SPIN_LONGEST_NS) {
        spin->usual_ns = spin->usual_ns ? (3 * spin->usual_ns + answer_ns) / 4 : answer_ns;
        spin->misses = spin->pause = 0;
    }
    else if (spin->pause > 0)
        spin->pause--;
    else {
        if (spin->misses < SPIN_MOST_MISSES)
            spin->misses++;
        spin->pause = (1u << spin->misses) - 1;
    }
}

/* May this thread use more than one CPU? With one, the answer can't be made while it
 * is being looked for. Asked anew for every spin: it is quick, and taskset(1) changes it. */
static inline int
spin_is_possible(void)
{
#if defined(__linux__)
    cpu_set_t cpus;
    /* It fails where there are more CPUs than a cpu_set_t holds. */
    return sched_getaffinity(0, sizeof cpus, &cpus) < 0 || CPU_COUNT(&cpus) > 1;
#elif defined(_WIN32)
    DWORD_PTR cpus, all;
    return GetProcessAffinityMask(GetCurrentProcess(), &cpus, &all) && (cpus & (cpus - 1));
#else
    return sysconf(_SC_NPROCESSORS_ONLN) > 1;
#endif
}

/* Look until the descriptor is ready, for limit_ns. Returns what the sleeps return:
 * 0 means that it was not. */
static inline int
spin_until_ready(int fd, int events, int64_t limit_ns)
{
    int64_t end = monotonic_ns() + limit_ns;
    for (;;) {
        int no_ticker = -1;
        int rc = readiness_poll(fd, events, 0, -1, &no_ticker);
        if (rc != 0 || monotonic_ns() >= end)
            return rc;
#ifdef _WIN32
        (void)SwitchToThread();
#else
        (void)sched_yield();
#endif
    }
}

#endif
