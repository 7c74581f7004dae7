"""Cancel requests, which stop queries on the server, and the public ``cancel()``."""

cdef object cancel_request(object conn)
