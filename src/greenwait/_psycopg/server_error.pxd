"""The exceptions for errors of the server that reach greenwait, and not psycopg2."""

from greenwait._psycopg.libpq cimport PGconn, PGresult

cdef object server_error(object conn, object cursor, PGresult* result)
cdef object connection_error(object conn, PGconn* pgconn)
