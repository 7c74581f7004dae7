"""Calls of synchronous code, which asyncio tasks await.

A ``Call`` is a coroutine: its function runs in a greenlet, and while that waits for the server the
task is suspended, until the ``Suspension`` that the call has become is over. Then its task goes on
from there, without another iteration of the event loop.
"""

cimport cython
from cpython.contextvars cimport PyContext_CopyCurrent
from cpython.object cimport PyObject

from greenwait._greenlets.scheduler cimport SuspendedWait, new_suspended_wait
from greenwait._greenlets.waiter cimport InterruptTarget
from greenwait._system.clock cimport NO_DEADLINE
from greenwait._system.method cimport (
    Method,
    PyObject_Vectorcall,
    PyVectorcall_NARGS,
    dict_of_vector,
    make_method_class,
    tuple_of_vector,
)
from greenwait._system.sealed_type cimport seal_type
from greenwait._system.switching cimport current_greenlet
from greenwait._waiter cimport hubs_entered
from greenwait.aio._loop cimport (
    INHERITED,
    EventLoop,
    PendingCall,
    call_of_worker,
    check_no_other,
    is_below_call,
    loop_of,
    workers_entered,
)

import asyncio
from collections.abc import Awaitable
from functools import update_wrapper
from inspect import isawaitable
from typing import TypeVar
from warnings import warn

from greenwait import _errors

__all__ = ["Call", "await_", "awaited", "in_call"]

_Result = TypeVar("_Result")

cdef object running_loop = asyncio.get_running_loop
cdef object running_loop_or_none = asyncio._get_running_loop
cdef object cancelled_error = asyncio.CancelledError
cdef object invalid_state_error = asyncio.InvalidStateError
cdef object query_timeout = _errors.QueryTimeout


@cython.auto_pickle(False)
@cython.final
@cython.freelist(64)
cdef class Call:
    """Call(function, args, kwargs)
--

    A coroutine: a call of a function in a greenlet, begun when it is awaited.
    """

    cdef object function         # and its arguments; None once it is begun
    cdef tuple args
    cdef dict kwargs             # None: without any
    cdef object conn             # the connection whose method it is, or whose cursor's
    cdef str name                # the method's; None: no warning if it is never awaited
    cdef Suspension begun
    cdef bint is_local           # it does not wait for the server
    cdef bint is_begun
    cdef bint is_awaited
    cdef bint is_closed          # it is not to be awaited, or not again

    def __init__(self, function, tuple args not None, dict kwargs not None):
        self.function, self.args, self.kwargs = function, args, kwargs

    # Not __del__(), which CPython would not call again for an object of the free list.
    def __dealloc__(self):
        if not self.is_begun and self.name is not None:
            warn(f"coroutine '{self.name}' was never awaited", RuntimeWarning, 1)

    # Like a Python coroutine it is awaited, wrapped in a task, which names it, or closed.

    @property
    def __qualname__(self):
        """The method's, or the class's."""
        return type(self).__qualname__ if self.name is None else self.name

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        return self.send(None)

    # What is done with the result where the await was forgotten.

    def __getattr__(self, name):
        raise AttributeError(
            f"{name!r} of a call that was not awaited: write (await {self.__qualname__}(...))"
        )

    def __getitem__(self, index):
        raise TypeError(not_awaited(self))

    def __len__(self):
        raise TypeError(not_awaited(self))

    def __bool__(self):
        raise TypeError(not_awaited(self))

    def __enter__(self):
        raise TypeError(not_awaited(self))

    def __exit__(self, *exc_info):
        raise TypeError(not_awaited(self))

    def send(self, value):
        """Begin it; return the Suspension that its task is to wait for, or raise StopIteration."""
        cdef int is_over = False
        found = step(self, value, &is_over)
        if not is_over:
            return found
        raise StopIteration(found)

    def throw(self, kind, value=None, traceback=None):
        """Close the call, and raise the exception."""
        self.is_begun = self.is_closed = True
        if value is None:
            value = kind if isinstance(kind, BaseException) else kind()
        raise value

    def close(self):
        """Close the call: it is never begun, or no longer waited for."""
        self.is_begun = self.is_closed = True

    def begin(self):
        """Begin it now; for a call that need not be awaited."""
        if self.is_begun:
            raise RuntimeError("this call was begun before, or closed: call the function again")
        self.start(False)
        return self

    cdef int start(self, bint can_be_late) except -1:
        try:
            self.start_in(loop_here(), can_be_late)
        except BaseException:
            self.is_begun = self.is_closed = True
            raise
        return 0

    cdef int start_in(self, object event_loop, bint can_be_late) except -1:
        cdef Suspension begun
        cdef EventLoop loop
        here = current_greenlet()
        if is_below_call(here):
            raise RuntimeError(
                "awaited below greenwait.aio.run(), where code is synchronous: call the function, "
                "or use greenwait.aio.await_()"
            )
        if hubs_entered > 0:
            check_no_other()
        self.is_begun = True
        loop = loop_of(event_loop)
        if loop.is_inherited():
            raise RuntimeError(INHERITED)
        if self.conn is not None:
            loop.bind(self.conn)
        begun = Suspension.__new__(Suspension)
        begun.loop, begun.event_loop, begun.conn = loop, event_loop, self.conn
        begun.function, begun.args, begun.kwargs = self.function, self.args, self.kwargs
        begun.target = InterruptTarget.__new__(InterruptTarget)
        begun.context = PyContext_CopyCurrent()
        self.function = self.args = self.kwargs = self.conn = None
        self.begun = begun
        return loop.begin_call(begun, here, can_be_late)


