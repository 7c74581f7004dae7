"""A wait that anything may end: a deadline, a signal, a greenlet's exception."""

from greenwait._deadline cimport timeout
from greenwait._poll cimport Options

cdef Options default_options
cdef int wait_or_stop(object conn, const Options* options) except -1
cdef object block_has_expired(timeout block)
