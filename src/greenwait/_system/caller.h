/* The line of Python that called: in which code it is, and where. */
#ifndef GREENWAIT_CALLER_H
#define GREENWAIT_CALLER_H

#include <Python.h>
#include <frameobject.h> /* PyFrame_GetBack(), before 3.11 */
#include <string.h>

static inline int
is_of_package(PyCodeObject *code, const char *package, Py_ssize_t length)
{
    Py_ssize_t size;
    const char *file = PyUnicode_AsUTF8AndSize(code->co_filename, &size);

    if (!file)
        PyErr_Clear(); /* a surrogate in it */
    return file && size > length && !memcmp(file, package, (size_t)length);
}

/* Return the innermost Python code that runs, borrowed, and where it is; NULL outside of any. */
static inline PyCodeObject *
code_that_runs(int *where)
{
    PyFrameObject *frame = PyEval_GetFrame();
    PyCodeObject *code;

    if (!frame)
        return NULL;
    code = PyFrame_GetCode(frame);
    Py_DECREF(code); /* its frame has it */
#if PY_VERSION_HEX >= 0x030B0000
    *where = PyFrame_GetLasti(frame);
#else
    *where = PyFrame_GetLineNumber(frame);
#endif
    return code;
}

/* Return the Python code that called, a new reference, and where it is; NULL outside of any.

   Compiled code has no frames. Those of files in the folder *package* are passed over. */
static inline PyCodeObject *
code_of_caller(const char *package, Py_ssize_t length, int *where)
{
    PyFrameObject *frame = PyEval_GetFrame();
    PyFrameObject *outer;
    PyCodeObject *code = NULL;

    Py_XINCREF(frame);
    while (frame) {
        code = PyFrame_GetCode(frame);
        if (!is_of_package(code, package, length))
            break;
        Py_DECREF(code);
        code = NULL;
        outer = PyFrame_GetBack(frame);
        Py_DECREF(frame);
        frame = outer;
    }
    if (frame) {
#if PY_VERSION_HEX >= 0x030B0000
        *where = PyFrame_GetLasti(frame);
#else
        *where = PyFrame_GetLineNumber(frame);
#endif
        Py_DECREF(frame);
    }
    return code;
}
#endif
