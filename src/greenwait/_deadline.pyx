"""Deadlines, times on the monotonic clock at which a wait is over; and ``timeout()``."""

cimport cython
from cpython.contextvars cimport (
    PyContextVar_New,
    PyContextVar_Reset,
    PyContextVar_Set,
    get_value,
)
from cpython.exc cimport PyErr_CheckSignals
from cpython.object cimport PyObject, PyObject_TypeCheck, PyTypeObject
from cpython.ref cimport Py_REFCNT
from libc.math cimport isfinite
from libc.stdint cimport int64_t

from greenwait._ranks cimport higher
from greenwait._stats cimport counters
from greenwait._system.clock cimport NO_DEADLINE, monotonic_ns

import contextlib
import gc
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar, get_type_hints

from greenwait import _errors
from greenwait._decorator import decorated
from greenwait._elsewhere import refusing
from greenwait._psycopg import psycopg2
from greenwait._stop_log import log_deadline
from greenwait._system.call_signature import CallSignature

__all__ = ["deadline_after", "timeout"]

_Function = TypeVar("_Function", bound=Callable[..., Any])

cdef double LONGEST_SECONDS = 1e9  # 30 years; more would not fit into 64 bits of nanoseconds

cdef extern from *:
    """
    #ifndef _WIN32
    #include <sys/resource.h>
    #endif

    /* How often this thread has slept; where that is not counted, a new number each time. */
    static long long
    thread_sleeps(void)
    {
        static long long unknown = 0;
    #ifdef RUSAGE_THREAD
        struct rusage usage;
        if (getrusage(RUSAGE_THREAD, &usage) == 0)
            return usage.ru_nvcsw;
    #endif
        return --unknown;
    }
    """
    long long thread_sleeps() noexcept

cdef object missing = object()
cdef object innermost = PyContextVar_New("greenwait.timeout", NULL)
cdef object get_wait_callback = psycopg2.get_wait_callback
cdef object monotonic = time.monotonic
cdef object frame_at = sys._getframe
cdef object warn_explicit = warnings.warn_explicit
cdef object all_objects = gc.get_objects
cdef str FILE_OF_CONTEXTLIB = contextlib.__file__
cdef type connection_type = psycopg2.connection
cdef object connection_async = connection_type.async_
cdef object query_timeout = _errors.QueryTimeout
cdef object log_expired = log_deadline


def decorating(function: _Function, /) -> _Function:
    """Have the signature of a block that is used as a decorator."""


