"""A call of a function in a greenlet of its own, and its outcome."""

from greenwait._greenlets.local cimport Scoped
from greenwait._greenlets.waiter cimport InterruptTarget

cdef class Execution(Scoped):
    cdef object function  # and its arguments; None once it runs
    cdef tuple args
    cdef dict kwargs
    cdef object context   # in which it runs
    cdef InterruptTarget target
    cdef object value
    cdef object exception_raised
    cdef int row          # in a trace; 0: it has none yet
    cdef int execute(self) except -1
    cdef int deliver_late(self) except -1
    cdef object outcome(self)
