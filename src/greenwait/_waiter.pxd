"""The interface of a waiter, which waits in a thread's place: a hub, or a framework's adapter."""

from libc.stdint cimport int64_t

from greenwait._psycopg.state cimport ConnectionState

cdef class Waiter:
    cdef int forks              # the number of forks when it was made
    cdef int64_t stay_until_ns  # a greenlet with work to do need not step aside before
    cdef bint is_inherited(self) noexcept
    cdef int wait_for(
        self, int fd, int events, int64_t deadline_ns, bint draining, ConnectionState state
    ) except -1
    cdef bint postpone(self, object exc) except -1
    cdef object new_wakeup(self)
    cdef int wait_for_wakeup(self, object wakeup, int64_t deadline_ns) except -1
    cdef int wake(self, object wakeup) except -1
    cdef object take_interruption(self, object reason)
    cdef int64_t limit_waits(self, int64_t limit_ns) except -1
    cdef int trace_row(self, int first, object number) except -1

cdef class Adapter(Waiter):
    cpdef bint is_active(self) except -1
    cpdef bint is_hub_itself(self) except -1
    cdef Waiter find_waiter(self)

cdef class WakeupFd:
    cdef int fd
    cdef object ends
    cpdef int fileno(self) except -1
    cpdef int wake(self) except -1
    cdef int clear(self) except -1

# The number of waiters in all threads: if it is 0, no wait need search for one.
cdef int waiters_entered
# ... of these, the hubs, each of which is entered in one thread.
cdef int hubs_entered

cdef object seconds_until(int64_t deadline_ns)
cdef object seconds_until_look(int64_t deadline_ns)

cdef Waiter waiter_here()
cdef bint is_hub_itself() except -1
cdef int register_first(Adapter adapter) except -1
cdef int enter_waiter(Waiter waiter) except -1
cdef int leave_waiter() except -1
cdef int keep_waiter(Waiter waiter) except -1
