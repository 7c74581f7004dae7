"""An exception on its way to whoever called psycopg2."""

cdef int deliver(object exc, bint is_refusal) except -1
cdef int keep_for_next(object exc) except -1
cdef int raise_again(object exc) except -1
cdef int remember_raised(object exc) except -1

# Is there something to take_left()?
cdef bint may_be_left
cdef object take_left()
