"""Which thread is the main one, and how often the process was forked."""

# How often this process, or one of those that it descends from, was forked off another.
cdef int forks

cdef bint is_main_thread() noexcept