cdef object loop_here():
    """Return the event loop that runs in this thread."""
    event_loop = running_loop_or_none()
    if event_loop is None:
        raise RuntimeError(
            "greenwait.aio is for asyncio, whose event loop does not run in this thread (no "
            "running event loop): await it below asyncio.run(); in trio, use greenwait.trio.run()"
        )
    return event_loop


cdef str not_awaited(Call call):
    return f"this call was not awaited, and has no result yet: write await {call.__qualname__}(...)"


cdef object step(Call call, object _value, int* is_over):
    """Return the Suspension that its task is to wait for; or its result, and set *is_over*."""
    cdef Suspension begun
    if call.is_closed:
        raise RuntimeError(
            "cannot await a call that was closed, or has raised what was thrown into it: call the "
            "function again"
        )
    if not call.is_awaited:
        call.is_awaited = True
        if call.is_local:
            call.is_begun = is_over[0] = True
            return call_local(call)
        if not call.is_begun:
            call.start(True)
        begun = call.begun
        if not begun.is_over:
            begun._asyncio_future_blocking = True
            return begun
    else:
        begun = call.begun
        if begun is None or not begun.is_over:
            raise RuntimeError("it was awaited before: call the function again")
    call.begun = None
    is_over[0] = True
    return begun.outcome()


cdef object call_local(Call call):
    function, args, kwargs = call.function, call.args, call.kwargs
    call.function = call.args = call.kwargs = None
    return function(*args, **kwargs) if kwargs else function(*args)


@cython.auto_pickle(False)
@cython.final
@cython.internal
cdef class Suspension(PendingCall):
    """A call that is begun, for which its task waits."""

    cdef int run(self) except -1:
        """Call the function, and keep what it returns or raises."""
        if not self.is_late or self.wait_for_turn():
            self.execute()
        if isinstance(self.exception_raised, StopIteration):  # it would be a result, PEP 479
            told = RuntimeError("the function raised StopIteration")
            told.__cause__ = self.exception_raised
            self.exception_raised = told
        self.deliver_late()
        self.is_over = True
        self.context = self.target = self.conn = None
        return 0

    cdef bint wait_for_turn(self) except -1:
        """Let the event loop run first; return False if the call was cancelled meanwhile."""
        cdef SuspendedWait suspended = new_suspended_wait(-1, NO_DEADLINE)
        self.loop.make_due(suspended)
        try:
            self.loop.suspend(suspended)
        except BaseException as exc:
            self.exception_raised = exc
            self.function = self.args = self.kwargs = None
        return self.exception_raised is None

    def fail(self, exc):
        """End the call for its task, in a forked child, where its function never goes on."""
        self.exception_raised, self.is_over = exc, True
        self.loop.event_loop.call_soon(self.resume)

    def resume(self):
        """Resume its task; the event loop calls this in a forked child."""
        self.resume_task()

    def add_done_callback(self, function, *, context=None):
        """Call *function*, which resumes the task, when the call is over."""
        if context is None:
            context = PyContext_CopyCurrent()
        if self.is_over:
            self.event_loop.call_soon(function, self, context=context)
            return
        self.wake_up = function
        self.wake_up_context = context

    def cancel(self, msg=None):
        """Cancel the query that the call waits for; the wait raises CancelledError."""
        if self.is_over:
            return False
        exc = cancelled_error() if msg is None else cancelled_error(msg)
        if self.loop.is_inherited():
            self.fail(exc)
        else:
            self.loop.interrupt(self.target, exc, True)
        return True

    def done(self):
        """Return whether it is over."""
        return self.is_over

    def cancelled(self):
        """Return whether it has raised CancelledError."""
        return isinstance(self.exception_raised, cancelled_error)

    def result(self):
        """Return what it has returned, or raise what it has raised."""
        self.check_over()
        return self.outcome()

    def exception(self):
        """Return what it has raised, or None."""
        self.check_over()
        return self.exception_raised

    cdef int check_over(self) except -1:
        if not self.is_over:
            raise invalid_state_error("the call is not over yet")
        return 0


cdef extern from "await_slots.h":
    void fill_await_slots(type cls, void* step)


fill_await_slots(Call, <void*>step)
seal_type(Suspension, "a call makes it when it is awaited")


@cython.auto_pickle(False)
@cython.final
@cython.internal
cdef class AwaitedMethod(Method):
    """A method that is awaited."""

    cdef object base_method
    cdef object local            # what a cursor without a name calls instead, or None
    cdef str name
    cdef bint is_of_cursor

    def __cinit__(self):
        self.vectorcall = <void*>call_awaited


