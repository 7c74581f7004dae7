"""An exception on its way to whoever called psycopg2."""

cdef int deliver(object exc, bint is_refusal) except -1
cdef int raise_again(object exc) except -1

# Is there something to forget_raised()?
cdef bint has_raised
cdef int remember_raised(object exc) except -1
cdef object forget_raised()
