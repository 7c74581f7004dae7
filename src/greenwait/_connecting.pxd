"""A connection that is being made."""

from greenwait._known cimport Known
from greenwait._poll cimport Wait

cdef bint shut_down(object conn) except *
cdef int wait_until_connected(object conn, Known connection, Wait* wait) except -1
