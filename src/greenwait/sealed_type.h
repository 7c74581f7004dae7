/* Types of which greenwait alone makes instances.
 *
 * Python code can get hold of every type: type(instance), object.__subclasses__(). An instance that it
 * makes of an internal one would be half of one, all of whose attributes are None. What is refused
 * here need not be looked for in each method.
 *
 * Py_TPFLAGS_DISALLOW_INSTANTIATION does the same, but has to be there before PyType_Ready(), which
 * is Cython's to call. Compiled code of the type's own module is not affected: it calls Cython's
 * function for tp_new by its name.
 */
#ifndef GREENWAIT_SEALED_TYPE_H
#define GREENWAIT_SEALED_TYPE_H

#include <Python.h>

static PyObject *
sealed_type_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    (void)args;
    (void)keywords;
    return PyErr_Format(PyExc_TypeError,
                        "greenwait alone makes instances of '%s', where it needs one",
                        type->tp_name);
}

/* object.__new__() and a base's refuse by themselves: their tp_new is another one (typeobject.c,
 * tp_new_wrapper). */
static void
seal_type(PyTypeObject *type)
{
    type->tp_new = sealed_type_new;
    type->tp_vectorcall = NULL;
    PyType_Modified(type);
}

#endif
