/* Where psycopg2's types have their members: their own tables say so. */
#ifndef GREENWAIT_TYPE_MEMBERS_H
#define GREENWAIT_TYPE_MEMBERS_H

#include <Python.h>
#include <stddef.h>
#include <string.h>
#include <structmember.h>

static inline int
member_is_at(PyTypeObject *type, const char *name, size_t offset)
{
    const PyMemberDef *member = type->tp_members;

    for (; member && member->name; member++)
        if (!strcmp(member->name, name))
            return member->offset == (Py_ssize_t)offset;
    return 0;
}
#endif
