"""Methods that are called without a tuple of their arguments; see ``method.h``."""

cimport cython

from types import MethodType

cdef extern from "Python.h":
    object PyVectorcall_Call(object function, tuple args, dict kwargs)

cdef extern from "method.h":
    void set_method_slots(type cls, Py_ssize_t vectorcall_offset) noexcept

cdef object new_bound_method = MethodType


@cython.auto_pickle(False)
cdef class Method:
    """The base class of methods; each of its subclasses is passed to ``make_method_class()``."""

    def __get__(self, instance, owner):
        return self if instance is None else new_bound_method(self, instance)

    def __call__(self, /, *args, **kwargs):
        return PyVectorcall_Call(self, args, kwargs)  # not by a call, but as an attribute

    def __repr__(self):
        return f"<method {getattr(self, '__qualname__', '?')}>"


cdef int make_method_class(type cls) except -1:
    cdef Method method = Method.__new__(Method)
    set_method_slots(cls, <Py_ssize_t>(<char*>&method.vectorcall - <char*><void*>method))
    return 0
