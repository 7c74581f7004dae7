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

static struct {
    PyTypeObject *type;
    const char *made_by;
} sealed_types[8];
static int sealed_types_count = 0;

static PyObject *
sealed_type_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    (void)args;
    (void)keywords;
    for (int i = 0; i < sealed_types_count; i++) {
        if (sealed_types[i].type == type)
            return PyErr_Format(PyExc_TypeError, "'%s' can't be made here: %s", type->tp_name,
                                sealed_types[i].made_by);
    }
    return PyErr_Format(PyExc_TypeError, "'%s' can't be made here", type->tp_name);
}

/* object.__new__() and a base's refuse by themselves: their tp_new is another one (typeobject.c,
 * tp_new_wrapper). */
static inline void
seal_type(PyTypeObject *type, const char *made_by)
{
    const int room = sizeof(sealed_types) / sizeof(sealed_types[0]);
    if (sealed_types_count < room) {
        sealed_types[sealed_types_count].type = type;
        sealed_types[sealed_types_count++].made_by = made_by;
    }
    type->tp_new = sealed_type_new;
    type->tp_vectorcall = NULL;
    PyType_Modified(type);
}

#endif
