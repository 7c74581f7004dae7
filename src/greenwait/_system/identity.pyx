"""The public ``__module__`` of exported objects: the module that users import them from."""

from cpython.object cimport PyTypeObject
from cpython.ref cimport Py_INCREF

__all__ = ["publish"]

cdef extern from *:
    """
    /* A type in C has no __module__ of its own: its name contains the module's. */
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
    """Make *module* the ``__module__`` of classes and functions: in tracebacks, pickles, help().

    :param module: the module's name.
    :param objects: its exports; those that are neither classes nor functions are left alone.
    """
    for each in objects:
        if not hasattr(each, "__qualname__"):
            continue
        if isinstance(each, type):
            name = f"{module}.{each.__name__}".encode()
            if rename_static_type(<PyTypeObject*>each, name):
                Py_INCREF(name)  # the type keeps the pointer for ever
                continue
        each.__module__ = module
