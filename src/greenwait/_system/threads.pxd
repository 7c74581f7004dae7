"""The main thread, and the number of forks that led to this process."""

# The number of forks between the first process and this one.
cdef int forks

cdef bint is_main_thread() noexcept