cdef object call_awaited(AwaitedMethod method, PyObject** args, size_t nargsf, PyObject* names):
    """Return the method's Call; below a call, which may wait, call the base method."""
    cdef Py_ssize_t count = PyVectorcall_NARGS(nargsf)
    cdef Call call
    if count == 0:
        raise TypeError(f"{method.name}() is a method, and was called without its object")
    if workers_entered > 0 and is_below_call(current_greenlet()):
        return PyObject_Vectorcall(method.base_method, args, nargsf, names)
    self = <object>args[0]
    call = Call.__new__(Call)
    if method.local is not None and self.name is None:
        call.function, call.is_local = method.local, True
    else:
        call.function = method.base_method
        call.conn = self.connection if method.is_of_cursor else self
    call.args = tuple_of_vector(args, count)
    if names is not NULL:
        call.kwargs = dict_of_vector(args + count, names)
    call.name = method.name
    return call


make_method_class(AwaitedMethod)
seal_type(AwaitedMethod, "it is made by awaited()")


def awaited(base_method, str name, *, bint of_cursor=False, bint only_named=False):
    """Return a method that is awaited; below ``run()`` it works as *base_method*.

    :param name: its name in the warning that it was never awaited.
    :param of_cursor: it is a cursor's method, not a connection's.
    :param only_named: it waits for the server only if the cursor has a name.
    """
    cdef AwaitedMethod method = AwaitedMethod.__new__(AwaitedMethod)
    method.base_method, method.name, method.is_of_cursor = base_method, name, of_cursor
    if only_named:  # our guard's, which need not ask for the name again
        method.local = getattr(base_method, "nameless", None) or base_method
    return update_wrapper(method, base_method)


# -- Below a call

def in_call():
    """Return whether this is below a call, where code is synchronous and may wait."""
    return workers_entered > 0 and is_below_call(current_greenlet())


@cython.auto_pickle(False)
@cython.final
@cython.internal
cdef class Awaited:
    """A call's wait for an awaitable."""

    cdef EventLoop loop
    cdef object awaitable
    cdef object future
    cdef SuspendedWait suspended

    def begin(self):
        """Run the awaitable as a task; the event loop calls this."""
        if self.suspended.is_due:  # it was cancelled before
            return
        try:
            self.future = asyncio.ensure_future(self.awaitable)
        except Exception as exc:  # it can't be awaited
            self.future = running_loop().create_future()
            self.future.set_exception(exc)
        self.future.add_done_callback(self.end)

    def end(self, future):
        """Resume the call; the event loop calls this."""
        if not self.suspended.is_due:
            self.loop.make_due(self.suspended)


seal_type(Awaited, "it is made by await_()")


def await_(awaitable: Awaitable[_Result]) -> _Result:
    """Wait for an awaitable, in synchronous code below ``greenwait.aio.run()``.

    :param awaitable: a coroutine, for instance; it runs in a task of its own.
    :returns: what it returns.
    :raises BaseException: what it raises.
    :raises TypeError: it can't be awaited.
    :raises RuntimeError: called elsewhere.

    A cancellation of the call cancels the awaitable, whose result or exception is then
    returned or raised. So does, in the file of a COPY, the COPY's deadline; ``QueryTimeout`` is
    raised there.
    """
    here = current_greenlet()
    cdef Suspension call = call_of_worker(here)
    if call is None or call.loop.ended is not None:
        if hasattr(awaitable, "close"):
            awaitable.close()  # or it would warn that it was never awaited
        raise RuntimeError(
            "await_() is for synchronous code below greenwait.aio.run(); elsewhere, await it"
            if call is None else call.loop.ended
        )
    if not isawaitable(awaitable):
        raise TypeError(
            f"await_() takes a coroutine, or another awaitable, not {type(awaitable).__name__!r}"
            f"{': call it, as in await_(function())' if callable(awaitable) else ''}"
        )
    cdef Awaited awaited = Awaited.__new__(Awaited)
    timed_out = None
    awaited.loop, awaited.awaitable = call.loop, awaitable
    awaited.suspended = new_suspended_wait(-1, NO_DEADLINE)
    # Not here: the first steps of an eager task would run in this greenlet.
    call.loop.event_loop.call_soon(awaited.begin, context=PyContext_CopyCurrent())
    try:
        while awaited.future is None or not awaited.future.done():
            try:
                call.loop.suspend(awaited.suspended)
            except BaseException as exc:
                if awaited.future is None:
                    if hasattr(awaitable, "close"):
                        awaitable.close()
                    raise
                if call.loop.ended is not None or not awaited.future.cancel():
                    raise  # it is done, at the same time
                timed_out = exc if isinstance(exc, query_timeout) else None
                awaited.suspended = new_suspended_wait(-1, NO_DEADLINE)
    finally:
        awaited.suspended.is_due = True  # end() may still be called
    if timed_out is not None and awaited.future.cancelled():
        raise timed_out
    return awaited.future.result()
