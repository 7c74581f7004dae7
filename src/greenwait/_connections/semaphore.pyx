"""A fair semaphore for threads, and for greenlets of any framework.

Threads, and greenlets of a hub or a framework, wait in one queue: first come, first served. A
greenlet that waits lets others of its thread run.

The GIL makes these methods atomic, since compiled code is not interrupted between two lines. Only
while a wakeup is made may other code run: that of an adapter, or of a finalizer.
"""

cimport cython
from cpython.exc cimport PyErr_CheckSignals
from cpython.pythread cimport (
    PyThread_acquire_lock,
    PyThread_allocate_lock,
    PyThread_free_lock,
    PyThread_release_lock,
    PyThread_type_lock,
)
from libc.stdint cimport int64_t

from greenwait._deadline cimport (
    block_has_expired,
    blocks_entered,
    nearest_block,
    timeout as timeout_block,
)
from greenwait._system.clock cimport NO_DEADLINE, monotonic_ns
from greenwait._system.periods cimport SIGNALS_MS
from greenwait._system.sealed_type cimport seal_type
from greenwait._system.threads cimport is_main_thread
from greenwait._trace cimport row_here, trace_is_on, trace_mark, trace_span
from greenwait._waiter cimport Waiter, waiter_here, waiters_entered

from collections import deque

from greenwait._errors import DeadlinePassed, QueryTimeout

__all__ = ["check_deadline", "give_way", "pause"]

cdef extern from "pythread.h":
    int PY_LOCK_ACQUIRED
    int PyThread_acquire_lock_timed(
        PyThread_type_lock lock, long long microseconds, int intr_flag
    ) noexcept nogil

cdef enum:
    LONGEST_SLEEP_US = 1_000_000_000

cdef object new_deque = deque
# Looked up once: that costs more than the call.
cdef object append = deque.append
cdef object popleft = deque.popleft
cdef object deadline_passed = DeadlinePassed
cdef object query_timeout = QueryTimeout


