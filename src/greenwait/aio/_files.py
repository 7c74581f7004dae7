"""The files of a COPY in asyncio programs: asynchronous ones, and iterables of data."""

import functools
import inspect
import io
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from greenwait.aio._call import await_

__all__ = ["with_async_file"]

_END = b""
# What files return that are not asynchronous: a row's write() must not take long.
_PLAIN = (type(None), int, bytes, str)


class _Awaiting:
    """A file with the methods of an asynchronous one, which wait below a call."""

    def __init__(self, file: Any) -> None:
        if hasattr(file, "read"):
            self.read = _waiting(file.read)
        if hasattr(file, "write"):
            self.write = _waiting(file.write)


class _AwaitingText(_Awaiting, io.TextIOBase):  # type: ignore[misc]
    """The same for an asynchronous text file, to which psycopg2 writes str."""

    def __init__(self, file: Any) -> None:
        _Awaiting.__init__(self, file)


def _waiting(method: Callable[..., Any]) -> Callable[[Any], Any]:
    def wait(argument: Any) -> Any:
        result = method(argument)
        if type(result) in _PLAIN or not inspect.isawaitable(result):
            return result
        return await_(result)

    return wait


class _Items:
    """A file of the items of an iterable."""

    def __init__(self, items: Iterator[Any]) -> None:
        self._items = items

    def read(self, _size: int) -> Any:
        for item in self._items:
            if len(item) > 0:  # an empty one would be the end
                return item
        return _END


class _AsyncItems:
    """A file of the items of an asynchronous iterable."""

    def __init__(self, items: AsyncIterator[Any]) -> None:
        self._items = items

    def read(self, _size: int) -> Any:
        return await_(self._next())

    async def _next(self) -> Any:
        async for item in self._items:
            if len(item) > 0:
                return item
        return _END


def _file(file: Any) -> Any:
    """Return a file whose methods can be called below a call; *file* itself if that is none."""
    if isinstance(file, io.IOBase):
        return file
    if hasattr(file, "read") or hasattr(file, "write"):
        # An asynchronous text file is no TextIOBase, but as all text files it has an encoding.
        is_text = (
            inspect.iscoroutinefunction(getattr(file, "write", None))
            and getattr(file, "encoding", None) is not None
        )
        return _AwaitingText(file) if is_text else _Awaiting(file)
    if isinstance(file, (str, bytes, bytearray, memoryview)):
        return file  # an iterable, but hardly meant as one
    if hasattr(file, "__aiter__"):
        return _AsyncItems(file.__aiter__())
    if hasattr(file, "__iter__"):
        return _Items(iter(file))
    return file


def with_async_file(base_method: Callable[..., Any], position: int) -> Callable[..., Any]:
    """Return a cursor's COPY method whose file may be an asynchronous one, or an iterable.

    :param position: that of the parameter ``file``.
    """

    @functools.wraps(base_method)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        if "file" in kwargs:
            kwargs["file"] = _file(kwargs["file"])
        elif len(args) > position:
            args = (*args[:position], _file(args[position]), *args[position + 1 :])
        return base_method(self, *args, **kwargs)

    return method
