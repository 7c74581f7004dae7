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

from collections import deque

from sqlalchemy.util.queue import Empty, Full

__all__ = ["Idle", "Mutex", "Places"]

cdef object new_deque = deque


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
cdef class Idle:
    """Idle(maxsize=0, use_lifo=False)
--

    The connections of a pool that nobody uses: *maxsize* of them at most, if not 0.

    It has the methods of ``sqlalchemy.util.queue.Queue``. None waits: who has a place need not.
    """

    cdef readonly Py_ssize_t maxsize
    cdef readonly bint use_lifo
    cdef object kept

    def __cinit__(self, Py_ssize_t maxsize=0, bint use_lifo=False):
        self.maxsize, self.use_lifo = maxsize, use_lifo
        self.kept = new_deque()

    def get(self, block=True, timeout=None):
        """Take one, or raise Empty."""
        if not self.kept:
            raise Empty()
        return self.kept.pop() if self.use_lifo else self.kept.popleft()

    def put(self, record, block=True, timeout=None):
        """Keep one, or raise Full."""
        if self.full():
            raise Full()
        self.kept.append(record)

    get_nowait, put_nowait = get, put

    def qsize(self):
        """Return how many there are."""
        return len(self.kept)

    def empty(self):
        """Return whether it is empty."""
        return not self.kept

    cpdef bint full(self) except -1:
        """Return whether no more are kept."""
        return self.maxsize > 0 and len(self.kept) >= self.maxsize


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