@cython.no_gc  # it refers to blocks that were entered before it, and to numbers and strings
@cython.final
cdef class timeout:
    """timeout(seconds, /)
--

    A ``with`` block whose waits for the server, all together, end by a deadline.

    As a decorator it puts each call of a function, or of an async one, into such a block.

    :param seconds: the time from entering the block to the deadline; None sets no limit. With 0
        the first wait is over at once, unless the answer is there.
    :raises ValueError: *seconds* is negative or not finite.
    :raises TypeError: *seconds* is not a number.
    :raises RuntimeError: on entering the block, it was entered before.

    When the deadline has passed, the query under way is cancelled on the server, and the
    call that waited for it raises ``greenwait.QueryTimeout``; the connection stays open, and
    is usable after ``rollback()``. Statements that had succeeded by then stand. Neither a
    ``commit()`` nor a ``rollback()`` is cancelled: its outcome is waited for (see
    ``greenwait.CommitInDoubt``). Time spent on other things counts too, and the next wait
    notices.

    Blocks nest; the nearest deadline wins, and only its own block has ``expired``. By a
    context variable they apply to the thread, greenlet or task that entered them, and to
    those that run in a copy of its context. A signal is handled as in any wait.

    It needs greenwait's callback to be registered: other callbacks ignore deadlines. If
    another callback, or psycopg2 itself, has waited in the block, leaving it issues a warning,
    once for each line.
    """

    # Not *others and **named: Cython makes a tuple, a dict and a slower call for these.
    def __cinit__(self, value=missing, other=missing, /, *, seconds=missing):
        if value is missing or other is not missing or seconds is not missing:
            raise TypeError(
                "timeout() takes the seconds, without their name, and nothing else: "
                "timeout(5), or timeout(None) for no limit"
            )
        if callable(value):
            raise TypeError("timeout() decorates with its seconds: write @greenwait.timeout(5)")
        self._seconds = None if value is None else checked_seconds("seconds", value, ", or None")
        self.deadline_ns = NO_DEADLINE

    __aenter__ = __aexit__ = refusing(
        "a timeout() block is entered by 'with', in asynchronous code, too: "
        "with greenwait.timeout(5):"
    )

    @property
    def seconds(self):
        """Seconds that the block may take, or None."""
        return self._seconds

    @property
    def expired(self):
        """Whether this block's deadline has ended a wait."""
        return self.has_expired

    def __enter__(self):
        # Now, and not after the return: there CPython 3.14 may run signal handlers before the
        # block begins, and their exception would skip __exit__() (cpython issue 148874).
        PyErr_CheckSignals()
        self.enter()
        if self._seconds is not None and not is_registered():
            self.is_unheard = True
            self.sleeps = thread_sleeps()
        return self

    def __call__(self, function, /):
        return decorated("timeout()", function, partial(timeout, self._seconds))

    __signature__ = CallSignature(decorating)

    @property
    def __annotations__(self):
        return get_type_hints(decorating)

    def __exit__(self, kind=None, exc=None, traceback=None):
        self.leave()
        if self.has_expired and not self.is_logged:
            self.log(exc)
        if self.is_unheard:
            self.is_unheard = False
            # It took too long, or has waited for something.
            if monotonic_ns() >= self.deadline_ns or self.sleeps != thread_sleeps():
                try:
                    self.tell_unheard()
                except Warning:  # where warnings are errors
                    if exc is None:
                        raise  # in place of *exc* it would hide that

    cdef int enter(self) except -1:
        """Become the innermost block."""
        global blocks_entered
        cdef timeout outer
        if self.was_entered:
            raise RuntimeError("a timeout() is for one with block; make another for the next")
        outer = innermost_entered()
        PyContextVar_Set(innermost, self)
        self.was_entered = self.is_entered = True
        blocks_entered += 1
        attach(self, outer)
        if self._seconds is not None:
            self.deadline_ns = after(to_ns(self._seconds))
        return 0

    cdef int leave(self) except -1:
        """Leave the block, in all contexts, whichever context this is called in."""
        global blocks_entered
        cdef timeout inner, found
        if not self.is_entered:
            return 0
        self.is_entered = False
        blocks_entered -= 1
        while self.first_inner is not NULL:
            inner = <timeout>self.first_inner
            detach(inner)
            attach(inner, self.outer)
        # Not PyContextVar_Reset(): a generator's block may be left in another context than it was
        # entered in, and blocks of several tasks in any order.
        found = get_value(innermost)
        if found is not None and not found.is_entered:
            PyContextVar_Set(innermost, found.outer)
        return 0

    cdef int log(self, object exc) except -1:
        """Log that its deadline has ended a wait, not for the server; *exc* leaves the block."""
        self.is_logged = True
        interruption = call_outside_blocks(log_expired, (deadline_of(self, 0),))
        if interruption is not None:
            raised = interruption if exc is None else higher(exc, interruption)
            if raised is not exc:
                raise raised
        return 0

    cdef int tell_unheard(self) except -1:
        """Warn, once for each line, if psycopg2 has waited without greenwait, and so without limit.

        psycopg2 does not report its own waits. A program that waits by itself for its async_=1
        connections, with no callback registered, has none.
        """
        place = place_of_caller()
        registered = get_wait_callback()
        if place is None or (place, id(registered)) in told or is_registered():
            return 0
        if monotonic_ns() < self.deadline_ns and not has_blocking_connection():
            return 0
        told.add((place, id(registered)))
        whose = "has no wait callback" if registered is None else f"waits by {registered!r}"
        warn_explicit(
            f"{self!r} had no effect: psycopg2 {whose}, and only greenwait's knows of deadlines; "
            "call greenwait.install() before",
            RuntimeWarning,
            *place,
        )
        return 0

    def __dealloc__(self):
        global blocks_entered
        cdef timeout block, outer
        if self.is_entered:
            blocks_entered -= 1
        # One after the other: a long chain that is freed by recursion overflows the C stack.
        block = self.outer
        detach(self)
        while block is not None and Py_REFCNT(block) == 1:
            outer = block.outer
            detach(block)
            block, outer = outer, None

    def __repr__(self):
        return f"greenwait.timeout({self._seconds!r})"


# A block's outer block is always still entered: a block that is left hands its inner blocks over to
# its own outer block. So a copy of the context keeps at most one block that was left, and the chain
# of outer blocks contains no other.

cdef int attach(timeout block, timeout outer) noexcept:
    """Put *block* within *outer*, if that is not None."""
    block.outer = outer
    if outer is not None:
        block.next_inner = outer.first_inner
        if block.next_inner is not NULL:
            (<timeout>block.next_inner).previous_inner = <PyObject*>block
        outer.first_inner = <PyObject*>block
    return 0


cdef int detach(timeout block) noexcept:
    """Take *block* out of its outer block."""
    if block.outer is None:
        return 0
    if block.next_inner is not NULL:
        (<timeout>block.next_inner).previous_inner = block.previous_inner
    if block.previous_inner is not NULL:
        (<timeout>block.previous_inner).next_inner = block.next_inner
    else:
        block.outer.first_inner = block.next_inner
    block.next_inner = block.previous_inner = NULL
    block.outer = None
    return 0


cdef timeout innermost_entered():
    """Return the innermost block that is still entered, or None."""
    cdef timeout block = get_value(innermost)
    return block if block is None or block.is_entered else block.outer


