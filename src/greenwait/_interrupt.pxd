"""Stopping a query whose wait is interrupted."""

from greenwait._poll cimport Options

cdef int wait_or_stop(object conn, const Options* options) except -1
