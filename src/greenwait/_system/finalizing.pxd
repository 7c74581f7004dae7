"""Py_IsFinalizing(): is the interpreter shutting down? No greenlet can be switched to then.

It becomes true after the ``atexit`` functions and before the modules are torn down; only
``__del__`` methods run then. Public since CPython 3.13; before, the same function is private.
"""

cdef extern from *:
    """
    #if PY_VERSION_HEX < 0x030D0000
    #  define Py_IsFinalizing _Py_IsFinalizing
    #endif
    """
    bint Py_IsFinalizing() noexcept nogil
