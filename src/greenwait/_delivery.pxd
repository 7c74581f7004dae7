"""An exception on its way to whoever called psycopg2."""

from greenwait._known cimport Known

cdef int deliver(object exc, bint is_deadline, bint is_refusal) except -1
cdef int deliver_in_query(object exc, Known connection) except -1
cdef int raise_again(object exc) except -1

# Is there something to forget_left()?
cdef bint may_be_left
cdef int forget_left() except -1
