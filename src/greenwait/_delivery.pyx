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

It is the greenlet's that has waited, and no other one's of its thread. Where such code swallows it
all the same, the greenlet's next wait raises it.
"""

cimport cython
from cpython.exc cimport PyErr_SetObject
from cpython.object cimport PyObject
from cpython.pythread cimport PyThread_get_thread_ident

from weakref import ref

from greenlet import getcurrent

from greenwait._sleep cimport is_main_thread

from greenwait import _psycopg2

cdef extern from "Python.h":
    int Py_AddPendingCall(int (*function)(void*), void* argument) noexcept
    ctypedef struct PyFrameObject
    PyFrameObject* PyEval_GetFrame() noexcept
    int PyThreadState_SetAsyncExc(unsigned long thread, object exc) except -1

__all__ = ["QueryCanceled"]

cdef str QUERY_CANCELED = "57014"  # the SQLSTATE, PostgreSQL manual, appendix A

cdef dict sqlstate_errors = _psycopg2.SQLSTATE_ERRORS
cdef object class_put_aside = None

cdef object take_a_step = eval("lambda: None")  # no compiled function: the interpreter runs it
cdef object current_greenlet = getcurrent
cdef object reference = ref

cdef int pending_count = 0
cdef dict pending = {}  # by a reference to the greenlet; each thread has one at least


class _Delivering(type):
    """The class of the two classes whose call delivers what is pending for this greenlet."""

    def __call__(cls, *args, **keywords):
        exc = None
        if cls is QueryCanceled or cls is _Pending:
            exc = take_pending(cls is _Pending)
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


@cython.auto_pickle(False)
@cython.final
cdef class Undelivered:
    """An exception for the greenlet that has waited."""

    cdef object exception
    cdef bint in_any_case
    cdef object caller  # psycopg2's: a frame
    cdef bint is_async  # the interpreter has been given _Pending to raise

    def __init__(self, exception, bint in_any_case, caller):
        self.exception, self.in_any_case, self.caller = exception, in_any_case, caller


cdef int deliver(object exc, bint in_any_case) except -1:
    """Have psycopg2's caller get *exc*: to be called last in a wait, if not raised by it.

    *in_any_case*: whatever has become of the query, and not only if it was cancelled.
    """
    global pending_count, class_put_aside
    cdef unsigned long thread = PyThread_get_thread_ident()
    cdef PyObject* frame = <PyObject*>PyEval_GetFrame()  # compiled modules have none
    caller = None if frame is NULL else <object>frame
    cdef Undelivered undelivered = Undelivered(exc, in_any_case, caller)
    pending[reference(current_greenlet(), forget)] = undelivered
    pending_count = len(pending)
    if sqlstate_errors.get(QUERY_CANCELED) is not QueryCanceled:
        class_put_aside = sqlstate_errors.get(QUERY_CANCELED)
        sqlstate_errors[QUERY_CANCELED] = QueryCanceled
    if in_any_case and not (is_main_thread() and Py_AddPendingCall(raise_in_caller, NULL) == 0):
        undelivered.is_async = True
        PyThreadState_SetAsyncExc(thread, _Pending)  # which does not look where it is
    return 0


cdef int raise_in_caller(void* nothing) noexcept:
    """Raise what is pending for this greenlet, unless psycopg2 is at work still.

    The interpreter calls it between two steps of the main thread's Python code (C API,
    Py_AddPendingCall).
    """
    cdef Undelivered found = pending.get(reference(current_greenlet()))
    if found is None or not found.in_any_case:
        return 0
    if is_called_by(found.caller):
        wait_for_end_of(<object>PyEval_GetFrame())
        return 0
    exc = take_pending(False)
    PyErr_SetObject(type(exc), exc)
    return -1


@cython.auto_pickle(False)
@cython.final
cdef class Later:
    """Has ``raise_in_caller`` called when it is freed."""

    def __dealloc__(self):
        Py_AddPendingCall(raise_in_caller, NULL)

    def __call__(self, frame, event, argument):
        """Trace nothing."""


cdef int wait_for_end_of(object frame) except -1:
    """Look again when *frame* is over, or a tracer, a debugger's, takes that place for its own.

    Not in the next step of it: a traced function of Python 3.11 does not begin as long as there
    are pending calls (ceval.c, DO_TRACING).
    """
    if frame.f_trace is None:
        frame.f_trace = Later()
    else:
        Py_AddPendingCall(raise_in_caller, NULL)
    return 0


cdef bint is_called_by(object caller) except *:
    """Is this Python code that *caller* has called, or psycopg2 on its behalf?"""
    cdef PyObject* current = <PyObject*>PyEval_GetFrame()
    frame = None if current is NULL or <object>current is caller else (<object>current).f_back
    while frame is not None and frame is not caller:
        frame = frame.f_back
    return frame is not None


cdef object take_pending(bint is_raised):
    """Return what is on its way to this greenlet, or None; it is the caller's now.

    *is_raised*: it is the interpreter that raises it.
    """
    cdef Undelivered found = pending.pop(reference(current_greenlet()), None)
    count_pending()
    if found is None:
        return None
    if found.is_async and not is_raised:
        # Have it raised here. Setting None instead leaves the flag on that says that there is
        # something to raise, and up to Python 3.12 each step of the interpreter looks for it.
        try:
            take_a_step()
        except _Pending:
            pass
    return found.exception


def forget(key):
    """Drop what was for a greenlet that is no more."""
    pending.pop(key, None)
    count_pending()


cdef int count_pending() except -1:
    global pending_count
    pending_count = len(pending)
    if pending_count == 0 and sqlstate_errors.get(QUERY_CANCELED) is QueryCanceled:
        sqlstate_errors[QUERY_CANCELED] = class_put_aside
    return 0


cdef object take_undelivered():
    """Return the exception that this greenlet's last wait left and nobody has raised yet.

    That is an interrupt, and psycopg2 waits again before it returns to its caller (a
    BEGIN, then the query). A deadline that turned out not to matter is forgotten.
    """
    cdef Undelivered found = pending.get(reference(current_greenlet()))
    if found is not None and found.caller is not None and is_called_by(found.caller):
        return None  # a __del__, that waits within psycopg2's call: it is not for that
    exc = take_pending(False)
    return exc if found is not None and found.in_any_case else None
