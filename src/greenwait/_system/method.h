/* Methods that are called without a tuple of their arguments (PEP 590).
 *
 * A function of Cython's with *args and **kwargs makes a tuple and a dict for each call. These get
 * the caller's array of arguments, and pass it on.
 */
#ifndef GREENWAIT_METHOD_H
#define GREENWAIT_METHOD_H

#include <Python.h>

/* Have a type called by the vectorcall function that lies at this offset of its objects. */
static inline void
set_vectorcall(PyTypeObject *type, Py_ssize_t offset)
{
    type->tp_vectorcall_offset = offset;
    type->tp_flags |= Py_TPFLAGS_HAVE_VECTORCALL;
    PyType_Modified(type);
}

/* For a type that has tp_descr_get; it would not inherit the flags of a method everywhere. */
static inline void
set_method_slots(PyTypeObject *type, Py_ssize_t vectorcall_offset)
{
    type->tp_call = PyVectorcall_Call;
    type->tp_flags |= Py_TPFLAGS_METHOD_DESCRIPTOR;
    set_vectorcall(type, vectorcall_offset);
}

static inline PyObject *
tuple_of_vector(PyObject *const *args, Py_ssize_t count)
{
    PyObject *found = PyTuple_New(count);

    for (Py_ssize_t i = 0; found && i < count; i++) {
        Py_INCREF(args[i]);
        PyTuple_SET_ITEM(found, i, args[i]);
    }
    return found;
}

static inline PyObject *
dict_of_vector(PyObject *const *values, PyObject *names)
{
    PyObject *found = PyDict_New();

    for (Py_ssize_t i = 0; found && i < PyTuple_GET_SIZE(names); i++) {
        if (PyDict_SetItem(found, PyTuple_GET_ITEM(names, i), values[i]) < 0)
            Py_CLEAR(found);
    }
    return found;
}

#endif
