"""Cancel requests, as something to wait for."""

cdef object cancel_request(object conn)
