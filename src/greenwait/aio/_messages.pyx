"""The messages of a replication stream, for ``async for``.

A message that is there is taken without a coroutine: the awaitable of the next message returns
it at once. Only where it must wait, a coroutine does that.
"""

cimport cython

from greenwait._connections.replication_stream cimport Stream

__all__ = ["Messages"]

cdef extern from "Python.h":
    void PyErr_SetObject(object cls, object value)


@cython.final
@cython.auto_pickle(False)
cdef class Messages:
    """Messages(cursor, stream, wait)
--

    The iterator of an ``async for`` over a stream. ``wait(cursor)`` returns a coroutine that waits
    for the next message and returns it, or raises StopAsyncIteration.
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
        if self.waiting is None:
            message = self.messages.stream.next_ready(self.messages.cursor)
            if message is not None:
                return_value(message)
            self.waiting = self.messages.wait(self.messages.cursor).__await__()
        return next(self.waiting)

    def send(self, value):
        """Go on; as of a coroutine."""
        return self.__next__() if self.waiting is None else self.waiting.send(value)

    def throw(self, exc, *more):
        """Raise an exception where it waits; as of a coroutine."""
        if self.waiting is None:
            raise exc
        return self.waiting.throw(exc, *more)

    def close(self):
        """End the wait; as of a coroutine."""
        if self.waiting is not None:
            self.waiting.close()


cdef int return_value(object value) except -1:
    """Return *value* from an iterator, as a coroutine returns it: in StopIteration."""
    PyErr_SetObject(StopIteration, value)
    return -1
