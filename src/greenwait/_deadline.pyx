"""How long may it take? ``timeout()``, and the arithmetic of deadlines."""

cimport cython
from cpython.contextvars cimport (
    PyContextVar_New,
    PyContextVar_Reset,
    PyContextVar_Set,
    get_value,
)
from libc.math cimport isfinite
from libc.stdint cimport int64_t

from greenwait._monotonic cimport NO_DEADLINE, monotonic_ns

__all__ = ["timeout"]

cdef double LONGEST_SECONDS = 1e9  # 30 years; more would not fit into 64 bits of nanoseconds

# Module-level C variables outlive the module's dict: a query from a __del__ at
# interpreter exit still finds them.
cdef object innermost = PyContextVar_New("greenwait.timeout", NULL)


@cython.final
cdef class timeout:
    """timeout(seconds, /)
--

    A ``with`` block whose waits for the server, all together, end by a deadline.

    :param seconds: how long after entering the block that is; None sets no limit.
    :raises ValueError: it is negative or not finite.
    :raises TypeError: it is not a number.
    :raises RuntimeError: on entering the block, it was entered before.

    When it has passed, the query under way is cancelled on the server, and the call
    that waited for it raises ``greenwait.QueryTimeout``; the connection stays open, and
    is usable after ``rollback()``. What had succeeded by then stands. A ``commit()`` is
    not cancelled, its outcome is waited for (see ``greenwait.CommitInDoubt``), and so
    is that of a ``rollback()``. Time spent on other things counts too, and the next
    wait notices.

    Blocks nest; the nearest deadline wins, and only its own block has ``expired``. They
    are of the thread, greenlet or task that entered them, by a context variable, and of
    those that run in a copy of its context. A signal is handled as in any wait.

    It needs greenwait's callback to be registered: other callbacks know of no deadline.
    """

    def __cinit__(self, seconds, /):
        self._seconds = (
            None if seconds is None else checked_seconds("seconds", seconds, ", or None")
        )
        self.deadline_ns = NO_DEADLINE

    @property
    def seconds(self):
        """How long the block may take, or None."""
        return self._seconds

    @property
    def expired(self):
        """Did this block's deadline end a wait?"""
        return self.has_expired

    def __enter__(self):
        global blocks_entered
        if self.deadline_ns != NO_DEADLINE or self.is_entered:
            raise RuntimeError("a timeout() is for one with block; make another for the next")
        self.outer = get_value(innermost)
        self._token = PyContextVar_Set(innermost, self)
        if self._seconds is not None:
            self.deadline_ns = after(to_ns(self._seconds))
        self.is_entered = True
        blocks_entered += 1
        return self

    def __exit__(self, *exc_info):
        global blocks_entered
        token, self._token = self._token, None
        if self.is_entered:
            self.is_entered = False
            blocks_entered -= 1
            PyContextVar_Reset(innermost, token)

    def __repr__(self):
        return f"greenwait.timeout({self._seconds!r})"


cdef timeout nearest_block():
    """Return the block whose deadline comes first, or None."""
    cdef timeout nearest = None
    cdef timeout block = get_value(innermost)
    while block is not None:
        # A copy of the context may have outlived the block.
        if block.is_entered and (nearest is None or block.deadline_ns <= nearest.deadline_ns):
            nearest = block
        block = block.outer
    return nearest


cdef object leave_blocks():
    """Be in no block, up to ``return_to_blocks()`` with what this returns."""
    return PyContextVar_Set(innermost, None)


cdef int return_to_blocks(object token) except -1:
    PyContextVar_Reset(innermost, token)
    return 0


cdef int64_t after(int64_t duration_ns) noexcept nogil:
    """Return the deadline that is so far away from now."""
    return monotonic_ns() + duration_ns


cdef object checked_seconds(str option, object value, str otherwise):
    """Return *value* as a float; raise if it is not a length of time."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(
            f"{option} must be a number of seconds{otherwise}, not {type(value).__name__!r}"
        )
    seconds = float(value)
    if not (0.0 <= seconds and isfinite(seconds)):
        raise ValueError(f"{option}={value!r}: it must be 0 or more seconds{otherwise}")
    return seconds


cdef int64_t to_ns(double seconds) noexcept:
    return <int64_t>(min(seconds, LONGEST_SECONDS) * 1e9)
