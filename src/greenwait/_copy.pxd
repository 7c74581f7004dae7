"""The end of a COPY that ``execute("COPY ...")`` has left open."""

from greenwait._poll cimport Wait
from greenwait._psycopg.libpq cimport PQTRANS_ACTIVE, libpq
from greenwait._psycopg.state cimport ConnectionState

cdef bint is_stream(ConnectionState state) except -1
cdef int end_copy(object conn, Wait* wait) except -1
cdef bint has_left_copy_unseen(object conn) except -1


cdef inline bint has_left_copy(object conn, ConnectionState state) except -1:
    """Is the connection still busy, though ``poll()`` has reported that it is done?"""
    if state.has_state is not NULL:
        state.transaction_status = libpq.transactionStatus(state.has_state)
        return state.transaction_status == PQTRANS_ACTIVE
    return False if state.is_async else has_left_copy_unseen(conn)
