/* The beginnings of events that are kept: each is the same for all waits of one line for one
   backend, on one row. All is called with the GIL held. */
#ifndef GREENWAIT_TRACE_BEGINNINGS_H
#define GREENWAIT_TRACE_BEGINNINGS_H

#include <Python.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum {
    TRACE_SLOT_BITS = 10,
    TRACE_SLOTS = 1 << TRACE_SLOT_BITS,
    TRACE_HEAD = 80 /* bytes of a statement */
};

/* What makes a beginning. */
typedef struct {
    PyObject *code;   /* the Python code that waits, or NULL outside of any */
    uint64_t place;   /* where in it, and the row */
    uint64_t what;    /* the backend, where a caller's callee is, the kind of event, and how much of
                         the statement is known: 32, 16, 8 and 8 bits */
    const char *head; /* the statement's first bytes */
} trace_key_t;

typedef struct {
    PyObject *code;
    uint64_t place, what;
    PyObject *beginning; /* bytes; NULL: the slot is free */
    char head[TRACE_HEAD];
} trace_slot_t;

static trace_slot_t *trace_slots; /* NULL while there is no trace */

static inline void
trace_key_set(trace_key_t *key, int row, int backend, int kind, const char *head, size_t length)
{
    key->place = (uint32_t)row;
    key->what = (uint64_t)(uint32_t)backend << 32 | (uint32_t)kind << 8 | length;
    key->head = head;
}

static inline void
trace_key_set_code(trace_key_t *key, void *code, int where)
{
    key->code = (PyObject *)code;
    key->place = (uint64_t)(uint32_t)where << 32 | (uint32_t)key->place;
}

/* The same for the code of the program that has called the code in the key, psycopg2's say, which may
   wait in more than one place. */
static inline void
trace_key_set_caller(trace_key_t *key, void *code, int where)
{
    if (key->code != code)
        key->what |= (key->place >> 32 & 0xffff) << 16;
    trace_key_set_code(key, code, where);
}

static inline size_t
trace_key_length(const trace_key_t *key)
{
    return key->what & 0xff;
}

static inline trace_slot_t *
trace_slot_of(const trace_key_t *key)
{
    uint64_t mixed = (uint64_t)(uintptr_t)key->code ^ (key->place << 20 | key->place >> 44);
    size_t length = trace_key_length(key);

    mixed += key->what;
    if (length)
        mixed += (uint64_t)(unsigned char)key->head[length - 1] << 40
            | (uint64_t)(unsigned char)key->head[length >> 1] << 48;
    return &trace_slots[mixed * UINT64_C(0x9E3779B97F4A7C15) >> (64 - TRACE_SLOT_BITS)];
}

/* Return what is kept, borrowed, or NULL. */
static inline PyObject *
trace_kept(const trace_key_t *key)
{
    const trace_slot_t *slot = trace_slot_of(key);
    size_t length = trace_key_length(key);

    if (!trace_slots) /* another thread has ended the trace */
        return NULL;
    if (slot->code != key->code || slot->place != key->place || slot->what != key->what
        || (length && memcmp(slot->head, key->head, length)))
        return NULL;
    return slot->beginning;
}

/* Keep a beginning, in the place of another one. */
static inline void
trace_keep(const trace_key_t *key, PyObject *beginning)
{
    trace_slot_t *slot = trace_slot_of(key);
    PyObject *old_code = slot->code;
    PyObject *old_beginning = slot->beginning;

    Py_XINCREF(key->code);
    Py_INCREF(beginning);
    slot->code = key->code;
    slot->place = key->place;
    slot->what = key->what;
    slot->beginning = beginning;
    memcpy(slot->head, key->head, trace_key_length(key));
    Py_XDECREF(old_code);
    Py_XDECREF(old_beginning);
}

static inline int
trace_slots_new(void)
{
    trace_slots = calloc(TRACE_SLOTS, sizeof(trace_slot_t));
    return trace_slots != NULL;
}

static inline void
trace_slots_free(void)
{
    trace_slot_t *old = trace_slots;
    int index;

    trace_slots = NULL;
    for (index = 0; old && index < TRACE_SLOTS; index++) {
        Py_XDECREF(old[index].code);
        Py_XDECREF(old[index].beginning);
    }
    free(old);
}
#endif
