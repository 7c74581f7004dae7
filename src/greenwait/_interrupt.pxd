"""Stopping a query whose wait is interrupted: cancel, drain, deliver, keep the connection."""

from greenwait._options cimport Options

cdef int wait_or_stop(object conn, const Options* options) except -1
