"""What SQLAlchemy's pools wait for: a place, and the first connection of an engine.

SQLAlchemy has threading's locks there, which stop a thread, and with it the greenlet that is to
release the lock. In these greenlets of any framework, tasks and threads wait their turn.

They are compiled since neither an interrupt nor another thread must come between two of their
steps: a place would be lost for ever.
"""

cimport cython
from libc.stdint cimport int64_t

from greenwait._connections.semaphore cimport FairSemaphore
from greenwait._deadline cimport after
from greenwait._system.clock cimport NO_DEADLINE

__all__ = ["Mutex", "Places"]


@cython.auto_pickle(False)
@cython.final
cdef class Places:
    """Places(limit)
--

    The places of a pool, *limit* of them; None: as many as are asked for.
    """

    cdef FairSemaphore semaphore

    def __cinit__(self, limit):
        self.semaphore = None if limit is None else FairSemaphore(limit)

    def take(self, timeout, function):
        """Wait for a place, for at most *timeout* seconds, and return what the function returns.

        :returns: None if there was no place in time.

        The place is given back if the function raises.
        """
        cdef int64_t deadline_ns = NO_DEADLINE
        if self.semaphore is None:
            return function()
        if timeout is not None:
            deadline_ns = after(<int64_t>(max(0, timeout) * 1e9))
        if not self.semaphore.enter(deadline_ns):
            return None
        try:
            return function()
        except BaseException:
            self.semaphore.leave()
            raise

    def give_back(self, function, record):
        """Call the function with what was taken, and give the place back."""
        try:
            function(record)
        finally:
            if self.semaphore is not None:
                self.semaphore.leave()


@cython.auto_pickle(False)
@cython.final
cdef class Mutex:
    """A lock, in a ``with`` block."""

    cdef FairSemaphore semaphore

    def __cinit__(self):
        self.semaphore = FairSemaphore(1)

    def __enter__(self):
        self.semaphore.enter(NO_DEADLINE)
        return True

    def __exit__(self, kind, exc, traceback):
        self.semaphore.leave()
