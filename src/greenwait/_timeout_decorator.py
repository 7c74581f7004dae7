"""``timeout()`` as a decorator: each call of the function has a block of its own."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

__all__ = ["with_timeout"]


def with_timeout(new_block: Callable[[], Any], function: Any) -> Any:
    """Return the function, or async function, each call of which is within a new block."""
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(
            f"timeout() can't decorate the generator {function.__name__}(), whose code runs when "
            "it is iterated: write a with block there"
        )
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def call_async(*args: Any, **kwargs: Any) -> Any:
            with new_block():
                return await function(*args, **kwargs)

        return call_async

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        with new_block():
            return function(*args, **kwargs)

    return call
