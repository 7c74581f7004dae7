/* A test for whether psycopg2's mutex of a connection is held.
 *
 * psycopg2 does not expose the mutex, and runs Python code while it holds it: the wait callback,
 * the decoders of notices, notifications and column names, and any finalizer that the garbage
 * collector runs meanwhile. The mutex is not recursive: a thread that takes it twice deadlocks.
 *
 * It is the first member of psycopg2's connectionObject (psycopg/connection.h). Three pointers
 * lie between it and the member that Python code knows as "closed", whose offset the type gives.
 * Where that offset differs, and on Windows, whose mutexes are recursive,
 * connection_mutex_is_known() is 0.
 */
#ifndef GREENWAIT_CONNECTION_MUTEX_H
#define GREENWAIT_CONNECTION_MUTEX_H

#include <Python.h>
#include <structmember.h>

#ifdef _WIN32

static inline int
connection_mutex_is_known(PyTypeObject *type)
{
    (void)type;
    return 0;
}

static inline int
connection_mutex_is_held(PyObject *conn)
{
    (void)conn;
    return 0;
}

#else
#  include <errno.h>
#  include <pthread.h>
#  include <stddef.h>
#  include <string.h>

struct connection_head {
    PyObject_HEAD
    pthread_mutex_t lock;
    char *dsn, *error, *encoding;
    long int closed;
};

static inline int
connection_mutex_is_known(PyTypeObject *type)
{
    const PyMemberDef *member = type->tp_members;

    for (; member && member->name; member++)
        if (!strcmp(member->name, "closed"))
            return member->type == T_LONG
                && member->offset == (Py_ssize_t)offsetof(struct connection_head, closed);
    return 0;
}

/* Held by any thread, for any reason. Needs the GIL, and a connection of a known type. */
static inline int
connection_mutex_is_held(PyObject *conn)
{
    pthread_mutex_t *lock = &((struct connection_head *)conn)->lock;
    int error = pthread_mutex_trylock(lock);

    if (!error)
        (void)pthread_mutex_unlock(lock);
    return error == EBUSY;
}

#endif
#endif
