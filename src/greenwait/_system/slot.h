/* Members of __slots__, read and set without a look-up by their names. */
#ifndef GREENWAIT_SLOT_H
#define GREENWAIT_SLOT_H

#include <Python.h>
#include <structmember.h>

/* Returns the offset in instances of the class and of its subclasses, or -1 with an exception. */
static inline Py_ssize_t
slot_offset(PyObject *cls, const char *name)
{
    Py_ssize_t offset = -1;
    PyObject *descriptor = PyObject_GetAttrString(cls, name);

    if (descriptor && Py_IS_TYPE(descriptor, &PyMemberDescr_Type))
        offset = ((PyMemberDescrObject *)descriptor)->d_member->offset;
    else if (descriptor)
        PyErr_Format(PyExc_TypeError, "%R is not a slot", descriptor);
    Py_XDECREF(descriptor);
    return offset;
}

/* Returns a borrowed reference; NULL: it was never set. */
static inline PyObject *
slot_value(PyObject *object, Py_ssize_t offset)
{
    return *(PyObject **)((char *)object + offset);
}

static inline void
set_slot(PyObject *object, Py_ssize_t offset, PyObject *value)
{
    PyObject **slot = (PyObject **)((char *)object + offset);
    PyObject *before = *slot;

    Py_INCREF(value);
    *slot = value;
    Py_XDECREF(before); /* last: it may run other code */
}

#endif
