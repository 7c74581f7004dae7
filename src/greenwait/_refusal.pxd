"""A statement that the server refuses, so that psycopg2 finds an error and not a success."""

from greenwait._poll cimport Wait
from greenwait._psycopg.state cimport ConnectionState

cdef bint has_error(object conn) except -1
cdef bint is_begin(object conn, Wait* wait) except -1
cdef bint have_refused(object conn, Wait* wait) except -1
