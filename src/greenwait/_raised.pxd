"""The exception that this thread's wait callback raised last, should psycopg2 lose it."""

# In how many threads is there something to take?
cdef Py_ssize_t raised_count

cdef int remember_raised(object exc) except -1
cdef object take_raised()
