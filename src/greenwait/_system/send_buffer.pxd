"""A larger send buffer for a Unix socket; see ``send_buffer.h``."""

cdef extern from "send_buffer.h" nogil:
    int send_buffer_widen(int fd, int size) noexcept
    void send_buffer_restore(int fd, int former) noexcept
