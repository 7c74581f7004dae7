"""Stopping a query whose wait is interrupted: cancel, drain, keep the connection."""

from greenwait._poll cimport Wait

# Each of these ends the query; it raises an exception that costs the connection, or returns one
# that does not.
cdef object stop_unless_lost(object conn, Wait* wait, object interruption)
cdef object stop_and_log(object conn, Wait* wait, object interruption)

cdef object log_stopping(
    object pid, Wait* wait, object interruption, object reason, object failure
)
cdef object pid_of(object conn, Wait* wait)
cdef object begin_stopping(Wait* wait, object interruption)
cdef object find_ending(Wait* wait, object interruption)
cdef int abandon_copy(object conn, Wait* wait) except -1
