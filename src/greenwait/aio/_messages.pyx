"""The messages of a replication stream, for ``async for``.

A message that is there is taken without a coroutine: the awaitable of the next message returns
it at once. Only where it must wait, a coroutine does that.
"""

cimport cython
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF

from greenwait._connections.replication_stream cimport Stream
from greenwait._system.sealed_type cimport seal_type

__all__ = ["Messages"]

cdef extern from "Python.h":
    ctypedef enum PySendResult:
        PYGEN_RETURN
        PYGEN_ERROR
        PYGEN_NEXT
    PySendResult PyIter_Send(object iterator, object value, PyObject** result) except? PYGEN_ERROR

cdef extern from "await_slots.h":
    void fill_await_slots(type cls, void* step)


@cython.final
@cython.auto_pickle(False)
cdef class Messages:
    """Messages(cursor, stream, wait)
--

    The iterator of an ``async for`` over a stream.

    ``wait(cursor)`` returns a coroutine that waits for the next message and returns it, or raises
    StopAsyncIteration.
    """

    cdef object cursor
    cdef Stream stream
    cdef object wait

    def __init__(self, cursor, Stream stream not None, wait):
        self.cursor = cursor
        self.stream = stream
        self.wait = wait

    def __aiter__(self):
        return self

    def __anext__(self):
        cdef NextMessage following = NextMessage.__new__(NextMessage)
        following.messages = self
        return following


@cython.final
@cython.freelist(8)
@cython.auto_pickle(False)
cdef class NextMessage:
    """The awaitable of a stream's next message. It takes the message when it is awaited."""

    cdef Messages messages
    cdef object waiting  # what waits for the message; None: nothing does

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        return self.send(None)

    def send(self, value):
        """Go on; as of a coroutine."""
        cdef int is_over = False
        found = step(self, value, &is_over)
        if is_over:
            raise StopIteration(found)
        return found

    def throw(self, exc, *more):
        """Raise an exception where it waits; as of a coroutine."""
        if self.waiting is None:
            raise exc
        return self.waiting.throw(exc, *more)

    def close(self):
        """End the wait; as of a coroutine."""
        if self.waiting is not None:
            self.waiting.close()


cdef object step(NextMessage self, object value, int* is_over):
    """Return the message, or what the task is to wait for."""
    cdef PyObject* found = NULL
    if self.waiting is None:
        message = self.messages.stream.next_ready(self.messages.cursor)
        if message is not None:
            is_over[0] = True
            return message
        self.waiting = self.messages.wait(self.messages.cursor)
    is_over[0] = PyIter_Send(self.waiting, value, &found) == PYGEN_RETURN
    result = <object>found
    Py_DECREF(result)  # PyIter_Send() has returned a new reference
    return result


fill_await_slots(NextMessage, <void*>step)
seal_type(NextMessage, "a stream's iterator makes it")
