"""Methods that are called without a tuple of their arguments."""

from cpython.object cimport PyObject

cdef extern from "Python.h":
    Py_ssize_t PyVectorcall_NARGS(size_t nargsf) noexcept
    object PyObject_Vectorcall(object function, PyObject** args, size_t nargsf, PyObject* names)

cdef extern from "method.h":
    void set_vectorcall(type cls, Py_ssize_t offset) noexcept
    tuple tuple_of_vector(PyObject** args, Py_ssize_t count)
    dict dict_of_vector(PyObject** values, PyObject* names)

cdef class Method:
    cdef void* vectorcall       # a vectorcallfunc, whose first parameter is the method
    cdef dict __dict__          # update_wrapper()'s

cdef int make_method_class(type cls) except -1
