"""A fair lock for greenlets and threads; each shared connection has one."""

from greenwait._connections.semaphore cimport FairSemaphore

cdef class FairLock:
    cdef FairSemaphore semaphore
    cdef object owner  # the greenlet that holds it, or None; each thread has at least one
    # The end of a block was interrupted before it held the lock: the block is not committed, and
    # the next owner rolls it back.
    cdef readonly bint is_left_open

    cpdef bint is_idle(self, conn) except -1
    cdef bint take(self, conn, str what) except -1
    cdef int release(self) except -1
    cdef int leave_block(self, conn, base_method, tuple exc_info) except -1
