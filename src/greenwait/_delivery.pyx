"""Delivery of an exception to psycopg2's caller, in a way that the connection survives.

What a wait callback raises costs the connection: psycopg2 closes it (``green_panic``). So the
callback returns normally and leaves the exception here. psycopg2 then finds an error in the
server's answer, and calls the class of its SQLSTATE (``pq_raise``). All of these classes
descend from DatabaseError, whose ``__new__`` is replaced here, once and for good: while an
exception is pending for the greenlet, that call raises it, and psycopg2 passes it on.

Where the server has reported success, it has refused a statement first (``_refusal``).
"""

cimport cython
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF

from greenwait._psycopg.state cimport ConnectionState
from greenwait._raised cimport take_raised
from greenwait._ranks cimport append, chain

import sys

from greenlet import getcurrent

from greenwait._psycopg import psycopg2

__all__ = []

cdef extern from "Python.h":
    ctypedef struct PyFrameObject
    PyFrameObject* PyEval_GetFrame() noexcept
    void PyErr_Restore(PyObject* kind, PyObject* exc, PyObject* traceback) noexcept

cdef object current_greenlet = getcurrent
cdef object new_error = psycopg2.Error.__new__
cdef object OperationalError = psycopg2.OperationalError
cdef tuple UNKNOWN = ("unknown error",)
cdef object ServerHasCanceled = psycopg2.QueryCanceled
cdef object exc_info = sys.exc_info
cdef dict codes = {kind: code for code, kind in psycopg2.SQLSTATE_ERRORS.items()}

# By greenlet (each thread has one at least), the last one first. Mostly empty.
cdef dict pending = {}


@cython.auto_pickle(False)
@cython.final
@cython.internal
cdef class Pending:
    """An exception for the greenlet that has waited."""

    cdef object exception
    cdef tuple place       # of the Python code that called psycopg2
    cdef bint is_deadline  # of the wait: the server's error is the cancel that it has caused
    cdef bint is_refusal   # the server's error is one that it was asked for
    cdef ConnectionState begun       # whose BEGIN it has interrupted, or None
    cdef Pending outer     # of a wait around this one, in a finalizer


cdef int deliver(object exc, bint is_deadline, bint is_refusal) except -1:
    """Have psycopg2 raise *exc* where it raises the error that the server's answer is.

    Of the wait's own deadline it takes the place of the server's error for a cancel only; else that
    of whatever error it is, which becomes its context unless it *is_refusal*. Or *exc* is a
    function that is given the error, and returns the exception. To be called last in a wait.
    """
    cdef Pending own = leave(exc)
    own.is_deadline, own.is_refusal = is_deadline, is_refusal
    return 0


cdef int deliver_in_query(object exc, ConnectionState state) except -1:
    """Have the wait for the query that psycopg2 sends after BEGIN stopped by *exc*.

    Should psycopg2 fail before that, it raises it as well. To be called last in a wait.
    """
    leave(exc).begun = state
    state.interrupted_begin = exc
    return 0


cdef Pending leave(object exc):
    global may_be_left
    cdef Pending own = Pending.__new__(Pending)
    here = greenlet_here()
    own.exception, own.place, own.outer = exc, place_here(), pending.get(here)
    pending[here] = own
    may_be_left = True
    return own


cdef object greenlet_here():
    try:
        return current_greenlet()
    except RuntimeError:  # greenlet's module has ended, as the interpreter does
        return None


cdef tuple place_here():
    """Return where the greenlet's Python frames are, the inner first; compiled code has none."""
    cdef PyObject* current = <PyObject*>PyEval_GetFrame()
    cdef list place = []
    frame = None if current is NULL else <object>current
    while frame is not None:
        place.append((<size_t><PyObject*>frame, frame.f_lasti))
        frame = frame.f_back
    return tuple(place)


cdef Pending take_pending():
    """Return what is pending for the greenlet's psycopg2, or None; it is the caller's now."""
    here = greenlet_here()
    cdef Pending found = pending.get(here)
    cdef tuple place = () if found is None else place_here()
    # Deeper down is a finalizer, or a decoder, that runs before psycopg2 has raised its error.
    if found is None or len(found.place) < len(place):
        return None
    pop_pending(here, found)
    # Frames that the error has left may be gone by now. Any other code is of the program: psycopg2
    # has found no error, since what was left of the connection had a result.
    if found.place[len(found.place) - len(place):] != place:
        return None
    if found.begun is not None:
        found.begun.interrupted_begin = None
    return found


cdef int pop_pending(object here, Pending found) except -1:
    if found.outer is None:
        del pending[here]
    else:
        pending[here] = found.outer
    return 0


def _new(cls, /, *args, **keywords):
    """Return a new error of psycopg2's, or raise the exception that is pending in its place."""
    error = new_error(cls, *args, **keywords)
    cdef Pending found = take_pending() if pending else None
    if found is None:
        if cls is OperationalError and args == UNKNOWN:
            exc = take_raised()
            if exc is not None:
                raise_again(exc)
        return error
    exc = found.exception
    if found.is_deadline:  # psycopg2 adds to it what the server has said
        return exc if cls is ServerHasCanceled else error
    if cls in codes:
        error.__setstate__({"pgcode": codes[cls]})  # psycopg2 does so when it is too late
    if not isinstance(exc, BaseException):
        raise_again(exc(error))
    if cls is not ServerHasCanceled and not found.is_refusal:
        chain(exc, error)
    raise_again(exc)


psycopg2.DatabaseError.__new__ = staticmethod(_new)


# Waits that have left something behind have these look.
cdef bint may_be_left = False


cdef int forget_left() except -1:
    """Forget what psycopg2 has not raised; to be called first in a wait, if it *may_be_left*."""
    global may_be_left
    cdef Pending found
    here = greenlet_here()
    depth = len(place_here())
    found = pending.get(here)
    while found is not None and len(found.place) >= depth:
        pop_pending(here, found)
        found = found.outer
    for each in [each for each in pending if getattr(each, "dead", False)]:
        del pending[each]
    may_be_left = bool(pending)
    return 0


cdef int raise_again(object exc) except -1:
    """Raise *exc* with the context that it has, which ``raise`` would replace."""
    append(exc, exc_info()[1])
    kind, traceback = type(exc), exc.__traceback__
    Py_INCREF(kind)
    Py_INCREF(exc)
    if traceback is not None:
        Py_INCREF(traceback)
    PyErr_Restore(
        <PyObject*>kind, <PyObject*>exc, NULL if traceback is None else <PyObject*>traceback
    )
    return -1
