"""Waits in the greenlets of SQLAlchemy's asyncio extension."""

cdef bint is_spawned_greenlet(object here) except -1
cdef int suspend_once() except -1