@cython.auto_pickle(False)
@cython.final
@cython.internal
cdef class Wakeup:
    """A wait of one greenlet or thread, which another one ends."""

    cdef bint is_woken
    cdef Waiter waiter            # None: this thread waits, for the lock
    cdef object inner             # the waiter's own wakeup
    cdef PyThread_type_lock lock  # taken until it is woken

    def __cinit__(self):
        self.waiter = waiter_here() if waiters_entered > 0 else None
        if self.waiter is not None:
            self.inner = self.waiter.new_wakeup()
            return
        self.lock = PyThread_allocate_lock()
        if self.lock is NULL:
            raise MemoryError("no lock to wait for")
        PyThread_acquire_lock(self.lock, 0)

    def __dealloc__(self):
        if self.lock is not NULL:
            if not self.is_woken:
                PyThread_release_lock(self.lock)
            PyThread_free_lock(self.lock)

    cdef int wake(self) except -1:
        """End the wait, whether it has begun or not; once, from any thread."""
        self.is_woken = True
        if self.waiter is not None:
            self.waiter.wake(self.inner)
        else:
            PyThread_release_lock(self.lock)
        return 0

    cdef int wait(self, int64_t deadline_ns) except -1:
        """Wait until it is woken, or the deadline has passed.

        Raises QueryTimeout if an outer timeout() expires, or the interrupt of the wait.
        """
        cdef timeout_block block = nearest_block() if blocks_entered > 0 else None
        cdef int64_t until_ns = deadline_ns
        if block is not None:
            until_ns = min(until_ns, block.deadline_ns)
        while not self.is_woken and monotonic_ns() < until_ns:
            if self.waiter is not None:
                self.waiter.wait_for_wakeup(self.inner, until_ns)
            else:
                self.sleep(until_ns)
        if not self.is_woken and until_ns < deadline_ns:
            raise block_has_expired(block)
        return 0

    cdef int sleep(self, int64_t deadline_ns) except -1:
        """Stop this thread until it is woken, or it is time to check signals or the deadline."""
        cdef long long left_us = LONGEST_SLEEP_US
        cdef int acquired
        if deadline_ns != NO_DEADLINE:
            left_us = min(left_us, max(0, deadline_ns - monotonic_ns() + 999) // 1000)
        if is_main_thread():
            left_us = min(left_us, 1000 * SIGNALS_MS)
        with nogil:
            acquired = PyThread_acquire_lock_timed(self.lock, left_us, 1)
        if acquired == PY_LOCK_ACQUIRED:
            PyThread_release_lock(self.lock)
        PyErr_CheckSignals()
        return 0


seal_type(Wakeup, "whoever waits in a FairSemaphore makes it")


@cython.auto_pickle(False)
cdef class FairSemaphore:
    """A semaphore: at most *free* may have entered at a time, the next ones wait in a queue."""

    def __cinit__(self, Py_ssize_t free=1):
        self.free = free
        self.waiting = new_deque()
        self.category, self.what = "lock", "a turn"

    cdef bint enter(self, int64_t deadline_ns) except -1:
        """Wait until there is room. Returns whether there was before the deadline.

        A signal handler's exception, or an outer timeout(), ends the wait.
        """
        cdef Wakeup wakeup
        if self.has_room():
            return True
        wakeup = Wakeup.__new__(Wakeup)
        if self.has_room():  # another one has left meanwhile
            return True
        append(self.waiting, wakeup)
        try:
            if trace_is_on:
                wait_recorded(self, wakeup, deadline_ns)
            else:
                wakeup.wait(deadline_ns)
        except BaseException:
            if wakeup.is_woken:
                self.leave()
            elif wakeup in self.waiting:  # or it was passed over
                self.waiting.remove(wakeup)
            raise
        if not wakeup.is_woken:
            self.waiting.remove(wakeup)
        return wakeup.is_woken

    cdef int leave(self) except -1:
        """Make room for the next one."""
        while self.waiting:
            if self.wake_next():
                return 0
        self.free += 1
        return 0

    cdef bint has_room(self) noexcept:
        """Enter if there is room. Returns whether there was."""
        if self.is_open:
            return True
        if self.free > 0:
            self.free -= 1
            return True
        return False

    cdef int open(self) except -1:
        """Let in all that wait, and all that come later, whether there is room or not."""
        self.is_open = True
        while self.waiting:
            self.wake_next()
        return 0

    cdef bint wake_next(self) except -1:
        """Let in the first in the queue. Returns whether it could be woken."""
        cdef Wakeup wakeup = popleft(self.waiting)
        try:
            wakeup.wake()
        except Exception:  # it waits in an event loop that is closed
            wakeup.is_woken = False
            return False
        return True


cdef int wait_recorded(
    FairSemaphore semaphore, Wakeup wakeup, int64_t deadline_ns
) except -1:
    """Wait, and record that in the trace."""
    cdef int64_t began_ns = monotonic_ns()
    cdef bint stops_loop
    cdef int row = row_here(&stops_loop)
    interrupted_by = None
    try:
        wakeup.wait(deadline_ns)
        if not wakeup.is_woken:
            interrupted_by = deadline_passed
    except BaseException as exc:
        interrupted_by = deadline_passed if isinstance(exc, query_timeout) else type(exc)
        raise
    finally:
        if trace_is_on:
            trace_span(row, semaphore.category, semaphore.what, began_ns)
            if stops_loop:
                trace_span(row, "loop", "event loop stopped", began_ns)
            if interrupted_by is not None:
                trace_mark(row, interrupted_by, monotonic_ns())
    return 0


cdef int pause_until(int64_t deadline_ns) except -1:
    """Wait until the deadline, as FairSemaphore.enter() waits."""
    cdef Wakeup wakeup = Wakeup.__new__(Wakeup)
    wakeup.wait(deadline_ns)
    return 0


def check_deadline():
    """Raise QueryTimeout if an outer timeout() has expired, as the next wait would."""
    cdef timeout_block block = nearest_block() if blocks_entered > 0 else None
    if block is not None and monotonic_ns() >= block.deadline_ns:
        raise block_has_expired(block)


def give_way():
    """Let others run, as a wait does, where there was nothing to wait for.

    Raises an interrupt, or QueryTimeout as ``check_deadline()`` does.
    """
    cdef Waiter waiter = waiter_here() if waiters_entered > 0 else None
    if waiter is not None:
        waiter.wait_for_wakeup(waiter.new_wakeup(), monotonic_ns())
    PyErr_CheckSignals()
    check_deadline()


def pause(double seconds):
    """Wait for some seconds while others run.

    Raises an interrupt, or QueryTimeout as ``check_deadline()`` does.
    """
    pause_until(monotonic_ns() + <int64_t>(seconds * 1e9))
    check_deadline()
