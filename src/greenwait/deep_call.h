/* Call from further down the C stack.
 *
 * A greenlet's part of the C stack begins where it was first switched to, and whatever of other
 * greenlets' lies below that place is copied away at each switch. One that begins well below those
 * who will switch to it spares them that.
 *
 * It may not take what a recursion needs: musl gives a thread 128 KB in all. So of a stack of which
 * little is left, or nobody knows how much, nothing is taken.
 */
#ifndef GREENWAIT_DEEP_CALL_H
#define GREENWAIT_DEEP_CALL_H

#ifndef _GNU_SOURCE
#  define _GNU_SOURCE /* for pthread_getattr_np(3) */
#endif

#include <Python.h>

#include <stdint.h>

#if defined(_WIN32)
#  include <windows.h>
#  define DEEP_CALL_OUT_OF_LINE __declspec(noinline)
#else
#  include <pthread.h>
#  define DEEP_CALL_OUT_OF_LINE __attribute__((noinline))
#endif
#if defined(__linux__)
#  include <sys/auxv.h>
#  include <sys/resource.h>
#  include <sys/syscall.h>
#  include <unistd.h>
#elif defined(__FreeBSD__)
#  include <pthread_np.h>
#endif

#define DEEP_CALL_TAKES (24 * 1024)
#define DEEP_CALL_LEAVES (256 * 1024)
#define DEEP_CALL_MAIN_STACK ((rlim_t)8 << 20)

/* The bytes that are left of this thread's stack; 0 where nobody knows. */
static inline size_t
deep_call_stack_left(void)
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
#  if defined(__linux__)
    /* The main thread's stack grows up to a limit: of that musl's pthread_getattr_np() knows nothing,
     * and glibc's reads all of /proc/self/maps. The program's name lies where it starts, getauxval(3).
     * The main thread of a child that a thread has forked has that one's stack, far from there. */
    if (syscall(SYS_gettid) == getpid()) {
        struct rlimit limit;
        uintptr_t used = (uintptr_t)getauxval(AT_EXECFN) - here;
        if (getrlimit(RLIMIT_STACK, &limit) < 0)
            return 0;
        if (limit.rlim_cur > DEEP_CALL_MAIN_STACK)
            limit.rlim_cur = DEEP_CALL_MAIN_STACK;
        return used < limit.rlim_cur ? limit.rlim_cur - used : 0;
    }
    if (pthread_getattr_np(pthread_self(), &attributes) != 0)
        return 0;
#  else
    if (pthread_attr_init(&attributes) != 0)
        return 0;
    if (pthread_attr_get_np(pthread_self(), &attributes) == 0)
#  endif
        if (pthread_attr_getstack(&attributes, &end, &size) == 0)
            low = (uintptr_t)end;
    (void)pthread_attr_destroy(&attributes);
#endif
    return low && low < here ? here - low : 0;
}

static DEEP_CALL_OUT_OF_LINE PyObject *
deep_call_from_below(PyObject *function)
{
    volatile char room[DEEP_CALL_TAKES];
    PyObject *result = PyObject_CallNoArgs(function);
    room[0] = 0; /* after the call, so that it is there during it */
    (void)room[0];
    return result;
}

static inline PyObject *
deep_call(PyObject *function)
{
    if (deep_call_stack_left() < DEEP_CALL_LEAVES)
        return PyObject_CallNoArgs(function);
    return deep_call_from_below(function);
}

#endif
