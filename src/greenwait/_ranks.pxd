"""The order of two interrupts: one is raised, and the other is its context."""

cpdef bint outranks(object exc, object other) except -1
cdef object higher(object first, object second)
cdef int chain(object exc, object context) except -1
cdef int append(object exc, object context) except -1
