/* The members of psycopg2's replication messages, which Python code can't set.
 *
 * psycopg2 fills them in its own loop only. All but the last, behind the getter send_time, are
 * members that Python code reads (replicationMessageObject, psycopg/replication_message.h). Where
 * the type says otherwise, stream_message_layout_is_known() is 0.
 */
#ifndef GREENWAIT_STREAM_MESSAGE_H
#define GREENWAIT_STREAM_MESSAGE_H

#include <Python.h>
#include <stddef.h>
#include <stdint.h>

#include "type_members.h"

struct stream_message {
    PyObject_HEAD
    PyObject *cursor, *payload;
    int data_size;
    uint64_t data_start, wal_end;
    int64_t sent; /* in microseconds from the year 2000 on */
};

static inline int
stream_message_layout_is_known(PyTypeObject *type)
{
    return type->tp_basicsize == (Py_ssize_t)sizeof(struct stream_message)
        && member_is_at(type, "cursor", offsetof(struct stream_message, cursor))
        && member_is_at(type, "payload", offsetof(struct stream_message, payload))
        && member_is_at(type, "data_size", offsetof(struct stream_message, data_size))
        && member_is_at(type, "data_start", offsetof(struct stream_message, data_start))
        && member_is_at(type, "wal_end", offsetof(struct stream_message, wal_end));
}

/* Return a new message of the type, whose layout is known, or NULL with an exception. */
static inline PyObject *
new_stream_message(PyTypeObject *type, PyObject *no_arguments, PyObject *cursor, PyObject *payload,
                   int data_size, uint64_t data_start, uint64_t wal_end, int64_t sent)
{
    PyObject *message = type->tp_new(type, no_arguments, NULL);
    struct stream_message *members = (struct stream_message *)message;

    if (!message)
        return NULL;
    Py_INCREF(cursor);
    members->cursor = cursor;
    Py_INCREF(payload);
    members->payload = payload;
    members->data_size = data_size;
    members->data_start = data_start;
    members->wal_end = wal_end;
    members->sent = sent;
    return message;
}
#endif
