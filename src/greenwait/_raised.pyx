"""The exception that this thread's wait callback raised last, should psycopg2 lose it.

During commit() and rollback() it does where a notification or notice is still to be decoded: it
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
    """Have *exc* raised even if psycopg2 loses it; to be called last in a wait that raises it."""
    cdef PyObject* thread = PyThreadState_GetDict()
    cdef Raised own = Raised.__new__(Raised)
    own.exception = exc
    if thread is not NULL:
        (<dict>thread)[KEY] = own
    return 0


cdef object take_raised():
    """Return what was raised last in this thread, or None, and forget it."""
    cdef PyObject* thread = PyThreadState_GetDict()
    cdef Raised found = None if thread is NULL else (<dict>thread).pop(KEY, None)
    return None if found is None else found.exception
