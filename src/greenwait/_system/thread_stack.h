/* The space left on a thread's C stack. No Python in here.
 *
 * The main thread has 8 MB on most systems; other threads have 128 KB with musl, and 512 KB on
 * macOS unless Python has created them.
 */
#ifndef GREENWAIT_THREAD_STACK_H
#define GREENWAIT_THREAD_STACK_H

#ifndef _GNU_SOURCE
#  define _GNU_SOURCE /* for pthread_getattr_np(3) */
#endif

#include <stddef.h>
#include <stdint.h>

#ifdef _WIN32
#  include <windows.h>
#else
#  include <pthread.h>
#endif
#if defined(__linux__)
#  include <sys/auxv.h>
#  include <sys/resource.h>
#  include <sys/syscall.h>
#  include <unistd.h>
#elif defined(__FreeBSD__)
#  include <pthread_np.h>
#endif

#define THREAD_STACK_OF_MAIN ((size_t)8 << 20)

#ifdef __linux__
/* The main thread's stack grows up to a limit: musl's pthread_getattr_np() returns its present
 * size, and glibc's reads all of /proc/self/maps. It starts where the program's name lies,
 * getauxval(3). In a child forked by another thread the main thread has that thread's stack,
 * which is much further away than the limit. */
static inline size_t
thread_stack_left_of_main(uintptr_t here)
{
    struct rlimit limit;
    size_t used = (uintptr_t)getauxval(AT_EXECFN) - here, size = THREAD_STACK_OF_MAIN;
    if (getrlimit(RLIMIT_STACK, &limit) < 0)
        return SIZE_MAX;
    if (limit.rlim_cur < size)
        size = limit.rlim_cur;
    return used < size ? size - used : 0;
}
#endif

/* Return the bytes left on this thread's stack; SIZE_MAX if unknown. */
static inline size_t
thread_stack_left(void)
{
    uintptr_t here = (uintptr_t)&here, low = 0;
#if defined(_WIN32)
    ULONG_PTR end, start;
    GetCurrentThreadStackLimits(&end, &start);
    low = end;
#elif defined(__APPLE__)
    pthread_t self = pthread_self();
    low = (uintptr_t)pthread_get_stackaddr_np(self) - pthread_get_stacksize_np(self);
#elif defined(__linux__) || defined(__FreeBSD__)
    pthread_attr_t attributes;
    void *end;
    size_t size;
#  ifdef __linux__
    if (syscall(SYS_gettid) == getpid())
        return thread_stack_left_of_main(here);
    if (pthread_getattr_np(pthread_self(), &attributes) != 0)
        return SIZE_MAX;
#  else
    if (pthread_attr_init(&attributes) != 0)
        return SIZE_MAX;
    if (pthread_attr_get_np(pthread_self(), &attributes) == 0)
#  endif
        if (pthread_attr_getstack(&attributes, &end, &size) == 0)
            low = (uintptr_t)end;
    (void)pthread_attr_destroy(&attributes);
#endif
    return low && low < here ? here - low : SIZE_MAX;
}

#endif
