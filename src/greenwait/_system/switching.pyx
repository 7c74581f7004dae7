"""greenlet's C API: the running greenlet, and a switch to another one.

Found at run time, in greenlet's capsule, so that its header is not needed to build. The places of
the functions are part of its ABI (greenlet.h). Called through Python's methods of the same names,
each would cost twice as much.
"""

from cpython.object cimport PyObject
from cpython.pycapsule cimport PyCapsule_Import

cdef enum:
    GET_CURRENT = 4
    SWITCH = 6

ctypedef object (*GetCurrent)()
ctypedef object (*Switch)(object greenlet, PyObject* args, PyObject* kwargs)

cdef void** functions = <void**>PyCapsule_Import("greenlet._C_API", 0)
cdef GetCurrent get_current = <GetCurrent>functions[GET_CURRENT]
cdef Switch switch = <Switch>functions[SWITCH]


cdef object current_greenlet():
    """Return the greenlet that runs."""
    return get_current()


cdef object switch_to(object greenlet):
    """Go on with the greenlet; return what is passed when this one goes on."""
    return switch(greenlet, NULL, NULL)
