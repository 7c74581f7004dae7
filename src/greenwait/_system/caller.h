/* The line of Python that called: in which code it is, and where. */
#ifndef GREENWAIT_CALLER_H
#define GREENWAIT_CALLER_H

#include <Python.h>
#include <frameobject.h> /* PyFrame_GetBack(), before 3.11 */
#include <string.h>

static struct {
    const char *name;
    size_t length;
} passed_over[4]; /* folders, whose files' frames are not the program's */

/* Pass over the frames of files in the folder, whose name is not copied. */
static inline void
pass_over(const char *folder)
{
    size_t index = 0;

    while (passed_over[index].name)
        index++;
    passed_over[index].name = folder;
    passed_over[index].length = strlen(folder);
}

static inline int
is_passed_over(PyCodeObject *code)
{
    const char *file = PyUnicode_AsUTF8(code->co_filename);
    size_t index;

    if (!file)
        PyErr_Clear(); /* a surrogate in it */
    for (index = 0; file && passed_over[index].name; index++)
        if (!strncmp(file, passed_over[index].name, passed_over[index].length))
            return 1;
    return 0;
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

   Compiled code has no frames. Those of files in folders are passed over; see pass_over(). */
static inline PyCodeObject *
code_of_caller(int *where)
{
    PyFrameObject *frame = PyEval_GetFrame();
    PyFrameObject *outer;
    PyCodeObject *code = NULL;

    Py_XINCREF(frame);
    while (frame) {
        code = PyFrame_GetCode(frame);
        if (!is_passed_over(code))
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
