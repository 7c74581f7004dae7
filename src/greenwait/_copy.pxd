"""A COPY that ``execute()`` has begun."""

from greenwait._known cimport Known
from greenwait._libpq cimport PQTRANS_ACTIVE, libpq
from greenwait._poll cimport Wait

cdef int end_copy(object conn, Known connection, Wait* wait) except -1
cdef bint has_left_copy_unseen(object conn) except -1


cdef inline bint has_left_copy(object conn, Known connection) except -1:
    """Is the connection still busy, though ``poll()`` has said that it is done?"""
    if connection.has_state is not NULL:
        connection.transaction_status = libpq.transactionStatus(connection.has_state)
        return connection.transaction_status == PQTRANS_ACTIVE
    return False if connection.is_async else has_left_copy_unseen(conn)
