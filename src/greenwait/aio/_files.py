"""The files of a COPY in asyncio programs: asynchronous ones, and iterables of data."""

import functools
import inspect
import io
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, cast

from greenwait.aio._call import await_

__all__ = ["with_async_file"]

_END = b""
# Seconds for which items are kept back for the next to come.
_QUICK = 0.0005
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
        self._next: Any = _END

    def read(self, size: int) -> Any:
        return await_(self._join(size))

    async def _join(self, size: int) -> Any:
        """Return about as much as is asked for, if it comes quickly: each wait takes time."""
        began = time.monotonic()
        first, self._next = self._next, _END
        items = [first] if len(first) > 0 else []
        length = len(first)
        if length < size or not items:
            async for item in self._items:
                if len(item) == 0:  # it would be the end
                    continue
                if items and type(item) is not type(items[0]):
                    self._next = item
                    break
                items.append(item)
                length += len(item)
                if length >= size or time.monotonic() - began > _QUICK:
                    break
        return items[0][:0].join(items) if items else _END


def _file(file: Any) -> Any:
    """Return a file whose methods can be called below a call, or *file* itself if it is one."""
    if isinstance(file, io.IOBase):
        return file
    if hasattr(file, "read") or hasattr(file, "write"):
        # An asynchronous text file is not a TextIOBase, but as all text files it has an encoding.
        is_text = (
            inspect.iscoroutinefunction(getattr(file, "write", None))
            and getattr(file, "encoding", None) is not None
        )
        return _AwaitingText(file) if is_text else _Awaiting(file)
    if isinstance(file, (str, bytes, bytearray, memoryview)):
        return cast(Any, file)  # an iterable, but hardly meant as one
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
