"""The name of the module that users import, in the objects that they import from it."""

from cpython.object cimport PyTypeObject
from cpython.ref cimport Py_INCREF

__all__ = ["publish"]

cdef extern from *:
    """
    /* A type in C has no __module__ of its own, but is called by its full name. */
    static int
    rename_static_type(PyTypeObject *type, const char *name)
    {
        if (PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE))
            return 0;
        type->tp_name = name;
        PyType_Modified(type);
        return 1;
    }
    """
    bint rename_static_type(PyTypeObject* cls, const char* name) noexcept


def publish(str module, objects):
    """Have classes and functions say that they are *module*'s: in tracebacks, pickles, help().

    :param module: its name.
    :param objects: what it exports; what is neither is left alone.
    """
    for each in objects:
        if not hasattr(each, "__qualname__"):
            continue
        if isinstance(each, type):
            name = f"{module}.{each.__name__}".encode()
            if rename_static_type(<PyTypeObject*>each, name):
                Py_INCREF(name)  # the type keeps the pointer, for ever
                continue
        each.__module__ = module
