/* The members of psycopg2's exceptions that Python code can't set.
 *
 * An exception's diag reads libpq's result, which the exception owns, and decodes its text by a
 * function of the connection's encoding. Both lie behind the member that Python code knows as
 * "cursor" (errorObject, psycopg/error.h), and end the struct. Where the type says otherwise,
 * error_layout_is_known() is 0.
 */
#ifndef GREENWAIT_ERROR_RESULT_H
#define GREENWAIT_ERROR_RESULT_H

#include <Python.h>
#include <stddef.h>

#include "type_members.h"

struct error_with_result {
    PyBaseExceptionObject base;
    PyObject *pgerror, *pgcode, *cursor, *pydecoder;
    void *pgres;
};

static inline int
error_layout_is_known(PyTypeObject *type)
{
    return type->tp_basicsize == (Py_ssize_t)sizeof(struct error_with_result)
        && member_is_at(type, "pgerror", offsetof(struct error_with_result, pgerror))
        && member_is_at(type, "pgcode", offsetof(struct error_with_result, pgcode))
        && member_is_at(type, "cursor", offsetof(struct error_with_result, cursor));
}

/* Make the error, of a known layout and without a result, own *result*. */
static inline void
error_give_result(PyObject *error, PyObject *decoder, void *result)
{
    struct error_with_result *members = (struct error_with_result *)error;

    Py_INCREF(decoder);
    Py_XSETREF(members->pydecoder, decoder);
    members->pgres = result;
}

static inline void
error_set_cursor(PyObject *error, PyObject *cursor)
{
    struct error_with_result *members = (struct error_with_result *)error;

    Py_INCREF(cursor);
    Py_XSETREF(members->cursor, cursor);
}
#endif
