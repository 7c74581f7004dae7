"""Attributes of the job, call, greenlet or thread that sets them."""

from cpython.object cimport PyObject

cdef class Scope:
    cdef object number
    cdef int forks            # of the process that made it
    cdef list locals          # weak references of those in which it has attributes
    cdef Py_ssize_t next_purge
    cdef object __weakref__
    cdef dict attributes_of(self, local one)
    cdef object end(self, int rounds=*)
    cdef int purge(self) except -1

cdef class Scoped:
    cdef Scope scope          # None: it has none yet
    cdef object end_scope(self)

cdef enum WorkerKind:
    OF_HUB    # it runs Jobs
    OF_LOOP   # an asyncio event loop's: PendingCalls
    OF_TRIO

cdef class Worker(dict):
    cdef Scoped execution     # None between two of them, where a __del__ may run
    cdef WorkerKind kind

cdef Py_ssize_t dict_offset   # in a greenlet
cdef object new_worker(object function, object parent, WorkerKind kind)
cdef Worker make_worker(object one, WorkerKind kind)

cdef inline Worker worker_of(object here):
    """Return what makes the greenlet a worker, or None."""
    cdef PyObject* found = (<PyObject**>(<char*><PyObject*>here + dict_offset))[0]
    return <Worker>found if found is not NULL and type(<object>found) is Worker else None

cdef inline Worker need_worker(object here):
    """Return what makes the greenlet a worker, which one of ours was made."""
    cdef Worker worker = worker_of(here)
    if worker is None:
        raise RuntimeError(
            "the __dict__ of the greenlet of a call or job was replaced: set attributes instead"
        )
    return worker

cdef class local:
    cdef dict by_scope        # its attributes, by the scope's number
    cdef object on_end
    cdef object __weakref__
    cdef object drop(self, object number, bint calls_back)

cdef object either(object first, object second)
