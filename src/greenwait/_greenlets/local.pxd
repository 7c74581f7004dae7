"""Attributes of the job, call, greenlet or thread that sets them."""

cdef class Scope:
    cdef object number
    cdef int forks            # of the process that made it
    cdef list locals          # weak references of those in which it has attributes
    cdef Py_ssize_t next_purge
    cdef object __weakref__
    cdef dict attributes_of(self, local one)
    cdef object end(self, int rounds=*)
    cdef int purge(self) except -1

cdef class Scoped:
    cdef Scope scope          # None: it has none yet
    cdef object end_scope(self)

cdef class local:
    cdef dict by_scope        # its attributes, by the scope's number
    cdef object on_end
    cdef object __weakref__
    cdef object drop(self, object number, bint calls_back)

cdef object either(object first, object second)
