"""The state in which a pool's connection is lent, and how it is restored."""

cdef tuple settings_of(object conn)
cdef bint has_settings(object conn, tuple settings) except -1
cdef int configure(object conn, object function) except -1
cdef bint is_alive(object conn) except -1
cdef bint is_restored(object conn, tuple settings, object reset) except -1
