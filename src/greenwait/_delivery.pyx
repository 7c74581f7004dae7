"""Delivery of an exception to psycopg2's caller, in a way that the connection survives.

An exception raised by a wait callback costs the connection: psycopg2 closes it
(``green_panic``). So the callback returns normally and leaves the exception here. psycopg2
then finds an error in the server's answer, and calls the class of its SQLSTATE
(``pq_raise``). All of these classes descend from DatabaseError, whose ``__new__`` is replaced
here, once and for good: while an exception is pending for the greenlet, that call raises it,
and psycopg2 passes it on.

Where the server has reported success, it is made to refuse a statement first (``_refusal``).
"""

cimport cython
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF

from greenwait._psycopg.state cimport ConnectionState
from greenwait._raised cimport take_raised
from greenwait._ranks cimport append, chain
from greenwait._system.switching cimport current_greenlet

import sys


from greenwait._psycopg import psycopg2

__all__ = []

cdef extern from "Python.h":
    ctypedef struct PyFrameObject
    PyFrameObject* PyEval_GetFrame() noexcept
    void PyErr_Restore(PyObject* kind, PyObject* exc, PyObject* traceback) noexcept

cdef object new_error = psycopg2.Error.__new__
cdef object OperationalError = psycopg2.OperationalError
cdef tuple UNKNOWN = ("unknown error",)
cdef object ServerHasCanceled = psycopg2.QueryCanceled
cdef object exc_info = sys.exc_info
cdef dict codes = {kind: code for code, kind in psycopg2.SQLSTATE_ERRORS.items()}

# By greenlet (each thread has at least one), the latest one first. Usually empty.
cdef dict pending = {}


@cython.auto_pickle(False)
@cython.final
@cython.internal
cdef class Pending:
    """An exception for the greenlet that has waited."""

    cdef object exception
    cdef tuple place       # of the Python code that called psycopg2
    cdef bint is_deadline  # the wait's own: the server's error is that of the cancel it has caused
    cdef bint is_refusal   # the server's error is that of a statement sent to be refused
    cdef ConnectionState begun  # of the connection whose BEGIN it has interrupted, or None
    cdef Pending outer     # that of the wait around this one, which is a finalizer's


cdef int deliver(object exc, bint is_deadline, bint is_refusal) except -1:
    """Make psycopg2 raise *exc* in place of the error in the server's answer.

    If it *is_deadline*, the wait's own, it replaces only the error of a cancelled query. Otherwise
    it replaces any error, which becomes its context unless it *is_refusal*. *exc* may also be a
    function that takes the error and returns the exception. Call this last in a wait.
    """
    cdef Pending own = leave(exc)
    own.is_deadline, own.is_refusal = is_deadline, is_refusal
    return 0


cdef int deliver_in_query(object exc, ConnectionState state) except -1:
    """Make *exc* stop the query that psycopg2 sends after BEGIN.

    If psycopg2 fails before that, it raises *exc* too. Call this last in a wait.
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
    except RuntimeError:  # at interpreter exit, when the greenlet module is gone
        return None


cdef tuple place_here():
    """Return the positions of the greenlet's Python frames, inner first; compiled code has none."""
    cdef PyObject* current = <PyObject*>PyEval_GetFrame()
    cdef list place = []
    frame = None if current is NULL else <object>current
    while frame is not None:
        place.append((<size_t><PyObject*>frame, frame.f_lasti))
        frame = frame.f_back
    return tuple(place)


cdef Pending take_pending():
    """Return and remove the exception that is pending for the greenlet's psycopg2, or None."""
    here = greenlet_here()
    cdef Pending found = pending.get(here)
    cdef tuple place = () if found is None else place_here()
    # A deeper stack is a finalizer's or a decoder's, which runs before psycopg2 raises its error.
    if found is None or len(found.place) < len(place):
        return None
    pop_pending(here, found)
    # Frames that the error has left may be gone by now. Any other position is in the program's
    # code: psycopg2 has found no error, because what a lost connection had sent included a result.
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
    """Return a new psycopg2 error, or raise the exception that is pending in its place."""
    error = new_error(cls, *args, **keywords)
    cdef Pending found = take_pending() if pending else None
    if found is None:
        if cls is OperationalError and args == UNKNOWN:
            exc = take_raised()
            if exc is not None:
                raise_again(exc)
        return error
    exc = found.exception
    if found.is_deadline:  # psycopg2 adds the server's message to it
        return exc if cls is ServerHasCanceled else error
    if cls in codes:
        error.__setstate__({"pgcode": codes[cls]})  # psycopg2 sets it too late
    if not isinstance(exc, BaseException):
        raise_again(exc(error))
    if cls is not ServerHasCanceled and not found.is_refusal:
        chain(exc, error)
    raise_again(exc)


psycopg2.DatabaseError.__new__ = staticmethod(_new)


# True while exceptions that psycopg2 has not raised may be left.
cdef bint may_be_left = False


cdef int forget_left() except -1:
    """Forget exceptions that psycopg2 has not raised; call it first in a wait if *may_be_left*."""
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
    """Raise *exc* with its own context, which ``raise`` would replace."""
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
