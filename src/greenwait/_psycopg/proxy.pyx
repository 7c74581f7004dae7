"""The connection that is in a proxy, which a library that traces has put around it.

Such libraries replace ``psycopg2.connect()``. ``isinstance()`` takes their proxies for what is in
them.
"""

from cpython.object cimport PyTypeObject, PyObject_TypeCheck

from greenwait._psycopg.psycopg2 import connection

__all__ = ["without_proxy"]

cdef type connection_type = connection
cdef int MOST = 8  # one around the other


cpdef object without_proxy(object conn):
    """Return the connection that is in the proxy; anything else as it is."""
    found = conn
    for _ in range(MOST):
        if PyObject_TypeCheck(found, <PyTypeObject*>connection_type):
            return found
        found = getattr(found, "__wrapped__", None)
    return conn
