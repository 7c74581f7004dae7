"""greenlet's C API: the running greenlet, and a switch to another one."""

cdef object current_greenlet()
cdef object switch_to(object greenlet)
