"""The adapter of trio: waits of tasks, while others run.

The function runs in a greenlet; where it would wait, it switches to the task's greenlet with a
``Request``, and the task waits.
"""

cimport cython
from cpython.contextvars cimport PyContext_CopyCurrent
from libc.stdint cimport int64_t

from greenwait._greenlets.execution cimport Execution
from greenwait._greenlets.local cimport OF_TRIO, Worker, make_worker, need_worker
from greenwait._psycopg.state cimport ConnectionState
from greenwait._system.readiness cimport READINESS_READ, readiness_check
from greenwait._system.switching cimport current_greenlet
from greenwait._system.threads cimport forks
from greenwait._waiter cimport Adapter, seconds_until_look

import trio
from greenlet import greenlet

from greenwait.trio._request import CHECKPOINT, Request

__all__ = ["TrioAdapter", "TrioWorker"]

cdef object cancelled = trio.Cancelled
cdef object current_task = trio.lowlevel.current_task


class TrioWorker(greenlet):
    """The greenlet of one call. Switching to it returns a ``Request``, until it is dead."""

    def __init__(self, function, args, kwargs):
        cdef Execution execution = Execution.__new__(Execution)
        super().__init__(_execute)
        execution.function, execution.args, execution.kwargs = function, args, kwargs
        execution.context = PyContext_CopyCurrent()
        make_worker(self, OF_TRIO).execution = execution
        self.forks = forks

    def outcome(self):
        """Return what the function has returned, or raise what it has raised; once."""
        cdef Worker worker = need_worker(self)
        cdef Execution execution = <Execution>worker.execution
        worker.execution = None  # or an exception would be kept by its own traceback
        return execution.outcome()


def _execute():
    (<Execution>need_worker(current_greenlet()).execution).execute()


@cython.auto_pickle(False)
@cython.final
cdef class TrioAdapter(Adapter):
    """The adapter of trio, for all threads that run it."""

    _instead = "use a nursery, and greenwait.trio.run() in its tasks"

    cpdef bint is_active(self) except -1:
        here = current_greenlet()
        return isinstance(here, TrioWorker) and here.forks == forks  # not in a forked child

    cdef int trace_row(self, int first, object number) except -1:
        cdef Execution execution = <Execution>need_worker(current_greenlet()).execution
        if execution.row < first:
            task = current_task()
            execution.row = number("task", task, task.name)
        return execution.row

    cdef int wait_for(
        self, int fd, int events, int64_t deadline_ns, bint draining, ConnectionState state
    ) except -1:
        request = Request(fd, events, seconds_until_look(deadline_ns), draining)
        return current_greenlet().parent.switch(request) or readiness_check(fd)

    cdef bint postpone(self, object exc) except -1:
        return isinstance(exc, cancelled)  # trio raises it again at each checkpoint

    cdef object take_interruption(self, object reason):
        if isinstance(reason, cancelled):
            return None
        try:
            current_greenlet().parent.switch(CHECKPOINT)
        except BaseException as exc:  # Ctrl-C comes in this way, too
            return exc
        return None

    cdef int wait_for_wakeup(self, object wakeup, int64_t deadline_ns) except -1:
        self.wait_for(wakeup.fileno(), READINESS_READ, deadline_ns, False, None)
        return 0
