"""The data of a COPY, which a cursor's method transfers while its statement is waited for."""

from greenwait._poll cimport Wait
from greenwait._psycopg.state cimport ConnectionState

cdef class CopyData:
    cdef object file
    cdef object size      # the argument of its read()
    cdef object failure   # what read() has raised; psycopg2 raises the server's error about it
    cdef int kind         # PGRES_COPY_IN, PGRES_COPY_OUT, PGRES_COPY_BOTH
    cdef bint is_ended    # there is nothing more to send, or to receive
    cdef bint is_cut      # data was refused, or thrown away

cdef CopyData copy_expected(ConnectionState state)
cdef int begin_copy(Wait* wait, CopyData copy) except -1
cdef int transfer_copy(object conn, Wait* wait, CopyData copy) except -1
cdef int cut_copy(Wait* wait) except -1
cdef int finish_copy(object conn, Wait* wait) except -1
