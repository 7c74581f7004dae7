"""The last exception of each thread's wait callback, kept in case psycopg2 loses it.

psycopg2 loses it in commit() and rollback() if a notification or notice is still to be decoded: it
decodes that with the exception set, and then raises OperationalError("unknown error") (pq_commit,
pq_abort, pq_complete_error). So the exception is kept until the thread's next wait, or its end.
"""

cimport cython
from cpython.object cimport PyObject
from cpython.pystate cimport PyThreadState_GetDict

cdef str KEY = "greenwait: raised last"


@cython.auto_pickle(False)
@cython.final
@cython.internal
cdef class Raised:
    """An exception in its thread's dict."""

    cdef object exception

    def __cinit__(self):
        global raised_count
        raised_count += 1

    def __dealloc__(self):
        global raised_count
        raised_count -= 1


cdef int remember_raised(object exc) except -1:
    """Keep *exc*, in case psycopg2 loses it; call this last in a wait that raises it."""
    cdef PyObject* thread = PyThreadState_GetDict()
    cdef Raised own = Raised.__new__(Raised)
    own.exception = exc
    if thread is not NULL:
        (<dict>thread)[KEY] = own
    return 0


cdef object take_raised():
    """Return and forget the exception that was raised last in this thread, or None."""
    cdef PyObject* thread = PyThreadState_GetDict()
    cdef Raised found = None if thread is NULL else (<dict>thread).pop(KEY, None)
    return None if found is None else found.exception
