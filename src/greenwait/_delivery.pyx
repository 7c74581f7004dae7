"""How does an exception reach the caller of ``execute()``, and the connection live on?

What a wait callback raises costs the connection: psycopg2 closes it (``green_panic``).
So the callback returns normally, and the exception takes one of two other ways.

When the query has ended with the server's error for a cancel, psycopg2 looks up a class
by the SQLSTATE and calls it. While an exception is on its way, that is a class of ours;
calling it returns the QueryTimeout, or raises the other exception. psycopg2 then passes
that on as it would its own.

When the query has ended otherwise, faster than the cancel, psycopg2 has nothing to raise.
Then the interpreter raises the exception as soon as the caller's Python code goes on. Not
sooner: psycopg2 calls Python code itself, to decode what the server has said, and takes
what is raised there for a failure of that (``conn_notice_process`` forgets it).
"""

from cpython.exc cimport PyErr_SetObject
from cpython.object cimport PyObject
from cpython.pythread cimport PyThread_get_thread_ident

from greenwait._sleep cimport is_main_thread

from greenwait import _psycopg2

cdef extern from "Python.h":
    int Py_AddPendingCall(int (*function)(void*), void* argument) noexcept
    ctypedef struct PyFrameObject
    PyFrameObject* PyEval_GetFrame() noexcept
    int PyThreadState_SetAsyncExc(unsigned long thread, object exc) except -1
    int PyThreadState_ClearAsyncExc "PyThreadState_SetAsyncExc" (
        unsigned long thread, void* null
    ) except -1

__all__ = ["QueryCanceled"]

cdef str QUERY_CANCELED = "57014"  # the SQLSTATE, PostgreSQL manual, appendix A

cdef dict sqlstate_errors = _psycopg2.SQLSTATE_ERRORS
cdef object class_put_aside = None

cdef int pending_count = 0
cdef dict pending_by_thread = {}


class _Delivering(type):
    """The class of the two classes whose call delivers what is pending for this thread."""

    def __call__(cls, *args, **keywords):
        exc = take_pending() if cls is QueryCanceled or cls is _Pending else None
        if exc is None:
            return super().__call__(*args, **keywords)
        if cls is QueryCanceled and isinstance(exc, cls):
            return exc  # psycopg2 adds what the server has said
        raise exc


class QueryCanceled(_psycopg2.QueryCanceled, metaclass=_Delivering):
    """psycopg2's class of that name, and in its place while an exception is on its way."""

    def __reduce__(self):
        kind, *state = super().__reduce__()
        return (_psycopg2.QueryCanceled if kind is QueryCanceled else kind, *state)


QueryCanceled.__module__ = _psycopg2.QueryCanceled.__module__


class _Pending(BaseException, metaclass=_Delivering):
    """What the interpreter is given to raise."""


cdef int deliver(object exc, bint in_any_case) except -1:
    """Have psycopg2's caller get *exc*: to be called last in a wait, if not raised by it.

    *in_any_case*: whatever has become of the query, and not only if it was cancelled.
    """
    global pending_count, class_put_aside
    cdef unsigned long thread = PyThread_get_thread_ident()
    cdef PyObject* caller = <PyObject*>PyEval_GetFrame()  # compiled modules have none
    pending_by_thread[thread] = (exc, in_any_case, None if caller is NULL else <object>caller)
    pending_count = len(pending_by_thread)
    if sqlstate_errors.get(QUERY_CANCELED) is not QueryCanceled:
        class_put_aside = sqlstate_errors.get(QUERY_CANCELED)
        sqlstate_errors[QUERY_CANCELED] = QueryCanceled
    if in_any_case and not (is_main_thread() and Py_AddPendingCall(raise_in_caller, NULL) == 0):
        PyThreadState_SetAsyncExc(thread, _Pending)  # which does not look where it is
    return 0


cdef int raise_in_caller(void* nothing) noexcept:
    """Raise what is pending for the main thread, unless psycopg2 is at work still.

    The interpreter calls it between two steps of Python code (C API, Py_AddPendingCall).
    """
    found = pending_by_thread.get(PyThread_get_thread_ident())
    if found is None or not found[1]:
        return 0
    if is_called_by(found[2]):
        Py_AddPendingCall(raise_in_caller, NULL)
        return 0
    exc = take_pending()
    PyErr_SetObject(type(exc), exc)
    return -1


cdef bint is_called_by(object caller) except *:
    """Is this Python code that *caller* has called, or psycopg2 on its behalf?"""
    cdef PyObject* current = <PyObject*>PyEval_GetFrame()
    frame = None if current is NULL or <object>current is caller else (<object>current).f_back
    while frame is not None and frame is not caller:
        frame = frame.f_back
    return frame is not None


cdef object take_pending():
    """Return what is on its way in this thread, or None; it is the caller's now."""
    global pending_count
    cdef unsigned long thread = PyThread_get_thread_ident()
    found = pending_by_thread.pop(thread, None)
    if found is None:
        return None
    pending_count = len(pending_by_thread)
    if pending_count == 0:
        sqlstate_errors[QUERY_CANCELED] = class_put_aside
    exc, in_any_case, _ = found
    if in_any_case:
        PyThreadState_ClearAsyncExc(thread, NULL)
    return exc


cdef object take_undelivered():
    """Return the exception that this thread's last wait left and nobody has raised yet.

    That is an interrupt, and psycopg2 waits again before it returns to its caller (a
    BEGIN, then the query). A deadline that turned out not to matter is forgotten.
    """
    found = pending_by_thread.get(PyThread_get_thread_ident())
    exc = take_pending()
    return exc if found is not None and found[1] else None
