"""An exception on its way to whoever called psycopg2."""

cdef int deliver(object exc, bint is_refusal) except -1
cdef int raise_again(object exc) except -1
