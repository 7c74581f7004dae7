"""Py_IsFinalizing(): is the interpreter on its way out? Greenlets can not be switched to then.

It becomes true after the ``atexit`` functions and before the modules are torn down; what runs
then is a ``__del__``. Public since CPython 3.13, and the same function before.
"""

cdef extern from *:
    """
    #if PY_VERSION_HEX < 0x030D0000
    #  define Py_IsFinalizing _Py_IsFinalizing
    #endif
    """
    bint Py_IsFinalizing() noexcept nogil
