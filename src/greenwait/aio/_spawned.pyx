"""Waits in the greenlets of SQLAlchemy's asyncio extension.

SQLAlchemy runs its synchronous code in a greenlet, whose parent is a task's: that awaits the object
which the greenlet switches to it with (``greenlet_spawn()`` and ``await_()`` in
``sqlalchemy/util/concurrency.py``). So psycopg2's waits there need no adapted methods: each one
switches to the task, and the event loop's waiter resumes that when the wait is over.
"""

cimport cython
from cpython.contextvars cimport PyContext_CopyCurrent

from greenwait._greenlets.waiter cimport InterruptTarget
from greenwait._ranks cimport append, higher
from greenwait._system.clock cimport monotonic_ns
from greenwait._system.sealed_type cimport seal_type
from greenwait._system.switching cimport current_greenlet
from greenwait._waiter cimport Adapter, Waiter, register_first
from greenwait.aio._loop cimport EventLoop, PendingCall, known_loop_of, spawned_key

import asyncio

from greenlet import GreenletExit, greenlet

__all__ = ["register_spawned"]

cdef object greenlet_exit = GreenletExit
cdef object plain_class = greenlet
cdef object switch_to = greenlet.switch
cdef object running_loop = asyncio.get_running_loop
cdef object cancelled_error = asyncio.CancelledError
cdef object spawned_class = None
cdef str PROVIDER = "__sqlalchemy_greenlet_provider__"

cdef str TASK_DESTROYED = (
    "the task in which this waited was destroyed. The connection is closed; the server may still "
    "be at work on the query, so look before you repeat it"
)


@cython.auto_pickle(False)
@cython.final
@cython.internal
cdef class Spawned(PendingCall):
    """What a task awaits for each wait of its greenlet."""

    cdef bint is_awaited
    cdef bint is_closed
    cdef bint has_waited

    cdef int suspend_task(self, object waiting) except -1:
        if self.is_closed:
            raise RuntimeError(TASK_DESTROYED)
        self.is_awaited, self.has_waited = False, True
        self.loop.event_loop = self.event_loop
        self.loop.add_call(self)
        try:
            switch_to(waiting.parent, self)
        except (GeneratorExit, greenlet_exit):
            self.is_closed = True
            raise
        finally:
            self.loop.remove_call(self)
        return 0

    cdef bint postpone_in_task(self, object exc) except -1:
        """Raise it in the next wait, or where the task awaits the greenlet's function.

        Not by ``task.cancel()``: that is raised in the task's next await, which may be outside of
        the ``asyncio.timeout()`` or the task group whose cancellation it is.
        """
        here = current_greenlet()
        if exc is not self.target.raised:
            return False
        self.target.raised = None
        earlier = self.target.interruption
        self.target.interruption = exc if earlier is None else higher(exc, earlier)
        self.target.wait_for_drain = True
        if type(here.parent) is not ending_class:
            ending = ending_class(end_spawned, here.parent)
            ending.switch(here, self)
            here.parent = ending
        return True

    # The task awaits it like a coroutine, or closes it.

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        return self.send(None)

    def send(self, value):
        """Return the object that the task is to wait for, and end when the wait is over."""
        if self.is_awaited:
            raise StopIteration
        self.is_awaited = self._asyncio_future_blocking = True
        return self

    def throw(self, kind, value=None, traceback=None):
        """Raise the exception in the task, which raises it in the greenlet."""
        if value is None:
            value = kind if isinstance(kind, BaseException) else kind()
        raise value

    def close(self):
        """Let the greenlet wait no longer: its task is being destroyed."""
        self.is_closed = True

    # The task waits for it as for a future.

    def add_done_callback(self, function, *, context=None):
        """Call *function*, which resumes the task, when the wait is over."""
        self.wake_up = function
        self.wake_up_context = PyContext_CopyCurrent() if context is None else context
        try:
            self.loop.tell_event_loop()
        except BaseException as exc:  # a signal handler's
            self.loop.interrupt(self.target, exc, False)

    def cancel(self, msg=None):
        """Cancel the query that is waited for; the wait raises CancelledError."""
        if self.target.innermost is None:
            return False
        exc = cancelled_error() if msg is None else cancelled_error(msg)
        self.loop.interrupt(self.target, exc, True)
        return True

    def done(self):
        """Return whether the wait is over."""
        return self.target.innermost is None

    def cancelled(self):
        """Return False: the greenlet raises CancelledError, and not this."""
        return False

    def result(self):
        """Return None."""

    def exception(self):
        """Return None."""


