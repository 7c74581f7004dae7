"""The connection that is in a proxy, which a library that traces has put around it."""

cpdef object without_proxy(object conn)
