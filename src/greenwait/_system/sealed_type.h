/* Types that only greenwait can instantiate.
 *
 * Python code can reach every type: type(instance), object.__subclasses__(). If it instantiated
 * an internal type, all attributes of the instance would be None. Since it can't, the methods
 * need no check for that.
 *
 * Py_TPFLAGS_DISALLOW_INSTANTIATION does the same, but must be set before PyType_Ready(), which
 * Cython calls. Compiled code of the type's own module is not affected: it calls Cython's
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

/* object.__new__() and a base class's __new__() refuse by themselves, because their tp_new
 * differs (typeobject.c, tp_new_wrapper). */
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