class _Ending(greenlet):
    """A greenlet between one of SQLAlchemy's and its task, while an interrupt is postponed."""

    __slots__ = ()


cdef object ending_class = _Ending


def end_spawned(here, Spawned spawned):
    """Raise the interrupt that was postponed when the greenlet *here* ends, or awaits something.

    Whatever *here* switches to the task with comes here. Where it waits it raises the interrupt
    itself, unless that is a wait for the end of a query, after which it does.
    """
    failure = value = None
    try:
        value = switch_to(here)
    except BaseException as exc:
        failure = exc
    if not here.dead:
        here.parent = current_greenlet().parent
        if type(value) is Spawned:
            return value
    exc, spawned.target.interruption = spawned.target.interruption, None
    if exc is None or failure is not None and higher(exc, failure) is failure:
        if failure is not None:
            raise failure
        return value
    if here.dead:
        if failure is not None:
            append(exc, failure)
        raise exc
    # It awaits something by SQLAlchemy's await_(): that is not begun.
    for name in ("close", "cancel"):
        if hasattr(value, name):
            getattr(value, name)()
            break
    return here.throw(exc)


cdef extern from "await_slots.h":
    void fill_await_slots(type cls, void* step)


cdef object step(Spawned spawned, object _value, int* is_over):
    if spawned.is_awaited:
        is_over[0] = True
        return None
    spawned.is_awaited = spawned._asyncio_future_blocking = True
    return spawned


fill_await_slots(Spawned, <void*>step)
seal_type(Spawned, "a wait in one of SQLAlchemy's greenlets makes it")


@cython.auto_pickle(False)
@cython.final
@cython.internal
cdef class SpawnedAdapter(Adapter):
    """The adapter of SQLAlchemy's greenlets, for all threads that run an event loop."""

    cdef Waiter find_waiter(self):
        cdef Spawned spawned
        cdef EventLoop loop
        here = current_greenlet()
        if not is_spawned_greenlet(here):
            return None
        spawned = here.__dict__.get(spawned_key)
        if spawned is None:
            spawned = new_spawned(here)
        loop = None if spawned is None else spawned.loop
        if loop is None or loop.is_inherited():
            return None
        if not loop.is_active():
            loop.move_here()
        return loop


cdef Spawned new_spawned(object here):
    """Return what the task of a greenlet is to await; None without a running event loop."""
    cdef Spawned spawned
    try:
        event_loop = running_loop()
    except RuntimeError:
        return None
    spawned = Spawned.__new__(Spawned)
    spawned.event_loop, spawned.loop = event_loop, known_loop_of(event_loop)
    spawned.target = InterruptTarget.__new__(InterruptTarget)
    here.__dict__[spawned_key] = spawned
    return spawned


cdef bint is_spawned_greenlet(object here) except -1:
    cls = type(here)
    if cls is plain_class:
        return False
    return cls is spawned_class or getattr(cls, PROVIDER, False)


cdef int suspend_once() except -1:
    """Suspend the task of this greenlet, if it has not been yet.

    SQLAlchemy takes a driver for a synchronous one whose statement never does: that of a deadline
    which passes as the answer arrives, for instance.
    """
    here = current_greenlet()
    cdef Spawned spawned = here.__dict__.get(spawned_key)
    if spawned is not None and not spawned.has_waited:
        spawned.loop.wait_for_wakeup(spawned.loop.new_wakeup(), monotonic_ns())
    return 0


cdef SpawnedAdapter adapter = SpawnedAdapter()


def register_spawned(cls):
    """Make waits in SQLAlchemy's greenlets suspend their tasks.

    :param cls: SQLAlchemy's class of greenlets, which its first releases did not mark.
    """
    global spawned_class
    spawned_class = cls
    register_first(adapter)
