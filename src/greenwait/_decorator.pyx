"""Blocks as decorators: each call of a function is within one.

Compiled, so that no interrupt comes between a block's beginning and its protection (cpython issue
148874).
"""

from functools import update_wrapper

from greenwait._async_decorator import decorated_async

__all__ = ["decorated"]


def decorated(str what, function, new_block, /):
    """Return the function, or async function, each call of which is within a block.

    :param what: the decorator, for the message.
    :param new_block: returns the block of a call.
    :raises TypeError: it is not a function, or it is a generator, whose code runs later.
    """
    from inspect import isasyncgenfunction, iscoroutinefunction, isgeneratorfunction

    if not callable(function):
        raise TypeError(
            f"{what} decorates functions, not {type(function).__name__!r}; around other code "
            f"write a with block"
        )
    if isgeneratorfunction(function) or isasyncgenfunction(function):
        raise TypeError(
            f"{what} can't decorate the generator {function.__name__}(), whose code runs when it "
            "is iterated: write a with block there"
        )
    if iscoroutinefunction(function):
        return decorated_async(function, new_block)

    def call(*args, **kwargs):
        with new_block():
            return function(*args, **kwargs)

    return update_wrapper(call, function)
