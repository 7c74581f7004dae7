"""Blocks as decorators of async functions, which Cython's would not be told from others."""

import functools
from collections.abc import Callable
from typing import Any

__all__ = ["decorated_async"]


def decorated_async(function: Callable[..., Any], new_block: Callable[[], Any]) -> Any:
    """Return the async function, each call of which is within a new block."""

    @functools.wraps(function)
    async def call(*args: Any, **kwargs: Any) -> Any:
        with new_block():
            return await function(*args, **kwargs)

    return call
