"""A fair lock for greenlets and threads; each shared connection has one."""

from greenwait._connections.semaphore cimport FairSemaphore

cdef enum LockState:
    USABLE
    # The end of a block was interrupted before it held the lock: the block is not committed, and
    # the next owner rolls it back.
    LEFT_OPEN
    # The connection lies in its pool, and only close() may be called.
    NOT_LENT

cdef class FairLock:
    cdef FairSemaphore semaphore
    cdef object owner  # the greenlet that holds it, or None; each thread has at least one
    cdef LockState state

    cpdef bint is_idle(self, conn) except -1
    cdef bint take(self, conn, str what) except -1
    cdef int release(self) except -1
    cdef int leave_block(self, conn, base_method, tuple exc_info) except -1
    cdef int recover(self, conn, str what) except -1
