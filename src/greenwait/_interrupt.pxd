"""A wait, and what psycopg2's caller gets in place of the answer if it is interrupted."""

from greenwait._options cimport Options

cdef int wait_or_stop(object conn, const Options* options) except -1
