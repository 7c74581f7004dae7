"""Blocks as decorators: each call of a function is within one.

Compiled, so that no interrupt comes between a block's beginning and its protection (cpython issue
148874).
"""

from collections.abc import Callable
from typing import Any

__all__ = ["decorated"]

def decorated(what: str, function: Any, new_block: Callable[[], Any], /) -> Any:
    """Return the function, or async function, each call of which is within a block.

    :param what: the decorator, for the message.
    :param new_block: returns the block of a call.
    :raises TypeError: it is not a function, or it is a generator, whose code runs later.
    """
