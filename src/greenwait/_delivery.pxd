"""An exception on its way to whoever called psycopg2."""

# How many there are, in the whole process. Mostly none, and then nobody looks for them.
cdef int pending_count

cdef int deliver(object exc, bint in_any_case) except -1
cdef object take_undelivered()
