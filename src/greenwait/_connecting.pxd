"""Waits for a connection that is being made, with ``connect_timeout`` for each host."""

from greenwait._poll cimport Wait
from greenwait._psycopg.state cimport ConnectionState

cdef bint shut_down(object conn) except *
cdef int wait_until_connected(object conn, Wait* wait) except -1
