"""Deadlines, times on the monotonic clock at which a wait is over; and ``timeout()``."""

from cpython.object cimport PyObject
from libc.stdint cimport int64_t

# The number of timeout() blocks entered now, in the whole process. Most programs have
# none, and then no wait has to search for them.
cdef int blocks_entered

cdef class timeout:
    cdef object _seconds
    cdef timeout outer             # around it, and still entered
    # The blocks within it, as a linked list. They hold references to it; it holds none to them.
    cdef PyObject* first_inner
    cdef PyObject* next_inner
    cdef PyObject* previous_inner
    cdef int64_t deadline_ns
    cdef bint was_entered
    cdef bint is_entered
    cdef bint has_expired
    cdef bint is_logged            # that it has
    cdef bint is_internal          # of greenwait's own code: its deadline is not told, nor counted
    # greenwait's callback is not registered, and no wait in the block has used greenwait.
    cdef bint is_unheard
    cdef long long sleeps          # thread_sleeps() on entering
    cdef int log(self, object exc) except -1
    cdef int tell_unheard(self) except -1
    cdef int enter(self) except -1
    cdef int leave(self) except -1

cdef timeout nearest_block()
cdef bint is_registered() except -1
cdef int learn_delegate() except -1
cdef int hear_blocks() except -1
cdef object call_outside_blocks(object function, tuple arguments)
cdef str deadline_of(timeout block, int64_t limit_ns)
cdef object timeout_error(timeout block, int64_t limit_ns, str state)
cdef object timeout_error_without_query(timeout block, int64_t limit_ns, str state)
cdef object block_has_expired(timeout block)
cdef int count_timeout(timeout block) noexcept
cdef int64_t after(int64_t duration_ns) noexcept nogil
cdef object checked_seconds(str option, object value, str otherwise)
cdef int64_t to_ns(double seconds) noexcept
