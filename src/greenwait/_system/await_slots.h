/* The slots by which a task awaits an object: am_send, which Cython does not fill, and
 * tp_iternext, which CPython 3.12 and later call where there is nothing to send. In a function
 * of Cython's, a StopIteration for each result, with its traceback, would cost more than the rest.
 *
 * One type in each compiled module.
 */
#ifndef GREENWAIT_AWAIT_SLOTS_H
#define GREENWAIT_AWAIT_SLOTS_H

#include <Python.h>

/* Returns the object to wait for; or the result, and sets *is_over. */
typedef PyObject *(*await_step)(PyObject *self, PyObject *value, int *is_over);

static await_step step_of_awaited;

static PySendResult
send_to_awaited(PyObject *self, PyObject *value, PyObject **result)
{
    int is_over = 0;

    *result = step_of_awaited(self, value, &is_over);
    return !*result ? PYGEN_ERROR : is_over ? PYGEN_RETURN : PYGEN_NEXT;
}

static PyObject *
next_of_awaited(PyObject *self)
{
    PyObject *result, *stop;

    if (send_to_awaited(self, Py_None, &result) != PYGEN_RETURN)
        return result;
    if (PyTuple_Check(result) || PyExceptionInstance_Check(result)) {
        /* PyErr_SetObject() would take it for the arguments, or for the exception itself. */
        stop = PyObject_CallFunctionObjArgs(PyExc_StopIteration, result, NULL);
        Py_DECREF(result);
        result = stop;
    }
    if (result) {
        PyErr_SetObject(PyExc_StopIteration, result);
        Py_DECREF(result);
    }
    return NULL;
}

static inline void
fill_await_slots(PyTypeObject *type, void *step)
{
    step_of_awaited = (await_step)step;
    type->tp_as_async->am_send = send_to_awaited;
    type->tp_iternext = next_of_awaited;
    PyType_Modified(type);
}

#endif
