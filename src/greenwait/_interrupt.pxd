"""A wait that anything may end: a deadline, a signal, a greenlet's exception."""

from greenwait._poll cimport Options

cdef int wait_or_stop(object conn, const Options* options) except -1
