"""The exceptions of a wait that was interrupted, or whose connection was lost."""

from greenwait._deadline cimport timeout
from greenwait._poll cimport Wait
from greenwait._psycopg.state cimport ConnectionState

cdef object no_query_error(ConnectionState state, Wait* wait, timeout block, object interruption)
cdef object lost_error(object conn, ConnectionState state, Wait* wait, object exc)
cdef object given_up_error(
    object conn, ConnectionState state, Wait* wait, timeout block, object reason,
    object failure, list complaints,
)
cdef object with_later(object reason)
cdef object raised_by(object interruption)