cdef timeout nearest_block():
    """Return the block whose deadline comes first, or None."""
    cdef timeout block = innermost_entered()
    cdef timeout nearest = block
    while block is not None:
        if block.deadline_ns <= nearest.deadline_ns:
            nearest = block
        block = block.outer
    return nearest


cdef object call_outside_blocks(object function, tuple arguments):
    """Call a function that writes to the log; return what has been raised meanwhile, or None.

    No block applies to the queries of a log handler, least of all one that has expired.
    """
    cdef object raised = None
    token = PyContextVar_Set(innermost, None)
    try:
        function(*arguments)
    except BaseException as exc:
        raised = exc
    PyContextVar_Reset(innermost, token)
    return raised


# -- The exceptions for a deadline that has passed: these functions return them

cdef object timeout_error(timeout block, int64_t limit_ns, str state):
    """Return the QueryTimeout of *block*, or if that is None, of ``WaitCallback(timeout=)``.

    *state* is a sentence about the state of the connection.
    """
    exc = query_timeout(
        f"the query was cancelled: {deadline_of(block, limit_ns)} has passed. {state}"
    )
    exc.timeout = block
    return exc


cdef str deadline_of(timeout block, int64_t limit_ns):
    """Return what the deadline is called, in the same way."""
    name = f"WaitCallback(timeout={limit_ns / 1e9:g})" if block is None else repr(block)
    return f"the deadline of {name}"


cdef object timeout_error_without_query(timeout block, int64_t limit_ns, str state):
    """Return the same where the server has cancelled nothing, and so gives no SQLSTATE."""
    count_timeout(block)
    exc = timeout_error(block, limit_ns, state)
    exc.__setstate__({"pgcode": "57014"})
    return exc


cdef object block_has_expired(timeout block):
    """Return the exception of a wait that is not for the server."""
    return timeout_error_without_query(block, 0, "Nothing had been sent to the server")


cdef int count_timeout(timeout block) noexcept:
    if block is None or not block.is_internal:
        counters.timeouts += 1
    if block is not None:
        block.has_expired = True
    return 0


# -- Does psycopg2 call greenwait? Otherwise a block has no effect.

# greenwait's callbacks, set by ``_callback``, which this module can't import.
cdef object own_function = None
cdef type own_class = None
# A callback of the program that calls one of ours, as was once observed.
cdef object delegate = None
cdef set told = set()


def recognise(function, type cls not None):
    """Take *function*, and the instances of *cls*, for greenwait's wait callbacks."""
    global own_function, own_class
    own_function, own_class = function, cls


cdef bint is_registered() except -1:
    """Does psycopg2 call greenwait where it waits?"""
    registered = get_wait_callback()
    return (
        type(registered) is own_class
        or registered is own_function
        or (registered is delegate and registered is not None)
    )


cdef int learn_delegate() except -1:
    """Note that the registered callback calls greenwait, since psycopg2's call has come here."""
    global delegate
    if not is_registered():
        delegate = get_wait_callback()
    return 0


cdef int hear_blocks() except -1:
    """Note for all blocks of the context that greenwait waits, so that their deadlines apply."""
    cdef timeout block = innermost_entered()
    while block is not None:
        block.is_unheard = False
        block = block.outer
    return 0


cdef object place_of_caller():
    """Return the file and the line of the ``with`` statement; None outside of Python code."""
    try:
        frame = frame_at(0)  # compiled code has none
    except ValueError:
        return None
    while frame.f_code.co_filename == FILE_OF_CONTEXTLIB and frame.f_back is not None:
        frame = frame.f_back  # an ExitStack's
    return frame.f_code.co_filename, frame.f_lineno


cdef bint has_blocking_connection() except -1:
    """Is there a connection for which psycopg2 itself waits?"""
    for each in all_objects():
        if PyObject_TypeCheck(each, <PyTypeObject*>connection_type):
            if not connection_async.__get__(each):
                return True
    return False


# -- Lengths of time

cdef int64_t after(int64_t duration_ns) noexcept nogil:
    """Return the deadline that is *duration_ns* from now."""
    return monotonic_ns() + duration_ns


cdef object checked_seconds(str option, object value, str otherwise):
    """Return *value* as a float; raise if it is not a length of time."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(
            f"{option} must be a number of seconds{otherwise}, not {type(value).__name__!r}"
        )
    cdef double seconds
    try:
        seconds = value
    except OverflowError:  # of an int; its digits would fill a page
        raise ValueError(
            f"{option} is far too large: it must be 0 or more seconds{otherwise}"
        ) from None
    if not (0.0 <= seconds and isfinite(seconds)):
        raise ValueError(f"{option}={value!r}: it must be 0 or more seconds{otherwise}")
    return seconds


cdef int64_t to_ns(double seconds) noexcept:
    return <int64_t>(min(seconds, LONGEST_SECONDS) * 1e9)


def deadline_after(str option, seconds):
    """Return the ``time.monotonic()`` at which *seconds* from now are over; None for None."""
    if seconds is None:
        return None
    return monotonic() + min(checked_seconds(option, seconds, ", or None"), LONGEST_SECONDS)
