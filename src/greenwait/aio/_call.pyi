"""Calls of synchronous code, which asyncio tasks await.

A ``Call`` is a coroutine: its function runs in a greenlet, and while that waits for the server the
task is suspended, until the ``Suspension`` that the call has become is over. Then its task goes on
from there, without another iteration of the event loop.
"""

from collections.abc import Awaitable, Callable, Generator
from typing import Any, TypeVar, final

__all__ = ["Call", "await_", "awaited", "in_call"]

_Result = TypeVar("_Result")

@final
class Call:
    """A coroutine: a call of a function in a greenlet, begun when it is awaited."""
    def __init__(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None: ...
    @property
    def __qualname__(self) -> str: ...
    def __await__(self) -> Generator[Any, None, Any]: ...
    def __iter__(self) -> Call: ...
    def __next__(self) -> Any: ...
    def send(self, value: Any) -> Any:
        """Begin it; return the Suspension that its task is to wait for, or raise StopIteration."""
    def throw(self, kind: Any, value: Any = None, traceback: Any = None) -> Any:
        """Close the call, and raise the exception."""
    def close(self) -> None:
        """Close the call: it is never begun, or no longer waited for."""
    def begin(self) -> Call:
        """Begin it now; for a call that need not be awaited."""

def awaited(
    base_method: Callable[..., Any],
    name: str,
    *,
    of_cursor: bool = False,
    only_named: bool = False,
) -> Any:
    """Return a method that is awaited; below ``run()`` it works as *base_method*.

    :param name: its name in the warning that it was never awaited.
    :param of_cursor: it is a cursor's method, not a connection's.
    :param only_named: it waits for the server only if the cursor has a name.
    """

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

def in_call() -> bool:
    """Return whether this is below a call, where code is synchronous and may wait."""
