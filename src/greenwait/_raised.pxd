"""The last exception of each thread's wait callback, kept in case psycopg2 loses it."""

# The number of exceptions that are kept, in all threads.
cdef Py_ssize_t raised_count

cdef int remember_raised(object exc) except -1
cdef object take_raised()
