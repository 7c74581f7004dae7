"""The interface of those who wait in a thread's place: a hub, or a framework's adapter."""

from libc.stdint cimport int64_t

from greenwait._psycopg.state cimport ConnectionState

cdef class Waiter:
    cdef int forks              # how many there had been when it was made
    cdef int64_t stay_until_ns  # whoever runs need not step aside before, if there is work to do
    cdef bint is_inherited(self) noexcept
    cdef int wait_for(
        self, int fd, int events, int64_t deadline_ns, bint draining, ConnectionState state
    ) except -1
    cdef bint postpone(self, object exc) except -1
    cdef object new_wakeup(self)
    cdef int wait_for_wakeup(self, object wakeup, int64_t deadline_ns) except -1
    cdef int wake(self, object wakeup) except -1
    cdef object take_interruption(self, object reason)

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

# How many there are in all threads: 0 spares everybody the look for one.
cdef int waiters_entered
# ... of them, those that are entered, which a thread has to itself: hubs.
cdef int hubs_entered

cdef int check_fd(int fd) except? 1
cdef object seconds_until(int64_t deadline_ns)
cdef object seconds_until_look(int64_t deadline_ns)

cdef Waiter waiter_here()
cdef bint is_hub_itself() except -1
cdef int register_first(Adapter adapter) except -1
cdef int enter_waiter(Waiter waiter) except -1
cdef int leave_waiter() except -1
cdef int keep_waiter(Waiter waiter) except -1
